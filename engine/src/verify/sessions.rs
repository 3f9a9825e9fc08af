//! Whether what there is of each session fits together: intent, packs, indexes, decision and tombstone.
//!
//! A session that has begun and has no decision is either unfinished, or its decision was lost. By itself it cannot
//! tell. But others can: who refers to its packs or was made from it saw it decided (W-3, W-5), and who took a number
//! for a later decision of the VM saw the one before (W-1).
//!
//! What was copied from another place refers to decisions that may be there only: a copy may be of some VMs, or of the
//! newest restore points. In a replica that is all, and in one that was promoted, all that was not made there.

use super::findings::{FindingId, Findings};
use super::gaps::Decided;
use super::inventory::Inventory;
use super::left_out::LeftOut;
use super::needs::Published;
use super::objects::Told;
use super::report::FindingKind;
use super::traces::{Traces, session_of};
use crate::error::EngineError;
use crate::repository::Repository;
use crate::snapshots::{Snapshot, Snapshots};
use crate::store::BlobInfo;
use repo_format::{BlobName, DecisionName, Intent, SessionId, VmTag};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A session that has stored all that a snapshot needs commits within seconds; a day allows for clocks and for a host
/// that slept.
const STALLED_AFTER_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// What is known of all sessions.
pub(super) struct Sessions<'v, 'r, 's> {
    pub(super) repository: &'v Repository<'r>,
    pub(super) inventory: &'v Inventory<'v, 's>,
    pub(super) findings: &'v Findings,
    pub(super) snapshots: &'v Snapshots,
    pub(super) vms: &'v HashMap<VmTag, String>,
    pub(super) told: &'v Told,
    pub(super) published: &'v Published,
    pub(super) left_out: &'v LeftOut,
    /// Sessions whose packs are named by snapshots that came from elsewhere, once that is asked.
    pub(super) elsewhere: OnceCell<HashSet<SessionId>>,
    /// Now, milliseconds since 1970.
    pub(super) time: u64,
}

