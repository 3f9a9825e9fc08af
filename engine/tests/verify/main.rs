//! What a verification finds of each kind of damage, and what it leaves alone.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]
#![expect(clippy::cast_possible_truncation, reason = "all sizes are small")]

#[path = "../world/mod.rs"]
mod world;

#[path = "../protocol/pruner.rs"]
#[expect(dead_code, reason = "the protocol's tests use all of it")]
mod pruner;

mod indexes;
mod lab;
mod maps;
mod objects;
mod packs;
mod places;
mod scope;
mod sessions;
