//! Backing up a VM's disks: `changed areas > plan > read > chunk + hash > dedup > compress > pack > seal > put`.
//!
//! A full backup is an incremental one from nothing: the same code with a parent map that is one hole.
//!
//! # Memory
//! At most `(threads + REGIONS_AHEAD) x 2 x region length` (a region's bytes and their encoded form), plus
//! `(PACKS_IN_FLIGHT + 3) x pack length` (packs being sealed or put, the one that the last region filled, the open
//! data pack and the open map pack), plus the session's entries since the last index checkpoint, pages that wait
//! (`ENTRIES_WAITING`) and at most the map reader's cached nodes. With the defaults and 2 threads:
//! 5 x 32 MiB + 7 x 32 MiB = 384 MiB and some 60 MiB of small things, for any disk and any repository. Backups that run
//! together have less each: see `budget`.

mod audit;
mod budget;
mod dedup;
mod feed;
mod indexing;
mod level;
mod lost;
mod owner;
mod paging;
mod pipeline;
mod plan;
mod reading;
mod report;
pub(crate) mod sample;
mod stages;
mod together;
mod unfinished;

pub use audit::Audit;
pub use level::Compression;
pub use report::{AuditReport, BackupReport, DiskReport};
pub use together::Together;
pub use unfinished::Unfinished;

use crate::condemned;
use crate::entropy::Entropy;
use crate::error::{EngineError, chain};
use crate::frames::FrameReader;
use crate::import::IMPORTED_FROM;
use crate::index::LocalIndex;
use crate::lineage::{LINEAGE_PROPERTY, Standing, check_is_written};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::observer::{Notice, Observer, Phase, begin, notify};
use crate::repository::Repository;
use crate::session::{As, Committed, Opening, Session};
use crate::snapshots::{self, Snapshot};
use crate::source::{DiskSource, FullReason, Since};
use audit::DiskAudit;
use pipeline::Stored;
use plan::DiskPlan;
use repo_format::limits::{DISK_SIZE_MAX, DISKS_MAX, PROPERTIES_MAX, TAGS_MAX};
use repo_format::{
    Commit, DecisionName, Disk, DiskMode, Location, PackName, SessionId, WriterId, check_disk_key, check_tag,
    check_vm_name,
};
use std::collections::BTreeSet;
use together::{IndexAccess, Resources};

/// Sessions that are begun because the one before was aborted by a pruner.
const ATTEMPTS: u64 = 3;

/// What is to be backed up, by whom and how.
pub struct BackupJob<'a> {
    /// The VM's name.
    pub vm: &'a str,
    /// The writer that the session belongs to.
    pub writer: &'a WriterId,
    /// All disks of the VM, by their keys.
    pub disks: Vec<JobDisk<'a>>,
    /// Whether changes are asked for.
    pub reading: Reading,
    /// How much of what was said to be unchanged is checked, on disks that are not read in full.
    pub audit: Audit,
    /// How hard new chunks are compressed.
    pub compression: Compression,
    /// Tags of the snapshot.
    pub tags: Vec<String>,
    /// Free properties of the snapshot; those that begin with `audit.` tell what audits found.
    pub properties: Vec<(String, String)>,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// The program and its version.
    pub program: &'a str,
    /// Randomness of this run.
    pub entropy: Entropy,
    /// What is known about earlier sessions of the writer and VM that did not end.
    pub unfinished: Unfinished<'a>,
    /// Asked after each data pack: whether an index checkpoint is due although little was stored since the last one.
    /// What is in no index is stored again after a crash, so a caller with a clock says yes about once a minute.
    pub checkpoint_due: &'a (dyn Fn() -> bool + Sync),
}

/// One disk of a job.
#[derive(Clone)]
pub struct JobDisk<'a> {
    /// Its key, the same in every backup of the VM.
    pub key: &'a str,
    /// Where it is read from.
    pub source: &'a dyn DiskSource,
    /// What the source's changes count from.
    pub counted: CountedFrom,
}

impl<'a> JobDisk<'a> {
    /// A disk whose changes count from a point that has a change id, or that has no change tracking.
    #[must_use]
    pub fn new(key: &'a str, source: &'a dyn DiskSource) -> Self {
        Self { key, source, counted: CountedFrom::ChangeId }
    }
}

