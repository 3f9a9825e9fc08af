//! Why a disk cannot be read or written over NBD.

use super::wire::WireError;
use crate::tls::TlsError;
use repo_format::limits::DISK_SIZE_MAX;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why an export of an NBD server cannot be used; the payload of the [`io::Error`]s of [`crate::source::NbdDisk`]
/// and of [`crate::target::NbdTarget`].
///
/// `place` is the URI, without parameters for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NbdError {
    /// The server cannot be reached.
    #[error("cannot connect to {place}")]
    Connect {
        /// Which one.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// What answers speaks something else.
    #[error("what answers at {place} is not an NBD server")]
    NotNbd {
        /// Where.
        place: String,
    },
    /// The server speaks the protocol from before exports had names.
    #[error("the server of {place} speaks the oldstyle protocol, which is not supported")]
    OldProtocol {
        /// Which one.
        place: String,
    },
    /// The server has no export of that name.
    #[error("there is no export {export:?} at {place}{}", Known(known))]
    NoExport {
        /// Where.
        place: String,
        /// The export's name.
        export: String,
        /// The names of some that are there, if the server tells.
        known: Vec<String>,
    },
    /// The server wants TLS.
    #[error("the server of {place} wants TLS")]
    TlsRequired {
        /// Which one.
        place: String,
    },
    /// The server does not speak TLS.
    #[error("the server of {place} does not offer TLS")]
    TlsNotOffered {
        /// Which one.
        place: String,
    },
    /// TLS cannot be set up as the place says.
    #[error("cannot speak TLS with {place}")]
    TlsSetup {
        /// Which one.
        place: String,
        /// Why.
        source: TlsError,
    },
    /// What the server's certificate should be for is no host.
    #[error("cannot speak TLS with {place}: {name:?} cannot be the name in a certificate")]
    TlsName {
        /// Which one.
        place: String,
        /// The name.
        name: String,
    },
    /// TLS was begun, and failed.
    #[error("no TLS with the server of {place}")]
    Tls {
        /// Which one.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The server does not do what was asked for before the disk could be read.
    #[error("the server of {place} refuses {asked}: {refusal}{}", Message(message))]
    Refused {
        /// Which one.
        place: String,
        /// Such as "the export".
        asked: &'static str,
        /// Why.
        refusal: Refusal,
        /// What the server says of it; empty if nothing.
        message: String,
    },
    /// The server broke the protocol.
    #[error("the server of {place} does not keep to the NBD protocol")]
    BadMessage {
        /// Which one.
        place: String,
        /// How.
        source: WireError,
    },
    /// The server could not do what it was asked for.
    #[error(
        "the server of {place} could not {action} {length} bytes at {offset}: {error}{}",
        Message(message)
    )]
    Failed {
        /// Which one.
        place: String,
        /// "read", "write", "zero", "trim", "tell the state of".
        action: &'static str,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// Why.
        error: ServerError,
        /// What the server says of it; empty if nothing.
        message: String,
    },
    /// The server said nothing for too long.
    #[error("the server of {place} has not answered for {} s", after.as_secs_f64())]
    TimedOut {
        /// Which one.
        place: String,
        /// For how long.
        after: Duration,
    },
    /// The connection ended.
    #[error("the connection to {place} was lost")]
    Lost {
        /// Where to.
        place: String,
        /// How.
        source: io::Error,
    },
    /// The connection ended again and again.
    #[error("{place} could not be {done}, though its connection was made {tries} times anew")]
    GaveUp {
        /// Where to.
        place: String,
        /// "read" or "written".
        done: &'static str,
        /// How often it was made anew.
        tries: u32,
        /// Why it ended for the last time.
        source: Box<NbdError>,
    },
    /// The export has no bytes.
    #[error("the disk {place} is empty")]
    Empty {
        /// Which one.
        place: String,
    },
    /// The export has more bytes than a disk in a repository can have.
    #[error("the disk {place} has {size} bytes, and {DISK_SIZE_MAX} are allowed")]
    TooLarge {
        /// Which one.
        place: String,
        /// Its length.
        size: u64,
    },
    /// A later connection found another size.
    #[error("the disk {place} changed its size while it was read, from {before} to {after} bytes")]
    SizeChanged {
        /// Which one.
        place: String,
        /// Its size in bytes, when it was opened.
        before: u64,
        /// Its size later.
        after: u64,
    },
    /// A later connection found another kind of export.
    #[error("the export {place} is another than before: its flags were {before:#x} and are {after:#x}")]
    OtherExport {
        /// Which one.
        place: String,
        /// Its transmission flags, when it was opened.
        before: u16,
        /// Its flags later.
        after: u16,
    },
    /// A read does not lie within the disk.
    #[error("{length} bytes at {offset} are not within {place}, of {size} bytes")]
    OutsideDisk {
        /// Which one.
        place: String,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// The disk's size in bytes.
        size: u64,
    },
    /// The export cannot be written.
    #[error("the export {place} is read-only")]
    ReadOnly {
        /// Which one.
        place: String,
    },
    /// The export is smaller than the disk that is to be written to it.
    #[error("{place} has {export_bytes} bytes, the disk has {disk_bytes}")]
    TooSmall {
        /// Which one.
        place: String,
        /// Its size.
        export_bytes: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
    /// The export was not to be overwritten, and not all of it is known to be empty.
    #[error("what is in {place} would be lost")]
    NotEmpty {
        /// Which one.
        place: String,
    },
    /// What the server had taken is not there any more after its connection was lost.
    #[error(
        "the server of {place} has lost what was written at {offset}, {length} bytes, before it was made durable"
    )]
    WritesLost {
        /// Which one.
        place: String,
        /// The first byte of what was found to be lost first.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// The server could not make durable what it had taken.
    #[error("the server of {place} could not make durable what was written: {error}{}", Message(message))]
    NotDurable {
        /// Which one.
        place: String,
        /// Why.
        error: ServerError,
        /// What the server says of it; empty if nothing.
        message: String,
    },
    /// Writing has failed, in this call or before it.
    #[error(transparent)]
    Writing(Arc<NbdError>),
}

