//! Why a blob service did not do what it was asked for, as callers are told.

use std::fmt;
use std::io;
use std::time::Duration;

/// What a service answered instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The service's own code for it, as in `BlobAlreadyExists`; empty if it gave none.
    pub code: String,
    /// The id of the request, which Microsoft's support asks for.
    pub request: String,
}

impl Answer {
    /// Whether it says that the blob must not be deleted or overwritten yet, whoever asks.
    #[must_use]
    pub fn tells_of_retention(&self) -> bool {
        // Microsoft's list of error codes of the blob service.
        matches!(self.code.as_str(), "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold")
    }

    /// Whether it may say, of a create where there is no such blob, that only object replication creates there. Microsoft
    /// documents the status and no code: it is none of those that are documented for another reason.
    pub(super) fn may_tell_of_replication(&self) -> bool {
        let others =
            ["Container", "Account", "Lease", "BlobAlready", "BlobArchived", "BlobImmutable", "PendingCopy"];
        self.status == 409 && !others.iter().any(|other| self.code.starts_with(other))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, request } = self;
        write!(f, "{status}")?;
        if !code.is_empty() {
            write!(f, " {code}")?;
        }
        if !request.is_empty() {
            write!(f, ", request {request}")?;
        }
        Ok(())
    }
}

/// Why a blob service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The SAS was valid once.
    #[error("the SAS expired at {at} ({answer})")]
    Expired {
        /// When, as the SAS says it.
        at: String,
        /// What the service answered.
        answer: Answer,
    },
    /// The service does not know who asks.
    #[error("the service does not accept the credential ({answer})")]
    Unauthenticated {
        /// What the service answered.
        answer: Answer,
    },
    /// Who asks may not do that.
    #[error("the credential does not allow it ({answer})")]
    Forbidden {
        /// What the service answered.
        answer: Answer,
    },
    /// There is no container of that name.
    #[error("the container does not exist ({answer})")]
    NoContainer {
        /// What the service answered.
        answer: Answer,
    },
    /// The service was too busy each time.
    #[error("the service was too busy in each of {tries} tries ({answer})")]
    Busy {
        /// Tries that were made.
        tries: u32,
        /// What the service answered to the last one.
        answer: Answer,
    },
    /// The service refused it for another reason, or failed each time.
    #[error("the service answered {answer} to the last of {tries} tries")]
    Refused {
        /// Tries that were made.
        tries: u32,
        /// What the service answered to the last one.
        answer: Answer,
    },
    /// The service could not be reached, or the connection broke each time.
    #[error("the connection failed in each of {tries} tries")]
    Connection {
        /// Tries that were made.
        tries: u32,
        /// Why the last one failed.
        source: io::Error,
    },
    /// The service did not answer in time.
    #[error("there was no whole answer in {} s, the last of {tries} tries", waited.as_secs())]
    Late {
        /// Tries that were made.
        tries: u32,
        /// How long the last one waited.
        waited: Duration,
    },
    /// There was no token to ask with.
    #[error("no token for the storage account could be had")]
    Token {
        /// Why.
        source: io::Error,
    },
    /// The names of a listing are not in the order of their bytes.
    #[error("the listing is not in order: {second:?} comes after {first:?}")]
    Unordered {
        /// A name.
        first: String,
        /// The one that was listed after it.
        second: String,
    },
    /// What was answered is not what a blob service answers.
    #[error("the answer is not one of a blob service: {0}")]
    Nonsense(&'static str),
    /// A service that was to copy a blob could not read where it is copied from.
    #[error("the service that copies could not read {from} ({answer})")]
    CopySource {
        /// The blob that it is copied from, with where it is.
        from: Box<str>,
        /// What the service answered that was to copy.
        answer: Answer,
    },
    /// What a service copied, or copies, is not what it is copied from.
    #[error("the copy is not whole: {0}")]
    Copy(&'static str),
    /// It was to be changed at the secondary endpoint of an account.
    #[error("the secondary endpoint of an account is only read")]
    Secondary,
    /// There is no blob of that name, and yet none can be created. So it is where object replication writes.
    #[error("only object replication may write there, it seems ({answer})")]
    ReplicationWrites {
        /// What the service answered.
        answer: Answer,
    },
}

impl ServiceError {
    /// What the service answered, if it did.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Expired { answer, .. }
            | Self::Unauthenticated { answer }
            | Self::Forbidden { answer }
            | Self::NoContainer { answer }
            | Self::Busy { answer, .. }
            | Self::Refused { answer, .. }
            | Self::CopySource { answer, .. }
            | Self::ReplicationWrites { answer } => Some(answer),
            Self::Connection { .. }
            | Self::Late { .. }
            | Self::Token { .. }
            | Self::Unordered { .. }
            | Self::Nonsense(_)
            | Self::Copy(_)
            | Self::Secondary => None,
        }
    }
}
