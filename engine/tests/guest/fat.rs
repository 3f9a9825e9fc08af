//! FAT with 12, 16 and 32 bits.

use crate::images::{MIB, Thing, Workshop, assert_holds, content, noise, run, things, with_image, with_tree};
use keepstone_engine::guest::{Follow, Kind, System, Time};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A tree that FAT can hold.
fn tree(workshop: &Workshop) -> PathBuf {
    let top = workshop.path("tree");
    fs::create_dir_all(top.join("EFI/some directory/deeper")).unwrap();
    fs::write(top.join("EFI/some directory/deeper/a long name with \u{fc}ml\u{e4}uts.txt"), b"text").unwrap();
    fs::write(top.join("EMPTY"), b"").unwrap();
    fs::write(top.join("SHORT.TXT"), b"short").unwrap();
    fs::write(top.join("large.bin"), noise(1, 700_001)).unwrap();
    for number in 0..200 {
        fs::write(top.join(format!("EFI/file number {number}")), format!("{number}")).unwrap();
    }
    top
}

fn mtools(program: &str, image: &Path, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-i", &image];
    all.extend(arguments);
    run(program, &all);
}

fn make(workshop: &Workshop, options: &[&str], len: u64) -> (PathBuf, PathBuf) {
    let tree = tree(workshop);
    let image = workshop.image("fat", len);
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-n", &"A DISK"];
    arguments.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    arguments.push(&image);
    run("mkfs.vfat", &arguments);
    for name in ["EFI", "EMPTY", "SHORT.TXT", "large.bin"] {
        mtools("mcopy", &image, &[&"-s", &"-m", &tree.join(name), &"::"]);
    }
    (tree, image)
}

#[test]
fn all_of_a_fat_of_each_width_is_read() {
    for (options, len) in [(["-F", "12"], 4 * MIB), (["-F", "16"], 20 * MIB), (["-F", "32"], 40 * MIB)] {
        let workshop = Workshop::new();
        let (tree, image) = make(&workshop, &options, len);
        println!("{options:?}");
        let volumes = with_image(&image, |guest| guest.volumes().unwrap());
        let contents = &volumes.volumes[0].contents;
        assert_eq!((contents.system, contents.label.as_deref()), (System::Fat, Some("A DISK")));
        assert_holds(&image, things(&tree));
    }
}

#[test]
fn a_file_in_many_pieces_is_read() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, &["-F", "16", "-s", "1"], 8 * MIB);
    for number in (0..200).step_by(2) {
        mtools("mdel", &image, &[&format!("::/EFI/file number {number}")]);
    }
    let written = noise(2, 6_500_000);
    let file = workshop.path("written");
    fs::write(&file, &written).unwrap();
    mtools("mcopy", &image, &[&file, &"::/EFI/written"]);
    let read = with_tree(&image, |tree| {
        content(tree, &tree.resolve(b"/EFI/written", Follow::Last).unwrap()).unwrap()
    });
    assert!(read == written);
}

#[test]
fn names_are_found_in_any_case() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, &["-F", "16"], 20 * MIB);
    with_tree(&image, |tree| {
        let found = tree.resolve(
            "/efi/SOME directory/DEEPER/A LONG NAME WITH \u{dc}ML\u{c4}UTS.TXT".as_bytes(),
            Follow::Last,
        );
        assert_eq!(content(tree, &found.unwrap()).unwrap(), b"text");
    });
}

#[test]
fn what_is_known_of_a_file_is_told() {
    let workshop = Workshop::new();
    let (tree, image) = make(&workshop, &["-F", "16"], 20 * MIB);
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_002);
    File::options().write(true).open(tree.join("EMPTY")).unwrap().set_modified(time).unwrap();
    mtools("mcopy", &image, &[&"-o", &"-m", &tree.join("EMPTY"), &"::"]);
    mtools("mattrib", &image, &[&"+r", &"::/SHORT.TXT"]);
    with_tree(&image, |tree| {
        let known = |path: &[u8]| tree.metadata(&tree.resolve(path, Follow::Last).unwrap()).unwrap();
        let empty = known(b"/EMPTY");
        assert_eq!((empty.kind, empty.size, empty.mode, empty.owner), (Kind::File, 0, Some(0o644), None));
        assert_eq!(empty.modified, Some(Time { seconds: 1_600_000_002, nanoseconds: 0 }));
        assert_eq!((known(b"/SHORT.TXT").mode, known(b"/SHORT.TXT").size), (Some(0o444), 5));
        assert_eq!((known(b"/EFI").kind, known(b"/").kind), (Kind::Directory, Kind::Directory));
    });
}

#[test]
fn deleted_files_are_not_listed() {
    let workshop = Workshop::new();
    let (tree, image) = make(&workshop, &["-F", "16"], 20 * MIB);
    mtools("mdel", &image, &[&"::/SHORT.TXT"]);
    mtools("mdeltree", &image, &[&"::/EFI"]);
    let mut expected = things(&tree);
    expected.retain(|path, thing| !path.starts_with(b"/EFI") && *thing != Thing::File(b"short".to_vec()));
    assert_holds(&image, expected);
}
