//! ext2, ext3 and ext4.

use crate::images::{
    CHANGED, MIB, Workshop, assert_holds, content, noise, run, things, with_image, with_tree,
};
use keepstone_engine::guest::{Follow, GuestError, Kind, System, Time};
use std::path::{Path, PathBuf};

fn make(workshop: &Workshop, name: &str, options: &[&str], len: u64) -> (PathBuf, PathBuf) {
    let tree = workshop.tree();
    let image = workshop.image(name, len);
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-F", &"-d", &tree];
    arguments.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    arguments.push(&image);
    run("mke2fs", &arguments);
    (tree, image)
}

fn debugfs(image: &Path, command: &str) {
    run("debugfs", &[&"-w", &"-R", &command, &image]);
}

#[track_caller]
fn assert_is(image: &Path, system: System) {
    let volumes = with_image(image, |guest| guest.volumes().unwrap());
    let systems: Vec<_> =
        volumes.volumes.iter().map(|volume| (volume.number, volume.contents.system)).collect();
    assert_eq!(systems, [(0, system)]);
}

#[test]
fn all_of_an_ext4_is_read() {
    let workshop = Workshop::new();
    let (tree, image) = make(&workshop, "ext4", &["-t", "ext4", "-L", "root disk"], 64 * MIB);
    assert_is(&image, System::Ext4);
    assert_holds(&image, things(&tree));
}

#[test]
fn all_of_an_ext2_with_small_blocks_is_read() {
    let workshop = Workshop::new();
    let (tree, image) = make(&workshop, "ext2", &["-t", "ext2", "-b", "1024"], 48 * MIB);
    assert_is(&image, System::Ext2);
    assert_holds_but_large_holes(&image, &tree);
}

#[test]
fn all_of_an_ext3_is_read() {
    let workshop = Workshop::new();
    let (tree, image) = make(&workshop, "ext3", &["-t", "ext3"], 64 * MIB);
    assert_is(&image, System::Ext3);
    assert_holds_but_large_holes(&image, &tree);
}

/// Where blocks are mapped one by one, a hole that is as large as a block of the map is not read, and that is told.
#[track_caller]
fn assert_holds_but_large_holes(image: &Path, tree: &Path) {
    let error =
        with_tree(image, |tree| content(tree, &tree.resolve(b"/holes", Follow::Last).unwrap()).unwrap_err());
    assert!(
        matches!(&error, GuestError::Unsupported { source, .. } if source.to_string().contains("hole")),
        "{error:?}"
    );
    debugfs(image, "rm /holes");
    let mut expected = things(tree);
    expected.remove(b"/holes".as_slice());
    assert_holds(image, expected);
}

#[test]
fn the_features_of_ext4_are_read() {
    for features in [
        "64bit,metadata_csum,dir_index",
        "^extents,^64bit,^flex_bg,^metadata_csum",
        "^has_journal,^resize_inode,uninit_bg,^metadata_csum",
        "bigalloc",
        "metadata_csum,metadata_csum_seed,orphan_file",
    ] {
        let workshop = Workshop::new();
        let (tree, image) = make(&workshop, "ext4", &["-t", "ext4", "-b", "1024", "-O", features], 64 * MIB);
        println!("{features}");
        if features.contains("^extents") {
            assert_holds_but_large_holes(&image, &tree);
        } else {
            assert_holds(&image, things(&tree));
        }
    }
}

#[test]
fn data_in_inodes_is_told_not_to_be_read() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, "ext4", &["-t", "ext4", "-O", "inline_data"], 64 * MIB);
    let error = with_image(&image, |guest| guest.only(None).err().unwrap());
    assert!(matches!(error, GuestError::Unsupported { system: System::Ext4, .. }), "{error:?}");
}

