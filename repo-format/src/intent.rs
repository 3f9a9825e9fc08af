//! Intents: that a session has begun, and where it will be decided (SPEC 10.1).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::ids::SessionId;
use crate::keys::Keys;
use crate::name::{BlobName, DecisionName};
use crate::seal::{SealedKind, open, seal};

/// The beginning of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The session.
    pub session: SessionId,
    /// The name that its decision will have; it names the session and the writer.
    pub decision: DecisionName,
    /// The highest generation seen when the session began.
    pub generation: u32,
    /// When it began.
    pub time: u64,
}

impl Intent {
    /// Encodes the plaintext of the intent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(&self.session.0).decision_name(&self.decision).u32(self.generation).u64(self.time);
        writer.finish()
    }

    /// Parses the plaintext of an intent.
    ///
    /// # Errors
    /// Bytes that break INTENT-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| {
            let session = reader.session()?;
            let decision = reader.decision_name_of(session)?;
            Ok(Self { session, decision, generation: reader.u32()?, time: reader.u64()? })
        })
    }

    /// Returns the name of the intent's blob.
    #[must_use]
    pub fn name(&self) -> BlobName {
        BlobName::intent(&self.decision.writer, self.session)
    }

    /// Seals the intent; returns the name of its blob and the blob.
    #[must_use]
    pub fn seal(&self, keys: &Keys, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = self.name();
        let blob = seal(keys, SealedKind::Intent, &name, salt, &self.encode());
        (name, blob)
    }

    /// Opens the intent in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the intent that its name calls for.
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let intent = Self::parse(&open(keys, SealedKind::Intent, name, blob)?)?;
        if intent.name() == *name {
            Ok(intent)
        } else {
            Err(FormatError::BadValue("the intent is not the one that its name calls for"))
        }
    }
}
