//! What is in a repository's directory and is no blob of it, and content under another name.

use crate::lab::{expect_all, lost, run, whole, world};
use crate::pruner::{condemn, publish_result, seal_generation};
use crate::world::{
    NOW, PASSWORD, back_up, cheap_kdf, create, latest, memory_index, noise, open, small_geometry,
};
use keepstone_engine::repository::{NewSlot, add_slot};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::LocalStore;
use keepstone_engine::verify::FindingKind;
use keepstone_engine::{BlobStore, Entropy};
use repo_format::{BlobName, PackKind, SlotKind, SlotName, limits::KEY_SLOTS_MAX};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tempfile::TempDir;

/// A directory with a repository of one VM.
fn directory() -> (TempDir, LocalStore) {
    let dir = TempDir::new().unwrap();
    let store = LocalStore::create(&dir.path().join("repo")).unwrap();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(noise(3, 100_000));
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    drop(repository);
    (dir, store)
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

#[test]
fn what_is_no_blob_is_named_with_what_it_is() {
    let (dir, store) = directory();
    let root = dir.path().join("repo");
    assert_eq!(run(&store, true).findings, []);
    let deep = "d/".to_owned() + &"long/".repeat(50);
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("too-long"), b"1").unwrap();
    fs::write(root.join("d/copy~"), b"1").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"d/bad-\xff")), b"1").unwrap();
    fs::create_dir(root.join("d/empty")).unwrap();
    fs::create_dir(root.join("Folder")).unwrap();
    fs::create_dir(root.join("nothing")).unwrap();
    std::os::unix::fs::symlink("config", root.join("d/link")).unwrap();
    fifo(&root.join("d/pipe"));
    fs::write(root.join("d/lost-and-found"), b"1").unwrap();
    let named = |name: &str, detail| (FindingKind::UnknownName, name.to_owned(), Vec::new(), detail);
    let mut expected = [
        named("Folder/", "it is a directory and no blob"),
        named("d/bad-\\xff", "it is a file and no blob"),
        named("d/copy~", "it is a file and no blob"),
        named("d/link", "it is a symbolic link and no blob; it was not followed or read"),
        named("d/lost-and-found", "no object has such a name"),
        named("d/pipe", "it is a pipe and no blob"),
        named("nothing/", "it is an empty directory and no blob"),
        named(&(deep + "too-long"), "it is a file and no blob"),
    ];
    expected.sort_by(|(_, a, ..), (_, b, ..)| a.cmp(b));
    let report = run(&store, true);
    // A writer that stored nothing may have made `d/empty`.
    expect_all(&report, &expected);
    assert!(!report.has_damage() && !report.needs_attention());
}

#[test]
fn a_link_or_a_pipe_in_the_place_of_a_blob_is_named_and_the_blob_is_missed() {
    for what in ["a symbolic link", "a pipe"] {
        let (dir, store) = directory();
        let snapshot = latest(&open(&store), "vm");
        let root = dir.path().join("repo");
        let replace = |name: &BlobName| {
            let path = root.join(name.as_str());
            let away = dir.path().join("away");
            fs::rename(&path, &away).unwrap();
            match what {
                "a pipe" => fifo(&path),
                _ => std::os::unix::fs::symlink(&away, &path).unwrap(),
            }
        };
        let name = BlobName::intent(&snapshot.name.writer, snapshot.session());
        replace(&name);
        let detail = format!("it is {what} and no blob");
        let report = run(&store, true);
        expect_all(
            &report,
            &[
                (FindingKind::MissingIntent, name.to_string(), Vec::new(), "it is missing"),
                (FindingKind::UnknownName, name.to_string(), Vec::new(), &detail),
            ],
        );
        fs::rename(dir.path().join("away"), root.join(name.as_str())).unwrap();
        let pack = snapshot.commit.disks[0].map.as_ref().unwrap().pack.name.blob();
        replace(&pack);
        let affected = vec![whole(&snapshot)];
        expect_all(
            &run(&store, true),
            &[
                (FindingKind::MissingPack, pack.to_string(), affected, "it is missing"),
                (FindingKind::UnknownName, pack.to_string(), Vec::new(), &detail),
            ],
        );
    }
}