/// What the changes count from that a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountedFrom {
    /// The point that a snapshot recorded by a change id: the source is asked about the parent's.
    ChangeId,
    /// A snapshot, as whoever keeps count says. It must be the parent, or one that the parent was built on.
    Snapshot(DecisionName),
    /// This snapshot and no other: what came after it is not among the changes.
    Exactly(DecisionName),
    /// The VM's newest snapshot, if every later session is one too: a session that failed, or that another writer began
    /// and did not end, may have reset the count.
    Newest,
}

/// Which parts of the disks are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What changed since the parent, where that is known.
    Changes,
    /// Everything.
    Everything,
}

/// Backs up a VM; the snapshot exists exactly if this succeeds (or fails with an error of the store in the last
/// step, whose outcome a listing tells).
///
/// # Errors
/// Whatever fails first; then the session is aborted if that is possible, and what was stored and indexed may be
/// re-used by this writer's later backups.
pub fn backup(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    job: &BackupJob<'_>,
    observer: &dyn Observer,
) -> Result<BackupReport, EngineError> {
    let resources = Resources::alone(&repository.config().geometry);
    back_up(repository, (IndexAccess::Own(index), &resources), (job, None), observer)
}

/// What a backup has from the restore point of another place that it stores (see [`crate::import`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original<'a> {
    /// The id of the new session.
    pub(crate) session: SessionId,
    /// The number of its decision.
    pub(crate) seq: u32,
    /// When the original was made.
    pub(crate) time: u64,
    /// What the new one builds on.
    pub(crate) parent: Option<&'a DecisionName>,
}

/// As [`backup`], of a restore point of another place. It is not begun anew if somebody aborts it: its id is used up.
pub(crate) fn back_up_original(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    job: &BackupJob<'_>,
    original: &Original<'_>,
    observer: &dyn Observer,
) -> Result<BackupReport, EngineError> {
    let resources = Resources::alone(&repository.config().geometry);
    back_up(repository, (IndexAccess::Own(index), &resources), (job, Some(original)), observer)
}

/// As [`backup`], while others back up other VMs with the same [`Together`], each in a thread of its own.
///
/// # Errors
/// As [`backup`].
pub fn backup_together(
    repository: &Repository<'_>,
    together: &Together,
    job: &BackupJob<'_>,
    observer: &dyn Observer,
) -> Result<BackupReport, EngineError> {
    back_up(repository, (together.index(), &together.resources), (job, None), observer)
}

fn back_up(
    repository: &Repository<'_>,
    (mut index, resources): (IndexAccess<'_>, &Resources),
    (job, original): (&BackupJob<'_>, Option<&Original<'_>>),
    observer: &dyn Observer,
) -> Result<BackupReport, EngineError> {
    check(job)?;
    if original.is_none() {
        check_properties(job)?;
    }
    // Before anything is written: no session is begun that could only fail.
    repository.data_keys()?;
    let standing = check_is_written(repository)?;
    check_properties_count(job, &standing)?;
    let mut attempts = 0;
    loop {
        let entropy = job.entropy.attempt(attempts);
        attempts += 1;
        let seq = unfinished::abort_unfinished(repository, (job, &standing), &entropy, observer)?;
        let opening = opening(job, original, (seq, &standing));
        let mut session = Session::open(repository, opening, &entropy, observer)?;
        for (name, error) in &session.unreadable {
            notify(observer, Notice::Unreadable { name: name.to_string(), reason: chain(error) })?;
        }
        let id = session.id;
        let result = if session.is_aborted {
            Ok(None)
        } else {
            let alone = session
                .rival
                .clone()
                .map_or(Ok(()), |writer| Err(EngineError::Rival { session: id, writer }));
            let planned = alone.and_then(|()| plan(repository, job, &session)).and_then(|plans| {
                leave_out_what_is_lost(repository, &mut session, &plans, observer)?;
                Ok(plans)
            });
            let time = original.map_or(job.time, |original| original.time);
            let session = &session;
            let place = &standing;
            let attempt = Attempt { repository, place, job, time, session, entropy: &entropy, resources };
            planned.and_then(|plans| attempt.run(plans, index.reborrow(), observer))
        };
        match result {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            // A prune that aborted the session may have deleted what it builds on, or what it stored.
            Err(error) if error.is_damage() && session.was_aborted(repository).unwrap_or(false) => {}
            Err(error) => {
                session.abort(repository, job, &entropy);
                return Err(error);
            }
        }
        if attempts == ATTEMPTS || original.is_some() {
            return Err(EngineError::Aborted { session: id });
        }
        notify(observer, Notice::SessionAborted { session: id.to_string() })?;
    }
}

/// How a session of a job begins, whose number is `seq` if it is the VM's next one.
fn opening<'a>(
    job: &BackupJob<'a>,
    original: Option<&Original<'a>>,
    (seq, standing): (u32, &'a Standing),
) -> Opening<'a> {
    let (seq, as_what) = match original {
        None => (seq, As::Next),
        Some(&Original { session, seq, parent, .. }) => (seq, As::Imported { session, parent }),
    };
    Opening { writer: job.writer, vm: job.vm, time: job.time, seq, standing, as_what }
}

