//! How to talk to an NBD server.

use std::time::Duration;

/// What is done with ranges that a server says to read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// They are taken for zeros.
    Skipped,
    /// They are read: for a server that repeats what somebody doubtful told it.
    Read,
}

/// How to read or write an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdSettings {
    /// The dirty bitmap that counts what changed, by its name without `qemu:dirty-bitmap:`.
    pub bitmap: Option<String>,
    /// What is done with ranges that the server says to read as zeros.
    pub holes: Holes,
    /// The most connections at a time, where the server says that several see the same; at least one.
    pub connections: usize,
    /// How long a server may be silent while it has something to answer. Not zero.
    pub timeout: Duration,
    /// How long it may take to reach one address of a server. Not zero.
    pub connect_timeout: Duration,
    /// How long making durable may take: what was written may wait in the server's memory until then. Not zero.
    pub flush_timeout: Duration,
    /// How often a lost connection is made anew before a read or a write has failed.
    pub reconnects: u32,
    /// How long to wait before the second and each later time.
    pub reconnect_pause: Duration,
}

impl Default for NbdSettings {
    /// No bitmap, holes skipped, 4 connections, a minute of silence, 20 s to connect, 15 minutes to make
    /// durable, 5 more connections with 2 s between them.
    fn default() -> Self {
        Self {
            bitmap: None,
            holes: Holes::Skipped,
            connections: 4,
            timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(20),
            flush_timeout: Duration::from_mins(15),
            reconnects: 5,
            reconnect_pause: Duration::from_secs(2),
        }
    }
}
