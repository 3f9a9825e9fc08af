//! The mark of a place that is filled from another one (SPEC 10.8).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::frame::check_limit;
use crate::keys::Keys;
use crate::limits::PLACE_LEN_MAX;
use crate::name::BlobName;
use crate::seal::{SealedKind, open, seal};

/// That a place is a replica: a copy of a repository, which is filled from elsewhere and not written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMarker {
    /// When the place was made a replica.
    pub time: u64,
    /// Where it is filled from, for people: at most 4096 bytes, without secrets.
    pub source: String,
}

impl ReplicaMarker {
    /// Checks the length of the source.
    ///
    /// # Errors
    /// A source of more than 4096 bytes.
    pub fn check(&self) -> Result<(), FormatError> {
        check_limit("length of a place", self.source.len() as u64, PLACE_LEN_MAX)
    }

    /// Encodes the plaintext of the marker.
    ///
    /// # Panics
    /// If [`ReplicaMarker::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a marker that is written is valid");
        let mut writer = Writer::new();
        writer.u64(self.time).str16(&self.source);
        writer.finish()
    }

    /// Parses the plaintext of a marker.
    ///
    /// # Errors
    /// Bytes that break LIN-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let marker =
            parse_all(bytes, |reader| Ok(Self { time: reader.u64()?, source: reader.str16()?.to_owned() }))?;
        marker.check()?;
        Ok(marker)
    }

    /// Seals the marker; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`ReplicaMarker::check`] finds something wrong.
    #[must_use]
    pub fn seal(&self, keys: &Keys, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::replica_marker();
        let blob = seal(keys, SealedKind::ReplicaMarker, &name, salt, &self.encode());
        (name, blob)
    }

    /// Opens the marker of a place.
    ///
    /// # Errors
    /// A blob that is not authentic or not a marker.
    pub fn open(keys: &Keys, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open(keys, SealedKind::ReplicaMarker, &BlobName::replica_marker(), blob)?)
    }
}