/// How many packs a backup on this machine puts at a time at most.
#[must_use]
pub fn puts_at_once() -> usize {
    owner::packs_in_flight()
}

/// Asks all sources what changed.
fn plan<'a>(
    repository: &Repository<'_>,
    job: &BackupJob<'a>,
    session: &Session,
) -> Result<Vec<DiskPlan<'a>>, EngineError> {
    let mut plans = Vec::with_capacity(job.disks.len());
    let later = later(repository, job, session)?;
    for disk in &job.disks {
        let recorded = session.recorded(disk.key);
        let since = match (&session.parent, recorded, job.reading) {
            (None, _, _) | (_, None, _) => Err(FullReason::NoParent),
            (_, _, Reading::Everything) => Err(FullReason::Requested),
            (Some(parent), Some(recorded), Reading::Changes) => {
                let not_counted = not_counted(repository, later, parent, disk, recorded)?;
                let since = Since {
                    change_id: recorded.change_id.as_deref(),
                    size: recorded.size,
                    properties: &parent.commit.properties,
                };
                not_counted.map_or(Ok(since), Err)
            }
        };
        let base_size = recorded.map(|recorded| recorded.size);
        plans.push(DiskPlan::ask(repository.config(), disk, base_size, since)?);
    }
    Ok(plans)
}

/// A session that may have reset what is counted from the newest snapshot, if anything is.
fn later(
    repository: &Repository<'_>,
    job: &BackupJob<'_>,
    session: &Session,
) -> Result<Option<SessionId>, EngineError> {
    let is_asked = job.disks.iter().any(|disk| disk.counted == CountedFrom::Newest);
    match &session.parent {
        Some(parent) if is_asked && session.later.is_none() => {
            unfinished::begun_by_others(repository, job, parent.name.seq)
        }
        _ => Ok(session.later),
    }
}

/// Why the changes that a source tells do not count from the parent, if they do not.
fn not_counted(
    repository: &Repository<'_>,
    later: Option<SessionId>,
    parent: &Snapshot,
    disk: &JobDisk<'_>,
    recorded: &Disk,
) -> Result<Option<FullReason>, EngineError> {
    Ok(match &disk.counted {
        CountedFrom::ChangeId => recorded.change_id.is_none().then_some(FullReason::NoChangeTracking),
        CountedFrom::Newest => later.map(|session| FullReason::LaterSession { session }),
        CountedFrom::Snapshot(since) if snapshots::descends(repository, parent, since)? => None,
        CountedFrom::Exactly(since) if parent.name == *since => None,
        CountedFrom::Snapshot(since) | CountedFrom::Exactly(since) => {
            Some(FullReason::NotAncestor { since: since.session })
        }
    })
}

