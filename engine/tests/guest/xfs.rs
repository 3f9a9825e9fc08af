//! XFS.

use crate::images::{MIB, Thing, Workshop, assert_same, guest_things, noise, run, with_image, with_tree};
use keepstone_engine::guest::{Follow, Kind, System};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What `mkfs.xfs` is told to make, and what that is.
fn prototype(workshop: &Workshop) -> (PathBuf, BTreeMap<Vec<u8>, Thing>) {
    let mut expected = BTreeMap::new();
    let mut text = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
    let mut file = |text: &mut String, path: String, name: &str, content: Vec<u8>| {
        let source = workshop.path(&format!("source{}", expected.len()));
        fs::write(&source, &content).unwrap();
        writeln!(text, "{name} ---640 1000 1001 {}", source.display()).unwrap();
        expected.insert(path.into_bytes(), Thing::File(content));
    };
    file(&mut text, "/empty".to_owned(), "empty", Vec::new());
    file(&mut text, "/one".to_owned(), "one", b"1".to_vec());
    file(&mut text, "/large".to_owned(), "large", noise(1, 3_000_001));
    text.push_str("many d--755 0 0\n");
    for number in 0..1500 {
        let name = format!("file-number-{number:05}");
        file(&mut text, format!("/many/{name}"), &name, number.to_string().into_bytes());
    }
    text.push_str("$\ndeep d--700 5 6\ner d--755 0 0\n");
    file(&mut text, "/deep/er/file".to_owned(), "file", noise(2, 5000));
    text.push_str("$\n$\nlink l--777 0 0 deep/er\n");
    let long = format!("{}one", "deep/../".repeat(60));
    writeln!(text, "long l--777 0 0 {long}\npipe p--644 0 0\n$").unwrap();
    for directory in ["/many", "/deep", "/deep/er"] {
        expected.insert(directory.into(), Thing::Directory);
    }
    expected.insert(b"/link".to_vec(), Thing::Link(b"deep/er".to_vec()));
    expected.insert(b"/long".to_vec(), Thing::Link(long.into_bytes()));
    expected.insert(b"/pipe".to_vec(), Thing::Other(Kind::Pipe));
    let path = workshop.path("prototype");
    fs::write(&path, text).unwrap();
    (path, expected)
}

fn make(workshop: &Workshop, options: &[&str]) -> (PathBuf, BTreeMap<Vec<u8>, Thing>) {
    let (prototype, expected) = prototype(workshop);
    let image = workshop.image("xfs", 320 * MIB);
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-L", &"data", &"-p", &prototype];
    arguments.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    arguments.push(&image);
    run("mkfs.xfs", &arguments);
    (image, expected)
}

#[test]
fn all_of_an_xfs_is_read() {
    let workshop = Workshop::new();
    let (image, expected) = make(&workshop, &[]);
    let volumes = with_image(&image, |guest| guest.volumes().unwrap());
    let contents = &volumes.volumes[0].contents;
    assert_eq!((contents.system, contents.label.as_deref()), (System::Xfs, Some("data")));
    assert_same(with_tree(&image, |tree| guest_things(tree).unwrap()), expected);
}

#[test]
fn older_forms_of_xfs_are_read() {
    for options in [
        ["-m", "crc=0", "-n", "ftype=0"],
        ["-m", "bigtime=0", "-b", "size=1024"],
        ["-n", "size=8192", "-i", "size=1024"],
    ] {
        let workshop = Workshop::new();
        let (image, expected) = make(&workshop, &options);
        println!("{options:?}");
        assert_same(with_tree(&image, |tree| guest_things(tree).unwrap()), expected);
    }
}

#[test]
fn what_is_known_of_a_file_is_told() {
    for options in [["-m", "bigtime=1"], ["-m", "crc=0"]] {
        let workshop = Workshop::new();
        let before = now(&workshop);
        let (image, _) = make(&workshop, &options);
        let after = now(&workshop);
        with_tree(&image, |tree| {
            let known = tree.metadata(&tree.resolve(b"/large", Follow::Last).unwrap()).unwrap();
            assert_eq!((known.kind, known.size, known.mode), (Kind::File, 3_000_001, Some(0o640)));
            assert_eq!(known.owner, Some((1000, 1001)));
            let modified = u64::try_from(known.modified.unwrap().seconds).unwrap();
            assert!((before..=after).contains(&modified), "{options:?}: {before} {modified} {after}");
        });
    }
}

/// The time that a file has that is written now.
fn now(workshop: &Workshop) -> u64 {
    let path = workshop.path("now");
    fs::write(&path, b"").unwrap();
    u64::try_from(path.metadata().unwrap().mtime()).unwrap()
}
