//! The second reader, `docs/recovery/keepstone_reader.py`, restores the golden repositories and reads the vectors, in
//! plain Python.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "protocol/pruner.rs"]
#[expect(dead_code, reason = "only repacks are of interest here")]
mod pruner;
#[path = "golden/retained.rs"]
mod retained;
#[path = "protocol/watched.rs"]
#[expect(dead_code, reason = "only what acts on a call is of interest here")]
mod watched;
mod world;

use keepstone_engine::snapshots;
use keepstone_engine::store::{BlobStore, MemoryStore};
use pruner::{End, Repack};
use repo_format::{
    BlobKind, BlobName, ChunkerName, Keys, PackKind, PackRef, PublicKeys, RepackRecord, RetentionKey,
    RootKey, SessionId, SlotInfo, SlotKey, SlotKind, SlotName, seal_slot,
};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use world::{NOW, PASSWORD, cheap_kdf, golden, open};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recovery/keepstone_reader.py");

/// The first interpreter with the module that the reader needs.
fn python() -> &'static str {
    let has_module = |python: &&str| {
        let run = Command::new(python).args(["-c", "import cryptography"]).output();
        run.is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_module)
        .expect("no python3 with the module cryptography: `make test` installs it (python3-cryptography)")
}

/// Runs the reader on a directory, without any module that would make it faster.
fn read(repository: &Path, arguments: &[&str]) -> Output {
    Command::new(python())
        .arg(READER)
        .arg(repository)
        .args(arguments)
        .env("KEEPSTONE_PASSWORD", str::from_utf8(PASSWORD).unwrap())
        .env("KEEPSTONE_READER_WITHOUT", "blake3 zstd argon2")
        .output()
        .unwrap()
}

fn exported(store: &MemoryStore) -> TempDir {
    let directory = TempDir::new().unwrap();
    for name in store.names() {
        let path = directory.path().join(name.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, store.get(&name, None).unwrap()).unwrap();
    }
    directory
}

#[test]
fn the_second_reader_restores_every_disk() {
    for chunker in [ChunkerName::FastCdc2020, ChunkerName::MinCdcHash4] {
        restores_every_disk(golden::repository_of(chunker));
    }
}