/// Makes the session build on nothing that is lost. A disk whose map cannot be read is as if it were new.
fn leave_out_what_is_lost(
    repository: &Repository<'_>,
    session: &mut Session,
    plans: &[DiskPlan<'_>],
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let in_full = |key: &str| plans.iter().any(|plan| plan.key == key && plan.mode == DiskMode::Full);
    let frames = FrameReader::knowing(repository, session.condemned.records());
    let Some(parent) = &mut session.parent else { return Ok(()) };
    for disk in parent.commit.disks.iter_mut().filter(|disk| in_full(&disk.key)) {
        let shape = Shape::new(&repository.config().geometry, disk.size);
        let map = MapReader::new(&frames, shape, disk.map.clone());
        match lost::lost_packs(repository, &map, observer)? {
            Some(packs) => session.condemned.add_lost(packs),
            None => disk.map = None,
        }
    }
    Ok(())
}

fn check(job: &BackupJob<'_>) -> Result<(), EngineError> {
    let bad = |what, name: &str| {
        let name = name.to_owned();
        move |source| EngineError::BadName { what, name, source }
    };
    check_vm_name(job.vm).map_err(bad("VM name", job.vm))?;
    for tag in &job.tags {
        check_tag(tag).map_err(bad("tag", tag))?;
    }
    if job.tags.len() > TAGS_MAX {
        return Err(EngineError::BadJob("a snapshot has at most 1024 tags"));
    }
    if !job.audit.is_possible() {
        return Err(EngineError::BadJob("an audit of more than 100 % cannot be"));
    }
    if job.disks.len() > DISKS_MAX {
        return Err(EngineError::BadJob("a snapshot has at most 1024 disks"));
    }
    let mut keys = BTreeSet::new();
    for disk in &job.disks {
        check_disk_key(disk.key).map_err(bad("disk key", disk.key))?;
        if !keys.insert(disk.key) {
            return Err(EngineError::BadJob("two disks have the same key"));
        }
        if disk.source.size() > DISK_SIZE_MAX {
            return Err(EngineError::BadJob("a disk is larger than 4 EiB"));
        }
        if disk.source.size() == 0 {
            return Err(EngineError::EmptyDisk { disk: disk.key.to_owned() });
        }
    }
    if rayon::current_thread_index().is_some() {
        // The owner would keep the thread busy that its tasks wait for.
        return Err(EngineError::BadJob("a backup cannot run in a thread of the rayon pool that it uses"));
    }
    if job.disks.is_empty() {
        return Err(EngineError::BadJob("there is no disk to back up"));
    }
    Ok(())
}

/// Those of the caller, one for what the audit of each disk finds, and one for the lineage.
fn check_properties_count(job: &BackupJob<'_>, place: &Standing) -> Result<(), EngineError> {
    let of_lineage = usize::from(matches!(place, Standing::Promoted(_)));
    if job.properties.len() + job.disks.len() + of_lineage > PROPERTIES_MAX {
        return Err(EngineError::BadJob(
            "a snapshot has at most 1024 properties, one for each disk included, and in a promoted place one for that",
        ));
    }
    Ok(())
}

fn check_properties(job: &BackupJob<'_>) -> Result<(), EngineError> {
    if job.properties.iter().any(|(key, _)| key.starts_with(report::AUDIT_PROPERTIES)) {
        return Err(EngineError::BadJob("properties that begin with `audit.` are given by audits"));
    }
    if job.properties.iter().any(|(key, _)| key == IMPORTED_FROM) {
        return Err(EngineError::BadJob("the property `imported-from` is given by imports"));
    }
    if job.properties.iter().any(|(key, _)| key == LINEAGE_PROPERTY) {
        return Err(EngineError::BadJob("the property `lineage` is given by the place that is backed up to"));
    }
    Ok(())
}

/// One session's try at a backup.
struct Attempt<'a, 'r, 's> {
    repository: &'r Repository<'s>,
    place: &'a Standing,
    job: &'a BackupJob<'a>,
    /// When what is stored was made.
    time: u64,
    session: &'a Session,
    entropy: &'a Entropy,
    resources: &'a Resources,
}

