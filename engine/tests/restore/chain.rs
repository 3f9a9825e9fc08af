//! The last snapshot of a long chain: its chunks are scattered over the packs of all backups.

use crate::world::{back_up, create, latest, memory_index, noise, open};
use keepstone_engine::Extent;
use keepstone_engine::extent::{normalized, total_length};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, RestoreReport, restore};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, LocalStore, MemoryStore, RecordingStore};
use keepstone_engine::target::DiskTarget;
use repo_format::Geometry;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const INCREMENTALS: u8 = 200;
/// More than what may be in memory, so that holding it is noticed.
const SIZE: usize = 208 << 20;
const AREA_LEN: usize = 64 << 10;
/// The bar is 512 MiB; what a restore of a disk of this size needs is less.
const RESIDENT_KIB_MAX: u64 = 192 << 10;
/// The environment's variable that names the directory with the repository and the disk.
const DIRECTORY: &str = "KEEPSTONE_CHAIN_DIRECTORY";

/// Areas at random: between 0.1 and 0.5 % of the disk.
fn change(disk: &mut MemoryDisk, number: u8) -> Vec<Extent> {
    let random = noise(u64::from(number), 1000);
    let areas = SIZE / AREA_LEN;
    let count = areas / 1000 + usize::from(random[0]) * areas / 250 / 256;
    let chosen = random[1..].chunks_exact(4).take(count).map(|word| {
        let place = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize % areas;
        Extent { start: (place * AREA_LEN) as u64, length: AREA_LEN as u64 }
    });
    let chosen = normalized(chosen.collect());
    for (area, seed) in chosen.iter().zip(1u64..) {
        let (start, len) = (usize::try_from(area.start).unwrap(), usize::try_from(area.length).unwrap());
        disk.bytes[start..start + len].copy_from_slice(&noise(u64::from(number) << 32 | seed, len));
    }
    chosen
}

/// Takes what is as in a file, and counts it.
struct Compared {
    disk: File,
    bytes: AtomicU64,
}

impl Compared {
    fn open(path: &Path) -> Self {
        Self { disk: File::open(path).unwrap(), bytes: AtomicU64::new(0) }
    }
}

impl DiskTarget for Compared {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut expected = vec![0; data.len()];
        self.disk.read_exact_at(&mut expected, offset)?;
        assert!(data == expected, "other bytes at {offset}");
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(length).unwrap()])
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        assert_eq!(self.bytes.load(Ordering::Relaxed), SIZE as u64);
        Ok(())
    }
}

fn restored(store: &dyn BlobStore, disk: &Path) -> RestoreReport {
    let repository = open(store);
    let snapshot = latest(&repository, "vm");
    let target = Compared::open(disk);
    let disk = snapshot.disk(None).unwrap();
    restore(&repository, &RestoreJob::new(snapshot.session(), disk, &target), &Quiet).unwrap()
}

/// Makes a repository with the chain in `directory`, and the disk beside it.
fn chain(directory: &Path) {
    let store = MemoryStore::new();
    let repository = create(&store, Geometry::default());
    let mut index = memory_index(&repository);
    let mut disk = MemoryDisk::new(noise(0, SIZE));
    disk.change_id = Some("0".to_owned());
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 0).unwrap();
    let mut changed_bytes = 0;
    for number in 1..=INCREMENTALS {
        let areas = change(&mut disk, number);
        changed_bytes += total_length(&areas);
        disk.changes = Some(((number - 1).to_string(), areas));
        disk.change_id = Some(number.to_string());
        let report = back_up(&repository, &mut index, "vm", &[("disk0", &disk)], number).unwrap();
        assert!(report.disks[0].read_bytes < SIZE as u64 / 20, "a full backup: {report:?}");
    }
    // So much of the disk is in packs of incrementals.
    assert!(changed_bytes > SIZE as u64 / 4, "{changed_bytes}");
    for name in store.names() {
        let path = directory.join("repository").join(name.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, store.get(&name, None).unwrap()).unwrap();
    }
    fs::write(directory.join("disk"), disk.bytes).unwrap();
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a process of a test is told by its environment what it is for"
)]
fn a_chain_of_200_incrementals_restores_within_memory_and_fetches_little_more_than_it_needs() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        let store = LocalStore::open(&directory.join("repository")).unwrap();
        restored(&store, &directory.join("disk"));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
        assert!(peak_kib <= RESIDENT_KIB_MAX, "{peak_kib} KiB were in memory");
        return;
    }
    let directory = TempDir::new().unwrap();
    chain(directory.path());
    let store = RecordingStore::new(LocalStore::open(&directory.path().join("repository")).unwrap());
    let report = restored(&store, &directory.path().join("disk"));
    assert_eq!((report.disk_bytes, report.lost.len()), (SIZE as u64, 0));
    let RestoreReport { fetched_bytes, needed_bytes, .. } = report;
    assert!(needed_bytes >= SIZE as u64, "{needed_bytes} bytes of what does not compress");
    assert!(
        fetched_bytes - needed_bytes <= needed_bytes / 10,
        "{fetched_bytes} fetched, {needed_bytes} needed"
    );
    assert_eq!(store.requests().put, 0);

    // Its memory is its own in a process of its own.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(
            "chain::a_chain_of_200_incrementals_restores_within_memory_and_fetches_little_more_than_it_needs",
        )
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}
