//! The way to one client: one thread reads, several write whole messages.

use super::tls::{ServerTls, Session};
use crate::frames::lock;
use crate::nbd::channel::Socket;
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};

/// What is read ahead: headers of requests. What is longer goes where it belongs without a copy.
const READ_AHEAD_LEN: usize = 16 << 10;

/// What comes from a client.
pub(super) struct Incoming {
    socket: Socket,
    session: Option<Arc<Session>>,
    ahead: Vec<u8>,
    /// What of it was not taken.
    start: usize,
}

/// What goes to a client.
pub(super) struct Outgoing {
    socket: Mutex<Socket>,
    session: Option<Arc<Session>>,
}

/// Splits a socket.
pub(super) fn split(socket: Socket) -> io::Result<(Incoming, Outgoing)> {
    let outgoing = Outgoing { socket: Mutex::new(socket.another()?), session: None };
    Ok((Incoming { socket, session: None, ahead: Vec::new(), start: 0 }, outgoing))
}

impl Incoming {
    /// Fills a buffer. False if the client ended before it began.
    pub(super) fn fill_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Fills a buffer.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.fill_or_end(buffer)? || buffer.is_empty() {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether there is more that has come already.
    pub(super) fn has_ahead(&self) -> bool {
        self.start < self.ahead.len()
    }

    /// Speaks TLS from now on. Nothing may have been read ahead.
    pub(super) fn encrypted(&mut self, tls: &ServerTls, outgoing: &mut Outgoing) -> io::Result<()> {
        let session = Arc::new(tls.agree(&mut self.socket)?);
        self.session = Some(Arc::clone(&session));
        outgoing.session = Some(session);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.has_ahead() {
            if buffer.len() >= READ_AHEAD_LEN {
                return self.receive(buffer);
            }
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.resize(READ_AHEAD_LEN, 0);
            let received = self.receive(&mut ahead);
            ahead.truncate(*received.as_ref().unwrap_or(&0));
            (self.ahead, self.start) = (ahead, 0);
            received?;
        }
        let rest = &self.ahead[self.start..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.start += count;
        Ok(count)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            None => self.socket.read(buffer),
            Some(session) => session.read(&mut self.socket, buffer),
        }
    }
}

impl Outgoing {
    /// Sends a message whole. After a failure the client gets nothing more.
    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        let mut socket = lock(&self.socket);
        let sent = match &self.session {
            None => io::Write::write_all(&mut *socket, message),
            Some(session) => session.write(&mut socket, message),
        };
        if sent.is_err() {
            socket.shut_down(Shutdown::Both);
        }
        sent
    }

    /// Says that nothing more comes.
    pub(super) fn close(&self) {
        let mut socket = lock(&self.socket);
        if let Some(session) = &self.session {
            // The client may have gone.
            drop(session.close(&mut socket));
        }
        socket.shut_down(Shutdown::Both);
    }
}
