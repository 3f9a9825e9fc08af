//! A repository, and a copy of it in which something has not arrived.

use crate::world::{Ended, PROGRAM, World, noise, text};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub const DISK_LEN: usize = 1 << 20;
pub const OTHER_LEN: usize = 100 << 10;

pub struct Copied {
    pub world: World,
    /// The snapshots of `web`, the oldest first, and what they hold.
    pub snapshots: Vec<(String, Vec<u8>)>,
}

impl Copied {
    /// Three backups of `web`, one of `db`, and a copy of all of them in `copy`.
    pub fn new() -> Self {
        let world = World::with_repository();
        let mut disk = noise(1, DISK_LEN);
        let mut snapshots = Vec::new();
        for day in 0..3u64 {
            let at = usize::try_from(day).unwrap() * 200_000;
            disk[at..at + 100_000].copy_from_slice(&noise(100 + day, 100_000));
            world.write("disk.raw", &disk);
            let report = world.report(&["backup", "--vm", "web", "disk.raw"]);
            snapshots.push((text(&report, "snapshot"), disk.clone()));
        }
        world.write("other.raw", &noise(9, OTHER_LEN));
        world.report(&["backup", "--vm", "db", "other.raw"]);
        copy(&world.path("repo"), &world.path("copy"));
        Self { world, snapshots }
    }

    /// The id of a snapshot of `web`, and what it holds.
    pub fn web(&self, day: usize) -> (&str, &[u8]) {
        (&self.snapshots[day].0, &self.snapshots[day].1)
    }

    /// Takes away the blobs of a kind that a session of `web` made; returns how many and their bytes.
    pub fn take_away(&self, kind: &str, day: usize) -> (u64, u64) {
        let (mut blobs, mut bytes) = (0, 0);
        for (path, (len, _)) in files(&self.world.path("copy").join(kind)) {
            if path.to_string_lossy().contains(self.web(day).0) {
                fs::remove_file(&path).unwrap();
                (blobs, bytes) = (blobs + 1, bytes + len);
            }
        }
        assert!(blobs > 0, "there is none");
        (blobs, bytes)
    }

    /// Damages the blob of a kind that a session of `web` has at the source; returns its name.
    pub fn damage_at_source(&self, kind: &str, day: usize) -> String {
        let source = self.world.path("repo");
        let files = files(&source.join(kind)).into_keys();
        let of_session: Vec<PathBuf> =
            files.filter(|path| path.to_string_lossy().contains(self.web(day).0)).collect();
        let [path] = of_session.as_slice() else { panic!("{of_session:?}") };
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
        path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned()
    }

    /// Lets what is missing arrive.
    pub fn bring_all(&self) {
        copy(&self.world.path("repo"), &self.world.path("copy"));
    }

    /// Runs the program with the copy, without saying that it is one.
    pub fn plainly(&self, arguments: &[&str]) -> Ended {
        let mut command = self.world.bare(PROGRAM);
        command.args(["-r", "copy", "--password-file", "password"]).args(arguments);
        Ended::of(command.output())
    }

    /// Runs the program with the copy as a replica. Nothing is changed in it.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let before = files(&self.world.path("copy"));
        let ended = self.plainly(&[&["--replica"], arguments].concat());
        assert!(before == files(&self.world.path("copy")), "something was written: {ended:?}");
        ended
    }
}

/// All files below a directory, with their lengths and times.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            let about = entry.metadata().unwrap();
            found.insert(entry.path(), (about.len(), about.modified().unwrap()));
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if !target.exists() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
