//! Importing the restore points of one VM, one after another.

use super::plan::VmPlan;
use super::{IMPORTED_FROM, Taken, origin, sessions_of};
use crate::backup::{
    Audit, BackupJob, BackupReport, Compression, CountedFrom, JobDisk, Original, Reading, Unfinished,
    back_up_original,
};
use crate::diff::diff_of_snapshots;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::extent::Extent;
use crate::index::LocalIndex;
use crate::lineage::LINEAGE_PROPERTY;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::session::first_of_lineage;
use crate::snapshots::{self, Snapshot};
use crate::source::SnapshotDisk;
use crate::view::{DiskView, ViewSettings};
use repo_format::{Decision, DecisionName, Disk, SessionId, WriterId};
use std::collections::BTreeMap;
use std::io;

/// Sessions of one import that are begun because the one before was aborted by somebody.
const ATTEMPTS: usize = 3;
/// The least that is kept in memory of a disk that is read: what is read of it at a time.
const CACHE_BYTES_MIN: u64 = 8 << 20;

/// By whom and how restore points are imported.
pub struct ImportJob<'a> {
    /// The place that they are read from.
    pub from: &'a Repository<'a>,
    /// The writer that the sessions belong to.
    pub writer: &'a WriterId,
    /// How hard new chunks are compressed.
    pub compression: Compression,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// The program and its version.
    pub program: &'a str,
    /// Randomness of this run.
    pub entropy: Entropy,
    /// What is known about earlier sessions of the writer and VM that did not end.
    pub unfinished: Unfinished<'a>,
    /// As in a [`BackupJob`].
    pub checkpoint_due: &'a (dyn Fn() -> bool + Sync),
    /// What is kept in memory of the disks that are read, of all disks of a VM together.
    pub cache_bytes: u64,
}

/// What became of a restore point.
#[derive(Debug)]
pub struct Imported {
    /// Its id there.
    pub original: SessionId,
    /// What became of it.
    pub outcome: Outcome,
    /// The bytes of packs there that were read for it, maps aside.
    pub fetched_bytes: u64,
}

/// What became of a restore point that was to be imported.
#[derive(Debug)]
pub enum Outcome {
    /// It is here now.
    Stored {
        /// The snapshot here that its changes count from; nothing if all of it was read.
        base: Option<SessionId>,
        /// As of any backup.
        report: Box<BackupReport>,
    },
    /// It is not here, and others are none the worse for it.
    LeftOut {
        /// What is wrong with it there, or who else imports it.
        why: EngineError,
    },
}

/// Imports restore points of one VM. They are to be given in the order of their numbers: a later one counts from the one
/// before.
pub struct Importer<'a> {
    into: &'a Repository<'a>,
    job: &'a ImportJob<'a>,
    there: &'a [Snapshot],
    /// What is the same here, by their ids there.
    same: BTreeMap<SessionId, Snapshot>,
}

/// A restore point that both places have.
struct Base<'b> {
    there: &'b Snapshot,
    here: &'b Snapshot,
}

impl<'a> Importer<'a> {
    /// Begins with what a plan found.
    #[must_use]
    pub fn new(into: &'a Repository<'a>, plan: &'a VmPlan, job: &'a ImportJob<'a>) -> Self {
        Self { into, job, there: &plan.there, same: plan.same.clone() }
    }

    /// Imports one restore point.
    ///
    /// # Errors
    /// A store that fails, or what makes any backup fail here. What is wrong with the original alone is no error, but an
    /// [`Outcome`]. What was imported before stays, and the next run goes on.
    pub fn import(
        &mut self,
        index: &mut LocalIndex,
        original: &Snapshot,
        observer: &dyn Observer,
    ) -> Result<Imported, EngineError> {
        let mut fetched_bytes = 0;
        let mut attempts = 0;
        let why = loop {
            attempts += 1;
            match self.attempt(index, original, &mut fetched_bytes, observer) {
                Ok((base, report)) => {
                    let outcome = Outcome::Stored { base, report: Box::new(report) };
                    return Ok(Imported { original: original.session(), outcome, fetched_bytes });
                }
                Err(EngineError::Aborted { .. }) if attempts < ATTEMPTS => {}
                Err(error) if is_of_original(&error) => break error,
                Err(error) => return Err(error),
            }
        };
        Ok(Imported { original: original.session(), outcome: Outcome::LeftOut { why }, fetched_bytes })
    }

