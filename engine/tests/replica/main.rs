//! Copies of a repository: what is whole there, whatever has arrived.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../world/mod.rs"]
mod world;

#[path = "../prune/scene.rs"]
#[expect(dead_code, reason = "pruning is tested elsewhere")]
mod scene;

mod arrival;
mod dice;
mod history;
mod parts;
mod place;
