//! Doing what a job says, measured as the command line would do it: backups with their local index opened and
//! synchronised.

use crate::bare;
use crate::job::{Action, Job, Opening, Outcome};
use crate::store::{JobStore, PartRead};
use anyhow::{Context as _, ensure};
use keepstone_benches::changes::ChangedBlocks;
use keepstone_benches::files::{Nothing, is_same};
use keepstone_benches::meter::measure_beside;
use keepstone_benches::repository::{DISK, Run, back_up, create, open, open_index, writer};
use keepstone_benches::tracked::TrackedDisk;
use keepstone_engine::extent::total_length;
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Snapshot, Snapshots, list};
use keepstone_engine::source::RawImage;
use keepstone_engine::target::{Existing, FileTarget, Incomplete};
use keepstone_engine::{DiskSource, DiskTarget, Repository};
use repo_format::SessionId;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

const VM: &str = "vm";
/// One in so many bytes of the image changes at a time.
const CHANGED_SHARE: u64 = 100;

/// Does what a job says.
pub(crate) fn run(job: &Job) -> anyhow::Result<Outcome> {
    match job.action {
        Action::BarePut { threads } => bare::put(job, threads),
        Action::BareGet { threads } => bare::get(job, threads, &read_before(job)?),
        _ => run_engine(job),
    }
}

fn run_engine(job: &Job) -> anyhow::Result<Outcome> {
    let is_new = job.action == Action::FirstBackup;
    let store = JobStore::open(job, is_new)?;
    let began = Instant::now();
    let repository = if is_new { create(store.blobs()) } else { open(store.blobs()) }?;
    let snapshots = list(&repository, Some(VM))?;
    let opening = Opening { seconds: began.elapsed().as_secs_f64(), requests: store.counts().all() };
    let image = RawImage::open(&job.image)?;
    let running = Running { job, store: &store, repository: &repository, snapshots, image: &image, opening };
    match job.action {
        Action::RestoreToNothing => {
            let outcome = running.restore(&Nothing)?;
            fs::write(reads_file(job), serde_json::to_vec(&store.take_reads())?)?;
            Ok(outcome)
        }
        Action::RestoreToFile => running.restore_to_file(),
        Action::Changed { times } => running.back_up_changed(&TrackedDisk::untracked(&image, "0"), 1, times),
        _ => running.back_up(&TrackedDisk::untracked(&image, "0")),
    }
}

/// What the last restore to nothing read.
fn reads_file(job: &Job) -> PathBuf {
    job.directory.join("reads.json")
}

fn read_before(job: &Job) -> anyhow::Result<Vec<PartRead>> {
    Ok(serde_json::from_slice(&fs::read(reads_file(job))?)?)
}

struct Running<'a> {
    job: &'a Job,
    store: &'a JobStore,
    repository: &'a Repository<'a>,
    snapshots: Snapshots,
    image: &'a RawImage,
    opening: Opening,
}

impl Running<'_> {
    /// Measures something, beginning with requests from zero.
    fn measure(&self, action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
        let before = self.store.counts();
        self.store.take_reads();
        let ((), cost, beside) = measure_beside(&self.job.directory, self.job.place.server(), action)?;
        Ok(Outcome { cost, beside, requests: self.store.counts().since(&before), opening: self.opening })
    }

    /// Backs up the disk after changes number `number` to `times`, each of which comes on top of the ones before.
    fn back_up_changed(&self, disk: &TrackedDisk<'_>, number: u8, times: u8) -> anyhow::Result<Outcome> {
        if number > times {
            return self.back_up(disk);
        }
        let allocated = self.image.changed_areas(None)?.areas;
        let bytes = total_length(&allocated) / CHANGED_SHARE;
        let changes = ChangedBlocks::choose(&allocated, bytes, u64::from(number));
        let id = number.to_string();
        let next = TrackedDisk::changed(disk, &changes, disk.change_id, &id);
        self.back_up_changed(&next, number + 1, times)
    }

    fn back_up(&self, source: &dyn DiskSource) -> anyhow::Result<Outcome> {
        let sessions: Vec<SessionId> = self.snapshots.snapshots.iter().rev().map(Snapshot::session).collect();
        let number = u8::try_from(sessions.len())?;
        let run = Run { vm: VM, source, level: self.job.level, number };
        let directory = self.job.directory.join(format!("index-{}", self.job.place.name()));
        self.measure(|| {
            let mut index = open_index(self.repository, Some(&directory))?;
            let preference = Preference { sessions: &sessions, writers: &[writer()] };
            sync(&mut index, self.store.blobs(), self.repository.keys(), &preference, &Quiet)?;
            let report = back_up(self.repository, &mut index, &run)?;
            let is_full = report.disks.iter().any(|disk| disk.changed_bytes == disk.disk_bytes);
            ensure!(number == 0 || !is_full, "the changes were not known");
            Ok(())
        })
    }

    fn restore_to_file(&self) -> anyhow::Result<Outcome> {
        let path = self.job.directory.join("restored");
        let target = FileTarget::create(&path, self.image.size(), Existing::Refuse, Incomplete::Removed)?;
        let outcome = self.restore(&target)?;
        drop(target);
        ensure!(is_same(self.image, &RawImage::open(&path)?)?, "what was restored is not what was backed up");
        fs::remove_file(&path)?;
        Ok(outcome)
    }

    /// Restores the first backup.
    fn restore(&self, target: &dyn DiskTarget) -> anyhow::Result<Outcome> {
        let first = self.snapshots.snapshots.first().context("there is no backup")?;
        let job = RestoreJob::new(first.session(), first.disk(Some(DISK))?, target);
        self.measure(|| {
            restore(self.repository, &job, &Quiet)?;
            Ok::<(), anyhow::Error>(())
        })
    }
}
