//! Replicas as a user meets them: what is whole there, and what is offered.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copied;
mod promoted;
mod reading;
mod status;
#[path = "../world/mod.rs"]
mod world;
