//! Storing what was written over a served disk, as a snapshot of its VM.

use crate::azure::Uploads;
use crate::clock::{self, EveryMinute};
use crate::commands::backup::PROGRAM;
use crate::index;
use crate::open;
use crate::progress::Progress;
use crate::running::Running;
use crate::settings::Settings;
use keepstone_engine::DiskSource;
use keepstone_engine::backup::{Audit, BackupJob, BackupReport, CountedFrom, JobDisk, Reading, backup};
use keepstone_engine::overlay::{ChangedDisk, Overlay};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::view::{DiskView, ViewSettings};
use repo_format::Disk;

/// What is kept of each disk that was not served: what is read of it is read once.
const CACHE_BYTES: u64 = 32 << 20;

/// Backs up the disks of a snapshot with what is over one of them. Only that is read, unless there is a newer snapshot of
/// the VM, which the changes do not count from.
pub(super) fn commit(
    settings: &Settings,
    snapshot: &Snapshot,
    served: &Disk,
    overlay: &Overlay<'_, '_, '_>,
) -> anyhow::Result<BackupReport> {
    let store = open::store_to_back_up(settings, Uploads { tier: None, content_md5: false })?;
    let repository = open::repository_with_data(settings, &store)?;
    let progress = Progress::new(settings);
    let vm = &snapshot.commit.vm;
    let running = Running::begin(settings, &repository, vm, &progress)?;
    let mut index =
        index::open(settings, &repository, std::slice::from_ref(vm), settings.index_budget(None), &progress)?;
    let disks = &snapshot.commit.disks;
    let cache = ViewSettings { cache_bytes: CACHE_BYTES };
    let view = |disk| DiskView::of_snapshot(&repository, snapshot.session(), disk, cache);
    let views: Vec<DiskView<'_, '_>> = disks.iter().map(view).collect();
    let sources: Vec<ChangedDisk<'_, '_, '_>> = disks
        .iter()
        .zip(&views)
        .map(|(disk, view)| {
            let is_served = disk.key == served.key;
            if is_served { ChangedDisk::Changed(overlay) } else { ChangedDisk::Unchanged(view) }
        })
        .collect();
    let counted = CountedFrom::Exactly(snapshot.name.clone());
    let minute = EveryMinute::start();
    let job = BackupJob {
        vm,
        writer: &settings.writer,
        disks: disks
            .iter()
            .zip(&sources)
            .map(|(disk, source)| JobDisk {
                key: &disk.key,
                source: source as &dyn DiskSource,
                counted: counted.clone(),
            })
            .collect(),
        reading: Reading::Changes,
        // What was written is known by whoever wrote it.
        audit: Audit::Off,
        compression: settings.compression(None).of(&settings.location()?),
        tags: Vec::new(),
        properties: Vec::new(),
        time: clock::now_millis(),
        program: PROGRAM,
        entropy: open::entropy()?,
        unfinished: running.unfinished(),
        checkpoint_due: &|| minute.is_due(),
    };
    let report = backup(&repository, &mut index, &job, &running);
    progress.finish();
    let report = report?;
    running.decided();
    Ok(report)
}
