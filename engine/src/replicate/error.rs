//! How replication fails, beyond what fails anywhere.

use repo_format::BlobName;

/// Why something is not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The repository is written to at the destination.
    #[error("the destination is no replica: the repository is written to there")]
    NotAReplica,
    /// The destination was promoted.
    #[error("the destination was promoted: the repository is written to there, too")]
    Promoted,
    /// The destination is declared to be a replica, but has what the source never had.
    #[error("the destination has {name}, which the source has not: it was written to")]
    WrittenTo {
        /// A decision.
        name: BlobName,
    },
    /// A blob at the destination is not as long as it is declared to be.
    #[error("{name} has {found} bytes at the destination, and should have {expected}: the copy is damaged")]
    OtherLength {
        /// The blob.
        name: BlobName,
        /// Its length at the destination.
        found: u64,
        /// The length that is declared.
        expected: u64,
    },
    /// A blob at the destination has other bytes than that of the source.
    #[error("{name} has other bytes at the destination than at the source: one of them is damaged")]
    OtherBytes {
        /// The blob.
        name: BlobName,
    },
    /// A blob that was copied is not listed at the destination.
    #[error("{name} was copied, and a listing of the destination does not show it")]
    NotListed {
        /// The blob.
        name: BlobName,
    },
}

impl ReplicateError {
    /// Whether it tells of what is stored, and not of a place that is of no use.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::OtherLength { .. } | Self::OtherBytes { .. })
    }
}
