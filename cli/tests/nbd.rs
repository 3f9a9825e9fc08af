//! Backups and restores over NBD: real servers, real qcow2 images with persistent dirty bitmaps.

mod world;

use keepstone_peers::nbd::{Listen, NbdServer, Program, image};
use serde_json::Value;
use std::path::{Path, PathBuf};
use world::{MIB, World, noise};

const DISK_LEN: u64 = 96 << 20;
const BITMAP: &str = "since-backup";

/// A repository, and a qcow2 image that is backed up into it.
struct Scene {
    world: World,
    image: PathBuf,
    random: u64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let world = World::with_repository();
        let image = world.path("disk.qcow2");
        image::create(&image, "qcow2", DISK_LEN);
        Self { world, image, random: seed }
    }

    /// A number below a bound, by `SplitMix64`.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    fn write(&self, commands: &[String]) {
        image::write(&self.image, "qcow2", commands);
    }

    /// Some writes, discards and write-zeroes, of any alignment down to sectors.
    fn write_at_random(&mut self, count: u64) {
        let commands: Vec<String> = (0..count)
            .map(|_| {
                let start = self.draw(DISK_LEN / 512) * 512;
                let len = (self.draw(400) + 1) * 512;
                let len = len.min(DISK_LEN - start);
                match self.draw(6) {
                    0 => format!("write -z {start} {len}"),
                    1 => format!("discard {start} {len}"),
                    _ => format!("write -P {} {start} {len}", self.draw(256)),
                }
            })
            .collect();
        self.write(&commands);
    }

    fn serve(&self) -> NbdServer {
        let program = Program::qemu_nbd(&self.image, "qcow2");
        NbdServer::start(program, Listen::UnixIn(self.world.dir.path()))
    }

    fn serve_with_bitmap(&self) -> NbdServer {
        let program = Program::qemu_nbd(&self.image, "qcow2").with([format!("--bitmap={BITMAP}")]);
        NbdServer::start(program, Listen::UnixIn(self.world.dir.path()))
    }

    /// Backs up what a server has, and returns the exit code and the report.
    fn back_up(&self, server: &NbdServer, more: &[&str]) -> (i32, Value) {
        let uri = server.uri("");
        let mut arguments = vec!["backup", "--json", "--vm", "web", &uri];
        arguments.extend(more);
        let ended = self.world.run(&arguments);
        let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended.code.expect("the program ends by itself"), report)
    }

    /// Restores the newest snapshot, and has qemu-img compare it with the image.
    fn compare(&self) {
        let restored = self.world.path("restored.raw");
        self.world.run(&["restore", "web@latest", "--to", "restored.raw", "--overwrite"]).done();
        let (restored, image) =
            (restored.to_str().expect("a path in UTF-8"), self.image.to_str().expect("a path in UTF-8"));
        image::qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", restored, image]);
    }
}

fn only_disk(report: &Value) -> &Value {
    &report["disks"][0]
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_chain_by_a_bitmap_that_is_cleared_after_each_backup_stays_exact() {
    let mut scene = Scene::new(1);
    scene.write_at_random(60);
    image::add_bitmap(&scene.image, BITMAP);
    let first = { scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP]) };
    assert_eq!((first.0, only_disk(&first.1)["mode"].as_str()), (0, Some("full")));
    scene.compare();
    for round in 0..12 {
        image::clear_bitmap(&scene.image, BITMAP);
        let writes = scene.draw(12);
        scene.write_at_random(writes);
        let (code, report) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP]);
        let disk = only_disk(&report);
        assert_eq!((code, disk["mode"].as_str()), (0, Some("incremental")), "round {round}: {report}");
        assert_eq!(disk["audit"]["mismatches"], serde_json::json!([]));
        scene.compare();
    }
    scene.world.run(&["verify", "--read-data"]).done();
}

