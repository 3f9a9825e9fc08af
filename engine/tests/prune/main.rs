//! Pruning: what goes, what stays, what is waited for, and what stops it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../world/mod.rs"]
mod world;

mod barrier;
mod compaction;
mod incomplete;
mod interlocks;
mod late;
mod left_out;
mod promotion;
mod readers;
mod refused;
mod repacking;
mod scene;
mod steps;
mod stolen;
mod waiting;
