//! Pins the format: the same input and randomness give the same blobs, byte for byte, on every machine.
//!
//! A difference means that repositories of today would be written in another way. If that is wanted, SPEC.md and its
//! change log say so, and the list is replaced by what this test prints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::Extent;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore};
use std::fmt::Write;
use std::process::Command;
use world::{back_up, create, memory_index, mixed, noise, small_geometry};

/// Two VMs that share content, one with two disks and a second day.
fn repository() -> MemoryStore {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let mut system = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(mixed(1, 300_001)) };
    let data = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(noise(2, 100_000)) };
    back_up(&repository, &mut index, "alpha", &[("system", &system), ("data", &data)], 1).unwrap();
    system.bytes[100_000..100_512].fill(3);
    system.changes = Some(("day 1".into(), vec![Extent { start: 100_000, length: 512 }]));
    system.change_id = Some("day 2".into());
    let data =
        MemoryDisk { changes: Some(("day 1".into(), Vec::new())), change_id: Some("day 2".into()), ..data };
    back_up(&repository, &mut index, "alpha", &[("system", &system), ("data", &data)], 2).unwrap();
    let mut other = system.bytes.clone();
    other.extend(noise(5, 50_000));
    back_up(&repository, &mut index, "beta", &[("disk0", &MemoryDisk::new(other))], 3).unwrap();
    store
}

fn listing(store: &MemoryStore) -> String {
    let mut text = String::new();
    for name in store.names() {
        let bytes = store.get(&name, None).unwrap();
        writeln!(text, "{} {} {name}", blake3::hash(&bytes), bytes.len()).unwrap();
    }
    text
}

#[test]
fn the_same_input_gives_the_same_blobs() {
    let found = listing(&repository());
    let golden = include_str!("golden/version-0.txt");
    assert!(found == golden, "the blobs have changed; they are now:\n{found}");
}

#[test]
fn the_number_of_threads_does_not_show_in_the_blobs() {
    for threads in ["1", "5"] {
        let this_test_binary = std::env::current_exe().unwrap();
        let run = Command::new(this_test_binary)
            .args(["--exact", "the_same_input_gives_the_same_blobs"])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(run.status.success(), "{threads} threads: {}", String::from_utf8_lossy(&run.stdout));
    }
}
