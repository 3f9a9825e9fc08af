//! Where clients come in: a socket in the file system, or addresses of this host.

use super::ServeError;
use crate::nbd::channel::Socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, chmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::fmt;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clients that may wait to be taken up.
const BACKLOG: i32 = 64;

/// A place where clients connect.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unix { listener: UnixListener, path: PathBuf, file: (u64, u64) },
    Tcp { listener: TcpListener, address: SocketAddr },
}

impl Listener {
    /// Makes a socket of mode 0600 at a path. One whose server has gone is replaced.
    ///
    /// # Errors
    /// [`ServeError::Listening`] if a server answers there; [`ServeError::NoSocket`] for any other file;
    /// [`ServeError::Listen`].
    pub fn unix(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Listen { place: path.display().to_string(), source };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(ServeError::NoSocket { path: path.to_owned() });
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(ServeError::Listening { path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = bound(path).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self { kind: Kind::Unix { listener, path: path.to_owned(), file } })
    }

    /// Listens at an address of this host.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub fn tcp(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Listen { place: address.to_string(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { kind: Kind::Tcp { listener, address } })
    }

    /// The address, with the port that the system chose where none was named; nothing for a socket in the file system.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Unix { .. } => None,
            Kind::Tcp { address, .. } => Some(*address),
        }
    }

    /// Waits for a client, at most so long. One that cannot be taken up now is tried again by the next call.
    pub(super) fn accept(&self, timeout: Duration) -> io::Result<Option<(Socket, String)>> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let ready = match &self.kind {
            Kind::Unix { listener, .. } => poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)),
            Kind::Tcp { listener, .. } => poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)),
        };
        match ready {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return passed(errno.into(), &timeout),
        }
        let accepted = match &self.kind {
            Kind::Unix { listener, .. } => {
                listener.accept().map(|(socket, _)| (Socket::Unix(socket), "the socket".to_owned()))
            }
            Kind::Tcp { listener, .. } => {
                listener.accept().map(|(socket, peer)| (Socket::Tcp(socket), peer.to_string()))
            }
        };
        match accepted {
            // One that cannot be prepared has gone again.
            Ok((socket, name)) => Ok(socket.prepare().ok().map(|()| (socket, name))),
            Err(error) => passed(error, &timeout),
        }
    }
}

/// Waits for what a system lacks to take up a client: it may be ready already, and stays so. What is wrong with the
/// listener itself does not pass.
fn passed<T>(error: io::Error, timeout: &Timespec) -> io::Result<Option<T>> {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    match Errno::from_io_error(&error) {
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) | None => Err(error),
        // These were of one client, which has gone.
        Some(_) if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset) => {
            Ok(None)
        }
        Some(_) => match poll(&mut [], Some(timeout)) {
            Ok(_) | Err(Errno::INTR | Errno::NOMEM) => Ok(None),
            Err(errno) => Err(errno.into()),
        },
    }
}

/// Nobody can connect before the mode is set: until then nothing listens.
fn bound(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let mode = chmod(path, Mode::RUSR | Mode::WUSR);
    let listening = mode.and_then(|()| listen(&socket, BACKLOG));
    if let Err(error) = listening {
        fs::remove_file(path)?;
        return Err(error.into());
    }
    Ok(UnixListener::from(socket))
}

impl Drop for Listener {
    /// Removes the socket's file, unless it is another one by now.
    fn drop(&mut self) {
        if let Kind::Unix { path, file, .. } = &self.kind
            && fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == *file)
        {
            drop(fs::remove_file(path));
        }
    }
}

/// The place as an NBD URI without TLS, for the default export.
impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unix { path, .. } => write!(formatter, "{}", path.display()),
            Kind::Tcp { address, .. } => address.fmt(formatter),
        }
    }
}

impl Socket {
    /// Makes an accepted socket one that blocks, whose short messages do not wait, and whose dead peers are noticed.
    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(false)?;
                socket.set_nodelay(true)?;
                rustix::net::sockopt::set_socket_keepalive(socket, true)?;
                Ok(())
            }
            Self::Unix(socket) => socket.set_nonblocking(false),
        }
    }

    pub(super) fn another(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    pub(super) fn shut_down(&self, how: Shutdown) {
        // It may be closed already.
        drop(match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        });
    }

    pub(super) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_write_timeout(Some(timeout)),
            Self::Unix(socket) => socket.set_write_timeout(Some(timeout)),
        }
    }
}