    fn attempt(
        &mut self,
        index: &mut LocalIndex,
        original: &Snapshot,
        fetched_bytes: &mut u64,
        observer: &dyn Observer,
    ) -> Result<(Option<SessionId>, BackupReport), EngineError> {
        let Place { session, seq } = self.place(original)?;
        let base = self.base(original);
        let commit = &original.commit;
        let mut sources = Vec::with_capacity(commit.disks.len());
        for disk in &commit.disks {
            let changed = self.changed(original, base.as_ref(), disk)?;
            let count = u64::try_from(commit.disks.len()).expect("at most 1024 disks");
            let settings = ViewSettings { cache_bytes: (self.job.cache_bytes / count).max(CACHE_BYTES_MIN) };
            let view = DiskView::of_snapshot(self.job.from, original.session(), disk, settings);
            sources.push(SnapshotDisk::new(view, disk.change_id.clone(), changed));
        }
        let counted = base.as_ref().map(|base| CountedFrom::Exactly(base.here.name.clone()));
        let disks = commit.disks.iter().zip(&sources).map(|(disk, source)| JobDisk {
            key: &disk.key,
            source,
            counted: counted.clone().unwrap_or(CountedFrom::ChangeId),
        });
        let job = BackupJob {
            vm: &commit.vm,
            writer: self.job.writer,
            disks: disks.collect(),
            reading: Reading::Changes,
            // What differs follows from authenticated maps.
            audit: Audit::Off,
            compression: self.job.compression.clone(),
            tags: commit.tags.clone(),
            properties: properties(original),
            time: self.job.time,
            program: self.job.program,
            entropy: Entropy::new(self.job.entropy.draw(&format!("import {session}"), 0)),
            unfinished: self.job.unfinished,
            checkpoint_due: self.job.checkpoint_due,
        };
        let parent = base.as_ref().map(|base| &base.here.name);
        let taken_over = Original { session, seq, time: commit.time, parent };
        let report = back_up_original(self.into, index, &job, &taken_over, observer);
        *fetched_bytes += sources.iter().map(|source| source.view().stats().fetched_bytes).sum::<u64>();
        let report = report?;
        let base = base.map(|base| base.here.session());
        let writer = self.job.writer.clone();
        let name = DecisionName { vm: original.name.vm, writer, seq, session };
        if let Some(Decision::Commit(commit)) = snapshots::read(self.into, &name)? {
            self.same.insert(original.session(), Snapshot { name, commit: *commit });
        }
        Ok((base, report))
    }

    /// What the new session and its decision are called.
    fn place(&self, original: &Snapshot) -> Result<Place, EngineError> {
        let Taken { sessions, decisions } = Taken::list(self.into, original.name.vm)?;
        let mut ids = sessions_of(self.into, origin(original));
        let Some(session) = ids.find(|id| !sessions.contains(id)) else {
            return Err(EngineError::TooManyImports { original: original.session() });
        };
        let below = decisions.iter().map(|name| name.seq).filter(|seq| *seq < original.name.seq).max();
        // What was made here since has a higher number, or the same one and a later time. A number without its
        // predecessor would look like one whose decision was lost.
        let next = below.map_or(0, |seq| seq + 1);
        Ok(Place { session, seq: next.max(first_of_lineage(original.name.seq)) })
    }

    /// The restore point of both places that least differs from the original: its parent, else the newest before it.
    fn base(&self, original: &Snapshot) -> Option<Base<'_>> {
        let before = original.name.seq;
        let of_both = self.there.iter().filter_map(|there| {
            let here = self.same.get(&there.session())?;
            (there.name.seq < before && here.name.seq < before).then_some(Base { there, here })
        });
        let parent = original.commit.parent.as_ref();
        of_both.max_by_key(|Base { there, .. }| {
            (parent == Some(&there.name), there.name.seq, there.commit.time, there.session())
        })
    }

    /// Where a disk differs from what it was, if it was and that can be told.
    fn changed(
        &self,
        original: &Snapshot,
        base: Option<&Base<'_>>,
        disk: &Disk,
    ) -> Result<Option<Vec<Extent>>, EngineError> {
        let Some(Base { there, .. }) = base else { return Ok(None) };
        let Some(before) = there.commit.disks.iter().find(|before| before.key == disk.key) else {
            return Ok(None);
        };
        let both = [there.session(), original.session()];
        match diff_of_snapshots(self.job.from, both, before, disk) {
            Ok(changed) => Ok(Some(changed)),
            // If it is the original's map, reading it in full tells.
            Err(error) if is_damage_there(&error) => Ok(None),
            Err(EngineError::TooManyAreas) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a session and its decision are called.
struct Place {
    session: SessionId,
    seq: u32,
}

fn properties(original: &Snapshot) -> Vec<(String, String)> {
    let mut properties = original.commit.properties.clone();
    properties.retain(|(key, _)| key != LINEAGE_PROPERTY);
    if !properties.iter().any(|(key, _)| key == IMPORTED_FROM) {
        properties.push((IMPORTED_FROM.to_owned(), original.session().to_string()));
    }
    properties
}

/// Whether an error concerns one restore point only, and not a place.
fn is_of_original(error: &EngineError) -> bool {
    match error {
        EngineError::Source { source, .. } | EngineError::SourceAt { source, .. } => {
            inner(source).is_some_and(is_damage_there)
        }
        // The job has what the original has: too many properties, say, for one more.
        EngineError::Rival { .. } | EngineError::TooManyImports { .. } | EngineError::BadJob(_) => true,
        _ => false,
    }
}

fn inner(error: &io::Error) -> Option<&EngineError> {
    error.get_ref()?.downcast_ref()
}

/// Whether what was read there is damaged, missing or going.
fn is_damage_there(error: &EngineError) -> bool {
    match error {
        EngineError::ForgottenMeanwhile { .. } => true,
        EngineError::Unreadable { source, .. } => is_damage_there(source),
        EngineError::MapUnreadable { source, .. } => is_damage_there(source),
        error => error.is_damage(),
    }
}
