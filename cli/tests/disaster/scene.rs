//! Two regions with an account each, and the VMs that are backed up.

use crate::world::{Ended, MIB, PROGRAM, World, noise, text};
use keepstone_engine::repository::NewSlot;
use keepstone_engine::store::LocalStore;
use keepstone_engine::{Entropy, Repository};
use keepstone_peers::azurite::{Account, Azurite, PRIMARY, REPLICA};
use keepstone_peers::http;
use repo_format::{Geometry, KdfParams, SlotName};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const DISK_LEN: usize = 4 * MIB;
const CONTAINER: &str = "keepstone";
const NEW_CONTAINER: &str = "keepstone-new";

/// A place of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    East,
    West,
    /// Where the east was, in a container of its own.
    New,
}

/// Two regions, which are two accounts of one service: it copies between them only by itself.
pub struct Regions {
    world: World,
    azurite: Azurite,
    /// Nothing can name the account in the east while it is lost.
    east_is_there: bool,
}

/// What changes on each disk on a day, in areas of 64 KiB.
fn areas_of(day: u8) -> Vec<usize> {
    let first = usize::from(day) * 8;
    vec![first, first + 5]
}

impl Regions {
    pub fn new() -> Self {
        let world = World::new();
        world.write("retention", b"only here\n");
        let azurite = Azurite::start();
        azurite.create_container(&PRIMARY, CONTAINER);
        azurite.create_container(&PRIMARY, NEW_CONTAINER);
        azurite.create_container(&REPLICA, CONTAINER);
        let regions = Self { world, azurite, east_is_there: true };
        regions.make_repository();
        for vm in ["files", "mail", "web"] {
            for day in 0..3 {
                regions.write_day(vm, day, day.saturating_sub(1));
            }
        }
        regions
    }

    /// A repository whose passwords are cheap to try.
    fn make_repository(&self) {
        let directory = self.world.path("repo");
        let store = LocalStore::create(&directory).unwrap();
        let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
        let names = ["first", "retention"].map(|name| SlotName::new(name).unwrap());
        let slot = |at: usize, password| NewSlot { name: &names[at], label: "", password, kdf, time: 1 };
        let (root, retention) = (slot(0, b"correct horse"), slot(1, b"only here"));
        Repository::create(&store, Geometry::default(), &root, &retention, &Entropy::new([1; 32])).unwrap();
        for path in files(&directory) {
            let name = path.strip_prefix(&directory).unwrap().to_str().unwrap();
            let until = SystemTime::now() + Duration::from_hours(1);
            let sas = PRIMARY.container_sas(CONTAINER, "c", until);
            let endpoint = self.azurite.endpoint(&PRIMARY);
            let url = format!("{endpoint}/{CONTAINER}/{name}?{sas}");
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(
                http::send("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], &bytes).status,
                201,
                "{name}"
            );
        }
    }

    /// The disks of a VM on a day, with what changed since another one.
    pub fn write_day(&self, vm: &str, day: u8, before: u8) {
        for (number, key) in (0..).zip(keys(vm)) {
            let mut disk = if day == 0 {
                noise(seed(vm, number, 0), DISK_LEN)
            } else {
                self.world.read(&image(vm, key, before))
            };
            for area in areas_of(day) {
                let bytes = noise(seed(vm, number, day) + area as u64, 1 << 16);
                disk[area << 16..(area + 1) << 16].copy_from_slice(&bytes);
            }
            self.world.write(&image(vm, key, day), &disk);
        }
    }

    fn account(side: Side) -> &'static Account {
        if side == Side::West { &REPLICA } else { &PRIMARY }
    }

    fn place(&self, side: Side) -> String {
        let account = Self::account(side);
        assert!(side == Side::West || self.east_is_there, "the account in the east is lost");
        let container = if side == Side::New { NEW_CONTAINER } else { CONTAINER };
        format!("azblob://{}/{container}?endpoint={}", account.name, self.azurite.endpoint(account))
    }

    /// The program with a repository and both passwords. EAST, WEST and NEW in its arguments are places.
    fn command(&self, side: Side, arguments: &[&str]) -> Command {
        let mut command = self.world.bare(PROGRAM);
        command.args(["-r", &self.place(side), "--password-file", "password"]);
        command.args(["--retention-password-file", "retention", "--writer", "backup-host", "-q", "--json"]);
        command.env("AZURE_STORAGE_KEY", Self::account(side).key);
        for argument in arguments {
            let other = match *argument {
                "EAST" => Some(Side::East),
                "WEST" => Some(Side::West),
                "NEW" => Some(Side::New),
                _ => None,
            };
            match other {
                Some(other) => {
                    command.arg(self.place(other));
                    command.env("KEEPSTONE_OTHER_AZURE_STORAGE_KEY", Self::account(other).key);
                }
                None => drop(command.arg(argument)),
            }
        }
        command
    }