impl Attempt<'_, '_, '_> {
    /// Everything from the plans to the decision; nothing if the session was aborted meanwhile.
    fn run(
        &self,
        mut plans: Vec<DiskPlan<'_>>,
        index: IndexAccess<'_>,
        observer: &dyn Observer,
    ) -> Result<Option<BackupReport>, EngineError> {
        // From here on it holds regions and packs.
        let share = self.resources.budget.enter(observer)?;
        let frames = FrameReader::knowing(self.repository, self.session.condemned.records());
        let parent = self.session.parent.as_ref();
        let records = parent.map(|parent| self.session.condemned.applying_to(parent)).unwrap_or_default();
        let condemned = &self.session.condemned;
        let usable = |pack: &PackName| condemned.is_empty() || !condemned.leads_to_condemned(pack, &records);
        let bases: Vec<MapReader<'_, '_, '_>> =
            self.job.disks.iter().map(|disk| self.base(&frames, disk)).collect();
        for (plan, base) in plans.iter_mut().zip(&bases) {
            self.audit(plan, base, observer)?;
        }
        if !condemned.is_empty() {
            for (plan, base) in
                plans.iter_mut().zip(&bases).filter(|(plan, _)| plan.mode == DiskMode::Incremental)
            {
                plan.force(&condemned::forced_cells(base, plan.shape.size, &usable)?);
            }
        }
        let context = pipeline::Context {
            repository: self.repository,
            session: self.session,
            entropy: self.entropy,
            compression: &self.job.compression,
            checkpoint_due: self.job.checkpoint_due,
            plans: &plans,
            bases: &bases,
            usable: &usable,
            resources: self.resources,
        };
        let stored = pipeline::run(&context, index, share, observer)?;
        self.commit(&frames, &plans, &stored, observer)
    }

    /// Checks what was said to be unchanged, before anything else makes areas of it.
    fn audit(
        &self,
        plan: &mut DiskPlan<'_>,
        base: &MapReader<'_, '_, '_>,
        observer: &dyn Observer,
    ) -> Result<(), EngineError> {
        let Some(against) = plan.audited.filter(|_| !self.job.audit.is_off()) else { return Ok(()) };
        let audit = DiskAudit {
            against,
            audit: self.job.audit,
            seed: self.job.audit.seed().unwrap_or_else(|| self.drawn_audit_seed()),
            keys: self.repository.data_keys()?,
            base,
            observer,
        };
        plan.audit = Some(audit.run(plan)?);
        Ok(())
    }

    /// 53 random bits: what readers of JSON that take every number for a double tell apart.
    fn drawn_audit_seed(&self) -> u64 {
        let half = self.entropy.draw16("audit seed", 0);
        u64::try_from(u128::from_le_bytes(half) >> (128 - 53)).expect("53 bits fit")
    }

    fn base<'f, 'r, 's>(&self, frames: &'f FrameReader<'r, 's>, disk: &JobDisk<'_>) -> MapReader<'f, 'r, 's> {
        let recorded = self.session.recorded(disk.key);
        let size = recorded.map_or_else(|| disk.source.size(), |disk| disk.size);
        let shape = Shape::new(&self.repository.config().geometry, size);
        MapReader::new(frames, shape, recorded.and_then(|disk| disk.map.clone()))
    }

    fn commit(
        &self,
        frames: &FrameReader<'_, '_>,
        plans: &[DiskPlan<'_>],
        stored: &Stored,
        observer: &dyn Observer,
    ) -> Result<Option<BackupReport>, EngineError> {
        begin(observer, Phase::Commit, 1)?;
        for disk in &self.job.disks {
            let source_failed = |source| EngineError::Source { disk: disk.key.to_owned(), source };
            disk.source.check_unchanged().map_err(source_failed)?;
        }
        match self.session.check_packs(self.repository, &stored.packs) {
            // A prune that aborted the session may delete what it stored.
            Err(EngineError::PackVanished { .. }) if self.session.was_aborted(self.repository)? => {
                return Ok(None);
            }
            checked => checked?,
        }
        let mut disks: Vec<Disk> =
            plans.iter().zip(&stored.disks).map(|(plan, disk)| plan.disk(disk)).collect();
        disks.sort_by(|a, b| a.key.cmp(&b.key));
        let mut tags = self.job.tags.clone();
        tags.sort();
        tags.dedup();
        let mut properties = self.job.properties.clone();
        properties.extend(plans.iter().filter_map(|plan| {
            let text = plan.audit.as_ref()?.mismatch_text()?;
            Some((AuditReport::property(plan.key), text))
        }));
        if let Standing::Promoted(promoted) = self.place {
            properties.push((LINEAGE_PROPERTY.to_owned(), promoted.id.to_string()));
        }
        properties.sort();
        let commit = Commit {
            session: self.session.id,
            time: self.time,
            program: self.job.program.to_owned(),
            vm: self.job.vm.to_owned(),
            parent: self.session.parent.as_ref().map(|parent| parent.name.clone()),
            via: self.via(frames, stored)?,
            tags,
            properties,
            disks,
            totals: stored.totals,
        };
        // What only the caller's properties and program can be wrong about.
        commit.check().map_err(EngineError::damaged(&self.session.decision.blob()))?;
        match self.session.commit(self.repository, &commit, self.entropy)? {
            Committed::Yes => Ok(Some(BackupReport::new(&commit, plans, stored))),
            Committed::Aborted => Ok(None),
        }
    }

    /// Exactly the records that kept names pass through; a superfluous one would keep packs alive for nothing.
    fn via(&self, frames: &FrameReader<'_, '_>, stored: &Stored) -> Result<Vec<SessionId>, EngineError> {
        let Some(parent) = &self.session.parent else { return Ok(Vec::new()) };
        let records = self.session.condemned.applying_to(parent);
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut names = BTreeSet::new();
        for disk in &stored.disks {
            let map = MapReader::new(frames, disk.shape, disk.map.clone());
            names.extend(map.pack_set(2)?.into_keys());
        }
        Ok(condemned::via(names.iter(), &records))
    }
}

/// Where a disk's map ended up.
pub(crate) struct StoredDisk {
    pub(crate) shape: Shape,
    pub(crate) map: Option<Location>,
    pub(crate) read_bytes: u64,
}