#[test]
fn a_bitmap_that_is_never_cleared_counts_from_the_snapshot_that_is_named() {
    let mut scene = Scene::new(2);
    scene.write_at_random(40);
    image::add_bitmap(&scene.image, BITMAP);
    let (_, first) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP]);
    let first = first["snapshot"].as_str().unwrap().to_owned();
    for _ in 0..4 {
        scene.write_at_random(6);
        let more = ["--bitmap", BITMAP, "--since", &first];
        let (code, report) = scene.back_up(&scene.serve_with_bitmap(), &more);
        assert_eq!((code, only_disk(&report)["mode"].as_str()), (0, Some("incremental")), "{report}");
        scene.compare();
    }
    scene.world.write("other.raw", &vec![1; MIB]);
    let other = scene.world.run(&["--json", "backup", "--vm", "other", "other.raw"]).json();
    let other = other["snapshot"].as_str().unwrap();
    let server = scene.serve_with_bitmap();
    let uri = server.uri("");
    let refused = scene.world.run(&["backup", "--vm", "web", &uri, "--bitmap", BITMAP, "--since", other]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("is of \"other\", not of \"web\""), "{}", refused.stderr);
}

#[test]
fn an_incremental_reads_what_is_dirty_and_little_more() {
    let scene = Scene::new(3);
    // Bytes that no two chunks have alike, so that re-chunking meets old boundaries as on a real disk.
    scene.world.write("noise.raw", &noise(3, 48 * MIB));
    scene.write(&[format!("write -s {} 0 48M", scene.world.path("noise.raw").display())]);
    image::add_bitmap(&scene.image, BITMAP);
    scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP]);
    image::clear_bitmap(&scene.image, BITMAP);
    // So many that their average says what all would.
    scene.world.write("change.raw", &noise(4, 65536));
    let change = scene.world.path("change.raw");
    let change = change.display();
    let writes: Vec<String> = (0..60).map(|n| format!("write -s {change} {} 64k", n * 12 * 65536)).collect();
    scene.write(&writes);
    let (code, report) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP, "--audit", "0"]);
    let disk = only_disk(&report);
    assert_eq!((code, number(&disk["changedBytes"])), (0, 60 * 65536));
    assert!(number(&disk["readBytes"]) <= 3 * 60 * 65536, "{disk}");
    let (code, report) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP, "--audit", "100"]);
    assert_eq!(
        (code, number(&report["newBytes"])),
        (0, 0),
        "a whole audit of a bitmap that was right: {report}"
    );
    assert_eq!(
        number(&only_disk(&report)["audit"]["regions"]),
        number(&only_disk(&report)["audit"]["ofRegions"])
    );
    scene.compare();
}

#[test]
fn holes_are_never_read() {
    let scene = Scene::new(4);
    scene.write(&["write -P 5 10M 2M".to_owned(), "write -P 6 80M 1M".to_owned()]);
    let (code, report) = scene.back_up(&scene.serve(), &[]);
    let disk = only_disk(&report);
    assert_eq!((code, number(&disk["readBytes"])), (0, 3 << 20), "{disk}");
    scene.compare();
}

#[test]
fn a_bitmap_that_is_not_there_or_may_not_count_means_a_full_read_that_says_why() {
    let mut scene = Scene::new(5);
    scene.write_at_random(20);
    image::add_bitmap(&scene.image, BITMAP);
    let (_, first) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP]);
    let (code, report) = scene.back_up(&scene.serve(), &["--bitmap", "nobody"]);
    assert_eq!((code, only_disk(&report)["mode"].as_str()), (4, Some("full")));
    assert_eq!(only_disk(&report)["fullReason"], "the server has no dirty bitmap \"nobody\"");
    let since = first["snapshot"].as_str().unwrap().to_owned();
    let (code, report) = scene.back_up(&scene.serve_with_bitmap(), &["--bitmap", BITMAP, "--since", &since]);
    assert_eq!((code, only_disk(&report)["mode"].as_str()), (0, Some("incremental")));
    scene.compare();
}

