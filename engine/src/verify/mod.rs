//! Checking a repository: that all that its snapshots need is there, and is what was written.
//!
//! 1. The maps of all disks are walked, and the packs that they name, or where these were repacked to, are looked up in a
//!    listing. What pruners have published is compared with what snapshots need.
//! 2. All other objects are opened.
//! 3. As [`VerifyJob::read_data`] says, packs that maps name are read and opened whole, and indexes compared with them.
//!    What that gave is remembered.
//!
//! Damage ends nothing: it becomes a [`Finding`], and all else is still checked. A store that fails is an error.
//!
//! A prune may run meanwhile (PROTOCOL 5). What was repacked is read at its new place. What is missing of a snapshot that has
//! a tombstone by now is no damage: the snapshot is told of as forgotten. Whatever a pruner removes, it removes after it
//! published why, so what explains an absence is looked for after the absence was seen.

mod choice;
mod counts;
mod damaged;
mod data;
mod elsewhere;
mod facts;
mod findings;
mod gaps;
mod indexing;
mod inventory;
mod left_out;
mod memory;
mod misplaced;
mod names;
mod needs;
mod objects;
mod report;
mod sessions;
mod structure;
mod traces;
mod walk;

pub use memory::Memory;
pub use report::{Affected, Finding, FindingKind, ReadData, Verified, VerifyJob, VerifyReport, Which};

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::lineage::standing;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::pack_set::PackSet;
use crate::replica::{self, Doubt, Point};
use crate::repository::{Repository, list_all};
use crate::snapshots::{self, Query, Snapshot, Snapshots};
use crate::store::BlobInfo;
use choice::Remembered;
use facts::Hit;
use findings::Findings;
use inventory::Inventory;
use left_out::LeftOut;
use needs::Published;
use repo_format::{BlobKind, BlobName, Disk, PREFIX_TOMBSTONES, PackKind};
use std::collections::HashSet;
use structure::Structure;
use walk::{Inspector, Walker};

/// Verifies snapshots, or the whole repository, and remembers nothing: as [`verify_remembering`] with a memory that
/// is empty and ends with the run. [`ReadData::Part`] is the same part each time then.
///
/// # Errors
/// As [`verify_remembering`].
pub fn verify(
    repository: &Repository<'_>,
    job: &VerifyJob,
    observer: &dyn Observer,
) -> Result<VerifyReport, EngineError> {
    let mut memory = Memory::passing(repository.config().repository, &Entropy::new([0; 32]));
    verify_remembering(repository, job, &mut memory, observer)
}

/// Verifies snapshots, or the whole repository. `memory` tells which packs were read when, and learns which are read
/// now; it is saved after each batch of them and when the run ends, however it does.
///
/// # Errors
/// A failing store, or [`EngineError::Cancelled`]. Damage is no error: it is in the report. Nor is a memory that
/// cannot be saved: see [`Memory::take_failure`].
pub fn verify_remembering(
    repository: &Repository<'_>,
    job: &VerifyJob,
    memory: &mut Memory,
    observer: &dyn Observer,
) -> Result<VerifyReport, EngineError> {
    if job.read_data != ReadData::Nothing {
        repository.data_keys()?;
    }
    let can_read_data = repository.keys().can_read_data();
    let all = job.which.is_all();
    // Snapshots first: a listing that begins after a snapshot was there shows all that it needs.
    let (found, not_whole) = chosen(repository, &job.which, observer)?;
    let (blobs, foreign) = if all {
        let (mut blobs, foreign) = list_all(repository.store(), "")?;
        add_tombstones(repository, &mut blobs)?;
        (blobs, foreign)
    } else {
        let mut packs = repository.list(PackKind::Data.prefix())?;
        packs.extend(repository.list(PackKind::Map.prefix())?);
        (packs, Vec::new())
    };
    let findings = Findings::default();
    // After the snapshots and what they need: what is gone by then is explained by what was published before.
    let published = Published::load(repository)?;
    let aside: Vec<Snapshot> = not_whole.iter().map(|point| point.snapshot.clone()).collect();
    let left_out = LeftOut::of((repository, &published), &aside, &found.snapshots)?;
    let frames = FrameReader::knowing(repository, &published.records);
    let inventory = Inventory::new(&frames, &blobs);
    let scope = Scope {
        frames: &frames,
        findings: &findings,
        inventory: &inventory,
        snapshots: &found.snapshots,
        observer,
    };
    let mut structure = Structure { findings: &findings, inventory: &inventory, frames: &frames, chunks: 0 };
    begin(observer, Phase::VerifyStructure, scope.disks().count() as u64)?;
    let names_lie = scope.walk(&mut structure, 1)?;
    let chunks = structure.chunks;
    let packs = needs::check(&scope, &published)?;
    let told = if all {
        names::check(&findings, &foreign);
        Some(objects::check(&objects::Check {
            repository,
            blobs: &blobs,
            snapshots: &found,
            inventory: &inventory,
            findings: &findings,
            published: &published,
            left_out: &left_out,
            needed: &packs,
            time: job.time,
        })?)
    } else {
        None
    };
    let mut remembered = Remembered::begin(memory, job.time, &inventory, &packs);
    let mut chosen = remembered.chosen(&packs, job.read_data);
    chosen.retain(|pack, _| can_read_data || pack.kind == PackKind::Map);
    let read_bytes = if chosen.is_empty() && job.read_data == ReadData::Nothing {
        0
    } else {
        data::check(&scope, told.as_ref(), &chosen, !names_lie, &mut remembered)?
    };
    if all {
        misplaced::check(repository, &blobs, &findings)?;
    }
    let (unneeded_packs, unneeded_bytes) = if all { inventory.unneeded(&packs, &left_out) } else { (0, 0) };
    let (snapshot_count, disks) = (found.snapshots.len() as u64, scope.disks().count() as u64);
    note_forgotten(repository, &found.snapshots, &findings)?;
    note_damaged(&not_whole, &findings);
    // What was deleted while it was read is in a list by now.
    let has_missing = findings.has_missing_alone();
    let deleted = if has_missing { Published::load(repository)?.deleted } else { PackSet::default() };
    let is_deleted = |blob: &str| match BlobName::parse(blob).and_then(|name| name.kind()) {
        Some(BlobKind::Pack(pack)) => deleted.contains(&pack),
        _ => false,
    };
    Ok(VerifyReport {
        snapshots: snapshot_count,
        disks,
        packs: packs.len() as u64,
        chunks,
        read_bytes,
        unneeded_packs,
        unneeded_bytes,
        verified: remembered.verified(),
        not_whole,
        findings: findings.finish(&found.snapshots, &is_deleted),
    })
}

