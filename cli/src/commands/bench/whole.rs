//! Whole backups and restores of the measured disk, in a fresh repository each round.

use super::Stop;
use super::below::Below;
use super::result::{RunFigure, RunName, RunRequests, Spread};
use crate::clock::{self, Stopwatch};
use crate::open;
use anyhow::Context as _;
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::bench::Nothing;
use keepstone_engine::bench::changes::ChangedBlocks;
use keepstone_engine::bench::tracked::TrackedDisk;
use keepstone_engine::extent::total_length;
use keepstone_engine::index::LocalIndex;
use keepstone_engine::repository::NewSlot;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::{RecordingStore, Requests};
use keepstone_engine::target::{Existing, FileTarget, Incomplete};
use keepstone_engine::{DiskSource, DiskTarget, EngineError, Extent, Repository};
use repo_format::{Geometry, KdfParams, SlotName, WriterId};
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

const VM: &str = "bench";
const DISK: &str = "disk0";
/// Nobody else's chunks are in the repository, and the disk is small: the index fits memory.
const INDEX_BUDGET: u64 = 128 << 20;

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) source: &'a dyn DiskSource,
    pub(super) allocated: &'a [Extent],
    pub(super) geometry: &'a Geometry,
    pub(super) compression: &'a Compression,
    /// How much changes before each incremental backup, in parts per million of what is allocated.
    pub(super) change_rates: &'a [u32],
    pub(super) place: &'a Below<'a>,
    /// Where a disk is restored to.
    pub(super) target: &'a Path,
    pub(super) number: u64,
    pub(super) stop: &'a Stop<'a>,
}

/// The figures of all rounds.
#[derive(Default)]
pub(super) struct Runs {
    order: Vec<(RunName, Option<u32>)>,
    runs: BTreeMap<(RunName, Option<u32>), Vec<Run>>,
}

/// One run.
struct Run {
    seconds: f64,
    bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    metadata_bytes: u64,
    fetched_bytes: u64,
    packs: u64,
    requests: Requests,
}

/// How many measurements a round has.
pub(super) fn measurements(change_rates: usize) -> u64 {
    // A full backup and two restores.
    (3 + change_rates) as u64
}

/// What a round stores at most.
pub(super) fn stored_bytes(measured_bytes: u64, change_rates: &[u32]) -> u64 {
    let changed_ppm: u64 = change_rates.iter().map(|&ppm| u64::from(ppm)).sum();
    // Chunks around changes are stored anew too, and so are maps: less than three times the changes.
    let changed = u128::from(measured_bytes) * u128::from(changed_ppm) * 3 / 1_000_000;
    measured_bytes + measured_bytes / 16 + u64::try_from(changed).unwrap_or(u64::MAX)
}

impl Runs {
    /// Backs up and restores once; what was stored is removed.
    ///
    /// # Errors
    /// Whatever fails, or an interruption.
    pub(super) fn round(&mut self, round: &Round<'_>) -> anyhow::Result<()> {
        let store = RecordingStore::new(round.place);
        let mut password = Zeroizing::new([0; 32]);
        getrandom::fill(password.as_mut_slice()).context("could not get random bytes from the system")?;
        let slot_name = SlotName::new("bench").expect("it is a name");
        let slot = NewSlot {
            name: &slot_name,
            label: "",
            password: password.as_slice(),
            // The password is as random as a key: it need not be expensive to guess.
            kdf: KdfParams { memory_kib: 8, passes: 1, lanes: 1 },
            time: clock::now_millis(),
        };
        let retention = NewSlot { name: &SlotName::new("retention").expect("it is a name"), ..slot };
        let repository = Repository::create(&store, *round.geometry, &slot, &retention, &open::entropy()?)?;
        let key = repository.keys().local_key("keepstone v0 local index");
        let index = LocalIndex::open(None, repository.config().repository, key, INDEX_BUDGET)
            .map_err(EngineError::Index)?;
        let mut chain = Chain { runs: self, round, repository: &repository, store: &store, index };
        chain.full()?;
        chain.restores()?;
        Ok(round.place.remove_all()?)
    }

    fn note(&mut self, name: RunName, change_ppm: Option<u32>, run: Run) {
        let key = (name, change_ppm);
        if !self.runs.contains_key(&key) {
            self.order.push(key);
        }
        self.runs.entry(key).or_default().push(run);
    }

    /// The figures, run by run. All but times are those of the last round.
    pub(super) fn figures(&self) -> Vec<RunFigure> {
        let figure = |key: &(RunName, Option<u32>)| {
            let runs = self.runs.get(key)?;
            let last = runs.last()?;
            let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
            let Requests { put, get, list, .. } = last.requests;
            Some(RunFigure {
                run: key.0,
                change_ppm: key.1,
                seconds: Spread::of(&seconds)?,
                bytes: last.bytes,
                read_bytes: last.read_bytes,
                new_bytes: last.new_bytes,
                stored_bytes: last.stored_bytes,
                metadata_bytes: last.metadata_bytes,
                fetched_bytes: last.fetched_bytes,
                packs: last.packs,
                requests: RunRequests { put, get, list },
            })
        };
        self.order.iter().filter_map(figure).collect()
    }
}

