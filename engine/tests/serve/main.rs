//! Disks of snapshots that are read where they are wanted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../world/mod.rs"]
mod world;

mod lab;
mod overlay;
mod server;
mod view;
