//! Tombstones: that a snapshot is forgotten (SPEC 10.3).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::ids::SessionId;
use crate::keys::Keys;
use crate::name::{BlobName, DecisionName};
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;

/// The end of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The session that made the snapshot.
    pub session: SessionId,
    /// When the snapshot was forgotten.
    pub time: u64,
    /// The decision that made it a snapshot.
    pub decision: DecisionName,
}

impl Tombstone {
    /// Encodes the content of the tombstone: its plaintext but for the signature.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(&self.session.0).u64(self.time).decision_name(&self.decision);
        writer.finish()
    }

    /// Parses the content of a tombstone.
    ///
    /// # Errors
    /// Bytes that break TOMB-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| {
            let (session, time) = (reader.session()?, reader.u64()?);
            Ok(Self { session, time, decision: reader.decision_name_of(session)? })
        })
    }

    /// Returns the name of the tombstone's blob.
    #[must_use]
    pub fn name(&self) -> BlobName {
        BlobName::tombstone(self.decision.vm, self.session)
    }

    /// Signs and seals the tombstone; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the retention key is another repository's.
    #[must_use]
    pub fn seal(&self, keys: &Keys, retention: &RetentionKey, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = self.name();
        let blob = seal_signed(keys, retention, (SealedKind::Tombstone, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the tombstone in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the tombstone that its name calls for; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let tombstone = Self::parse(&open_signed(keys, SealedKind::Tombstone, name, blob)?)?;
        if tombstone.name() == *name {
            Ok(tombstone)
        } else {
            Err(FormatError::BadValue("the tombstone is not the one that its name calls for"))
        }
    }
}
