//! Forgetting snapshots: by a policy, or by name (PROTOCOL step F).
//!
//! What is forgotten has a signed tombstone and is a snapshot no more, at once and for everybody. Nothing is deleted:
//! [`crate::prune`] frees what only forgotten snapshots needed. A tombstone is one create under a name of its own, so any
//! number of hosts may forget the same, and one that was interrupted is run again.
//!
//! A policy goes by the times that snapshots say they were made at. Whoever may write snapshots may lie about them, and a
//! clock may be wrong; so a time that is more than a day off the store's own date of the decision is not believed, and its
//! snapshot stays. A repository that was copied has new dates, which is what [`Times::Trusted`] is for.

mod points;
pub mod policy;
mod unreadable;

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::lineage::check_is_written;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::session::put_twice;
use crate::snapshots::{self, Selector, Snapshot, UnreadableBlob};
use crate::store::Put;
use policy::{Policy, Reason};
use repo_format::{BlobKind, BlobName, DecisionName, FormatError, RetentionKey, SessionId, Tombstone};
use std::collections::BTreeSet;

/// What is to be forgotten.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// What a policy does not keep, of each VM by itself.
    Policy {
        /// What stays.
        policy: &'a Policy,
        /// Only snapshots of these VMs; of all if there are none.
        vms: &'a [String],
        /// Only snapshots with one of these tags; all if there are none. Others are neither forgotten nor counted.
        tags: &'a [String],
    },
    /// These snapshots.
    Named(&'a [Selector]),
    /// What is behind these decisions that cannot be read, or of which a prune found that they are gone: called by the
    /// beginnings of their sessions' ids, or by the names of their blobs.
    Unreadable(&'a [String]),
}

/// Whether a VM may be left without any snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastOnes {
    /// No: that is an error.
    Stay,
    /// Yes, if they were named.
    MayGo,
}

/// Whether a policy believes the times of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Only if the store dates the decision within a day of it.
    Checked,
    /// Unless it is in the future: the repository was copied, and the store dates everything anew.
    Trusted,
}

/// What is to be forgotten, and how.
#[derive(Clone, Copy, Debug)]
pub struct ForgetJob<'a> {
    /// What.
    pub what: What<'a>,
    /// Whether a VM may be left without a snapshot.
    pub last_ones: LastOnes,
    /// Whether times are believed.
    pub times: Times,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// Randomness for the tombstones.
    pub entropy: &'a Entropy,
}

