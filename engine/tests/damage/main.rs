//! Damage of every kind of blob: found, named, and confined to what the blob holds.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]
#![expect(clippy::cast_possible_truncation, reason = "all lengths are those of bytes in memory")]

#[path = "../world/mod.rs"]
mod world;

#[path = "../protocol/pruner.rs"]
#[expect(dead_code, reason = "the protocol's tests use all of it")]
mod pruner;

mod campaign;
mod harms;
mod lab;
mod matrix;
mod oracle;
mod selecting;
