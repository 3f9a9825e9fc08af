//! TLS with clients: certificates by the names that NBD's own tools give them.

use crate::frames::lock;
use crate::nbd::channel::Socket;
use crate::tls::{TlsError, server_config};
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What is encrypted at a time: the lock is held for so much.
const PIECE_LEN: usize = 256 << 10;
/// What is read from the socket at a time: a record and what comes with it.
const RECORDS_LEN: usize = 32 << 10;

/// Who the server is, and which clients it takes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads `server-cert.pem` and `server-key.pem` of a directory. If there is a `ca-cert.pem`, clients must have a
    /// certificate of that authority.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds what cannot be used.
    pub fn from_directory(directory: &Path) -> Result<Self, TlsError> {
        let authority = directory.join("ca-cert.pem");
        let authority = authority.exists().then_some(authority);
        let (certificate, key) = (directory.join("server-cert.pem"), directory.join("server-key.pem"));
        Ok(Self { config: server_config(&certificate, &key, authority.as_deref())? })
    }

    /// Makes an agreement with a client, over a socket on which nothing else is under way.
    pub(super) fn agree(&self, socket: &mut Socket) -> io::Result<Session> {
        let mut connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        while connection.is_handshaking() {
            connection.complete_io(socket)?;
        }
        Ok(Session { connection: Mutex::new(connection) })
    }
}

/// An agreement with a client. Its lock is never held while the socket is waited for, so that what comes and what goes
/// do not wait for each other.
#[derive(Debug)]
pub(super) struct Session {
    connection: Mutex<ServerConnection>,
}

impl Session {
    /// Reads what a client sent; nothing at its end.
    pub(super) fn read(&self, socket: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut records = Vec::new();
        loop {
            match lock(&self.connection).reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            records.resize(RECORDS_LEN, 0);
            let count = socket.read(&mut records)?;
            let mut rest = &records[..count];
            let mut connection = lock(&self.connection);
            loop {
                connection.read_tls(&mut rest)?;
                connection.process_new_packets().map_err(io::Error::other)?;
                if rest.is_empty() {
                    break;
                }
            }
        }
    }

    /// Sends a message. Only one thread at a time does so.
    pub(super) fn write(&self, socket: &mut Socket, message: &[u8]) -> io::Result<()> {
        let mut records = Vec::new();
        for piece in message.chunks(PIECE_LEN) {
            records.clear();
            let mut connection = lock(&self.connection);
            connection.writer().write_all(piece)?;
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
            drop(connection);
            socket.write_all(&records)?;
        }
        Ok(())
    }

    /// Tells the client that nothing more comes.
    pub(super) fn close(&self, socket: &mut Socket) -> io::Result<()> {
        let mut records = Vec::new();
        let mut connection = lock(&self.connection);
        connection.send_close_notify();
        while connection.wants_write() {
            connection.write_tls(&mut records)?;
        }
        drop(connection);
        socket.write_all(&records)
    }
}
