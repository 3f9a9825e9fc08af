//! Repositories whose passwords are cheap to try, with backups that the engine made at times that are known.

use crate::world::{Ended, World, noise, text};
use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::{NewSlot, add_slot};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::LocalStore;
use keepstone_engine::{Entropy, Repository};
use repo_format::{Geometry, KdfParams, SlotKind, SlotName, WriterId};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Monday, 1 January 2024, 00:00 UTC.
const MONDAY: u64 = 1_704_067_200_000;
const DAY: u64 = 86_400_000;
/// All disks have this length, and nothing in common.
const DISK_LEN: usize = 500_000;

/// Passwords: of the root slot, of the retention slot, and of a slot that reads no data.
const PASSWORDS: [(&str, &[u8]); 3] =
    [("password", b"correct horse"), ("retention", b"only here"), ("inventory", b"no data")];

/// A world with an empty repository, and a file with each of its passwords.
pub fn empty() -> World {
    let world = World::new();
    for (name, password) in PASSWORDS {
        world.write(name, password);
    }
    let store = LocalStore::create(&world.path("repo")).expect("a directory");
    let [(_, root), (_, retention), (_, inventory)] = PASSWORDS;
    // Every run tries some.
    let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
    let names = ["first", "retention", "inventory"].map(|name| SlotName::new(name).expect("a slot name"));
    let slot = |at: usize, password| NewSlot { name: &names[at], label: "", password, kdf, time: MONDAY };
    let entropy = Entropy::new([1; 32]);
    Repository::create(&store, Geometry::default(), &slot(0, root), &slot(1, retention), &entropy)
        .expect("a repository");
    add_slot(&store, root, SlotKind::Inventory, &slot(2, inventory), &entropy).expect("a slot");
    world
}

/// A world whose repository has backups of some VMs on some days after [`MONDAY`], in the evening.
pub fn filled(backups: &[(&str, u64, &str)]) -> World {
    let world = empty();
    let store = LocalStore::open(&world.path("repo")).expect("a directory");
    let repository = Repository::open(&store, PASSWORDS[0].1).expect("the password opens it");
    for (vm, day, tag) in backups {
        back_up(&repository, vm, MONDAY + day * DAY + 22 * DAY / 24, tag);
    }
    date_decisions(&world);
    world
}

fn back_up(repository: &Repository<'_>, vm: &str, time: u64, tag: &str) {
    let key = repository.keys().local_key("keepstone v0 local index");
    let id = repository.config().repository;
    let mut index = LocalIndex::open(None, id, key, 1 << 20).expect("it is in memory");
    let disk = MemoryDisk::new(noise(time, DISK_LEN));
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&time.to_le_bytes());
    seed[8..8 + vm.len()].copy_from_slice(vm.as_bytes());
    let job = BackupJob {
        vm,
        writer: &WriterId::new("host-a").expect("a writer id"),
        disks: vec![JobDisk::new("disk0", &disk)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: vec![tag.to_owned()],
        properties: Vec::new(),
        time,
        program: "test",
        entropy: Entropy::new(seed),
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(repository, &mut index, &job, &Quiet).expect("it is backed up");
}

/// Dates each decision as if the store's clock had shown the time of its backup.
fn date_decisions(world: &World) {
    let listed = world.report(&["snapshots"]);
    for line in listed["snapshots"].as_array().expect("a list") {
        let time: jiff::Timestamp = text(line, "time").parse().expect("a time");
        let millis = u64::try_from(time.as_millisecond()).expect("after 1970");
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let path = decision(world, &text(line, "snapshot"));
        File::options().write(true).open(path).and_then(|file| file.set_modified(date)).expect("a date");
    }
}

/// The file of a snapshot's decision.
pub fn decision(world: &World, id: &str) -> PathBuf {
    files(&world.path("repo/r")).into_iter().find(|path| path.to_string_lossy().contains(id)).expect("a file")
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}

/// Runs a command with the retention password.
pub fn run(world: &World, arguments: &[&str]) -> Ended {
    Ended::of(world.command(arguments).args(["--retention-password-file", "retention"]).output())
}

pub fn some(all: &[String], positions: &[usize]) -> Vec<String> {
    positions.iter().map(|position| all[*position].clone()).collect()
}

pub fn ids(world: &World) -> Vec<String> {
    let listed = world.report(&["snapshots"]);
    listed["snapshots"].as_array().expect("a list").iter().map(|line| text(line, "snapshot")).collect()
}
