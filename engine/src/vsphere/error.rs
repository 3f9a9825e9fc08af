//! How talking to a vCenter fails.

use super::fault::FaultKind;
use crate::tls::{TlsError, WrongThumbprint};
use std::error::Error;

/// A question that a vCenter did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VSphereError {
    /// The server could not be reached, or the connection broke. What was asked for may have been done.
    #[error("no answer from {host}")]
    Connection {
        /// The host and the port.
        host: String,
        /// Why. Names no URL.
        source: Box<dyn Error + Send + Sync>,
    },
    /// TLS cannot be spoken with the server: its certificate is not trusted, for one.
    #[error("no trusted connection to {host}")]
    Tls {
        /// The host and the port.
        host: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// TLS cannot be set up on this side.
    #[error("TLS cannot be used")]
    TlsSetup(#[from] TlsError),
    /// The server has another certificate than the pinned one.
    #[error("{host} is not the server that is trusted")]
    WrongThumbprint {
        /// The host and the port.
        host: String,
        /// The two thumbprints.
        source: WrongThumbprint,
    },
    /// The user or the password is wrong.
    #[error("{host} does not accept the user {user:?} with this password")]
    WrongLogin {
        /// The host and the port.
        host: String,
        /// The user.
        user: String,
    },
    /// The server refused, in the words of vSphere.
    #[error("{method} failed with {}: {message}", kind.name())]
    Fault {
        /// What was asked.
        method: &'static str,
        /// Which fault it is.
        kind: FaultKind,
        /// The server's message, in its language.
        message: String,
    },
    /// There is no such object, or it is none of the kind that was asked for.
    #[error("there is no virtual machine {path}")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// The answer is not what the interface says.
    #[error("the answer to {method} cannot be used: {what}")]
    Malformed {
        /// What was asked.
        method: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The server answered with an HTTP status instead of what was asked for.
    #[error("{method} was answered with HTTP status {status}")]
    Status {
        /// What was asked.
        method: &'static str,
        /// The status.
        status: u16,
    },
    /// The answer is longer than any should be.
    #[error("the answer to {method} is longer than {limit} bytes")]
    TooLong {
        /// What was asked.
        method: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
}

impl VSphereError {
    /// The fault, if the server refused with one.
    #[must_use]
    pub fn fault(&self) -> Option<&FaultKind> {
        match self {
            Self::Fault { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// Whether the session has ended, so that nothing was done.
    pub(super) fn is_not_authenticated(&self) -> bool {
        matches!(self.fault(), Some(FaultKind::NotAuthenticated))
    }

    /// Whether the same question may be answered a moment later. It may have been carried out.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Status { status, .. } => matches!(status, 502..=504),
            _ => false,
        }
    }
}
