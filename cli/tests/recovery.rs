//! The second reader, `docs/recovery/keepstone_reader.py`, restores what the program has backed up.

mod world;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;
use world::{Ended, MIB, World, noise, text};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recovery/keepstone_reader.py");

/// What an interpreter must have: without the last module, the cost of the program's key slots takes minutes.
const NEEDED: &str = "
import cryptography
try:
    import argon2.low_level
except ImportError:
    import cryptography.hazmat.primitives.kdf.argon2
";

/// A disk of mostly holes.
#[derive(Clone)]
struct Disk {
    key: &'static str,
    len: usize,
    parts: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        for (start, part) in &self.parts {
            bytes[*start..*start + part.len()].copy_from_slice(part);
        }
        bytes
    }

    /// Writes `KEY.raw` as a sparse file.
    fn write(&self, world: &World) {
        let file = File::create(world.path(&format!("{}.raw", self.key))).expect("the image is made");
        file.set_len(self.len as u64).expect("the image has its length");
        for (start, part) in &self.parts {
            file.write_all_at(part, *start as u64).expect("the image is written");
        }
    }
}

/// Text that compresses.
fn lines(seed: usize, len: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (seed..)
        .flat_map(|number| format!("{} line {number} of {seed}\n", number * number).into_bytes())
        .take(len)
        .collect();
    text[len / 2..len / 2 + len / 8].fill(b'x');
    text
}

fn python() -> &'static str {
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| {
            let run = Command::new(python).args(["-c", NEEDED]).output();
            run.is_ok_and(|output| output.status.success())
        })
        .expect("no python3 with the modules cryptography and argon2: `make test` installs them")
}

/// Runs the second reader with a password file; hashing and zstd are done in plain Python.
fn read(world: &World, password: &str, arguments: &[&str]) -> Ended {
    let mut command = world.bare(python());
    command.args([READER, "repo", "--password-file", password]).args(arguments);
    Ended::of(command.env("KEEPSTONE_READER_WITHOUT", "blake3 zstd").output())
}

/// Backs up disks with a changes file for each; `day` is its change id. The areas are those of the first disk.
fn back_up(world: &World, disks: &[Disk], day: usize, areas: &[usize], compression: &str) -> String {
    let since = day.checked_sub(1).map(|before| before.to_string());
    let mut arguments = vec!["backup".to_owned(), "--vm".into(), "web".into()];
    arguments.extend(["--compression".into(), compression.into()]);
    for (number, disk) in disks.iter().enumerate() {
        disk.write(world);
        let (key, changes) = (disk.key, format!("{}.json", disk.key));
        let areas = if number == 0 { areas } else { &[] };
        world.changes(&changes, disk.len, since.as_deref(), &day.to_string(), areas);
        arguments.extend(["--disk".into(), format!("{key}={key}.raw")]);
        arguments.extend(["--changes".into(), format!("{key}={changes}")]);
    }
    let arguments: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let ended = world.run(&arguments);
    // An image that does not end with a sector may have been cut off, which needs attention.
    let code = if disks.iter().all(|disk| disk.len % 512 == 0) { 0 } else { 4 };
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let report = ended.json();
    let expected = if day == 0 { "full" } else { "incremental" };
    assert_eq!(text(&report["disks"][0], "mode"), expected, "{report}");
    text(&report, "snapshot")
}

/// The only blob of a kind that one session made.
fn blob(world: &World, kind: &str, session: &str) -> PathBuf {
    world.path(&format!("repo/{kind}/default/{session}-00000000"))
}