/// Why nothing, or not everything, was forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// No rule of a policy keeps anything.
    #[error("the policy would keep nothing")]
    KeepsNothing,
    /// A VM would have no snapshot left.
    #[error("{vm} would have no snapshot left")]
    LastOfVm {
        /// The VM.
        vm: String,
    },
    /// A snapshot that was named is pinned, or may be: a pin of it cannot be read.
    #[error("snapshot {session} of {vm} is pinned{}", because(reason))]
    Pinned {
        /// The snapshot.
        session: SessionId,
        /// Its VM.
        vm: String,
        /// Why it is pinned, in somebody's words; may be empty.
        reason: String,
    },
    /// A snapshot was forgotten while it was being pinned.
    #[error("snapshot {session} was forgotten meanwhile")]
    Meanwhile {
        /// The snapshot.
        session: SessionId,
    },
    /// There is no such decision.
    #[error("there is no decision {wanted}")]
    NoSuchDecision {
        /// What was asked for.
        wanted: String,
    },
    /// A decision that was called unreadable can be read.
    #[error("{name} can be read")]
    Readable {
        /// The decision.
        name: BlobName,
    },
    /// Some snapshots are forgotten and others are not.
    #[error("{forgotten} of {of} snapshots were forgotten before it stopped")]
    Stopped {
        /// Those that are forgotten.
        forgotten: u64,
        /// Those that were to be.
        of: u64,
        /// What stopped it.
        source: Box<EngineError>,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// What was forgotten or would be, and what was not.
#[derive(Debug, Default)]
pub struct ForgetReport {
    /// The VMs that were looked at, by name.
    pub vms: Vec<VmPoints>,
    /// Unreadable decisions that were named and are settled.
    pub settled: Vec<DecisionName>,
    /// Snapshots that were named and had been forgotten before.
    pub forgotten_before: Vec<SessionId>,
    /// Snapshots that cannot be forgotten, because something else has the names of their tombstones.
    pub blocked: Vec<BlobName>,
    /// Decisions, tombstones and pins that could not be read.
    pub unreadable: Vec<UnreadableBlob>,
    /// Objects that lack the retention's signature and count for nothing.
    pub unsigned: Vec<BlobName>,
}

/// The restore points of one VM that a policy looked at, or that were named.
#[derive(Debug)]
pub struct VmPoints {
    /// The VM.
    pub vm: String,
    /// What a policy was not applied for: decisions of this VM that cannot be read. Everything stays.
    pub held_by: Vec<DecisionName>,
    /// The restore points, the oldest first.
    pub points: Vec<JudgedPoint>,
}

/// A restore point and what became of it, or would.
#[derive(Debug)]
pub struct JudgedPoint {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Why it stays: all reasons that there are.
    pub reasons: BTreeSet<Reason>,
    /// Whether it goes.
    pub goes: bool,
}

impl ForgetReport {
    /// The restore points that go.
    pub fn going(&self) -> impl Iterator<Item = &JudgedPoint> {
        self.vms.iter().flat_map(|vm| &vm.points).filter(|point| point.goes)
    }

    /// Tells tombstones that the retention did not sign from what cannot be read.
    fn note(&mut self, unreadable: Vec<UnreadableBlob>) {
        for (name, error) in unreadable {
            let is_unsigned = matches!(error, EngineError::Damaged { source: FormatError::BadSignature, .. });
            if is_unsigned && matches!(name.kind(), Some(BlobKind::Tombstone { .. })) {
                self.unsigned.push(name);
            } else {
                self.unreadable.push((name, error));
            }
        }
    }
}

/// Says what [`forget`] would do, and does nothing.
///
/// # Errors
/// A [`ForgetError`], a snapshot that does not exist, or a failing store.
pub fn plan(repository: &Repository<'_>, job: &ForgetJob<'_>) -> Result<ForgetReport, EngineError> {
    match job.what {
        What::Policy { policy, vms, tags } => points::by_policy(repository, job, policy, (vms, tags)),
        What::Named(selectors) => points::named(repository, job, selectors),
        What::Unreadable(wanted) => unreadable::settle(repository, wanted),
    }
}

/// Forgets snapshots.
///
/// # Errors
/// As [`plan`]; [`ForgetError::Stopped`] if it failed or was cancelled in the middle: run again, it goes on.
pub fn forget(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &ForgetJob<'_>,
    observer: &dyn Observer,
) -> Result<ForgetReport, EngineError> {
    check_key(repository, key)?;
    let _standing = check_is_written(repository)?;
    let mut report = plan(repository, job)?;
    let going = report.going().map(|point| point.snapshot.name.clone());
    let names: Vec<DecisionName> = going.chain(report.settled.iter().cloned()).collect();
    let of = names.len() as u64;
    begin(observer, Phase::Forget, of)?;
    for (forgotten, name) in (0..).zip(&names) {
        // The one before is done: whoever stops now stops between two.
        let told = if forgotten == 0 { Ok(()) } else { tell(observer, Event::Progress(1)) };
        let stopped = |source| ForgetError::Stopped { forgotten, of, source: Box::new(source) };
        if told.and_then(|()| bury(repository, key, job, name)).map_err(stopped)? == Buried::NameTaken {
            report.blocked.push(name.blob());
        }
    }
    Ok(report)
}

/// Refuses a key that signs for another repository.
pub(crate) fn check_key(repository: &Repository<'_>, key: &RetentionKey) -> Result<(), EngineError> {
    if key.public() == repository.keys().retention_public() {
        Ok(())
    } else {
        Err(EngineError::BadJob("the retention key is another repository's"))
    }
}

#[derive(PartialEq, Eq)]
enum Buried {
    /// There is an authentic tombstone now, this one or an earlier one.
    Yes,
    /// Something else has its name.
    NameTaken,
}

fn bury(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &ForgetJob<'_>,
    name: &DecisionName,
) -> Result<Buried, EngineError> {
    let tombstone = Tombstone { session: name.session, time: job.time, decision: name.clone() };
    let number = u64::from_le_bytes(*name.session.0.first_chunk().expect("16 bytes begin with 8"));
    let (blob, bytes) = tombstone.seal(repository.keys(), key, job.entropy.draw("tombstone salt", number));
    match put_twice(repository.store(), &blob, &bytes)? {
        Put::Created | Put::Identical => Ok(Buried::Yes),
        Put::Different if snapshots::is_forgotten(repository, name)? => Ok(Buried::Yes),
        Put::Different => Ok(Buried::NameTaken),
    }
}
