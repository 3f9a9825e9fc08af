//! How to talk to an NBD server.

use std::time::Duration;

/// How to read an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdSettings {
    /// The dirty bitmap that counts what changed, by its name without `qemu:dirty-bitmap:`.
    pub bitmap: Option<String>,
    /// The most connections at a time, where the server says that several see the same; at least one.
    pub connections: usize,
    /// How long a server may be silent while it has something to answer. Not zero.
    pub timeout: Duration,
    /// How long it may take to reach one address of a server. Not zero.
    pub connect_timeout: Duration,
    /// How often a lost connection is made anew before a read has failed.
    pub reconnects: u32,
    /// How long to wait before the second and each later time.
    pub reconnect_pause: Duration,
}

impl Default for NbdSettings {
    /// No bitmap, 4 connections, a minute of silence, 20 s to connect, 5 more connections with 2 s between them.
    fn default() -> Self {
        Self {
            bitmap: None,
            connections: 4,
            timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(20),
            reconnects: 5,
            reconnect_pause: Duration::from_secs(2),
        }
    }
}