#[test]
fn every_disk_of_a_chain_comes_back_with_the_second_reader() {
    let world = World::with_repository();
    world.write("second", b"another one");
    world.run(&["key", "add", "a-second", "--new-password-file", "second"]).done();

    // More than 64 cells, so that the map has two levels, and an end within a cell.
    let mut system = Disk {
        key: "system",
        len: 80 * MIB + 513,
        parts: vec![
            (0, noise(1, 300_000)),
            (20 * MIB, lines(1, 600_000)),
            (70 * MIB, noise(2, 200_000)),
            (80 * MIB - 9, noise(3, 500)),
        ],
    };
    let data = Disk { key: "data", len: 250_001, parts: vec![(0, lines(7, 250_001))] };
    let empty = Disk { key: "empty", len: 3 * MIB, parts: Vec::new() };
    let mut days = Vec::new();
    let mut day = |disks: Vec<Disk>, areas: &[usize], compression| {
        let snapshot = back_up(&world, &disks, days.len(), areas, compression);
        days.push((snapshot, disks));
    };

    day(vec![system.clone(), data.clone(), empty.clone()], &[0, 1, 2, 3, 4, 320, 1120, 1279], "1");
    // One place changes, one appears where a hole was.
    system.parts.push((20 * MIB + (1 << 16), lines(2, 1 << 16)));
    system.parts.push((50 * MIB, lines(3, 100_000)));
    day(vec![system.clone(), data], &[321, 800, 801], "19");
    // What was there becomes a hole, and the disk grows.
    system.parts.push((20 * MIB, vec![0; 600_000]));
    system.len = 90 * MIB;
    system.parts.push((85 * MIB, noise(4, 100_000)));
    let areas: Vec<usize> = (320..330).chain(1279..1440).collect();
    day(vec![system.clone()], &areas, "9");
    // It shrinks below what one node of level 1 spans.
    system.len = 60 * MIB + 1;
    system.parts.retain(|(start, _)| *start < 60 * MIB);
    day(vec![system, empty], &[], "auto");

    let listed = read(&world, "password", &["snapshots"]).done();
    let ids: Vec<&str> =
        listed.lines().filter(|line| !line.starts_with(' ')).map(|line| &line[..32]).collect();
    assert_eq!(ids, days.iter().map(|(snapshot, _)| snapshot.as_str()).collect::<Vec<_>>());
    for (number, (snapshot, disks)) in days.iter().enumerate() {
        let password = ["password", "second"][number % 2];
        for disk in disks {
            let expected = disk.bytes();
            read(&world, password, &["restore", &snapshot[..8], disk.key, "read.raw"]).done();
            assert!(world.read("read.raw") == expected, "{} of day {number} is another one", disk.key);
            let stored = fs::metadata(world.path("read.raw")).expect("it is there").blocks() * 512;
            assert!(stored < 4 * MIB as u64, "{} of day {number} takes {stored} bytes", disk.key);
            world.run(&["restore", snapshot, "--disk", disk.key, "--to", "restored.raw"]).done();
            assert!(world.read("restored.raw") == expected, "{} of day {number} is another one", disk.key);
            fs::remove_file(world.path("read.raw")).expect("it is there");
            fs::remove_file(world.path("restored.raw")).expect("it is there");
        }
    }
    read(&world, "password", &["check"]).done();
}

#[test]
fn the_second_reader_names_what_is_damaged_and_gets_the_rest() {
    let world = World::with_repository();
    let disk =
        Disk { key: "disk", len: 2 * MIB, parts: vec![(0, noise(1, 150_000)), (MIB, noise(2, 150_000))] };
    let snapshot = back_up(&world, std::slice::from_ref(&disk), 0, &[0, 1, 2, 16, 17, 18], "1");
    let restore = ["restore", &snapshot[..8], "disk", "read.raw"];
    let name = format!("d/default/{snapshot}-00000000");
    let path = blob(&world, "d", &snapshot);
    let good = fs::read(&path).expect("the pack is there");

    let mut bad = good.clone();
    bad[200] ^= 1;
    fs::write(&path, bad).expect("the pack is written");
    let run = read(&world, "password", &restore);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains(&name), "{run:?}");
    assert!(!world.path("read.raw").exists(), "half a disk was left");
    let checked = read(&world, "password", &["check"]);
    assert_eq!(checked.code, Some(3), "{checked:?}");
    assert!(checked.stderr.contains(&name), "{checked:?}");

    // The first chunk is lost, and nothing else.
    let run = read(&world, "password", &[&restore[..], &["--keep-going"]].concat());
    assert_eq!(run.code, Some(3), "{run:?}");
    let (_, lost) = run.stderr.split_once("bytes 0 to ").expect("the lost range is told");
    let lost: usize = lost.split_once(' ').expect("a number").0.parse().expect("a number");
    assert!((20_480..=65_536).contains(&lost), "{run:?}");
    let mut expected = disk.bytes();
    expected[..lost].fill(0);
    assert!(world.read("read.raw") == expected, "more is lost than was told");
    fs::remove_file(world.path("read.raw")).expect("it is there");

    for kind in ["d", "m"] {
        let path = blob(&world, kind, &snapshot);
        let away = world.path("away");
        fs::rename(&path, &away).expect("the pack is moved");
        let run = read(&world, "password", &restore);
        fs::rename(&away, &path).expect("the pack is moved back");
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(run.stderr.contains(&format!("{kind}/default/{snapshot}-00000000: is missing")), "{run:?}");
    }
}

#[test]
fn the_second_reader_opens_nothing_with_a_wrong_password_and_overwrites_nothing() {
    let world = World::with_repository();
    let disk = Disk { key: "disk", len: MIB, parts: vec![(0, noise(1, 10_000))] };
    let snapshot = back_up(&world, &[disk], 0, &[0], "1");
    world.write("wrong", b"correct horse ");
    let run = read(&world, "wrong", &["snapshots"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.stderr.contains("keys/first"), "{run:?}");

    world.write("there", b"mine");
    for target in ["there", "repo/new", "repo/d/new"] {
        let run = read(&world, "password", &["restore", &snapshot, "disk", target]);
        assert_eq!(run.code, Some(1), "{run:?}");
    }
    assert_eq!(world.read("there"), b"mine");
    assert!(
        !world.path("repo/new").exists() && !world.path("repo/d/new").exists(),
        "it wrote to the repository"
    );
}