#[test]
fn what_is_only_in_the_journal_is_read() {
    let workshop = Workshop::new();
    let (_, image) =
        make(&workshop, "ext4", &["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], 64 * MIB);
    // The block of `/one`, replaced in the journal only.
    let block =
        with_tree(&image, |tree| content(tree, &tree.resolve(b"/one", Follow::Last).unwrap()).unwrap());
    assert_eq!(block, b"1");
    let new = workshop.path("new");
    std::fs::write(&new, [b"2".as_slice(), &[0; 1023]].concat()).unwrap();
    let output =
        std::process::Command::new("/sbin/debugfs").args(["-R", "blocks /one"]).arg(&image).output().unwrap();
    let place = String::from_utf8(output.stdout).unwrap();
    let script = workshop.path("script");
    std::fs::write(&script, format!("jo -c -v 3\njw -b {} {}\njc\n", place.trim(), new.display())).unwrap();
    run("debugfs", &[&"-w", &"-f", &script, &image]);
    let block =
        with_tree(&image, |tree| content(tree, &tree.resolve(b"/one", Follow::Last).unwrap()).unwrap());
    assert_eq!(block, b"2");
}

#[test]
fn a_file_in_many_pieces_is_read() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, "ext4", &["-t", "ext4", "-b", "1024"], 16 * MIB);
    // What is left are holes between the files of a full directory.
    for number in (0..300).step_by(2) {
        debugfs(&image, &format!("rm \"/many/file number {number:05}\""));
    }
    debugfs(&image, "rm /large");
    let written = noise(9, 7_000_000);
    let file = workshop.path("written");
    std::fs::write(&file, &written).unwrap();
    debugfs(&image, &format!("write {} /written", file.display()));
    let read =
        with_tree(&image, |tree| content(tree, &tree.resolve(b"/written", Follow::Last).unwrap()).unwrap());
    assert!(read == written);
}

#[test]
fn what_is_known_of_a_file_is_told() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, "ext4", &["-t", "ext4"], 64 * MIB);
    debugfs(&image, "set_inode_field /one uid 70000");
    debugfs(&image, "set_inode_field /one gid 12");
    with_tree(&image, |tree| {
        let known = tree.metadata(&tree.resolve(b"/one", Follow::Last).unwrap()).unwrap();
        assert_eq!(
            (known.kind, known.size, known.mode, known.owner),
            (Kind::File, 1, Some(0o4751), Some((70_000, 12)))
        );
        let seconds = i64::try_from(CHANGED).unwrap();
        assert_eq!(known.modified, Some(Time { seconds, nanoseconds: 0 }));
        let known = tree.metadata(&tree.resolve(b"/deep", Follow::Last).unwrap()).unwrap();
        assert_eq!((known.kind, known.mode), (Kind::Directory, Some(0o1777)));
    });
}

#[test]
fn links_on_the_way_are_followed_within_the_volume() {
    let workshop = Workshop::new();
    let (_, image) = make(&workshop, "ext4", &["-t", "ext4"], 64 * MIB);
    with_tree(&image, |tree| {
        let path = |path: &[u8]| tree.resolve(path, Follow::Last).map(|found| found.path());
        assert_eq!(path(b"/link/and/deeper/file").unwrap(), b"/deep/er/and/deeper/file");
        assert_eq!(path(b"link").unwrap(), b"/deep/er");
        assert_eq!(path(b"/deep/absolute").unwrap(), b"/many/file number 00007");
        assert_eq!(path(b"/../../deep/./er/../../one").unwrap(), b"/one");
        assert_eq!(path(b"long link").unwrap(), b"/large");
        let kind = |path: &[u8]| tree.resolve(path, Follow::Never).unwrap().kind;
        assert_eq!(
            (kind(b"/link"), kind(b"/link/"), kind(b"/dangling")),
            (Kind::Symlink, Kind::Directory, Kind::Symlink)
        );
        assert!(matches!(path(b"/dangling"), Err(GuestError::NotFound { path }) if path == "/nowhere"));
        assert!(matches!(path(b"/loop"), Err(GuestError::TooManyLinks { .. })));
        assert!(matches!(path(b"/one/"), Err(GuestError::NotADirectory { .. })));
        assert!(matches!(path(b"/one/more"), Err(GuestError::NotADirectory { path }) if path == "/one"));
    });
}
