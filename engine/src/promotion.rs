//! Promotion: a replica becomes a place that the repository is written to (PROTOCOL 8, SPEC 11).
//!
//! What was not whole by then is set aside for ever, sessions of the other place that did not end are aborted, and nothing
//! is deleted until somebody declares that nothing is written any more to the other place. Each step is one create, so a
//! promotion may end anywhere, and another call goes on.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::forget::check_key;
use crate::generations::Generations;
use crate::lineage::{Place, Promoted, Standing, place};
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::prune::{Sessions, Undecided};
use crate::replica::{Completeness, Missing, Whole};
use crate::repository::Repository;
use crate::session::put_twice;
use crate::snapshots::{self, Query, Snapshot};
use crate::store::Put;
use repo_format::{
    Abort, AbortBy, BlobName, Decision, DecisionName, Lineage, LineageId, LineageStep, RetentionKey,
};
use serde::Serialize;
use std::collections::BTreeSet;

/// Numbers that are tried for a lineage: each was free when it was looked for, and somebody took it meanwhile.
const NUMBERS_TRIED: usize = 64;
/// Snapshots that are looked at together.
const ROOTS_AT_ONCE: usize = 512;

/// What a promotion is done with.
pub struct PromoteJob<'a> {
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// The program and its version: at most 255 bytes.
    pub program: &'a str,
    /// Randomness of this run.
    pub entropy: &'a Entropy,
}

/// What a promotion did, and what the place is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionReport {
    /// What tells this promotion from others, in hex.
    pub lineage: String,
    /// Whether it had been promoted before.
    pub was_promoted: bool,
    /// Whether it is declared that the other side is gone.
    pub other_side_gone: bool,
    /// The first generation that is this place's own.
    pub first_generation: u32,
    /// Snapshots that are whole.
    pub whole: u64,
    /// Snapshots that were not, and that nothing is built on.
    pub set_aside: Vec<SetAside>,
    /// Sessions of the other place that this run aborted.
    pub aborted: Vec<String>,
    /// Intents, decisions and tombstones that cannot be read, and objects that the retention did not sign.
    pub ignored: Vec<String>,
}

/// A snapshot that was not whole when its replica was promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// The snapshot.
    pub snapshot: String,
    /// Its VM.
    pub vm: String,
    /// What it lacks now; nothing if it has become whole since.
    pub missing: Option<Lacks>,
}

/// How much a snapshot lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lacks {
    /// Packs that are not there.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There may be more: a part of the map is not there, or damaged.
    pub at_least: bool,
}

impl From<&Missing> for Lacks {
    fn from(missing: &Missing) -> Self {
        Self { blobs: missing.blobs, bytes: missing.bytes, at_least: missing.at_least }
    }
}

/// Promotes a replica, or goes on with a promotion.
///
/// What a place that is declared to be a replica ([`Repository::as_replica`]) tells of promotions came with the copy, and is of
/// the place that it was copied from: it is promoted anew.
///
/// Afterwards the place can be backed up to and forgotten from; what is whole in it stays so. A prune refuses until
/// [`declare_other_side_gone`].
///
/// # Errors
/// [`EngineError::NotAReplica`] for a place that the repository is written to; a listing that is not to be believed; a
/// failing store. What had been done by then stays, and another call goes on.
pub fn promote(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &PromoteJob<'_>,
    observer: &dyn Observer,
) -> Result<PromotionReport, EngineError> {
    check_key(repository, key)?;
    let Place { standing, lineage: told, .. } = place(repository)?;
    let before = match standing {
        Standing::Promoted(promoted) => Some(promoted),
        Standing::Replica => None,
        Standing::Written => return Err(EngineError::NotAReplica),
    };
    let was_promoted = before.is_some();
    // Before the promotion is there, nobody begins a session here.
    let undecided = Sessions::list(repository, [])?.undecided(repository)?;
    let roots = Roots::find(repository, observer)?;
    let promoted = match before {
        Some(promoted) => promoted,
        None => publish(repository, key, job, (told.map(|promoted| promoted.number), &roots))?,
    };
    let mut report = PromotionReport {
        lineage: promoted.id.to_string(),
        was_promoted,
        other_side_gone: promoted.other_side_gone,
        first_generation: promoted.first_generation,
        whole: roots.whole,
        ..PromotionReport::default()
    };
    // Sessions that began here since are not the other place's.
    let is_foreign =
        |session: &Undecided| !was_promoted || promoted.date.is_some_and(|date| session.begun < date);
    for session in undecided.into_iter().filter(is_foreign) {
        match &session.decision {
            Some(decision) => {
                if abort(repository, key, (decision, job))? {
                    report.aborted.push(session.session.to_string());
                }
            }
            None => report.ignored.push(BlobName::intent(&session.writer, session.session).to_string()),
        }
    }
    let Place { unsigned, damaged, .. } = place(repository)?;
    let damaged = damaged.iter().map(|(name, _)| name);
    report.ignored.extend(unsigned.iter().chain(damaged).chain(&roots.unreadable).map(ToString::to_string));
    report.set_aside = roots.set_aside(&promoted.set_aside);
    Ok(report)
}