fn restores_every_disk((store, images): (MemoryStore, Vec<golden::Image>)) {
    let repository = exported(&store);
    let target = TempDir::new().unwrap();

    let listed = read(repository.path(), &["snapshots"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let snapshots: Vec<&str> = listed.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(snapshots.len(), 3, "{listed}");

    let of_snapshots = [0, 0, 1, 1, 2].map(|number: usize| snapshots[number]);
    assert_eq!(images.len(), of_snapshots.len());
    for (number, (image, snapshot)) in images.iter().zip(of_snapshots).enumerate() {
        assert!(snapshot.ends_with(image.vm), "{snapshot}");
        let restored = target.path().join(number.to_string());
        let run =
            read(repository.path(), &["restore", &snapshot[..8], image.disk, restored.to_str().unwrap()]);
        assert!(run.status.success(), "{run:?}");
        assert!(fs::read(&restored).unwrap() == image.bytes, "{} of {snapshot} is another one", image.disk);
    }
}

#[test]
fn the_second_reader_reads_what_was_kept_for_long() {
    let retained = retained::repository();
    let (repository, target) = (exported(&retained.store), TempDir::new().unwrap());
    // Of the two days, one needs what was moved, and the other knows it.
    let of_both_days = retained.kept.iter().filter(|kept| kept.disk == "system");
    for (number, kept) in of_both_days.enumerate() {
        let snapshot = retained.snapshot(kept).session().to_string();
        let restored = target.path().join(number.to_string());
        let run = read(repository.path(), &["restore", &snapshot, kept.disk, restored.to_str().unwrap()]);
        assert!(run.status.success(), "{run:?}");
        assert!(fs::read(&restored).unwrap() == kept.bytes, "{} of {} is another one", kept.disk, kept.vm);
    }

    let listed = read(repository.path(), &["snapshots"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ids: Vec<&str> =
        listed.lines().filter(|line| !line.starts_with(' ')).map(|line| &line[..32]).collect();
    let mut expected: Vec<String> =
        retained.kept.iter().map(|kept| retained.snapshot(kept).session().to_string()).collect();
    expected.dedup();
    assert_eq!(ids, expected);
    for forgotten in retained.forgotten {
        let path = target.path().join("forgotten");
        let run =
            read(repository.path(), &["restore", &forgotten.to_string(), "disk0", path.to_str().unwrap()]);
        assert_eq!(run.status.code(), Some(1), "{run:?}");
    }

    let told = read(repository.path(), &["retention"]);
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told == include_str!("golden/version-0-retained-told.txt"), "{told}");
    let checked = read(repository.path(), &["check"]);
    assert!(checked.status.success(), "{checked:?}");
}

/// The repository after all packs of the oldest snapshot were repacked and, at last, deleted: what was repacked once, and
/// the packs that came of it.
fn repacked(end: End) -> (MemoryStore, Vec<golden::Image>) {
    let (store, images) = golden::repository();
    {
        let repository = open(&store);
        let pack = |name: &BlobName| match name.kind() {
            Some(BlobKind::Pack(name)) if name.kind == PackKind::Data => {
                let len = u32::try_from(store.get(&name.blob(), None).unwrap().len()).unwrap();
                Some(PackRef { name, len })
            }
            _ => None,
        };
        let old: Vec<PackRef> = store.names().iter().filter_map(pack).collect();
        let repack = |session, from: &[PackRef], end| {
            Repack { session, from, applies_to: &[], one_in: 1, end }.run(&repository)
        };
        let (one, other) = old.split_at(1);
        let first = repack(0xa1, one, end);
        let second = repack(0xa2, other, end);
        let last = repack(0xa3, std::slice::from_ref(&first), end);
        for gone in old.iter().chain([&first]) {
            store.delete(&gone.name.blob()).unwrap();
        }
        assert!(store.names().contains(&second.name.blob()) && store.names().contains(&last.name.blob()));
    }
    (store, images)
}

#[test]
fn the_second_reader_follows_records_where_packs_are_gone() {
    let (store, images) = repacked(End::Commit);
    let checked = read(exported(&store).path(), &["check"]);
    assert!(checked.status.success(), "{checked:?}");
    let run = restore_oldest(&store, images[1].disk);
    assert!(run.0.status.success() && run.1 == images[1].bytes, "{:?}", run.0);
}

/// Restores a disk of the oldest snapshot.
fn restore_oldest(store: &MemoryStore, disk: &str) -> (Output, Vec<u8>) {
    let (repository, target) = (exported(store), TempDir::new().unwrap());
    let path = target.path().join("disk");
    let oldest = snapshot_of_run(store, 1);
    let run = read(repository.path(), &["restore", &oldest, disk, path.to_str().unwrap()]);
    (run, fs::read(path).unwrap_or_default())
}

/// The snapshot of that run of the golden repository.
fn snapshot_of_run(store: &MemoryStore, run: u64) -> String {
    let found = snapshots::list(&open(store), None).unwrap().snapshots;
    let snapshot = found.into_iter().find(|snapshot| snapshot.commit.time == NOW + run).unwrap();
    snapshot.session().to_string()
}

#[test]
fn the_second_reader_does_not_follow_a_record_that_is_not_signed() {
    let (store, images) = repacked(End::Commit);
    let keys = open(&store).keys().clone();
    let thief = RetentionKey::new([1; 32]);
    for session in [0xa1, 0xa2, 0xa3].map(|byte| SessionId([byte; 16])) {
        let name = BlobName::repack(session);
        let record = RepackRecord::open(&keys, &name, &store.get(&name, None).unwrap()).unwrap();
        let public = PublicKeys { data: keys.data_public_key(), retention: thief.public() };
        let of_thief = Keys::from_inventory(&keys.inventory_key(), keys.repository(), public);
        store.overwrite(&name, &record.seal(&of_thief, &thief, [5; 32]).1);
    }
    let (run, _) = restore_oldest(&store, images[1].disk);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(said.contains("the retention key did not sign it"), "{said}");
}

#[test]
fn the_second_reader_does_not_follow_the_record_of_a_session_that_did_not_repack() {
    for end in [End::Abort, End::Undecided] {
        let (store, images) = repacked(end);
        let (run, _) = restore_oldest(&store, images[1].disk);
        assert_eq!(run.status.code(), Some(3), "{run:?}");
    }
}

#[test]
fn the_second_reader_passes_over_key_slots_that_are_of_no_use() {
    let (store, _) = golden::repository();
    let (name, label) = (SlotName::new("a").unwrap(), String::new());
    let repository = open(&store).config().repository;
    let info = SlotInfo {
        name,
        repository,
        kind: SlotKind::Root,
        label,
        created: NOW,
        kdf: cheap_kdf(),
        salt: [4; 32],
    };
    let of_another_root_key = seal_slot(&info, PASSWORD, &SlotKey::Root(RootKey::new([3; 32]))).unwrap();
    let newer = br#"{"keepstone": "key", "format": 1, "what": {}}"#.to_vec();
    for (name, bytes) in [("0", newer), ("1", b"{".to_vec()), ("a", of_another_root_key)] {
        store.put_new(&BlobName::parse(&format!("keys/{name}")).unwrap(), &bytes).unwrap();
    }
    let directory = exported(&store);
    fs::create_dir(directory.path().join(".tmp")).unwrap();
    fs::write(directory.path().join(".tmp/1"), b"").unwrap();
    let run = read(directory.path(), &["snapshots"]);
    assert!(run.status.success(), "{run:?}");
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(said.matches("this key slot is left out").count(), 2, "{said}");

    fs::remove_file(directory.path().join("keys/first")).unwrap();
    let run = read(directory.path(), &["snapshots"]);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
}

#[test]
fn the_second_reader_agrees_with_the_vectors() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recovery/check_vectors.py");
    let run =
        Command::new(python()).arg(script).env("KEEPSTONE_READER_WITHOUT", "blake3 zstd argon2").output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[test]
fn the_second_reader_finds_a_changed_byte_in_every_kind_of_blob() {
    let (store, _) = golden::repository();
    finds_a_changed_byte(&store, "check", &["config", "keys/", "s/", "d/", "m/", "i/", "r/"]);
    let retained = retained::repository().store;
    let of_a_pruner = ["gc/00000000/condemned", "gc/00000001/result", "gc/00000001/sealed", "k/9", "r/c"];
    finds_a_changed_byte(&retained, "retention", &[&["f/e", "p/2"], &of_a_pruner[..]].concat());
}

/// Changes a byte of the first blob of each kind, in turn.
fn finds_a_changed_byte(store: &MemoryStore, command: &str, kinds: &[&str]) {
    let repository = exported(store);
    let checked = read(repository.path(), &[command]);
    assert!(checked.status.success(), "{checked:?}");
    let names: Vec<String> = store.names().iter().map(ToString::to_string).collect();
    for kind in kinds {
        let name = names.iter().find(|name| name.starts_with(kind)).unwrap();
        let path = repository.path().join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        // In the JSON of the config and of a slot this is within the last member, in hex.
        let place = bad.len() - 20;
        bad[place] = if bad[place] == b'1' { b'2' } else { b'1' };
        fs::write(&path, bad).unwrap();
        let run = read(repository.path(), &[command]);
        fs::write(&path, good).unwrap();
        assert_ne!(run.status.code(), Some(0), "{name}");
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(said.contains(name.as_str()), "{name}: {said}");
    }
}
