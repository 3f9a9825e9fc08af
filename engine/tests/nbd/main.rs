//! Disks over NBD, from the servers that users have and from one that does what it is told.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod areas;
mod disks;
mod failures;
mod hostile;
mod lost;
mod memory;
mod scripted;
mod servers;
mod target_failures;
mod target_hostile;
mod targets;
mod written;