/// What is to be looked at, the oldest first, and the snapshots that are left out.
fn chosen(
    repository: &Repository<'_>,
    which: &Which,
    observer: &dyn Observer,
) -> Result<(Snapshots, Vec<Point>), EngineError> {
    match which {
        Which::Everything => Ok((snapshots::list(repository, None)?, Vec::new())),
        Which::These(snapshots) => {
            Ok((Snapshots { snapshots: snapshots.clone(), ..Snapshots::default() }, Vec::new()))
        }
        Which::AllWhole => {
            let doubt = Doubt::from(standing(repository)?);
            let mut points = Vec::new();
            let mut found = replica::each(repository, (&doubt, &Query::default()), observer, &mut |point| {
                points.push(point);
            })?;
            points.sort_by_key(|point| (point.snapshot.commit.time, point.snapshot.session()));
            let (whole, not_whole): (Vec<Point>, Vec<Point>) =
                points.into_iter().partition(|point| point.whole.is_whole());
            found.snapshots = whole.into_iter().map(|point| point.snapshot).collect();
            Ok((found, not_whole))
        }
    }
}

/// What a verification is about.
struct Scope<'v, 'r, 's> {
    frames: &'v FrameReader<'r, 's>,
    findings: &'v Findings,
    inventory: &'v Inventory<'r, 's>,
    snapshots: &'v [Snapshot],
    observer: &'v dyn Observer,
}

impl Scope<'_, '_, '_> {
    fn disks(&self) -> impl Iterator<Item = ((usize, usize), &Disk)> {
        self.snapshots.iter().enumerate().flat_map(|(position, snapshot)| {
            snapshot.commit.disks.iter().enumerate().map(move |(disk, found)| ((position, disk), found))
        })
    }

    /// Walks all disks and adds what is found of them to the findings; each is so much progress. Returns whether
    /// a node gives wrong names.
    fn walk(&self, inspector: &mut dyn Inspector, progress: u64) -> Result<bool, EngineError> {
        let mut walker = Walker::new(self.frames, self.findings, self.inventory, inspector);
        for (position, disk) in self.disks() {
            for Hit { finding, extent } in walker.disk(disk)? {
                self.findings.affect(finding, position, extent);
            }
            tell(self.observer, Event::Progress(progress))?;
        }
        Ok(walker.names_lie)
    }
}

/// Adds the tombstones that are there now: they explain what else was removed while all was listed.
fn add_tombstones(repository: &Repository<'_>, blobs: &mut Vec<BlobInfo>) -> Result<(), EngineError> {
    let known: HashSet<BlobName> = blobs
        .iter()
        .filter(|info| matches!(info.name.kind(), Some(BlobKind::Tombstone { .. })))
        .map(|info| info.name.clone())
        .collect();
    let now = repository.list(PREFIX_TOMBSTONES)?;
    blobs.extend(now.into_iter().filter(|info| info.name.kind().is_some() && !known.contains(&info.name)));
    Ok(())
}

/// Notes parts of maps that came and are damaged, of snapshots that were left out: by what is there, that is no part that did
/// not come.
fn note_damaged(not_whole: &[Point], findings: &Findings) {
    for Point { snapshot, whole } in not_whole {
        for node in whole.missing().into_iter().flat_map(|missing| &missing.damaged) {
            let id = findings.note(FindingKind::DamagedPack, &node.blob, || node.reason.clone());
            findings.lose(id, snapshot.session(), &snapshot.commit.vm);
        }
    }
}

/// Notes which of the snapshots that findings concern have a tombstone by now (PROTOCOL 5).
fn note_forgotten(
    repository: &Repository<'_>,
    snapshots: &[Snapshot],
    findings: &Findings,
) -> Result<(), EngineError> {
    for position in findings.concerned_snapshots(snapshots) {
        if let Some(snapshot) = snapshots.get(position)
            && snapshots::is_forgotten(repository, &snapshot.name)?
        {
            findings.forget(position);
        }
    }
    Ok(())
}
