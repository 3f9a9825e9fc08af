//! The way to a server: a socket, and what of it was read ahead.

use super::error::NbdError;
use super::place::{NbdPlace, Server};
use super::tls::Tls;
use super::wire::WireError;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, BufReader, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is read ahead: headers of replies. Whatever is longer goes where it belongs without a copy.
const READ_AHEAD_LEN: usize = 8 << 10;

/// A socket of either kind.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects, within `timeout` for each address of a host.
    pub(super) fn connect(place: &NbdPlace, timeout: Duration) -> Result<Self, NbdError> {
        let connected = match &place.server {
            Server::Tcp { host, port } => connect_tcp(host, *port, timeout).map(Self::Tcp),
            Server::Unix(path) => connect_unix(path).map(Self::Unix),
        };
        connected.map_err(|source| NbdError::Connect { place: place.to_string(), source })
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => {
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))
            }
            Self::Unix(socket) => {
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))
            }
        }
    }
}

fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // Requests are small and must not wait for one another.
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match path.as_os_str().as_bytes() {
        [0, name @ ..] => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        _ => UnixStream::connect(path),
    }
}

impl io::Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(bytes),
            Self::Unix(socket) => socket.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket, with or without TLS.
#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(bytes),
            Self::Tls(stream) => stream.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// What messages come from and go to.
#[derive(Debug)]
pub(super) struct Channel {
    reader: BufReader<Stream>,
    /// The server, as errors name it.
    place: Arc<str>,
    timeout: Duration,
}

impl Channel {
    /// A channel on which the server may be silent for `timeout`, which is not zero.
    pub(super) fn new(socket: Socket, place: Arc<str>, timeout: Duration) -> Result<Self, NbdError> {
        let mut channel = Self::of(Stream::Plain(socket), place, timeout);
        channel.set_timeout(timeout)?;
        Ok(channel)
    }

    fn of(stream: Stream, place: Arc<str>, timeout: Duration) -> Self {
        Self { reader: BufReader::with_capacity(READ_AHEAD_LEN, stream), place, timeout }
    }

    /// Speaks TLS from now on, and makes sure of who the server is.
    pub(super) fn encrypted(self, tls: &Tls) -> Result<Self, NbdError> {
        if !self.reader.buffer().is_empty() {
            return Err(self.bad(WireError::BeforeTls));
        }
        let Self { reader, place, timeout } = self;
        let Stream::Plain(mut socket) = reader.into_inner() else { unreachable!("TLS begins once") };
        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        let begun = connection.map_err(io::Error::other).and_then(|mut connection| {
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            Ok(connection)
        });
        match begun {
            Ok(connection) => {
                let stream = Stream::Tls(Box::new(StreamOwned::new(connection, socket)));
                Ok(Self::of(stream, place, timeout))
            }
            Err(source) if is_timeout(&source) => Err(timed_out(&place, timeout)),
            Err(source) => Err(NbdError::Tls { place: place.to_string(), source }),
        }
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<(), NbdError> {
        self.timeout = timeout;
        self.reader.get_ref().socket().set_timeout(timeout).map_err(|error| self.lost(error))
    }

    pub(super) fn place(&self) -> String {
        self.place.to_string()
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), NbdError> {
        let socket = self.reader.get_mut();
        let sent = socket.write_all(message).and_then(|()| socket.flush());
        sent.map_err(|error| self.lost(error))
    }

    /// Sends two parts of a message, without joining them in memory.
    pub(super) fn send_both(&mut self, head: &[u8], data: &[u8]) -> Result<(), NbdError> {
        let socket = self.reader.get_mut();
        let sent = write_all_vectored(socket, &mut [IoSlice::new(head), IoSlice::new(data)]);
        sent.and_then(|()| socket.flush()).map_err(|error| self.lost(error))
    }

    /// What ends the connection from another thread.
    pub(super) fn closer(&self) -> Result<Closer, NbdError> {
        let socket = self.reader.get_ref().socket().try_clone();
        socket.map(Closer).map_err(|error| self.lost(error))
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), NbdError> {
        self.reader.read_exact(buffer).map_err(|error| self.lost(error))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `len` bytes, a number that was compared with a limit.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Vec<u8>, NbdError> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn bad(&self, source: WireError) -> NbdError {
        NbdError::BadMessage { place: self.place(), source }
    }

    fn lost(&self, source: io::Error) -> NbdError {
        if is_timeout(&source) {
            return timed_out(&self.place, self.timeout);
        }
        NbdError::Lost { place: self.place(), source }
    }
}

fn write_all_vectored(writer: &mut impl io::Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Parts without a byte are passed over first: writing none is how a socket says that it takes no more.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match writer.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a connection that another thread may be waiting on.
#[derive(Debug)]
pub(crate) struct Closer(Socket);

impl Closer {
    /// Ends it; whoever waits finds it lost.
    pub(crate) fn close(&self) {
        // One that has ended cannot be ended, and that is as well.
        let _ended_already = match &self.0 {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

/// Whether it is what a socket says when its timeout has passed.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn timed_out(place: &str, after: Duration) -> NbdError {
    NbdError::TimedOut { place: place.to_owned(), after }
}