impl NbdError {
    /// Whether another connection may do better.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Connect { .. })
    }

    /// Whether the server said nothing.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Writing(error) => error.kind(),
            Self::Connect { source, .. } | Self::Lost { source, .. } | Self::Tls { source, .. } => {
                source.kind()
            }
            Self::NoExport { .. } => io::ErrorKind::NotFound,
            Self::TlsRequired { .. } | Self::Refused { .. } | Self::ReadOnly { .. } => {
                io::ErrorKind::PermissionDenied
            }
            Self::NotEmpty { .. } => io::ErrorKind::AlreadyExists,
            Self::TlsNotOffered { .. } | Self::OldProtocol { .. } => io::ErrorKind::Unsupported,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::GaveUp { .. } => io::ErrorKind::ConnectionAborted,
            Self::Empty { .. }
            | Self::TooLarge { .. }
            | Self::OutsideDisk { .. }
            | Self::TooSmall { .. }
            | Self::TlsSetup { .. }
            | Self::TlsName { .. } => io::ErrorKind::InvalidInput,
            Self::NotNbd { .. }
            | Self::BadMessage { .. }
            | Self::SizeChanged { .. }
            | Self::OtherExport { .. } => io::ErrorKind::InvalidData,
            Self::Failed { error: ServerError::NO_SPACE, .. }
            | Self::NotDurable { error: ServerError::NO_SPACE, .. } => io::ErrorKind::StorageFull,
            Self::WritesLost { .. } | Self::NotDurable { .. } | Self::Failed { .. } => io::ErrorKind::Other,
        }
    }
}

impl From<NbdError> for io::Error {
    fn from(error: NbdError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why a server refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Its settings forbid it.
    Policy,
    /// It does not know it.
    Unsupported,
    /// It takes the request for wrong.
    Invalid,
    /// It is about to end.
    Shutdown,
    /// Another reason, by its number.
    Other(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("its settings forbid it"),
            Self::Unsupported => f.write_str("it does not support that"),
            Self::Invalid => f.write_str("it finds the request invalid"),
            Self::Shutdown => f.write_str("it is shutting down"),
            Self::Other(number) => write!(f, "error {number:#x}"),
        }
    }
}

/// How a server fails a request: a number that the protocol defines, which is Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerError(pub u32);

impl ServerError {
    /// There is no space left.
    pub const NO_SPACE: Self = Self(28);

    /// Whether it tells of a kind of request that the server does not know or take, rather than of a disk that fails.
    pub(crate) fn is_refusal(self) -> bool {
        const INVALID: u32 = 22;
        const NOT_SUPPORTED: u32 = 95;
        matches!(self.0, INVALID | NOT_SUPPORTED)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            1 => "EPERM, not permitted",
            5 => "EIO, an input or output error",
            12 => "ENOMEM, out of memory",
            22 => "EINVAL, an invalid request",
            28 => "ENOSPC, no space left",
            75 => "EOVERFLOW, too much at once",
            95 => "ENOTSUP, not supported",
            108 => "ESHUTDOWN, the server is shutting down",
            other => return write!(f, "error {other}"),
        };
        f.write_str(text)
    }
}

/// Shown behind an error: the names of exports that are there.
struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().enumerate() {
            write!(f, "{}{name:?}", if position == 0 { "; there are " } else { ", " })?;
        }
        Ok(())
    }
}

/// Shown behind an error: what a server says, whatever characters it used.
struct Message<'a>(&'a str);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0.escape_debug()) }
    }
}
