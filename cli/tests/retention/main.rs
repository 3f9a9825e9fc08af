//! Forgetting, pinning and pruning, as a user does it: in a directory, and in a container of Azurite by several hosts with
//! rights and passwords of their own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloud;
mod forget;
mod prune;
mod scene;
#[path = "../world/mod.rs"]
mod world;