#[test]
fn a_server_that_fails_in_the_middle_loses_nothing_and_the_next_bitmap_backup_reads_everything() {
    let scene = Scene::new(6);
    let raw = scene.world.path("plain.raw");
    std::fs::write(&raw, vec![7; 32 * MIB]).unwrap();
    let nbdkit = |more: &[&str]| {
        let path = format!("file={}", raw.display());
        let mut arguments = vec!["--filter=error", "file", path.as_str()];
        arguments.extend(more);
        NbdServer::start(Program::nbdkit(&arguments), Listen::UnixIn(scene.world.dir.path()))
    };
    let (code, _) = scene.back_up(&nbdkit(&[]), &[]);
    assert_eq!(code, 0);
    let broken = nbdkit(&["error-pread=EIO", "error-pread-rate=1"]);
    let uri = broken.uri("");
    let ended = scene.world.run(&["backup", "--vm", "web", &uri]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("could not read disk disk0"), "{}", ended.stderr);
    let listed = scene.world.report(&["snapshots"]);
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1);
    let (code, report) = scene.back_up(&nbdkit(&[]), &["--bitmap", BITMAP]);
    let reason = only_disk(&report)["fullReason"].as_str().unwrap();
    assert_eq!(code, 4);
    assert!(
        reason.ends_with("failed, was forgotten or has not ended, so the changes may count from it"),
        "{reason}"
    );
}

/// A qcow2 image of some size that a server lets write.
fn writable(scene: &Scene, name: &str, bytes: u64) -> (PathBuf, NbdServer) {
    let image = scene.world.path(name);
    image::create(&image, "qcow2", bytes);
    let server = serve_writable(scene, &image);
    (image, server)
}

fn serve_writable(scene: &Scene, image: &Path) -> NbdServer {
    let program = Program::writable_qemu_nbd(image, "qcow2", 8);
    NbdServer::start(program, Listen::UnixIn(scene.world.dir.path()))
}

fn assert_same(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|path| path.to_str().expect("a path in UTF-8"));
    image::qemu_img(&["compare", "-q", "-f", "qcow2", "-F", "qcow2", one, other]);
}

#[test]
fn a_disk_is_restored_onto_an_export_and_its_holes_take_no_space() {
    let mut scene = Scene::new(7);
    scene.write_at_random(60);
    scene.back_up(&scene.serve(), &[]);
    let (restored, server) = writable(&scene, "restored.qcow2", DISK_LEN);
    let report = scene.world.report(&["restore", "web@latest", "--to", &server.uri("")]);
    assert_eq!(number(&report["diskBytes"]), DISK_LEN);
    drop(server);
    assert_same(&restored, &scene.image);
    let data: u64 = image::data_areas(&restored, "qcow2").iter().map(|(_, length)| length).sum();
    // Clusters of 64 KiB that the disk has in part may be whole there.
    assert!(data <= number(&report["writtenBytes"]) + 120 * 65536, "{data} bytes take space: {report}");

    // Over what is there, only if that was meant.
    scene.write_at_random(40);
    scene.back_up(&scene.serve(), &[]);
    let server = serve_writable(&scene, &restored);
    let uri = server.uri("");
    let told = format!(
        "keepstone: error: what is in {uri} would be lost\n  hint: add --overwrite if that is meant\n"
    );
    // There is nothing to go on with, either.
    for more in [[].as_slice(), &["--resume"]] {
        let restore = ["restore", "web@latest", "--to", &uri];
        let refused = scene.world.run(&[&restore[..], more].concat());
        assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), told.as_str()));
    }
    let ended = scene.world.run(&["restore", "web@latest", "--to", &uri, "--overwrite"]).done();
    assert!(ended.contains(&format!("to {uri}\n")), "{ended}");
    drop(server);
    assert_same(&restored, &scene.image);
}

