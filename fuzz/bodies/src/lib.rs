//! What each fuzz target does with its bytes.
//!
//! A body takes any bytes, hands them to one decoder and checks what must hold whatever they are: no panic; what is
//! taken is encoded to the same bytes again, where there is one encoding; what was authentic and has been changed is
//! refused. The programs in `fuzz/fuzz_targets` run the bodies under libFuzzer, the tests here run them for a moment.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a body reports what it found")]
#![expect(
    clippy::must_use_candidate,
    reason = "a body is called for what it checks, its value says how deep it came"
)]
#![expect(clippy::similar_names, reason = "encoder and encoded are the words for it")]

mod cache;
mod fields;
mod guest;
mod maps;
mod model;
mod nbd;
mod nbd_server;
mod objects;
mod packs;
mod samples;
mod seeds;
mod soap;
mod text;
#[path = "../../../repo-format/tests/specification/vector.rs"]
mod vector;
mod vectors;

pub use cache::cache_table;
pub use guest::guest_disk;
pub use maps::{node, page};
pub use model::model;
pub use nbd::nbd_client;
pub use nbd_server::nbd_server;
pub use objects::{decision, index, intent, sealed_object, session_objects};
pub use packs::{chunk_frame, pack, pack_directory, pack_header};
pub use soap::soap_answer;
pub use text::{blob_name, changes_file, config, key_slot};
pub use vectors::{VectorInput, vectors};

/// A decoder to fuzz, or the whole engine.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program and of its directory in the corpus.
    pub name: &'static str,
    /// What it does with its bytes; tells whether the decoder took them.
    pub body: fn(&[u8]) -> bool,
    /// Valid inputs, all of which the decoder takes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many mutated inputs a short run tries: fewer where each of them costs more.
    pub short_run: u32,
}

/// All targets.
pub const TARGETS: [Target; 21] = [
    Target { name: "config", body: config, seeds: seeds::config, short_run: 20_000 },
    Target { name: "key_slot", body: key_slot, seeds: seeds::key_slot, short_run: 5000 },
    Target { name: "intent", body: intent, seeds: seeds::intent, short_run: 10_000 },
    Target { name: "decision", body: decision, seeds: seeds::decision, short_run: 20_000 },
    Target { name: "index", body: index, seeds: seeds::index, short_run: 20_000 },
    Target {
        name: "session_objects",
        body: session_objects,
        seeds: seeds::session_objects,
        short_run: 20_000,
    },
    Target { name: "sealed_object", body: sealed_object, seeds: seeds::sealed_object, short_run: 5000 },
    Target { name: "page", body: page, seeds: seeds::page, short_run: 20_000 },
    Target { name: "node", body: node, seeds: seeds::node, short_run: 20_000 },
    Target { name: "pack_header", body: pack_header, seeds: seeds::pack_header, short_run: 2000 },
    Target { name: "pack_directory", body: pack_directory, seeds: seeds::pack_directory, short_run: 10_000 },
    Target { name: "pack", body: pack, seeds: seeds::pack, short_run: 2000 },
    Target { name: "chunk_frame", body: chunk_frame, seeds: seeds::chunk_frame, short_run: 4000 },
    Target { name: "blob_name", body: blob_name, seeds: seeds::blob_name, short_run: 20_000 },
    Target { name: "changes_file", body: changes_file, seeds: seeds::changes_file, short_run: 20_000 },
    Target { name: "cache_table", body: cache_table, seeds: seeds::cache_table, short_run: 300 },
    Target { name: "soap_answer", body: soap_answer, seeds: soap::seeds, short_run: 10_000 },
    Target { name: "nbd_client", body: nbd_client, seeds: nbd::seeds, short_run: 5000 },
    Target { name: "nbd_server", body: nbd_server, seeds: nbd_server::seeds, short_run: 1500 },
    Target { name: "guest_disk", body: guest_disk, seeds: guest::seeds, short_run: 400 },
    Target { name: "model", body: model, seeds: model::seeds, short_run: 40 },
];
