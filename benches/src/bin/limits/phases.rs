//! Whole backups and restores over a repository on disk, each in a process of its own, so that its memory is its own,
//! and measured as the command line would do it: with its local index opened and synchronised, but without unlocking
//! the repository.

use crate::Setting;
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use keepstone_benches::files::{Nothing, cache_files, is_same};
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::repository::{self, DISK, Run, back_up, create, open, open_index};
use keepstone_benches::tracked::TrackedDisk;
use keepstone_engine::backup::BackupReport;
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Snapshot, list};
use keepstone_engine::source::RawImage;
use keepstone_engine::store::{LocalStore, RecordingStore, Requests};
use keepstone_engine::target::{Existing, FileTarget, Incomplete};
use keepstone_engine::{DiskSource, DiskTarget, Repository};
use repo_format::SessionId;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The size of the disk of which nothing changes.
const LARGE_DISK: u64 = 1 << 40;
/// The VM that has the image as its disk, and the one whose large disk begins with it.
const VM: &str = "vm";
const LARGE_VM: &str = "large";

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    FirstBackup,
    Repeated,
    NothingChanged,
    Changed,
    RestoreToFile,
    RestoreToNothing,
    OtherVm,
    NothingChangedLarge,
    RepeatedCold,
}

impl Name {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::FirstBackup => "first backup",
            Self::Repeated => "again, changes not known",
            Self::NothingChanged => "nothing changed",
            Self::Changed => "1 % changed, 64 KiB areas",
            Self::RestoreToFile => "restore to a file",
            Self::RestoreToNothing => "restore to nothing",
            Self::OtherVm => "another VM, same data, 1 TiB",
            Self::NothingChangedLarge => "nothing changed, 1 TiB",
            Self::RepeatedCold => "again, image not in the page cache",
        }
    }
}

/// One phase of one round; sizes in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phase {
    pub(crate) name: Name,
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// What the source called changed or allocated.
    pub(crate) changed_bytes: u64,
    /// Read from the source, or fetched from packs of chunks.
    pub(crate) read_bytes: u64,
    /// Plain bytes of new chunks, or those written to the target.
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) metadata_bytes: u64,
    pub(crate) requests: Counts,
}

/// Requests of the store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) get: u64,
    pub(crate) list: u64,
    pub(crate) delete: u64,
}

impl From<Requests> for Counts {
    fn from(requests: Requests) -> Self {
        let Requests { put, get, list, delete, .. } = requests;
        Self { put, get, list, delete }
    }
}

/// Measures all phases once, over a fresh repository, each by starting this program again.
pub(crate) fn measure(setting: &Setting<'_>) -> anyhow::Result<Vec<Phase>> {
    let phases = Name::value_variants().iter().map(|name| start(setting, *name)).collect();
    for directory in [store_directory(setting), index_directory(setting)] {
        fs::remove_dir_all(directory)?;
    }
    phases
}