/// The backups of a disk, one after the other.
struct Chain<'a, 'r, 's> {
    runs: &'a mut Runs,
    round: &'a Round<'a>,
    repository: &'r Repository<'s>,
    store: &'a RecordingStore<&'a Below<'a>>,
    index: LocalIndex,
}

impl Chain<'_, '_, '_> {
    fn full(&mut self) -> anyhow::Result<()> {
        let source = self.round.source;
        let (report, run) = self.back_up(&TrackedDisk::untracked(source, "0"))?;
        let bytes = report.disks.iter().map(|disk| disk.changed_bytes).sum();
        self.runs.note(RunName::Full, None, Run { bytes, ..run });
        self.incremental(source, 0)
    }

    /// Changes the disk as it is in `before` and backs it up, and so on for the rates that are left.
    fn incremental(&mut self, before: &dyn DiskSource, number: usize) -> anyhow::Result<()> {
        let Some(&ppm) = self.round.change_rates.get(number) else { return Ok(()) };
        let allocated = total_length(self.round.allocated);
        let wanted = u64::try_from(u128::from(allocated) * u128::from(ppm) / 1_000_000).unwrap_or(u64::MAX);
        let changes =
            ChangedBlocks::choose(self.round.allocated, wanted, self.round.number << 8 | number as u64);
        let (since, now) = (number.to_string(), (number + 1).to_string());
        let disk = TrackedDisk::changed(before, &changes, &since, &now);
        let (report, run) = self.back_up(&disk)?;
        let bytes = report.disks.iter().map(|disk| disk.changed_bytes).sum();
        self.runs.note(RunName::Incremental, Some(ppm), Run { bytes, ..run });
        self.incremental(&disk, number + 1)
    }

    fn back_up(&mut self, source: &dyn DiskSource) -> anyhow::Result<(BackupReport, Run)> {
        let writer = WriterId::new("bench").expect("it is a name");
        let job = BackupJob {
            vm: VM,
            writer: &writer,
            disks: vec![JobDisk::new(DISK, source)],
            reading: Reading::Changes,
            audit: Audit::Off,
            compression: self.round.compression.clone(),
            tags: Vec::new(),
            properties: Vec::new(),
            time: clock::now_millis(),
            program: crate::commands::backup::PROGRAM,
            entropy: open::entropy()?,
            unfinished: Unfinished::Ended,
            checkpoint_due: &|| false,
        };
        let before = self.store.requests();
        let stopwatch = Stopwatch::start();
        let report = backup(self.repository, &mut self.index, &job, self.round.stop)?;
        let seconds = stopwatch.elapsed().as_secs_f64();
        let run = Run {
            seconds,
            bytes: 0,
            read_bytes: report.disks.iter().map(|disk| disk.read_bytes).sum(),
            new_bytes: report.new_bytes,
            stored_bytes: report.stored_bytes,
            metadata_bytes: report.metadata_bytes,
            fetched_bytes: 0,
            packs: u64::from(report.packs),
            requests: self.store.requests().since(&before),
        };
        self.round.stop.step()?;
        Ok((report, run))
    }

    fn restores(&mut self) -> anyhow::Result<()> {
        self.restore(RunName::Restore, &Nothing)?;
        let path = self.round.target;
        let file = FileTarget::create(path, self.round.source.size(), Existing::Refuse, Incomplete::Removed)?;
        let outcome = self.restore(RunName::RestoreToFile, &file);
        drop(file);
        // One that failed has removed it.
        if outcome.is_ok() {
            std::fs::remove_file(path).with_context(|| format!("could not remove {}", path.display()))?;
        }
        outcome
    }

    fn restore(&mut self, name: RunName, target: &dyn DiskTarget) -> anyhow::Result<()> {
        let snapshot = find(self.repository, &Selector::Latest(VM.to_owned()))?;
        let disk = snapshot.disk(Some(DISK))?;
        let before = self.store.requests();
        let stopwatch = Stopwatch::start();
        let job = RestoreJob::new(snapshot.session(), disk, target);
        let report = restore(self.repository, &job, self.round.stop)?;
        let run = Run {
            seconds: stopwatch.elapsed().as_secs_f64(),
            bytes: report.written_bytes,
            read_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            metadata_bytes: 0,
            fetched_bytes: report.fetched_bytes,
            packs: 0,
            requests: self.store.requests().since(&before),
        };
        self.runs.note(name, None, run);
        self.round.stop.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_round_stores_is_bounded_by_the_disk_and_its_changes() {
        assert_eq!(stored_bytes(160 << 20, &[]), 170 << 20);
        assert_eq!(stored_bytes(100_000_000, &[0, 10_000, 50_000]), 106_250_000 + 18_000_000);
    }
}
