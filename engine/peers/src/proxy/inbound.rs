//! Messages read from a socket.

use super::http::{Body, Head, head_len};
use super::sockets::{Sockets, reset_when_closed};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are read at once.
const READ_LEN: usize = 256 << 10;

/// One side of the proxy: a connection to a client or to the server, and what was read from it but not yet taken.
pub(crate) struct Peer {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) inbound: Inbound,
}

impl Peer {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Self {
        let inbound = Inbound { stream: Arc::clone(&stream), buffer: vec![0; READ_LEN], unread: 0..0 };
        Self { stream, inbound }
    }

    /// Connects to the server.
    pub(crate) fn connect(sockets: &Sockets, to: SocketAddr) -> io::Result<Self> {
        sockets.connect(to).map(Self::new)
    }

    /// Whether another request can be sent: nothing has come since the last answer, no end of the connection either.
    pub(crate) fn is_idle(&self) -> io::Result<bool> {
        if !self.inbound.unread.is_empty() {
            return Ok(false);
        }
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        reset_when_closed(&self.stream);
    }
}

/// What comes from a socket.
pub(crate) struct Inbound {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Inbound {
    /// Reads a head. Nothing if the connection has ended before one.
    ///
    /// # Errors
    /// A connection that breaks or ends in the middle of one, and what is no head.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(len) = head_len(unread)? {
                let head = Head::parse(unread[..len].to_vec())?;
                self.unread.start += len;
                return Ok(Some(head));
            }
            let is_begun = !self.unread.is_empty();
            if !self.fill()? {
                return if is_begun { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
        }
    }

    /// Reads the next bytes of a body, and whether they are its own and not what tells its chunks apart. Nothing after
    /// the last ones.
    ///
    /// # Errors
    /// A connection that breaks or ends in the middle of the body, and chunks that are none.
    pub(crate) fn piece(&mut self, body: &mut Body) -> io::Result<Option<(bool, &mut [u8])>> {
        if body.is_done() {
            return Ok(None);
        }
        if self.unread.is_empty() && !self.fill()? {
            let ends_so = matches!(body, Body::UntilClose);
            return if ends_so { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let piece = body.take(&self.buffer[self.unread.clone()])?;
        let begin = self.unread.start;
        self.unread.start += piece.len;
        Ok(Some((piece.data, &mut self.buffer[begin..begin + piece.len])))
    }

    /// Reads and forgets everything until the other side ends the connection, one way or another.
    pub(crate) fn until_left(&mut self) {
        self.unread = 0..0;
        while self.fill().is_ok_and(|more| more) {
            self.unread = 0..0;
        }
    }

    /// Reads more; false at the end of the connection.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let len = loop {
            match (&*self.stream).read(&mut self.buffer[self.unread.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.unread.end += len;
        Ok(len > 0)
    }
}

/// Writes all of some bytes.
pub(crate) fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)
}
