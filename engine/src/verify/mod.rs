//! Checking a repository: that all that its snapshots need is there, and is what was written.
//!
//! 1. The maps of all disks are walked, and the packs that they name are looked up in a listing.
//! 2. All other objects are opened.
//! 3. As [`VerifyJob::read_data`] says, packs that maps name are read and opened whole, and indexes compared with them.
//!
//! Damage ends nothing: it becomes a [`Finding`], and all else is still checked. A store that fails is an error.

mod counts;
mod data;
mod facts;
mod findings;
mod indexing;
mod inventory;
mod misplaced;
mod names;
mod objects;
mod sessions;
mod structure;
mod traces;
mod walk;

pub use findings::{Affected, Finding, FindingKind, ReadData, VerifyJob, VerifyReport};

use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::{Repository, get_sealed, list_all};
use crate::snapshots::{self, Snapshot, Snapshots};
use facts::Hit;
use findings::Findings;
use inventory::Inventory;
use repo_format::{BlobName, Disk, PackKind, Tombstone};
use std::collections::BTreeSet;
use structure::Structure;
use walk::{Inspector, Walker};

/// Verifies snapshots, or the whole repository.
///
/// # Errors
/// A failing store, or [`EngineError::Cancelled`]. Damage is no error: it is in the report.
pub fn verify(
    repository: &Repository<'_>,
    job: &VerifyJob,
    observer: &dyn Observer,
) -> Result<VerifyReport, EngineError> {
    let all = job.snapshots.is_empty();
    // Snapshots first: a listing that begins after a snapshot was there shows all that it needs.
    let found = if all {
        snapshots::list(repository, None)?
    } else {
        Snapshots { snapshots: job.snapshots.clone(), ..Snapshots::default() }
    };
    let (blobs, foreign) = if all {
        list_all(repository.store(), "")?
    } else {
        let mut packs = repository.list(PackKind::Data.prefix())?;
        packs.extend(repository.list(PackKind::Map.prefix())?);
        (packs, Vec::new())
    };
    let findings = Findings::default();
    let inventory = Inventory::new(repository, &blobs);
    let frames = FrameReader::new(repository);
    let scope = Scope {
        frames: &frames,
        findings: &findings,
        inventory: &inventory,
        snapshots: &found.snapshots,
        observer,
    };
    let mut structure = Structure { findings: &findings, inventory: &inventory, chunks: 0 };
    begin(observer, Phase::VerifyStructure, scope.disks().count() as u64)?;
    let names_lie = scope.walk(&mut structure, 1)?;
    let chunks = structure.chunks;
    let told = if all {
        names::check(&findings, &foreign);
        Some(objects::check(&objects::Check {
            repository,
            blobs: &blobs,
            snapshots: &found,
            inventory: &inventory,
            findings: &findings,
            time: job.time,
        })?)
    } else {
        None
    };
    let packs = inventory.named();
    let read_bytes = match job.read_data {
        ReadData::Nothing => 0,
        ReadData::Everything => data::check(&scope, told.as_ref(), &packs, !names_lie)?,
    };
    if all {
        misplaced::check(repository, &blobs, &findings)?;
    }
    let (unneeded_packs, unneeded_bytes) = if all { inventory.unneeded(&packs) } else { (0, 0) };
    let (snapshot_count, disks) = (found.snapshots.len() as u64, scope.disks().count() as u64);
    let forgotten = forgotten_meanwhile(repository, &found.snapshots, &findings)?;
    Ok(VerifyReport {
        snapshots: snapshot_count,
        disks,
        packs: packs.len() as u64,
        chunks,
        read_bytes,
        unneeded_packs,
        unneeded_bytes,
        findings: findings.finish(&found.snapshots, &|snapshot| forgotten.contains(&snapshot)),
    })
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

/// The positions of snapshots that findings concern and that have a tombstone by now (PROTOCOL 5).
fn forgotten_meanwhile(
    repository: &Repository<'_>,
    snapshots: &[Snapshot],
    findings: &Findings,
) -> Result<BTreeSet<usize>, EngineError> {
    let mut forgotten = BTreeSet::new();
    for position in findings.affected_snapshots() {
        let Some(snapshot) = snapshots.get(position) else { continue };
        let name = BlobName::tombstone(snapshot.name.vm, snapshot.session());
        if repository.blob_len(&name)?.is_some() {
            let bytes = get_sealed(repository.store(), &name)?;
            if Tombstone::open(repository.keys(), &name, &bytes).is_ok() {
                forgotten.insert(position);
            }
        }
    }
    Ok(forgotten)
}
