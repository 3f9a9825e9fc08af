//! Pins the format: the same input and randomness give the same blobs, byte for byte, on every machine.
//!
//! A difference means that repositories of today would be written in another way. If that is wanted, SPEC.md and its
//! change log say so, and the list is replaced by what this test prints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::store::{BlobStore, MemoryStore};
use repo_format::ChunkerName;
use std::fmt::Write;
use std::process::Command;
use world::golden;

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
    for (chunker, golden) in [
        (ChunkerName::FastCdc2020, include_str!("golden/version-0.txt")),
        (ChunkerName::MinCdcHash4, include_str!("golden/version-0-mincdc.txt")),
    ] {
        let (store, _) = golden::repository_of(chunker);
        let found = listing(&store);
        assert!(found == golden, "the blobs with {chunker:?} have changed; they are now:\n{found}");
    }
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
