//! NTFS: volumes that `mkntfs` makes, and one that `make.py` made with a driver.

use crate::images::{
    MIB, Thing, Workshop, assert_same, content, guest_things, noise, run, with_image, with_tree,
};
use keepstone_engine::guest::{Follow, GuestError, Kind, System, Time, write_file};
use keepstone_engine::observer::Quiet;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What `make.py` made.
pub const VOLUME: &[u8] = include_bytes!("volume.zst");

fn volume(workshop: &Workshop) -> PathBuf {
    let path = workshop.path("ntfs");
    fs::write(&path, zstd::decode_all(VOLUME).unwrap()).unwrap();
    path
}

fn text(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("line {line:06} of a text that compresses\n").into_bytes()).collect()
}

/// What is in the volume, without what is not read.
fn expected() -> BTreeMap<Vec<u8>, Thing> {
    let mut things = BTreeMap::new();
    let mut put = |path: &str, thing| things.insert(path.as_bytes().to_vec(), thing);
    for directory in ["/names", "/few left", "/many", "/deep", "/deep/er", "/compressed"] {
        put(directory, Thing::Directory);
    }
    for number in 0..300 {
        put(&format!("/many/file number {number:05}"), Thing::File(number.to_string().into_bytes()));
    }
    for number in [7, 107, 207, 307] {
        put(&format!("/few left/file number {number:05}"), Thing::File(number.to_string().into_bytes()));
    }
    put("/fragmented", Thing::File(text(30_000)));
    put("/deep/er/gr\u{fc}n \u{1f600}", Thing::File(b"green".to_vec()));
    put("/deep/linked", Thing::File(b"green".to_vec()));
    let mut pieces = vec![0; 29 * 40_000 + text(50).len()];
    for piece in 0..30 {
        pieces[piece * 40_000..][..text(50).len()].copy_from_slice(&text(50));
    }
    put("/names/first", Thing::File(pieces.clone()));
    for number in 0..40 {
        put(
            &format!("/names/a long name of one and the same file, number {number:05}"),
            Thing::File(pieces.clone()),
        );
    }
    let mut sparse = vec![0; 3_000_017];
    sparse[1_000_000..1_000_000 + text(100).len()].copy_from_slice(&text(100));
    put("/sparse", Thing::File(sparse));
    put("/compressed/text", Thing::File(text(6000)));
    let mixed = [&text(3000)[..100_000], &noise(1, 70_000), &vec![0; 80_000], &text(2000)[..50_001]].concat();
    put("/compressed/mixed", Thing::File(mixed));
    put("/link", Thing::Link(b"target\\of\\link".to_vec()));
    put("/junction", Thing::Link(b"C:\\Users".to_vec()));
    put("/read only", Thing::File(b"kept".to_vec()));
    things
}

#[test]
fn all_of_a_volume_is_read() {
    let workshop = Workshop::new();
    let image = volume(&workshop);
    let volumes = with_image(&image, |guest| guest.volumes().unwrap());
    assert_eq!(volumes.volumes[0].contents.system, System::Ntfs);
    let found = with_tree(&image, |tree| {
        let compact = tree.resolve(b"/compact", Follow::Last).unwrap();
        let error = content(tree, &compact).unwrap_err();
        assert!(matches!(error, GuestError::Unsupported { system: System::Ntfs, .. }), "{error:?}");
        let mut found = BTreeMap::new();
        let mut waiting = vec![tree.resolve(b"/", Follow::Never).unwrap()];
        while let Some(directory) = waiting.pop() {
            for entry in tree.list(&directory).unwrap() {
                let thing = match entry.kind {
                    _ if entry.name == b"compact" => continue,
                    Kind::File => Thing::File(content(tree, &entry).unwrap()),
                    Kind::Directory => {
                        waiting.push(entry.clone());
                        Thing::Directory
                    }
                    Kind::Symlink => Thing::Link(tree.read_link(&entry).unwrap()),
                    other => Thing::Other(other),
                };
                found.insert(entry.path(), thing);
            }
        }
        found
    });
    assert_same(found, expected());
}

#[test]
fn what_is_known_of_a_file_is_told() {
    let workshop = Workshop::new();
    with_tree(&volume(&workshop), |tree| {
        let known = |path: &[u8]| tree.metadata(&tree.resolve(path, Follow::Never).unwrap()).unwrap();
        let read_only = known(b"/read only");
        assert_eq!((read_only.kind, read_only.size, read_only.mode), (Kind::File, 4, Some(0o444)));
        assert_eq!(read_only.modified, Some(Time { seconds: 1_600_000_000, nanoseconds: 123_456_700 }));
        let sizes = [known(b"/sparse").size, known(b"/compressed/mixed").size, known(b"/fragmented").size];
        assert_eq!(sizes, [3_000_017, 300_001, 1_140_000]);
        assert_eq!((known(b"/link").kind, known(b"/junction").kind), (Kind::Symlink, Kind::Symlink));
        assert_eq!((known(b"/deep").kind, known(b"/deep").mode), (Kind::Directory, Some(0o755)));
    });
}

#[test]
fn names_are_found_in_any_case() {
    let workshop = Workshop::new();
    with_tree(&volume(&workshop), |tree| {
        let found = tree.resolve("/DEEP/Er/GR\u{dc}N \u{1f600}".as_bytes(), Follow::Last).unwrap();
        assert_eq!(found.path(), "/deep/er/gr\u{fc}n \u{1f600}".as_bytes());
    });
}

fn ntfscp(image: &Path, file: &Path, name: &str) {
    run("ntfscp", &[&"-f", &"-q", &image, &file, &name]);
}

#[test]
fn volumes_with_clusters_of_other_lengths_are_read() {
    for cluster_len in ["512", "1024", "4096", "65536"] {
        let workshop = Workshop::new();
        let image = workshop.image("ntfs", 16 * MIB);
        run("mkntfs", &[&"-F", &"-Q", &"-qq", &"-L", &"DATA", &"-c", &cluster_len, &image]);
        let mut expected = BTreeMap::new();
        for (number, len) in
            [0, 1, 600, 5000, 1_500_000].into_iter().chain(std::iter::repeat_n(10, 60)).enumerate()
        {
            let content = noise(u64::try_from(number).unwrap(), len);
            let file = workshop.path("file");
            fs::write(&file, &content).unwrap();
            let name = format!("file number {number}");
            ntfscp(&image, &file, &name);
            expected.insert(format!("/{name}").into_bytes(), Thing::File(content));
        }
        println!("{cluster_len}");
        assert_same(with_tree(&image, |tree| guest_things(tree).unwrap()), expected);
    }
}

#[test]
fn what_was_never_written_is_zero() {
    let workshop = Workshop::new();
    let image = workshop.image("ntfs", 16 * MIB);
    run("mkntfs", &[&"-F", &"-Q", &"-qq", &image]);
    let file = workshop.path("file");
    fs::write(&file, noise(1, 3_000_000)).unwrap();
    ntfscp(&image, &file, "other");
    fs::write(&file, noise(2, 10_000)).unwrap();
    ntfscp(&image, &file, "file");
    // Allocated, and of that length, but nothing was put there: what was deleted shows through on the disk.
    run("ntfsfallocate", &[&"-f", &"-l", &"2000000", &image, &"file"]);
    let found = with_tree(&image, |tree| {
        let entry = tree.resolve(b"/file", Follow::Last).unwrap();
        let mut content = Vec::new();
        write_file(tree, &entry, &mut content, &Quiet).unwrap();
        content
    });
    let mut expected = noise(2, 10_000);
    expected.resize(2_000_000, 0);
    assert!(found == expected);
}
