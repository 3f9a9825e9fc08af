//! Backups that fail at any one store call, in any way, and backups that run at the same time, harm nothing: the
//! repository is opened again, checked, backed up to and restored from.
//!
//! `KEEPSTONE_CRASH_STATES=all` (`make crash`) runs every state instead of a part in which every call fails somehow.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "how much is tested is the environment's to say, not the engine's"
)]

#[path = "../world/mod.rs"]
mod world;

mod creation;
mod history;
mod repeated;
mod sequence;
mod together;
