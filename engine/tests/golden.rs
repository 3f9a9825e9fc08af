//! Pins the format: the same input and randomness give the same blobs, byte for byte, on every machine.
//!
//! A difference means that repositories of today would be written in another way. If that is wanted, SPEC.md and its
//! change log say so, and the list is replaced by what this test prints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/retained.rs"]
mod retained;
#[path = "protocol/watched.rs"]
#[expect(dead_code, reason = "only what acts on a call is of interest here")]
mod watched;
mod world;

use keepstone_engine::EngineError;
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::{BlobStore, MemoryStore};
use repo_format::{
    Abort, AbortBy, Awaited, BlobKind, BlobName, ChunkerName, Condemned, Decision, GcResult, GenerationSeal,
    Keys, PackRef, Pin, RepackRecord, Tombstone,
};
use std::fmt::Write;
use std::iter;
use std::process::Command;
use world::{golden, open, restored, undamaged};

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
fn the_same_retention_gives_the_same_blobs() {
    let found = listing(&retained::repository().store);
    let golden = include_str!("golden/version-0-retained.txt");
    assert!(found == golden, "the blobs of the retention have changed; they are now:\n{found}");
}

/// What the objects of the retention and of pruners say, a line each.
fn told(store: &MemoryStore) -> String {
    let repository = open(store);
    let mut text = String::new();
    for name in store.names() {
        for line in told_by(repository.keys(), &name, &store.get(&name, None).unwrap()) {
            writeln!(text, "{name}: {line}").unwrap();
        }
    }
    text
}

fn told_by(keys: &Keys, name: &BlobName, bytes: &[u8]) -> Vec<String> {
    let packs = |what: &str, packs: &[PackRef]| -> Vec<String> {
        packs.iter().map(|pack| format!("{what} {} of {} bytes", pack.name.blob(), pack.len)).collect()
    };
    match name.kind() {
        Some(BlobKind::Tombstone { .. }) => {
            let Tombstone { time, decision, .. } = Tombstone::open(keys, name, bytes).unwrap();
            vec![format!("forgets {} at {time}", decision.blob())]
        }
        Some(BlobKind::Condemned(n)) => packs("condemns", &Condemned::open(keys, n, bytes).unwrap().packs),
        Some(BlobKind::Awaited(n)) => {
            let Awaited { condemned, sessions } = Awaited::open(keys, n, bytes).unwrap();
            let of = format!("is of the condemned packs in {}", blake3::Hash::from(condemned));
            let waits = sessions.iter().map(|(session, writer)| format!("waits for {session} of {writer}"));
            iter::once(of).chain(waits).collect()
        }
        Some(BlobKind::GcResult(n)) => {
            let GcResult { delete, rescued, covers, earlier } = GcResult::open(keys, n, bytes).unwrap();
            let speaks = vec![format!("speaks for the last {covers}")];
            [
                packs("deletes", &delete),
                packs("rescues", &rescued),
                speaks,
                packs("deleted earlier", &earlier),
            ]
            .concat()
        }
        Some(BlobKind::GenerationSeal(n)) => {
            let GenerationSeal { roster } = GenerationSeal::open(keys, n, bytes).unwrap();
            roster.iter().map(|session| format!("knows {session}")).collect()
        }
        Some(BlobKind::Repack(_)) => told_by_record(&RepackRecord::open(keys, name, bytes).unwrap()),
        Some(BlobKind::Pin { .. }) => {
            let Pin { decision, time, pinned, reason, .. } = Pin::open(keys, name, bytes).unwrap();
            let verb = if pinned { "pins" } else { "unpins" };
            vec![format!("{verb} {} at {time}, reason: {reason}", decision.blob())]
        }
        Some(BlobKind::Decision(decision)) => match Decision::open(keys, &decision, bytes).unwrap() {
            Decision::Abort(Abort { by: AbortBy::Pruner, .. }) => vec!["is an abort by a pruner".into()],
            Decision::Commit(commit) => {
                commit.via.iter().map(|it| format!("passes through k/{it}")).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn told_by_record(record: &RepackRecord) -> Vec<String> {
    let pack = |number: u32| record.packs[number as usize].name.blob();
    let applies = record.applies_to.iter().map(|session| format!("applies to {session}"));
    let leads = record.leads.iter().flat_map(|lead| {
        lead.new.iter().map(|new| format!("leads from {} to {}", pack(lead.old), pack(*new)))
    });
    applies.chain(leads).collect()
}

#[test]
fn the_retention_is_read_back_as_it_was_written() {
    let found = told(&retained::repository().store);
    let golden = include_str!("golden/version-0-retained-told.txt");
    assert!(found == golden, "the retention is read otherwise; it is now:\n{found}");
}

#[test]
fn the_number_of_threads_does_not_show_in_the_blobs() {
    for threads in ["1", "5"] {
        let this_test_binary = std::env::current_exe().unwrap();
        let run = Command::new(this_test_binary)
            .args([
                "--exact",
                "the_same_input_gives_the_same_blobs",
                "the_same_retention_gives_the_same_blobs",
            ])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(run.status.success(), "{threads} threads: {}", String::from_utf8_lossy(&run.stdout));
    }
}

#[test]
fn what_was_not_forgotten_restores_through_the_record_of_what_was_packed_again() {
    let retained = retained::repository();
    let repository = open(&retained.store);
    for kept in &retained.kept {
        let bytes = restored(&repository, &retained.snapshot(kept), kept.disk).unwrap();
        assert!(bytes == kept.bytes, "{} of {}", kept.disk, kept.vm);
    }
    undamaged(&repository);
    assert_eq!(retained.kept.len(), 4);
    for forgotten in retained.forgotten {
        let found = find(&repository, &Selector::Id(forgotten.to_string()));
        assert!(matches!(found, Err(EngineError::NoSuchSnapshot { .. })), "{found:?}");
    }
}

#[test]
fn without_the_records_what_was_packed_again_is_missing() {
    let retained = retained::repository();
    for name in retained.store.names() {
        if matches!(name.kind(), Some(BlobKind::Repack(_))) {
            retained.store.delete(&name).unwrap();
        }
    }
    let repository = open(&retained.store);
    let is_missing = |kept| {
        let restored = restored(&repository, &retained.snapshot(kept), kept.disk);
        restored.is_err_and(|error| error.is_damage())
    };
    assert!(retained.kept.iter().all(is_missing));
}