    pub fn run(&self, side: Side, arguments: &[&str]) -> Ended {
        Ended::of(self.command(side, arguments).output())
    }

    /// A run that succeeds, with its report.
    pub fn done(&self, side: Side, arguments: &[&str]) -> Value {
        let ended = self.run(side, arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?} at {side:?}: {ended:?}");
        ended.json()
    }

    /// Backs up a VM as it is on a day, with the changes since another day if there is one.
    pub fn try_backup(&self, side: Side, vm: &str, day: u8, since: Option<u8>) -> Ended {
        let mut arguments = vec!["backup".to_owned(), "--vm".to_owned(), vm.to_owned()];
        for key in keys(vm) {
            let changes = format!("{vm}-{key}.json");
            let areas: Vec<usize> = since.map_or_else(|| (0..64).collect(), |_| areas_of(day));
            let since = since.map(|since| change_id(vm, key, since));
            self.world.changes(&changes, DISK_LEN, since.as_deref(), &change_id(vm, key, day), &areas);
            arguments.extend(["--disk".to_owned(), format!("{key}={}", image(vm, key, day))]);
            arguments.extend(["--changes".to_owned(), format!("{key}={changes}")]);
        }
        self.run(side, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn back_up(&self, side: Side, vm: &str, day: u8, since: Option<u8>) -> String {
        let ended = self.try_backup(side, vm, day, since);
        assert_eq!(ended.code, Some(0), "{vm}, day {day}: {ended:?}");
        text(&ended.json(), "snapshot")
    }

    /// The next backup of a VM that was restored as it was on a day.
    pub fn back_up_from(&self, side: Side, vm: &str, day: u8, before: u8) -> Value {
        self.write_day(vm, day, before);
        let ended = self.try_backup(side, vm, day, Some(before));
        assert_eq!(ended.code, Some(0), "{vm}, day {day}: {ended:?}");
        ended.json()
    }

    /// Replicates from the east to the west, and kills that as soon as something has arrived.
    pub fn replicate_and_kill(&self) {
        let before = self.blobs_in_the_west();
        let mut command = self
            .command(Side::East, &["replicate", "--to", "WEST", "--jobs", "1", "--limit-upload", "200KiB"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while self.blobs_in_the_west() <= before + 1 {
            assert!(child.try_wait().unwrap().is_none(), "the replication ended before it could be killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn blobs_in_the_west(&self) -> usize {
        let sas = REPLICA.container_sas(CONTAINER, "l", SystemTime::now() + Duration::from_hours(1));
        let url =
            format!("{}/{CONTAINER}?restype=container&comp=list&{sas}", self.azurite.endpoint(&REPLICA));
        let answer = http::send("GET", &url, &[], &[]);
        String::from_utf8(answer.body).unwrap().matches("<Blob>").count()
    }

    /// The account in the east is gone.
    pub fn lose_the_east(&mut self) {
        self.east_is_there = false;
    }

    /// It comes back as it was.
    pub fn find_the_east(&mut self) {
        self.east_is_there = true;
    }

    /// A restore point holds the disks of a VM as they were on a day.
    pub fn assert_restores(&self, side: Side, snapshot: &str, vm: &str, day: u8) {
        for key in keys(vm) {
            self.done(side, &["restore", snapshot, "--disk", key, "--to", "out.raw", "--overwrite"]);
            let is_same = self.world.read("out.raw") == self.world.read(&image(vm, key, day));
            assert!(is_same, "disk {key} of {snapshot} is not that of {vm} on day {day}");
        }
    }

    /// Prunes again and again until nothing is waited for.
    pub fn prune(&self, side: Side) {
        loop {
            let ended = self.run(side, &["prune", "--yes"]);
            match ended.code {
                Some(0) => return,
                code => {
                    assert_eq!((code, ended.json()["waiting"].as_array().map(Vec::len)), (Some(4), Some(0)));
                }
            }
        }
    }
}

fn keys(vm: &str) -> &'static [&'static str] {
    if vm == "files" { &["data", "system"] } else { &["system"] }
}

fn seed(vm: &str, disk: u64, day: u8) -> u64 {
    let name = vm.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    name * 1000 + disk * 100 + u64::from(day) * 7
}

fn image(vm: &str, key: &str, day: u8) -> String {
    format!("{vm}-{key}-{day}.raw")
}

fn change_id(vm: &str, key: &str, day: u8) -> String {
    format!("{vm} {key} {day}")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
