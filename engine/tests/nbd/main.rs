//! Disks over NBD, from the servers that users have.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod areas;
mod disks;
mod failures;
mod servers;
