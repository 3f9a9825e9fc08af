//! Copying restore points to another place, as a user does it: between directories, and to, from and between two accounts
//! of Azurite.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloud;
mod ended;
mod local;
mod scene;
#[path = "../world/mod.rs"]
mod world;
