//! Whole restores, each in a process of its own, so that its memory is its own.

use crate::chain::State;
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use keepstone_benches::files::{Nothing, temporary_directory};
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::repository::{self, DISK};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::list;
use keepstone_engine::source::RawImage;
use keepstone_engine::store::{LocalStore, RecordingStore};
use keepstone_engine::target::{Existing, FileTarget, Incomplete};
use keepstone_engine::{DiskSource as _, DiskTarget};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

/// The VM of all backups.
pub(crate) const VM: &str = "chain";
const COMPARE_LEN: usize = 1 << 20;

/// Which snapshot is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Which {
    First,
    Last,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum To {
    Nothing,
    Tmpfs,
    File,
}

/// What a restore did and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phase {
    pub(crate) cost: Cost,
    pub(crate) written_bytes: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) needed_bytes: u64,
    pub(crate) requests: u64,
    /// From opening the repository, without its password, to the first byte that is written.
    pub(crate) first_byte_seconds: f64,
}

/// Restores in this process.
pub(crate) fn run(directory: &Path, which: Which, to: To, expected: &State<'_>) -> anyhow::Result<Phase> {
    match to {
        To::Nothing => restored(directory, which, &Nothing),
        To::Tmpfs => to_file(directory, Path::new("/dev/shm"), which, expected),
        To::File => to_file(directory, directory, which, expected),
    }
}

fn to_file(directory: &Path, parent: &Path, which: Which, expected: &State<'_>) -> anyhow::Result<Phase> {
    let place = temporary_directory("keepstone-restore-", Some(parent), None)?;
    let path = place.path().join("restored");
    let target = FileTarget::create(&path, expected.size(), Existing::Refuse, Incomplete::Removed)?;
    let phase = restored(directory, which, &target)?;
    drop(target);
    let file = RawImage::open(&path)?;
    ensure!(file.size() == expected.size(), "the disk has another size");
    let (mut ours, mut theirs) = (vec![0; COMPARE_LEN], vec![0; COMPARE_LEN]);
    for start in (0..file.size()).step_by(COMPARE_LEN) {
        let len = usize::try_from(file.size() - start).map_or(COMPARE_LEN, |left| left.min(COMPARE_LEN));
        file.read_at(start, &mut ours[..len])?;
        expected.read_at(start, &mut theirs[..len])?;
        ensure!(ours[..len] == theirs[..len], "the disk is another one from byte {start} on");
    }
    Ok(phase)
}

fn restored(directory: &Path, which: Which, target: &dyn DiskTarget) -> anyhow::Result<Phase> {
    let store = RecordingStore::new(LocalStore::open(&directory.join("repository"))?);
    let repository = repository::open(&store)?;
    let target = FirstByte { target, at: OnceLock::new() };
    let before = store.requests();
    let ((report, began), cost) = meter::measure(directory, || -> anyhow::Result<_> {
        let began = Instant::now();
        let snapshots = list(&repository, Some(VM))?.snapshots;
        let snapshot = match which {
            Which::First => snapshots.first(),
            Which::Last => snapshots.last(),
        };
        let snapshot = snapshot.context("there is no snapshot")?;
        let disk = snapshot.disk(Some(DISK))?;
        let job = RestoreJob::new(snapshot.session(), disk, &target);
        Ok((restore(&repository, &job, &Quiet)?, began))
    })?;
    let first = target.at.get().context("nothing was written")?;
    Ok(Phase {
        cost,
        written_bytes: report.written_bytes,
        fetched_bytes: report.fetched_bytes,
        needed_bytes: report.needed_bytes,
        requests: store.requests().since(&before).get,
        first_byte_seconds: first.duration_since(began).as_secs_f64(),
    })
}

/// A target that remembers when the first byte came.
struct FirstByte<'a> {
    target: &'a dyn DiskTarget,
    at: OnceLock<Instant>,
}

impl DiskTarget for FirstByte<'_> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.at.get_or_init(Instant::now);
        self.target.write_at(offset, data)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        self.target.zero_at(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.target.flush()
    }

    fn finish(&self) -> io::Result<()> {
        self.target.finish()
    }
}