#[test]
fn decisions_in_each_others_places_are_told_to_be_so() {
    let world = world();
    let names = [world.first.name.blob(), world.other.name.blob()];
    let bytes = names.clone().map(|name| world.get(&name));
    world.store.overwrite(&names[0], &bytes[1]);
    world.store.overwrite(&names[1], &bytes[0]);
    let details = [&names[1], &names[0]].map(|name| format!("it is authentic, but is the content of {name}"));
    let found = |at: usize, affected| {
        (FindingKind::DamagedDecision, names[at].to_string(), vec![affected], details[at].as_str())
    };
    let mut expected = [found(0, lost(&world.first, "vm")), found(1, lost(&world.other, ""))];
    expected.sort_by(|(_, a, ..), (_, b, ..)| a.cmp(b));
    expect_all(&run(&world.store, false), &expected);
}

#[test]
fn packs_in_each_others_places_are_told_to_be_so() {
    let world = world();
    let snapshots = [&world.second, &world.other];
    let names = snapshots.map(|snapshot| world.packs(PackKind::Map, snapshot)[0].blob());
    let bytes = names.clone().map(|name| world.get(&name));
    world.store.overwrite(&names[0], &bytes[1]);
    world.store.overwrite(&names[1], &bytes[0]);
    let details = [&names[1], &names[0]].map(|name| format!("it is authentic, but is the content of {name}"));
    let found = |at: usize| {
        let affected = vec![whole(snapshots[at])];
        (FindingKind::WrongLength, names[at].to_string(), affected, details[at].as_str())
    };
    let mut expected = [found(0), found(1)];
    expected.sort_by(|(_, a, ..), (_, b, ..)| a.cmp(b));
    expect_all(&run(&world.store, false), &expected);
}

#[test]
fn a_generation_that_is_missing_before_others_is_missed() {
    let world = world();
    let repository = open(&world.store);
    for generation in [0, 2] {
        condemn(&repository, generation, &[]);
        publish_result(&repository, generation, &[]);
        seal_generation(&repository, generation);
    }
    let name = BlobName::generation_seal(1);
    let report = run(&world.store, false);
    world.expect(&report, FindingKind::DamagedGeneration, &name, &[]);
    let detail = "all of its generation is missing, but there is the later generation 2";
    expect_all(&report, &[(FindingKind::DamagedGeneration, name.to_string(), Vec::new(), detail)]);
}

#[test]
fn a_key_slot_behind_those_that_are_tried_needs_attention() {
    let world = world();
    let add = |store: &dyn BlobStore, name: &str, run: u8| {
        let name = SlotName::new(name).unwrap();
        let slot = NewSlot { name: &name, label: "test", password: PASSWORD, kdf: cheap_kdf(), time: NOW };
        add_slot(store, PASSWORD, SlotKind::Root, &slot, &Entropy::new([run; 32])).unwrap();
        BlobName::key_slot(&name)
    };
    let copy = world.store.copied();
    let last = add(&copy, "zz", 200);
    for number in 1..KEY_SLOTS_MAX as u8 {
        add(&world.store, &format!("slot-{number:02}"), 100 + number);
    }
    assert_eq!(run(&world.store, false).findings, []);
    world.store.overwrite(&last, &copy.get(&last, None).unwrap());
    let report = run(&world.store, false);
    world.expect(&report, FindingKind::UntriedKeySlot, &last, &[]);
    assert!(!report.has_damage() && report.needs_attention());
}

#[test]
fn a_key_slot_that_is_a_copy_of_another_is_damage() {
    let world = world();
    let copy = BlobName::parse("keys/second").unwrap();
    world.store.overwrite(&copy, &world.get(&BlobName::parse("keys/first").unwrap()));
    let report = run(&world.store, false);
    let detail = "it has the salt of keys/first";
    expect_all(&report, &[(FindingKind::DamagedKeySlot, copy.to_string(), Vec::new(), detail)]);
}
