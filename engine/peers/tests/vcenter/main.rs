//! The fake vCenter, asked by hand.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod client;
mod failures;
mod folder;
mod hotadd;
mod lies;
mod sessions;
mod snapshots;
mod tracking;