fn start(setting: &Setting<'_>, name: Name) -> anyhow::Result<Phase> {
    let value = name.to_possible_value().expect("no phase is left out");
    let output = Command::new(std::env::current_exe()?)
        .arg(setting.path)
        .arg("--repository")
        .arg(setting.directory)
        .args(["--level", &setting.level.to_string(), "--threads", &setting.threads.to_string()])
        .args(["--phase", value.get_name()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "\"{}\" failed", name.as_str());
    serde_json::from_slice(&output.stdout).context("a phase did not report")
}

fn store_directory(setting: &Setting<'_>) -> PathBuf {
    setting.directory.join("repository")
}

fn index_directory(setting: &Setting<'_>) -> PathBuf {
    setting.directory.join("index")
}

/// Runs one phase in this process.
pub(crate) fn run(setting: &Setting<'_>, name: Name) -> anyhow::Result<Phase> {
    let path = store_directory(setting);
    let is_first = name == Name::FirstBackup;
    let store =
        RecordingStore::new(if is_first { LocalStore::create(&path) } else { LocalStore::open(&path) }?);
    let repository = if is_first { create(&store) } else { open(&store) }?;
    let running = Running { setting, name, store: &store, repository: &repository };
    let image = setting.image;
    let large = |disk| TrackedDisk { size: LARGE_DISK.max(image.size()), ..disk };
    match name {
        Name::FirstBackup => running.backup(VM, &TrackedDisk::untracked(image, "0")),
        Name::Repeated => running.backup(VM, &TrackedDisk::untracked(image, "1")),
        Name::NothingChanged => running.backup(VM, &TrackedDisk::unchanged(image, "1", "2")),
        Name::Changed => running.backup(VM, &TrackedDisk::changed(image, &setting.changes, "2", "3")),
        Name::RestoreToFile => running.restore_to_file(),
        Name::RestoreToNothing => running.restore(&Nothing),
        Name::OtherVm => running.backup(LARGE_VM, &large(TrackedDisk::untracked(image, "0"))),
        Name::RepeatedCold => {
            fadvise(File::open(setting.path)?, 0, None, Advice::DontNeed)?;
            running.backup(VM, &TrackedDisk::untracked(image, "4"))
        }
        Name::NothingChangedLarge => {
            running.backup(LARGE_VM, &large(TrackedDisk::unchanged(image, "0", "1")))
        }
    }
}

/// One phase over the repository.
struct Running<'a> {
    setting: &'a Setting<'a>,
    name: Name,
    store: &'a RecordingStore<LocalStore>,
    repository: &'a Repository<'a>,
}

impl Running<'_> {
    fn backup(&self, vm: &str, source: &dyn DiskSource) -> anyhow::Result<Phase> {
        let sessions: Vec<SessionId> =
            list(self.repository, Some(vm))?.snapshots.iter().rev().map(Snapshot::session).collect();
        let number = u8::try_from(sessions.len()).expect("a few snapshots");
        let run = Run { vm, source, level: self.setting.level, number };
        let before = self.store.requests();
        let (report, cost) =
            meter::measure(self.setting.directory, || self.synchronised_backup(&sessions, &run))?;
        Ok(Phase {
            name: self.name,
            cost,
            changed_bytes: report.disks.iter().map(|disk| disk.changed_bytes).sum(),
            read_bytes: report.disks.iter().map(|disk| disk.read_bytes).sum(),
            new_bytes: report.new_bytes,
            stored_bytes: report.stored_bytes,
            metadata_bytes: report.metadata_bytes,
            requests: self.store.requests().since(&before).into(),
        })
    }

    fn synchronised_backup(&self, sessions: &[SessionId], run: &Run<'_>) -> anyhow::Result<BackupReport> {
        let mut index = open_index(self.repository, Some(&index_directory(self.setting)))?;
        let preference = Preference { sessions, writers: &[repository::writer()] };
        sync(&mut index, self.store, self.repository.keys(), &preference, &Quiet)?;
        Ok(back_up(self.repository, &mut index, run)?)
    }

    fn restore_to_file(&self) -> anyhow::Result<Phase> {
        let image = self.setting.image;
        let path = self.setting.directory.join("restored");
        let target = FileTarget::create(&path, image.size(), Existing::Refuse, Incomplete::Removed)?;
        let phase = self.restore(&target)?;
        drop(target);
        ensure!(is_same(image, &RawImage::open(&path)?)?, "what was restored is not what was backed up");
        fs::remove_file(&path)?;
        Ok(phase)
    }

    /// Restores the first backup.
    fn restore(&self, target: &dyn DiskTarget) -> anyhow::Result<Phase> {
        let snapshots = list(self.repository, Some(VM))?.snapshots;
        let first = snapshots.first().context("there is no backup")?;
        let disk = first.disk(Some(DISK))?;
        let job = RestoreJob::new(first.session(), disk, target);
        cache_files(&store_directory(self.setting))?;
        let before = self.store.requests();
        let (report, cost) = meter::measure(self.setting.directory, || {
            restore(self.repository, &job, &Quiet).map_err(anyhow::Error::from)
        })?;
        Ok(Phase {
            name: self.name,
            cost,
            changed_bytes: 0,
            read_bytes: report.fetched_bytes,
            new_bytes: report.written_bytes,
            stored_bytes: 0,
            metadata_bytes: 0,
            requests: self.store.requests().since(&before).into(),
        })
    }
}
