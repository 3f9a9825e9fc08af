//! What is data and what is dirty, of real images.

use crate::disks::{KIB, MIB, extents, open, open_with, settings, with_bitmap};
use keepstone_engine::DiskSource as _;
use keepstone_engine::source::{ChangedAreas, FullReason, Outside, Since};
use keepstone_peers::nbd::{Listen, NbdServer, Program, image};
use std::path::PathBuf;
use tempfile::TempDir;

const SIZE: u64 = 64 * MIB;

/// A qcow2 image with a bitmap that counts from some writes on.
struct Tracked {
    dir: TempDir,
    path: PathBuf,
}

impl Tracked {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk.qcow2");
        image::create(&path, "qcow2", SIZE);
        image::write(
            &path,
            "qcow2",
            &["write -P 1 0 1M", "write -P 2 8M 200k", "write -P 3 20M 4M", "write -P 4 67108352 512"],
        );
        image::add_bitmap(&path, "since");
        image::write(
            &path,
            "qcow2",
            &[
                "write -P 5 512k 4k",
                "write -z 8M 64k",
                "discard 21M 1M",
                "write -P 6 40M 1",
                "write -P 7 67108863 1",
            ],
        );
        Self { dir, path }
    }

    /// Each server that knows bitmaps, with the URI of the image.
    fn servers(&self) -> Vec<(NbdServer, String)> {
        let qemu_nbd = Program::qemu_nbd(&self.path, "qcow2").with(["--bitmap=since"]);
        let daemon = Program::storage_daemon(&self.path, "qcow2", Some("since"));
        let started = [(qemu_nbd, ""), (daemon, "disk")].map(|(program, export)| {
            let server = NbdServer::start(program, Listen::UnixIn(self.dir.path()));
            let uri = server.uri(export);
            (server, uri)
        });
        started.into_iter().collect()
    }
}

fn since(size: u64) -> Since<'static> {
    Since { change_id: None, size, properties: &[] }
}

fn zero_outside(areas: &[(u64, u64)], full_reason: Option<FullReason>) -> ChangedAreas {
    ChangedAreas { areas: extents(areas), outside: Outside::Zero { full_reason }, change_id: None }
}

#[test]
fn what_is_data_is_what_qemu_img_says() {
    let tracked = Tracked::make();
    let data = image::data_areas(&tracked.path, "qcow2");
    assert!(data.len() >= 4 && data[0] == (0, MIB), "{data:?}");
    for (_server, uri) in tracked.servers() {
        let disk = open(&uri);
        assert_eq!(disk.changed_areas(None).unwrap(), zero_outside(&data, None));
        let reason = Some(FullReason::NoChangeTracking);
        assert_eq!(disk.changed_areas(Some(&since(SIZE))).unwrap(), zero_outside(&data, reason));
    }
}

#[test]
fn what_is_dirty_is_what_was_written_even_zeros_and_discards() {
    let tracked = Tracked::make();
    let dirty = [
        (512 * KIB, 64 * KIB),
        (8 * MIB, 64 * KIB),
        (21 * MIB, MIB),
        (40 * MIB, 64 * KIB),
        (SIZE - 64 * KIB, 64 * KIB),
    ];
    let expected = ChangedAreas { areas: extents(&dirty), outside: Outside::Unchanged, change_id: None };
    let data = image::data_areas(&tracked.path, "qcow2");
    for (_server, uri) in tracked.servers() {
        let disk = open_with(&uri, with_bitmap("since")).unwrap();
        assert_eq!(disk.changed_areas(Some(&since(SIZE))).unwrap(), expected);
        assert_eq!(disk.changed_areas(None).unwrap(), zero_outside(&data, None));
        let resized = Some(FullReason::Resized { before: SIZE - MIB, after: SIZE });
        assert_eq!(disk.changed_areas(Some(&since(SIZE - MIB))).unwrap(), zero_outside(&data, resized));
    }
}

#[test]
fn a_bitmap_that_is_not_there_means_a_full_read() {
    let tracked = Tracked::make();
    let reason = Some(FullReason::NoBitmap { bitmap: "other".to_owned() });
    let data = image::data_areas(&tracked.path, "qcow2");
    for (_server, uri) in tracked.servers() {
        let disk = open_with(&uri, with_bitmap("other")).unwrap();
        let expected = zero_outside(&data, reason.clone());
        assert_eq!(disk.changed_areas(Some(&since(SIZE))).unwrap(), expected);
    }
    for options in [&["--no-sr"][..], &["--filter=noextents"]] {
        let program = Program::nbdkit(&[options, &["memory", "size=64M"]].concat());
        let server = NbdServer::start(program, Listen::UnixIn(tracked.dir.path()));
        let disk = open_with(&server.uri(""), with_bitmap("other")).unwrap();
        let expected = zero_outside(&[(0, SIZE)], reason.clone());
        assert_eq!(disk.changed_areas(Some(&since(SIZE))).unwrap(), expected);
    }
}

#[test]
fn areas_beyond_what_one_question_can_ask_for_are_found() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk.qcow2");
    let size = 20 << 40;
    image::create(&path, "qcow2", size);
    let places: Vec<u64> = vec![0, (1 << 32) - 65536, 1 << 32, 5 << 40, size - 65536];
    let writes: Vec<String> = places.iter().map(|place| format!("write -P 9 {place} 64k")).collect();
    image::add_bitmap(&path, "all");
    image::write(&path, "qcow2", &writes);
    let program = Program::qemu_nbd(&path, "qcow2").with(["--bitmap=all"]);
    let server = NbdServer::start(program, Listen::UnixIn(dir.path()));
    let disk = open_with(&server.uri(""), with_bitmap("all")).unwrap();
    let areas = [(0, 65536), ((1 << 32) - 65536, 131_072), (5 << 40, 65536), (size - 65536, 65536)];
    assert_eq!(disk.changed_areas(None).unwrap(), zero_outside(&areas, None));
    assert_eq!(disk.changed_areas(Some(&since(size))).unwrap().areas, extents(&areas));
}

#[test]
fn answers_in_pieces_are_put_together() {
    let dir = TempDir::new().unwrap();
    // It answers for a mebibyte at a time: data in each second one.
    let script = Program::nbdkit(&[
        "eval",
        "get_size=echo 16M",
        "can_extents=exit 0",
        "extents=n=$(( $4 / 1048576 )); t=; [ $(( n % 2 )) = 1 ] && t=hole,zero; echo $(( n * 1048576 )) 1M $t",
        "pread=yes | head -c $3",
    ]);
    let server = NbdServer::start(script, Listen::UnixIn(dir.path()));
    let disk = open_with(&server.uri(""), settings()).unwrap();
    let expected: Vec<(u64, u64)> = (0..8).map(|number| (number * 2 * MIB, MIB)).collect();
    assert_eq!(disk.changed_areas(None).unwrap(), zero_outside(&expected, None));
}