/// Declares that nothing is written any more to the place that a promoted one was copied from: from then on a prune may
/// delete here. Returns whether it was not declared before.
///
/// # Errors
/// [`EngineError::NotAReplica`] for a place that never was one; [`EngineError::NotPromoted`]; a failing store.
pub fn declare_other_side_gone(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &PromoteJob<'_>,
) -> Result<bool, EngineError> {
    check_key(repository, key)?;
    let promoted = match place(repository)?.standing {
        Standing::Promoted(promoted) => promoted,
        Standing::Written => return Err(EngineError::NotAReplica),
        Standing::Replica => return Err(EngineError::NotPromoted),
    };
    if promoted.other_side_gone {
        return Ok(false);
    }
    // No prune ran here: what has arrived since is the other place's, too.
    let first_generation = Generations::list(repository)?.after_all(repository)?;
    let lineage = Lineage {
        number: 0,
        id: promoted.id,
        time: job.time,
        step: LineageStep::OtherSideGone,
        first_generation: first_generation.max(promoted.first_generation),
        set_aside: promoted.set_aside.into_iter().collect(),
    };
    put(repository, key, job, (Some(promoted.number), lineage))?;
    Ok(true)
}

/// Publishes that the place is promoted, or finds that somebody else did.
fn publish(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &PromoteJob<'_>,
    (before, roots): (Option<u32>, &Roots),
) -> Result<Promoted, EngineError> {
    let lineage = Lineage {
        number: 0,
        id: LineageId(job.entropy.draw16("lineage id", 0)),
        time: job.time,
        step: LineageStep::Promoted,
        first_generation: Generations::list(repository)?.after_all(repository)?,
        set_aside: roots
            .torn
            .iter()
            .map(|(name, ..)| name.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    put(repository, key, job, (before, lineage))
}

/// Creates a lineage under the next number of the place, whatever number it has, unless one was created since that of number
/// `before` held: then that is returned.
fn put(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &PromoteJob<'_>,
    (before, mut lineage): (Option<u32>, Lineage),
) -> Result<Promoted, EngineError> {
    for _ in 0..NUMBERS_TRIED {
        let place = place(repository)?;
        let Some(number) = place.next_number() else { break };
        // Another promotion may have been first: what it set aside holds.
        if let Some(other) = place.lineage.filter(|other| Some(other.number) > before) {
            return Ok(other);
        }
        lineage.number = number;
        let salt = job.entropy.draw("lineage salt", u64::from(lineage.number));
        let (name, bytes) = lineage.seal(repository.keys(), key, salt);
        if put_twice(repository.store(), &name, &bytes)? != Put::Different {
            return Ok(lineage.into());
        }
    }
    Err(EngineError::Twin { name: BlobName::lineage(lineage.number) })
}

/// Aborts a session of the other place. Returns whether it was not decided by then.
fn abort(
    repository: &Repository<'_>,
    key: &RetentionKey,
    (decision, job): (&DecisionName, &PromoteJob<'_>),
) -> Result<bool, EngineError> {
    let abort = Abort {
        session: decision.session,
        time: job.time,
        program: job.program.to_owned(),
        by: AbortBy::Pruner,
    };
    let session = u64::from_le_bytes(*decision.session.0.first_chunk().expect("an id has 16 bytes"));
    let salt = job.entropy.draw("abort salt", session);
    let bytes = Decision::Abort(abort).seal_signed(repository.keys(), key, decision, salt);
    Ok(put_twice(repository.store(), &decision.blob(), &bytes)? == Put::Created)
}

/// The snapshots of a place, and which of them are whole.
#[derive(Default)]
struct Roots {
    whole: u64,
    /// Those that are not, with their VMs.
    torn: Vec<(DecisionName, String, Lacks)>,
    /// Those that are, with their VMs.
    sound: Vec<(DecisionName, String)>,
    unreadable: Vec<BlobName>,
}

impl Roots {
    fn find(repository: &Repository<'_>, observer: &dyn Observer) -> Result<Self, EngineError> {
        let mut every = Vec::new();
        let found = snapshots::each(repository, &Query::default(), &mut |snapshot| every.push(snapshot))?;
        let unreadable = found.unreadable.into_iter().map(|(name, _)| name).collect();
        let mut roots = Self { unreadable, ..Self::default() };
        begin(observer, Phase::Mark, every.len() as u64)?;
        let mut completeness = Completeness::of_everything(repository)?;
        for batch in every.chunks(ROOTS_AT_ONCE) {
            for (snapshot, whole) in batch.iter().zip(completeness.of(batch)?) {
                roots.add(snapshot, &whole);
            }
            tell(observer, Event::Progress(batch.len() as u64))?;
        }
        Ok(roots)
    }

    fn add(&mut self, snapshot: &Snapshot, whole: &Whole) {
        let (name, vm) = (snapshot.name.clone(), snapshot.commit.vm.clone());
        if let Some(missing) = whole.missing() {
            self.torn.push((name, vm, missing.into()));
        } else {
            self.whole += 1;
            self.sound.push((name, vm));
        }
    }

    /// What there is of the snapshots that were set aside.
    fn set_aside(&self, names: &BTreeSet<DecisionName>) -> Vec<SetAside> {
        let torn = self.torn.iter().map(|(name, vm, lacks)| (name, vm, Some(*lacks)));
        let sound = self.sound.iter().map(|(name, vm)| (name, vm, None));
        let aside = torn.chain(sound).filter(|(name, ..)| names.contains(name));
        let told = |(name, vm, missing): (&DecisionName, &String, _)| SetAside {
            snapshot: name.session.to_string(),
            vm: vm.clone(),
            missing,
        };
        aside.map(told).collect()
    }
}
