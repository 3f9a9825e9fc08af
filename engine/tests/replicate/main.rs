//! Copying restore points to another place: what is there is whole, whatever happens.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod copying;
mod deleting;
mod destinations;
mod meanwhile;
mod misread;
mod moved;
mod place;
mod promoted;
#[expect(dead_code, reason = "the tests of pruning use all of it")]
#[path = "../prune/scene.rs"]
mod scene;
mod stops;
mod verified;
#[path = "../world/mod.rs"]
mod world;
