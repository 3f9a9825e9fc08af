//! Repositories to prune: a snapshot of every VM and day, by real backups of disks that change.

use crate::daily::{DailyDisk, Habits};
use anyhow::{Context as _, ensure};
use keepstone_benches::files::say;
use keepstone_benches::repository::{DISK, create_with, open_index, writer};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::observer::Quiet;
use keepstone_engine::store::LocalStore;
use keepstone_engine::{BlobStore, DiskSource, Entropy, Repository};
use repo_format::{BlobKind, ChunkerName, ChunkerParams, Geometry};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(crate) const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// The first day, milliseconds since 1970.
const FIRST_DAY: u64 = 1_700_000_000_000;
const LEVEL: i32 = 1;

/// What a repository is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Model {
    /// Everything is 75 times smaller than by default but for the maps, which are as large as those of disks 75 times as
    /// large: so ten million chunks fit a few GB.
    Scaled,
    /// As repositories are, with small incremental backups.
    Default,
}

impl Model {
    pub(crate) fn geometry(self) -> Geometry {
        match self {
            Self::Scaled => Geometry {
                chunker: ChunkerParams { name: ChunkerName::MinCdcHash4, min: 64, average: 544, max: 1024 },
                region_len: 1 << 20,
                cell_len: 16 << 10,
                pack_len: 1 << 20,
            },
            Self::Default => Geometry::default(),
        }
    }

    pub(crate) fn habits(self) -> Habits {
        match self {
            // Stored as they are, so that a pack has as many chunks as one that is 32 times as long and compressed.
            Self::Scaled => Habits {
                block_len: 1 << 10,
                noise_len: 1 << 10,
                blocks: 425_000,
                shared_blocks: 16_000,
                scattered: 500,
                clusters: 33,
            },
            Self::Default => Habits {
                block_len: 64 << 10,
                noise_len: 24 << 10,
                blocks: 4096,
                shared_blocks: 512,
                scattered: 16,
                clusters: 1,
            },
        }
    }
}

/// How large a repository is.
#[derive(Clone, Copy, Debug, clap::Args, Serialize, Deserialize)]
pub(crate) struct Size {
    /// VMs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) vms: u64,

    /// Days, of each of which every VM has a snapshot
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) days: u16,
}

impl Size {
    /// The time of the last backup and some hours more, milliseconds since 1970.
    pub(crate) fn end(self) -> u64 {
        FIRST_DAY + u64::from(self.days) * DAY_MILLIS
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Made {
    pub(crate) snapshots: u64,
    pub(crate) chunks: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) metadata_bytes: u64,
    pub(crate) packs: u64,
    /// Of the first backups alone.
    pub(crate) first_chunks: u64,
}

impl Made {
    pub(crate) fn add(&mut self, report: &BackupReport) {
        self.snapshots += 1;
        self.chunks += report.new_chunks;
        self.chunk_bytes += report.new_bytes;
        self.stored_bytes += report.stored_bytes;
        self.metadata_bytes += report.metadata_bytes;
        self.packs += u64::from(report.packs);
    }
}

pub(crate) fn vm(number: u64) -> String {
    format!("vm-{number:03}")
}

/// Makes a repository in a directory.
pub(crate) fn make(model: Model, size: Size, path: &Path) -> anyhow::Result<Made> {
    let store = LocalStore::create(path)?;
    let repository = create_with(&store, model.geometry())?;
    let mut made = Made::default();
    let mut disks: Vec<DailyDisk> =
        (0..size.vms).map(|number| DailyDisk::new(model.habits(), number)).collect();
    for day in 0..size.days {
        // A run of its own, as every backup is: what it keeps in memory does not grow.
        let mut index = open_index(&repository, None)?;
        for (number, disk) in (0..).zip(&mut disks) {
            if day > 0 {
                disk.next_day();
            }
            let report = back_up(&repository, &mut index, &vm(number), (disk, day))?;
            let is_full = report.disks[0].mode == "full";
            ensure!(is_full == (day == 0), "the backup of VM {number} on day {day} was of the wrong kind");
            made.add(&report);
        }
        if day == 0 {
            made.first_chunks = made.chunks;
        }
        if day % 10 == 0 {
            say(&format!("day {day}: {} chunks, {} MiB", made.chunks, made.stored_bytes >> 20))?;
        }
    }
    Ok(made)
}

/// Backs up a disk on a day.
pub(crate) fn back_up(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    vm: &str,
    (source, day): (&dyn DiskSource, u16),
) -> anyhow::Result<BackupReport> {
    let job = BackupJob {
        vm,
        writer: &writer(),
        disks: vec![JobDisk::new(DISK, source)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(LEVEL),
        tags: Vec::new(),
        properties: Vec::new(),
        time: FIRST_DAY + u64::from(day) * DAY_MILLIS,
        program: "benchmark",
        entropy: Entropy::new(*blake3::hash(format!("{vm} {day}").as_bytes()).as_bytes()),
        unfinished: Unfinished::Ended,
        checkpoint_due: &|| false,
    };
    backup(repository, index, &job, &Quiet).with_context(|| format!("could not back up {vm} on day {day}"))
}

/// How many blobs there are below a prefix, without canaries, and how many bytes they have together.
pub(crate) fn stored(store: &dyn BlobStore, prefix: &str) -> anyhow::Result<(u64, u64)> {
    let (mut blobs, mut bytes, mut from) = (0, 0, None);
    loop {
        let page = store.list(prefix, from.as_ref(), 5000)?;
        for blob in page.blobs.iter().filter(|blob| blob.name.kind() != Some(BlobKind::Canary)) {
            blobs += 1;
            bytes += blob.len;
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok((blobs, bytes)),
        }
    }
}