#[test]
fn exports_that_cannot_be_restored_onto_are_told_before_anything_is_written() {
    let mut scene = Scene::new(8);
    scene.write_at_random(20);
    scene.back_up(&scene.serve(), &[]);
    let refused = |uri: &str| {
        let ended = scene.world.run(&["restore", "web@latest", "--to", uri, "--overwrite"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stderr.replace(uri, "URI")
    };
    let (image, small) = writable(&scene, "small.qcow2", DISK_LEN - 512);
    assert_eq!(
        refused(&small.uri("")),
        format!(
            "keepstone: error: URI has {} bytes, the disk has {DISK_LEN}\n  \
             hint: make the image behind the export larger, or name another export\n",
            DISK_LEN - 512
        )
    );
    drop(small);
    assert_eq!(image::data_areas(&image, "qcow2"), []);
    let told = refused(&scene.serve().uri(""));
    assert!(
        told.starts_with("keepstone: error: the export URI is read-only\n  hint: start the server"),
        "{told}"
    );
}

#[test]
fn a_server_that_has_no_room_left_fails_the_restore_and_says_what_to_do() {
    let mut scene = Scene::new(9);
    scene.write_at_random(60);
    scene.back_up(&scene.serve(), &[]);
    let size = format!("size={DISK_LEN}");
    let full = ["--filter=error", "memory", &size, "error-pwrite=ENOSPC", "error-pwrite-rate=100%"];
    let server = NbdServer::start(Program::nbdkit(&full), Listen::UnixIn(scene.world.dir.path()));
    let ended = scene.world.run(&["restore", "web@latest", "--to", &server.uri("")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("\nkeepstone: error: could not write the target at offset "), "{ended:?}");
    assert!(ended.stderr.contains(": ENOSPC, no space left"), "{ended:?}");
    let hint = "  hint: make room behind the export, and run the same command again with --resume\n";
    assert!(ended.stderr.ends_with(hint), "{ended:?}");
}

#[test]
fn an_export_is_rolled_back_by_its_bitmap_and_only_what_changed_is_touched() {
    let mut scene = Scene::new(7);
    scene.write_at_random(60);
    image::add_bitmap(&scene.image, BITMAP);
    scene.back_up(&scene.serve_with_bitmap(), &[]);
    image::clear_bitmap(&scene.image, BITMAP);
    scene.write_at_random(6);
    scene.write(&["write -P 77 1M 64k".to_owned(), "write -P 78 50M 4k".to_owned()]);
    {
        let bitmap = [format!("--bitmap={BITMAP}")];
        let program = Program::writable_qemu_nbd(&scene.image, "qcow2", 8).with(bitmap);
        let server = NbdServer::start(program, Listen::UnixIn(scene.world.dir.path()));
        let uri = server.uri("");
        let report = scene.world.report(&[
            "restore",
            "web@latest",
            "--to",
            &uri,
            "--in-place",
            "--bitmap",
            BITMAP,
            "--since",
            "web@latest",
        ]);
        assert_eq!(report["changesSince"], report["snapshot"]);
        let [compared, written, zeroed] =
            ["comparedBytes", "writtenBytes", "zeroBytes"].map(|key| number(&report[key]));
        let touched = written + zeroed;
        assert!(touched > 0 && touched < 4 << 20 && compared < 48 << 20, "{report}");
    }
    scene.compare();
}

#[test]
fn a_bitmap_that_counts_from_another_vm_says_nothing() {
    let scene = Scene::new(7);
    scene.write(&["write -P 77 1M 64k".to_owned()]);
    scene.back_up(&scene.serve(), &[]);
    scene.world.write("other.raw", &noise(1, MIB));
    scene.world.run(&["backup", "--vm", "other", "other.raw"]).done();
    let (image, server) = writable(&scene, "target.qcow2", DISK_LEN);
    let uri = server.uri("");
    let restore = ["--json", "restore", "web@latest", "--to", &uri, "--in-place", "--bitmap", BITMAP];
    let ended = scene.world.run(&[&restore[..], &["--since", "other@latest"]].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.json()["comparedReason"], "the changes count from a snapshot of other, another VM");
    drop(server);
    assert_same(&image, &scene.image);
}

#[test]
fn a_restore_onto_an_export_goes_on_where_it_failed() {
    let mut scene = Scene::new(8);
    scene.write_at_random(60);
    scene.back_up(&scene.serve(), &[]);
    let (target, server) = writable(&scene, "target.qcow2", DISK_LEN);
    let uri = server.uri("");
    let packs = std::fs::read_dir(scene.world.path("repo/d/default")).expect("the packs");
    let pack = packs
        .map(|entry| entry.expect("a pack").path())
        .max_by_key(|path| path.metadata().expect("its length").len());
    let (pack, aside) = (pack.expect("a pack"), scene.world.path("aside"));
    std::fs::rename(&pack, &aside).expect("the pack is moved away");
    let restore = ["restore", "web@latest", "--to", &uri];
    let failed = scene.world.run(&restore);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(failed.stderr.contains(" is incomplete; the same command with --resume goes on"), "{failed:?}");
    std::fs::rename(&aside, &pack).expect("the pack is moved back");
    scene.world.run(&[&restore[..], &["--resume"]].concat()).done();
    drop(server);
    assert_same(&target, &scene.image);
}
