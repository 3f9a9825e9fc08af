//! Serving a disk over NBD: the fixed newstyle handshake with TLS, structured replies, extended headers and
//! `base:allocation`, for several clients with several requests each.
//!
//! One thread takes clients up. Each client has one that reads its requests, and answers at once what is in memory; up to
//! [`WORKERS_MAX`] more, started when they are needed, do what has to wait, so that replies come in any order.
//!
//! A client harms no other: what it may ask, how long it may take to agree, and how much of its requests and replies are
//! in memory is bounded, and whoever breaks the protocol or takes nothing any more is left.
//!
//! # Memory
//! For each of [`ServerSettings::clients_max`] clients at most `BYTES_IN_FLIGHT` of requests and replies that are under
//! way, with TLS 256 KiB more, and some 64 KiB for its messages; what is served has bounds of its own.

mod channel;
mod export;
mod handshake;
mod pool;
mod socket;
mod tls;
mod transmission;
mod wire;

pub use export::Served;
pub use pool::WORKERS_MAX;
pub use socket::Listener;
pub use tls::ServerTls;

use crate::frames::lock;
use crate::nbd::channel::Socket;
use crate::nbd::wire::WireError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// How often is looked whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What clients have to take their last replies when the server stops.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// How a disk is served.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The export's name. It is the default export too, which has none.
    pub export: String,
    /// What is told of it to whoever asks.
    pub description: String,
    /// Spoken with everybody, if it is there.
    pub tls: Option<ServerTls>,
    /// Connections at a time; further ones are closed at once.
    pub clients_max: usize,
    /// How long a client may take until it has opened the export. Not zero.
    pub handshake_timeout: Duration,
    /// How long a client may take nothing of a reply. Not zero.
    pub send_timeout: Duration,
}

impl ServerSettings {
    /// Settings with 32 connections at a time, half a minute to open the export, and 5 minutes to take a reply.
    #[must_use]
    pub fn new(export: &str, description: &str) -> Self {
        Self {
            export: export.to_owned(),
            description: description.to_owned(),
            tls: None,
            clients_max: 32,
            handshake_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_mins(5),
        }
    }
}

/// What a server tells while it serves; called from any of its threads.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent<'a> {
    /// A client has opened the export.
    Opened {
        /// Which one.
        client: &'a str,
    },
    /// A client has gone.
    Left {
        /// Which one.
        client: &'a str,
        /// Why, if it did not end as it should.
        why: Option<&'a ClientError>,
    },
    /// A client was not taken up, since there are as many as may be, or as the system has threads for.
    Refused {
        /// Which one.
        client: &'a str,
    },
    /// A request failed.
    Failed {
        /// Which client's.
        client: &'a str,
        /// Why: what the client was told.
        text: &'a str,
        /// Whether something stored is damaged or missing.
        is_damage: bool,
    },
}