impl Sessions<'_, '_, '_> {
    /// Checks all sessions of a listing.
    pub(super) fn check(&self, blobs: &[BlobInfo]) -> Result<(), EngineError> {
        let mut sessions: BTreeMap<SessionId, Traces> = BTreeMap::new();
        for info in blobs {
            if let Some(kind) = info.name.kind()
                && let Some(session) = session_of(&kind)
            {
                sessions.entry(session).or_default().add(info, kind);
            }
        }
        let began_here = |snapshot: &&Snapshot| {
            !self.told.is_forgotten(&snapshot.name) && !self.is_from_elsewhere(snapshot)
        };
        let valid = self.snapshots.snapshots.iter().filter(began_here).map(Snapshot::session).collect();
        let mut lost = self.parents(&sessions);
        let referrers = self.referrers();
        let gaps = self.gaps(&sessions, &lost);
        let mut decided_since = None;
        for (session, traces) in &sessions {
            self.contradictions(*session, traces);
            let is_decided = traces.is_decided();
            let is_elsewhere = !is_decided && self.is_decided_elsewhere(*session, traces, &referrers)?;
            if !is_elsewhere {
                self.begun(*session, traces, &valid);
            }
            if is_decided || is_elsewhere || lost.contains(session) {
                continue;
            }
            let intents = self.intents(*session);
            if intents.is_empty() {
                self.nameless(*session, traces, (&referrers, &mut decided_since))?;
            }
            for intent in intents {
                if self.is_decided_by_now(&intent.decision)? {
                    continue;
                }
                let proof = referrers.get(session).cloned().or_else(|| gaps.proof(&intent.decision));
                if self.undecided(intent, traces, proof) {
                    lost.insert(*session);
                }
            }
        }
        self.unexplained(&gaps, &lost, &mut decided_since)
    }

    /// The intents of a session that can be read: one, unless something is wrong.
    pub(super) fn intents(&self, session: SessionId) -> &[Intent] {
        self.told.intents.get(&session).map_or(&[], Vec::as_slice)
    }

    pub(super) fn vm(&self, tag: VmTag) -> &str {
        self.vms.get(&tag).map_or("", String::as_str)
    }

    /// Whether a session stores indexes or repacks.
    fn is_of_no_vm(&self, decision: &DecisionName) -> bool {
        decision.vm == self.repository.keys().vm_tag("")
    }

    fn lose(&self, id: FindingId, decision: &DecisionName) {
        self.findings.lose(id, decision.session, self.vm(decision.vm));
    }

    fn is_decided_by_now(&self, decision: &DecisionName) -> Result<bool, EngineError> {
        let tombstone = BlobName::tombstone(decision.vm, decision.session);
        for blob in [decision.blob(), tombstone] {
            if self.repository.blob_len(&blob)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A decision is never removed without a tombstone that stays (PROTOCOL I1), and a parent is a COMMIT. Returns the
    /// sessions that turn out to have lost theirs.
    fn parents(&self, sessions: &BTreeMap<SessionId, Traces>) -> BTreeSet<SessionId> {
        let mut lost = BTreeSet::new();
        let was_copied = |session: SessionId| self.was_copied(sessions, session);
        let is_there = |name: &DecisionName| {
            sessions
                .get(&name.session)
                .is_some_and(|traces| traces.decisions.contains(name) || traces.tombstones.contains(&name.vm))
        };
        for (name, pin) in self.told.pinned.values() {
            if !is_there(name) && !was_copied(name.session) && lost.insert(name.session) {
                let detail = || format!("it is missing: {pin} pins it");
                let id = self.findings.note(FindingKind::MissingDecision, &name.blob(), detail);
                self.lose(id, name);
            }
        }
        for snapshot in &self.snapshots.snapshots {
            let Some(parent) = &snapshot.commit.parent else { continue };
            if parent.vm != snapshot.name.vm {
                let kind = FindingKind::ContradictorySession;
                self.findings.note(kind, &snapshot.name.blob(), || {
                    "the snapshot that it was made from is another VM's".to_owned()
                });
            }
            if !is_there(parent) && !self.is_from_elsewhere(snapshot) && lost.insert(parent.session) {
                let detail = || format!("it is missing: snapshot {} was made from it", snapshot.session());
                let id = self.findings.note(FindingKind::MissingDecision, &parent.blob(), detail);
                self.lose(id, parent);
            }
        }
        lost
    }

    /// For sessions that others refer to, what does.
    fn referrers(&self) -> HashMap<SessionId, String> {
        let mut referrers: HashMap<SessionId, String> = HashMap::new();
        for pack in self.inventory.named().into_keys() {
            referrers
                .entry(pack.session)
                .or_insert_with(|| format!("snapshots of other sessions refer to its pack {pack}"));
        }
        for (session, index) in &self.told.listed_elsewhere {
            referrers
                .entry(*session)
                .or_insert_with(|| format!("{index}, an index of another session, lists its packs"));
        }
        referrers
    }

    /// One session has one writer, one decision, and the one that its intent tells.
    fn contradictions(&self, session: SessionId, traces: &Traces) {
        let kind = FindingKind::ContradictorySession;
        let owner = traces.decisions.first().map(|decision| &decision.writer);
        let owner = owner.or_else(|| Some(&self.intents(session).first()?.decision.writer));
        if traces.writers.len() > 1
            && let Some((writer, blob)) =
                traces.writers.iter().find(|(writer, _)| owner.is_none_or(|owner| *writer != owner))
        {
            let number = traces.writers.len();
            self.findings.note(kind, blob, || {
                format!("blobs of {number} writers bear the id of one session; {writer} is one of them")
            });
        }
        let is_readable = |name: &&DecisionName| !self.told.unreadable.contains(&name.blob());
        let decisions: Vec<&DecisionName> = traces.decisions.iter().filter(is_readable).collect();
        if let [first, second, ..] = decisions.as_slice() {
            self.findings.note(kind, &second.blob(), || {
                format!("the session is decided under another name too: {first}")
            });
        }
        for intent in self.intents(session) {
            if let Some(other) = decisions.iter().find(|name| ***name != intent.decision) {
                self.findings.note(kind, &other.blob(), || {
                    format!("the session's intent says that its decision is {}", intent.decision)
                });
            }
        }
        for decision in self.told.tombstoned.get(&session).into_iter().flatten() {
            if decisions.iter().any(|name| *name != decision) {
                let blob = BlobName::tombstone(decision.vm, session);
                self.findings
                    .note(kind, &blob, || format!("the tombstone is for {decision}, which is not there"));
            }
        }
    }

    /// Every session begins with an intent, which stays as long as the session runs or its snapshot is there: a pruner
    /// removes those of others (SPEC section 11). That of a snapshot from another place need not have come along.
    fn begun(&self, session: SessionId, traces: &Traces, valid: &HashSet<SessionId>) {
        if traces.has_intent || (traces.is_decided() && !valid.contains(&session)) {
            return;
        }
        let (blob, detail) = match (traces.writers.keys().next(), traces.tombstones.first()) {
            (Some(writer), _) if traces.is_decided() => {
                let detail =
                    "it is missing; the session was decided, so nothing needs it any more".to_owned();
                (BlobName::intent(writer, session), detail)
            }
            (Some(writer), _) => {
                let contents = traces.contents();
                let detail =
                    format!("it is missing, and so is a decision; of its session there are {contents}");
                (BlobName::intent(writer, session), detail)
            }
            (None, Some(vm)) => {
                let detail = "the intent of the session that it forgets is missing".to_owned();
                (BlobName::tombstone(*vm, session), detail)
            }
            // Nothing but a pin: that its snapshot is missing is told of.
            (None, None) if !traces.has_record => return,
            (None, None) => (
                BlobName::repack(session),
                "the intent and the decision of its session are missing".to_owned(),
            ),
        };
        self.findings.note(FindingKind::MissingIntent, &blob, || detail);
    }

    /// A session without a decision and without an intent that would tell the decision's name. Both may have come and gone
    /// since the listing, and then there is what they left.
    fn nameless(
        &self,
        session: SessionId,
        traces: &Traces,
        (referrers, decided_since): (&HashMap<SessionId, String>, &mut Option<Decided>),
    ) -> Result<(), EngineError> {
        let (Some(proof), Some(writer)) = (referrers.get(&session), traces.writers.keys().next()) else {
            return Ok(());
        };
        if self.decided_since(decided_since)?.sessions.contains(&session) {
            return Ok(());
        }
        let known = self.told.decisions.get(&session);
        let blob = known.map_or_else(|| format!("r/*/{writer}/*-{session}"), ToString::to_string);
        let detail = || format!("it is missing: {proof}");
        let id = self.findings.note_of(FindingKind::MissingDecision, &blob, detail);
        self.findings.lose(id, session, known.map_or("", |decision| self.vm(decision.vm)));
        Ok(())
    }

    /// A session without a decision. Returns whether it is proven that there was one.
    fn undecided(&self, intent: &Intent, traces: &Traces, proof: Option<String>) -> bool {
        let decision = &intent.decision;
        let of_vm = match self.vm(decision.vm) {
            "" if self.is_of_no_vm(decision) => "no VM, so a prune's or a repair's".to_owned(),
            "" => "a VM that no snapshot names".to_owned(),
            vm => format!("the VM {vm}"),
        };
        let age = age(self.time.saturating_sub(intent.time));
        if let Some(proof) = proof {
            let detail = || format!("it is missing: {proof}; the session is of {of_vm} and began {age} ago");
            let id = self.findings.note(FindingKind::MissingDecision, &decision.blob(), detail);
            self.lose(id, decision);
            return true;
        }
        // A writer indexes its last data packs after it stored them, and maps come last.
        let is_indexed = traces.data_packs.iter().all(|pack| self.told.listed.contains_key(pack));
        let is_whole = is_indexed && !traces.map_packs.is_empty() && !self.is_of_no_vm(decision);
        let is_old = self.time.saturating_sub(intent.time) > STALLED_AFTER_MILLIS;
        let (kind, state) = match (is_whole, is_old) {
            (true, true) => (
                FindingKind::StalledSession,
                "it has stored all that a snapshot needs, so its decision was probably lost",
            ),
            (true, false) => (
                FindingKind::UndecidedSession,
                "it is running, was interrupted, or its decision was lost: all of its packs are indexed",
            ),
            (false, _) => {
                (FindingKind::UndecidedSession, "it is running or was interrupted, or its decision was lost")
            }
        };
        let name = BlobName::intent(&decision.writer, intent.session);
        let contents = traces.contents();
        let id = self.findings.note(kind, &name, || {
            format!("a session of {of_vm} that began {age} ago has no decision: {state} ({contents})")
        });
        self.lose(id, decision);
        false
    }
}

/// A duration in its largest unit, rounded down.
pub(super) fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (number, unit) = match seconds {
        0..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
