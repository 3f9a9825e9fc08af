//! Pins: that a snapshot is to be kept whatever a policy says (SPEC 10.6).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::frame::check_limit;
use crate::ids::SessionId;
use crate::keys::Keys;
use crate::name::{BlobKind, BlobName, DecisionName};
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;

/// That a snapshot is pinned, or is not any more. Of the pins of one snapshot, the one with the highest number in its
/// name decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The session that made the snapshot.
    pub session: SessionId,
    /// The decision that made it a snapshot.
    pub decision: DecisionName,
    /// When the pin was set or taken away.
    pub time: u64,
    /// Whether the snapshot is pinned from now on.
    pub pinned: bool,
    /// Free text for people: at most 255 bytes.
    pub reason: String,
}

impl Pin {
    /// Checks the length of the reason.
    ///
    /// # Errors
    /// A reason of more than 255 bytes.
    pub fn check(&self) -> Result<(), FormatError> {
        check_limit("length of a reason", self.reason.len() as u64, 255)
    }

    /// Encodes the content of the pin: its plaintext but for the signature.
    ///
    /// # Panics
    /// If [`Pin::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a pin that is written is valid");
        let mut writer = Writer::new();
        writer.put(&self.session.0).decision_name(&self.decision).u64(self.time);
        writer.u8(u8::from(self.pinned)).str8(&self.reason);
        writer.finish()
    }

    /// Parses the content of a pin.
    ///
    /// # Errors
    /// Bytes that break PIN-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| {
            let session = reader.session()?;
            let (decision, time) = (reader.decision_name_of(session)?, reader.u64()?);
            Ok(Self { session, decision, time, pinned: reader.flag()?, reason: reader.str8()?.to_owned() })
        })
    }

    /// Signs and seals the pin under a number; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the retention key is another repository's, or [`Pin::check`] finds something wrong.
    #[must_use]
    pub fn seal(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        number: u32,
        salt: [u8; 32],
    ) -> (BlobName, Vec<u8>) {
        let name = BlobName::pin(self.decision.vm, self.session, number);
        let blob = seal_signed(keys, retention, (SealedKind::Pin, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the pin in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the pin that its name calls for; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let pin = Self::parse(&open_signed(keys, SealedKind::Pin, name, blob)?)?;
        match name.kind() {
            Some(BlobKind::Pin { vm, session, .. }) if (vm, session) == (pin.decision.vm, pin.session) => {
                Ok(pin)
            }
            _ => Err(FormatError::BadValue("the pin is not the one that its name calls for")),
        }
    }
}
