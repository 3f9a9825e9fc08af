//! Which decisions must have been there, by their numbers: who took a number for a decision of a VM saw the one before (W-1).

use super::report::FindingKind;
use super::sessions::Sessions;
use super::traces::Traces;
use crate::error::EngineError;
use crate::lineage::Standing;
use crate::session::first_of_lineage;
use crate::snapshots::Snapshot;
use crate::store::BlobInfo;
use repo_format::{BlobKind, DecisionName, PREFIX_DECISIONS, PREFIX_TOMBSTONES, SessionId, VmTag};
use std::collections::{BTreeMap, BTreeSet};

impl Sessions<'_, '_, '_> {
    /// The first numbers of the lineages of which some decision's predecessor must be there, by VM; nothing if of all: where
    /// the repository was always written to. Elsewhere dates do not tell whose a session is once its intent is gone, nor do
    /// ABORTs, and gaps are found only among the numbers of what was made here.
    fn lineages(&self) -> Option<BTreeSet<(VmTag, u32)>> {
        let made = self.snapshots.snapshots.iter().filter(|snapshot| !self.is_from_elsewhere(snapshot));
        let place = |snapshot: &Snapshot| (snapshot.name.vm, first_of_lineage(snapshot.name.seq));
        (self.published.standing != Standing::Written).then(|| made.map(place).collect())
    }

    /// What is decided now, listed once.
    pub(super) fn decided_since<'d>(
        &self,
        known: &'d mut Option<Decided>,
    ) -> Result<&'d Decided, EngineError> {
        if known.is_none() {
            let mut decided = Decided::default();
            for prefix in [PREFIX_DECISIONS, PREFIX_TOMBSTONES] {
                decided.extend(self.repository.list(prefix)?);
            }
            *known = Some(decided);
        }
        Ok(known.get_or_insert_default())
    }

    /// The numbers of decisions that are known to have been there and are not.
    pub(super) fn gaps(&self, sessions: &BTreeMap<SessionId, Traces>, lost: &BTreeSet<SessionId>) -> Gaps {
        let tombstoned = self.told.tombstoned.values().flatten();
        let decided: BTreeSet<(VmTag, u32)> = sessions
            .values()
            .flat_map(|traces| &traces.decisions)
            .chain(tombstoned)
            .map(|name| (name.vm, name.seq))
            .collect();
        let parents = self.snapshots.snapshots.iter().filter_map(|snapshot| snapshot.commit.parent.as_ref());
        let told: BTreeSet<(VmTag, u32)> =
            parents.filter(|name| lost.contains(&name.session)).map(|name| (name.vm, name.seq)).collect();
        let undecided = self.told.intents.values().flatten().map(|intent| &intent.decision);
        let all = sessions.values().flat_map(|traces| &traces.decisions).chain(undecided);
        let (mut missing, lineages) = (BTreeMap::new(), self.lineages());
        for name in all {
            // The highest number is used again and again, and the first one of a lineage follows on no other.
            let is_first = name.seq == u32::MAX || name.seq == first_of_lineage(name.seq);
            let Some(before) = name.seq.checked_sub(1).filter(|_| !is_first) else { continue };
            if lineages.as_ref().is_some_and(|own| !own.contains(&(name.vm, first_of_lineage(name.seq)))) {
                continue;
            }
            let place = (name.vm, before);
            if !decided.contains(&place) && !told.contains(&place) {
                missing.entry(place).or_insert(name.session);
            }
        }
        let mut candidates: BTreeMap<(VmTag, u32), usize> = BTreeMap::new();
        for intent in self.told.intents.values().flatten() {
            if !sessions.get(&intent.session).is_some_and(Traces::is_decided) {
                *candidates.entry((intent.decision.vm, intent.decision.seq)).or_default() += 1;
            }
        }
        Gaps { missing, candidates }
    }

    /// Gaps that no session with an intent explains for sure, and that are there still.
    pub(super) fn unexplained(
        &self,
        gaps: &Gaps,
        lost: &BTreeSet<SessionId>,
        decided_since: &mut Option<Decided>,
    ) -> Result<(), EngineError> {
        let explained: BTreeSet<(VmTag, u32)> = lost
            .iter()
            .flat_map(|session| self.intents(*session))
            .map(|intent| (intent.decision.vm, intent.decision.seq))
            .collect();
        for (&(vm, seq), witness) in &gaps.missing {
            if explained.contains(&(vm, seq))
                || self.decided_since(decided_since)?.numbers.contains(&(vm, seq))
            {
                continue;
            }
            let of_vm = match self.vm(vm) {
                "" => String::new(),
                vm => format!(" of the VM {vm}"),
            };
            let blob = format!("r/{vm}/*/{seq:08x}-*");
            self.findings.note_of(FindingKind::MissingDecision, &blob, || {
                format!(
                    "a decision{of_vm} with this number is missing: session {witness} saw it when it began"
                )
            });
        }
        Ok(())
    }
}

/// What was decided after sessions were listed, too.
#[derive(Default)]
pub(super) struct Decided {
    /// Those of which there is a decision or a tombstone.
    pub(super) sessions: BTreeSet<SessionId>,
    /// The numbers of decisions.
    numbers: BTreeSet<(VmTag, u32)>,
}

impl Extend<BlobInfo> for Decided {
    fn extend<I: IntoIterator<Item = BlobInfo>>(&mut self, blobs: I) {
        for info in blobs {
            match info.name.kind() {
                Some(BlobKind::Decision(name)) => {
                    self.sessions.insert(name.session);
                    self.numbers.insert((name.vm, name.seq));
                }
                Some(BlobKind::Tombstone { session, .. }) => drop(self.sessions.insert(session)),
                _ => {}
            }
        }
    }
}

/// Decisions that were there when another session of the VM began, by VM and number.
pub(super) struct Gaps {
    /// With a session that saw it.
    missing: BTreeMap<(VmTag, u32), SessionId>,
    /// How many undecided sessions have the number.
    candidates: BTreeMap<(VmTag, u32), usize>,
}

impl Gaps {
    /// What proves that a session was decided, if it is the only one that a gap can be of.
    pub(super) fn proof(&self, decision: &DecisionName) -> Option<String> {
        let place = (decision.vm, decision.seq);
        let witness = self.missing.get(&place)?;
        (self.candidates.get(&place) == Some(&1))
            .then(|| format!("session {witness} saw a decision with its number when it began"))
    }
}
