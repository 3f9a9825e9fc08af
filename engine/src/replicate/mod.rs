//! Copying restore points to another place, so that the copy is whole at every moment (PROTOCOL 8).
//!
//! # Order
//! Tombstones and pins come first. Then, for some restore points at a time: their intents and those of the sessions whose
//! packs are copied, and the ABORTs of these; the packs; the indexes of these sessions; the records of repacks that names
//! pass through, each before its decision; and when a listing of the destination shows every one of those packs with its
//! length, the decisions that make them snapshots. So whatever is a snapshot at the destination is whole there after
//! every single create, and a run that ends anywhere leaves packs that a later one finds.
//!
//! Nothing is ever replaced, so a pack that passes through this program is checked as it does, with all its frames: what
//! was read wrongly once would be wrong at the destination for ever. Several runs at once create the same blobs, and the
//! second one finds them there. What a pruner wrote (`gc/`), and what is told about places (`b/`, `lineage/`), stays
//! where it is.
//!
//! # What is copied
//! A restore point needs the packs that its names lead to through the records that apply to it at the source. Names are
//! told by map nodes at and above level 2, which are read at the source for restore points that are not at the
//! destination yet: one that is there was copied whole. Packs that are there already, from whichever restore point, are
//! found by listing the sessions that made them.
//!
//! # Memory
//! 56 bytes for each decision, tombstone, pin and record that is at the destination, and 150 for each decision that is at
//! the source only; those of the source are listed as long as that takes. `ROOTS_AT_ONCE` restore points and the
//! packs that they name, 150 bytes each; 60 bytes for each distinct node that was read, and for each pack of the sessions that were looked at. Blobs under
//! way: [`ReplicateJob::jobs`] times the longest pack, or nothing where the service copies.

mod batch;
mod copy;
mod destination;
mod doubts;
mod error;
mod following;
mod needs;
mod objects;
mod plan;
mod repacks;
mod sessions;
mod sound;

pub use copy::Route;
pub use destination::{Place, Preparing, Taking, prepare};
pub use error::ReplicateError;
pub use plan::check_vms;

use crate::barrier;
use crate::error::{EngineError, chain};
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::replica::Completeness;
use crate::repository::Repository;
use crate::snapshots::{self, Snapshot};
use copy::Copier;
use doubts::Doubts;
use needs::Needs;
use objects::{Indexes, Objects};
use plan::Candidates;
use repo_format::{BlobKind, BlobName, DecisionName, SessionId, WriterId};
use serde::Serialize;
use sessions::Sessions;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// Restore points whose maps are looked at together.
const ROOTS_AT_ONCE: usize = 256;

/// What is to be copied, and how.
#[derive(Clone, Copy, Debug)]
pub struct ReplicateJob<'a> {
    /// Only restore points of these VMs; of all if there are none.
    pub vms: &'a [String],
    /// At most so many of each VM, the newest.
    pub last: Option<usize>,
    /// What is believed of restore points that are at the destination already.
    pub there: There,
    /// Whether what the source deleted is deleted at the destination too.
    pub deletions: Deletions,
    /// Blobs that are on their way at the same time.
    pub jobs: NonZeroUsize,
}

/// What is believed of restore points that are at the destination already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// They are whole: so they were copied.
    Whole,
    /// They may lack something: a blob was lost, or the copy was made in another way. What they need is looked for.
    Checked,
}

/// What becomes of what the source deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// It stays at the destination.
    Kept,
    /// It goes, if nothing at the destination needs it.
    Followed,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicateReport {
    /// Restore points.
    pub snapshots: SnapshotCounts,
    /// Packs that were copied.
    pub packs: Amount,
    /// All blobs that were copied, packs too.
    pub blobs: Amount,
    /// Of their bytes, those that passed through this program. Where the service copies, these are the small objects,
    /// which are read to be checked; no pack is.
    pub bytes_through_host: u64,
    /// Tombstones and pins that were copied.
    pub facts: u64,
    /// Repack sessions that were copied.
    pub repacks: u64,
    /// Index blobs that were copied.
    pub indexes: u64,
    /// What was deleted at the destination.
    pub deleted: Deleted,
    /// Restore points that could not be copied.
    pub failed: Vec<NotCopied>,
    /// Objects of the source that were not copied, because they cannot be read or are not signed as they have to be.
    pub ignored: Vec<String>,
}

/// How many restore points became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotCounts {
    /// They were copied.
    pub copied: u64,
    /// They were there already.
    pub there: u64,
    /// They were forgotten, here or there.
    pub forgotten: u64,
    /// They are not whole at the source, which is a replica itself, or was one.
    pub incomplete: u64,
}

/// Blobs, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// The sum of their lengths.
    pub bytes: u64,
}

/// What was deleted at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Packs.
    pub packs: Amount,
    /// Decisions of forgotten snapshots.
    pub snapshots: u64,
    /// Index blobs.
    pub indexes: u64,
}

/// A restore point that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotCopied {
    /// Its session, in hex.
    pub snapshot: String,
    /// Why: the failure and its causes.
    pub reason: String,
}

impl Amount {
    pub(crate) fn add(&mut self, len: u64) {
        self.count += 1;
        self.bytes += len;
    }
}

/// Copies restore points of `source` to `destination`, which [`prepare`] made ready. Whatever is a snapshot there is
/// whole afterwards, and was at every moment.
///
/// A restore point that cannot be copied, because the source or the copy is damaged, is told in the report and keeps no
/// other one from being copied; nothing is deleted then.
///
/// # Errors
/// A store that fails, or an observer that wants to stop: what was copied stays, and another run goes on.
pub fn replicate(
    source: &Repository<'_>,
    destination: &Repository<'_>,
    route: Route<'_>,
    job: &ReplicateJob<'_>,
    observer: &dyn Observer,
) -> Result<ReplicateReport, EngineError> {
    let copier = Copier::new(source, destination.store(), route, job.jobs);
    Run::begin(source, Some(destination), copier, (job, observer))?.all()
}