/// Why a client was left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection ended, or the client took nothing any more.
    #[error("the connection was lost")]
    Lost(#[from] io::Error),
    /// The client broke the protocol.
    #[error("the client broke the protocol")]
    BadMessage(#[from] WireError),
    /// The client asked for too much before it opened the export.
    #[error("the client did not open the export after {options} options")]
    Undecided {
        /// What it asked for.
        options: usize,
    },
    /// The client named an export that there is not, in the way that has no answer for that.
    #[error("there is no export {name:?}")]
    NoExport {
        /// The name.
        name: String,
    },
    /// The client opened the export without TLS.
    #[error("the client did not speak TLS")]
    NoTls,
}

/// Why a disk cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A server answers at the socket.
    #[error("a server is listening at {}", path.display())]
    Listening {
        /// The socket.
        path: PathBuf,
    },
    /// There is another file in the socket's place.
    #[error("{} exists and is no socket", path.display())]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// Clients cannot come in there.
    #[error("could not listen at {place}")]
    Listen {
        /// The socket or the address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// No more clients can be taken up.
    #[error("could not take up clients")]
    Accept(#[source] io::Error),
}

/// What a server did; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// Connections that opened the export.
    pub clients: u64,
    /// Requests to read.
    pub reads: u64,
    /// What they read.
    pub read_bytes: u64,
    /// Requests to write, or to make zeros.
    pub writes: u64,
    /// What they wrote.
    pub written_bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Those of them that failed because something stored is damaged or missing.
    pub damaged: u64,
}

#[derive(Default)]
struct Counts {
    clients: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    failed: AtomicU64,
    damaged: AtomicU64,
}

/// Serves a disk until `is_over` says so, which is asked ten times a second. Requests that have come by then are
/// answered.
///
/// # Errors
/// [`ServeError::Accept`]. What clients do is no error.
pub fn serve(
    disk: Served<'_, '_, '_>,
    listener: &Listener,
    settings: &ServerSettings,
    is_over: &dyn Fn() -> bool,
    events: &(dyn Fn(ServerEvent<'_>) + Sync),
) -> Result<ServerReport, ServeError> {
    let server = Server::new(disk, settings, events);
    let outcome = disk.view().reading_ahead(|| {
        std::thread::scope(|threads| {
            let mut number = 0;
            let outcome = loop {
                if is_over() {
                    break Ok(());
                }
                match listener.accept(LOOK_EVERY) {
                    Ok(None) => {}
                    Ok(Some((socket, name))) => {
                        number += 1;
                        if let Some(client) = server.register(number, &socket, name) {
                            let server = &server;
                            let name = client.name.clone();
                            let attend = move || server.attend(socket, client);
                            if Builder::new().spawn_scoped(threads, attend).is_err() {
                                events(ServerEvent::Refused { client: &name });
                            }
                        }
                    }
                    Err(source) => break Err(ServeError::Accept(source)),
                }
            };
            server.end_clients();
            outcome
        })
    });
    outcome.map(|()| server.counts.report())
}

/// Serves a disk to one client that is connected already, until it leaves; nothing is read ahead for it.
///
/// # Errors
/// If the connection is lost, or the client breaks the protocol.
pub fn serve_client(
    disk: Served<'_, '_, '_>,
    socket: UnixStream,
    settings: &ServerSettings,
    events: &(dyn Fn(ServerEvent<'_>) + Sync),
) -> Result<ServerReport, ClientError> {
    let server = Server::new(disk, settings, events);
    server.converse(Socket::Unix(socket), "the socket")?;
    Ok(server.counts.report())
}

/// A server while it serves.
struct Server<'a, 'v, 'r, 's> {
    disk: Served<'v, 'r, 's>,
    settings: &'a ServerSettings,
    events: &'a (dyn Fn(ServerEvent<'_>) + Sync),
    /// The sockets of those who are here, to end them.
    clients: Mutex<BTreeMap<u64, Socket>>,
    /// Somebody has left.
    left: Condvar,
    counts: Counts,
}

/// A client while it is here.
struct Client<'c> {
    number: u64,
    name: String,
    clients: &'c Mutex<BTreeMap<u64, Socket>>,
    left: &'c Condvar,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        lock(self.clients).remove(&self.number);
        self.left.notify_all();
    }
}

impl<'a, 'v, 'r, 's> Server<'a, 'v, 'r, 's> {
    fn new(
        disk: Served<'v, 'r, 's>,
        settings: &'a ServerSettings,
        events: &'a (dyn Fn(ServerEvent<'_>) + Sync),
    ) -> Self {
        let (clients, left, counts) = (Mutex::default(), Condvar::new(), Counts::default());
        Self { disk, settings, events, clients, left, counts }
    }

    /// Takes up a client, if there is room for it.
    fn register(&self, number: u64, socket: &Socket, name: String) -> Option<Client<'_>> {
        let mut clients = lock(&self.clients);
        let another = socket.another().ok().filter(|_| clients.len() < self.settings.clients_max);
        let Some(another) = another else {
            (self.events)(ServerEvent::Refused { client: &name });
            return None;
        };
        clients.insert(number, another);
        Some(Client { number, name, clients: &self.clients, left: &self.left })
    }

    /// Does what one client asks for, until it leaves.
    #[expect(clippy::needless_pass_by_value, reason = "dropping the client makes room for another")]
    fn attend(&self, socket: Socket, client: Client<'_>) {
        let why = self.converse(socket, &client.name).err();
        (self.events)(ServerEvent::Left { client: &client.name, why: why.as_ref() });
    }

    fn converse(&self, socket: Socket, name: &str) -> Result<(), ClientError> {
        socket.set_write_timeout(self.settings.send_timeout)?;
        let watched = socket.another()?;
        let agreed = handshake::in_time(&watched, self.settings.handshake_timeout, || {
            handshake::agree(socket, self.disk, self.settings)
        })?;
        let Some((incoming, outgoing, terms)) = agreed else { return Ok(()) };
        self.counts.clients.fetch_add(1, Ordering::Relaxed);
        (self.events)(ServerEvent::Opened { client: name });
        let outcome = self.transmit(incoming, &outgoing, terms, name);
        outgoing.close();
        outcome
    }

    /// Has what was asked for answered, and then everybody leave.
    fn end_clients(&self) {
        let all = |how| lock(&self.clients).values().for_each(|socket| socket.shut_down(how));
        all(Shutdown::Read);
        let are_here = |clients: &mut BTreeMap<u64, Socket>| !clients.is_empty();
        let waited = self.left.wait_timeout_while(lock(&self.clients), LAST_REPLIES, are_here);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        all(Shutdown::Both);
    }
}

impl Counts {
    fn report(&self) -> ServerReport {
        let Self { clients, reads, read_bytes, writes, written_bytes, failed, damaged } = self;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerReport {
            clients: count(clients),
            reads: count(reads),
            read_bytes: count(read_bytes),
            writes: count(writes),
            written_bytes: count(written_bytes),
            failed: count(failed),
            damaged: count(damaged),
        }
    }
}