/// Tells what [`replicate`] would copy. Nothing is written. Without a destination, as for an empty place.
///
/// # Errors
/// As [`replicate`].
pub fn dry_run(
    source: &Repository<'_>,
    destination: Option<&Repository<'_>>,
    job: &ReplicateJob<'_>,
    observer: &dyn Observer,
) -> Result<ReplicateReport, EngineError> {
    let copier = Copier::pretending(source, job.jobs);
    Run::begin(source, destination, copier, (job, observer))?.all()
}

/// What is whole at a destination, to be confirmed at the source: its snapshots, and the repack sessions of the source.
/// Those of `confirmed` are not looked at again.
///
/// # Errors
/// A failing store; a damaged record.
pub fn whole_at(
    source: &Repository<'_>,
    destination: &Repository<'_>,
    confirmed: &BTreeSet<(SessionId, WriterId)>,
) -> Result<BTreeSet<(SessionId, WriterId)>, EngineError> {
    // Of those that are not confirmed only, so that a run with little new reads few maps.
    let mut whole = barrier::confirmable_repacks(source, destination, confirmed)?;
    let mut roots = snapshots::list(destination, None)?.snapshots;
    let owner = |root: &Snapshot| (root.session(), root.name.writer.clone());
    roots.retain(|root| !confirmed.contains(&owner(root)));
    if !roots.is_empty() {
        let found = Completeness::of_everything(destination)?.of(&roots)?;
        let of_whole = roots.iter().zip(found).filter(|(_, found)| found.is_whole());
        whole.extend(of_whole.map(|(root, _)| owner(root)));
    }
    Ok(whole)
}

/// One run.
struct Run<'r> {
    source: &'r Repository<'r>,
    /// Nothing if the destination is an empty place that is only looked at.
    destination: Option<&'r Repository<'r>>,
    copier: Copier<'r>,
    job: &'r ReplicateJob<'r>,
    observer: &'r dyn Observer,
    /// The decisions, tombstones, pins and records that are at the destination.
    objects: Objects,
    /// Indexes that are not at the destination, when they were listed.
    indexes: Option<Indexes>,
    /// What restore points need.
    needs: Needs<'r>,
    /// Which of the source's are whole, where some may not be.
    doubts: Doubts<'r>,
    /// Sessions whose packs were copied in this run.
    sessions: Sessions,
    /// Repack sessions whose records this run found at the destination as they are at the source, or copied.
    proven: BTreeSet<SessionId>,
    report: ReplicateReport,
}

impl<'r> Run<'r> {
    fn begin(
        source: &'r Repository<'r>,
        destination: Option<&'r Repository<'r>>,
        copier: Copier<'r>,
        (job, observer): (&'r ReplicateJob<'r>, &'r dyn Observer),
    ) -> Result<Self, EngineError> {
        begin(observer, Phase::Replicate, 0)?;
        let objects = Objects::list(destination, plan::tags_of_facts(source, job).as_ref())?;
        let (needs, doubts) = (Needs::new(source, destination)?, Doubts::of(source)?);
        let (sessions, proven) = (Sessions::default(), BTreeSet::new());
        let (indexes, report) = (None, ReplicateReport::default());
        Ok(Self {
            source,
            destination,
            copier,
            job,
            observer,
            objects,
            indexes,
            needs,
            doubts,
            sessions,
            proven,
            report,
        })
    }

    fn all(mut self) -> Result<ReplicateReport, EngineError> {
        self.copy_facts()?;
        let Candidates { names, there, forgotten, incomplete, unreadable } =
            plan::candidates((self.source, self.destination), &self.doubts, &self.objects, self.job)?;
        self.report.snapshots = SnapshotCounts { there, forgotten, incomplete, ..SnapshotCounts::default() };
        self.report.failed.extend(unreadable);
        for names in names.chunks(ROOTS_AT_ONCE) {
            self.copy_roots(names)?;
            self.needs.forget_what_is_there();
        }
        if plan::is_unfiltered(self.job) {
            self.copy_repacks()?;
        }
        self.copy_other_indexes()?;
        if self.job.deletions == Deletions::Followed && self.report.failed.is_empty() {
            self.follow()?;
        }
        Ok(self.finished())
    }

    /// Tells how it goes on; an observer that wants to stop is an error.
    fn moved(&self, amount: u64) -> Result<(), EngineError> {
        tell(self.observer, Event::Progress(amount))
    }

    fn fail(&mut self, session: SessionId, error: &EngineError) {
        self.report.failed.push(NotCopied { snapshot: session.to_string(), reason: chain(error) });
    }

    /// As [`Run::fail`], of the session that an object is of.
    fn fail_of(&mut self, name: &BlobName, error: &EngineError) {
        match name.kind() {
            Some(
                BlobKind::Decision(DecisionName { session, .. })
                | BlobKind::Intent { session, .. }
                | BlobKind::Index { session, .. }
                | BlobKind::Tombstone { session, .. }
                | BlobKind::Pin { session, .. }
                | BlobKind::Repack(session),
            ) => self.fail(session, error),
            _ => self.report.ignored.push(name.to_string()),
        }
    }

    fn finished(self) -> ReplicateReport {
        let mut report = self.report;
        report.packs = self.copier.packs();
        report.blobs = self.copier.blobs();
        report.bytes_through_host = self.copier.bytes_through_host();
        report.failed.sort_unstable();
        report.failed.dedup();
        report.ignored.sort_unstable();
        report.ignored.dedup();
        report
    }
}
