//! The pruner's generations (SPEC 10.4).

use crate::bytes::{Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::PackRef;
use crate::ids::{SessionId, WriterId};
use crate::keys::Keys;
use crate::name::BlobName;
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;
use crate::table::{check_packs, read_table, write_table};

const ROSTER: &str = "the sessions of a roster";
const AWAITED: &str = "the awaited sessions";

/// The packs that a generation is to delete if nothing turns out to need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// The packs, sorted.
    pub packs: Vec<PackRef>,
}

impl Condemned {
    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If the packs are not sorted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        check_packs(&self.packs).expect("a list that is written is valid");
        let mut writer = Writer::new();
        write_table(&mut writer, &self.packs);
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break GC-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| Ok(Self { packs: read_table(reader)? }))
    }

    /// Signs and seals the list of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the packs are not sorted, or the retention key is another repository's.
    #[must_use]
    pub fn seal(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        generation: u32,
        salt: [u8; 32],
    ) -> (BlobName, Vec<u8>) {
        let name = BlobName::condemned(generation);
        let blob = seal_signed(keys, retention, (SealedKind::Condemned, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the list of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not such a list; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open_signed(keys, SealedKind::Condemned, &BlobName::condemned(generation), blob)?)
    }
}

/// The sessions that a generation waits for: those that had begun and were not decided when intents were listed, after its
/// condemned packs were published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// BLAKE3 of the blob that lists the condemned packs: of no other one does this list say anything.
    pub condemned: [u8; 32],
    /// Each session and its writer, sorted. Ids alone are no identity: other writers can use one again.
    pub sessions: Vec<(SessionId, WriterId)>,
}

impl Awaited {
    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If the sessions are not sorted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        check_sorted(AWAITED, &self.sessions).expect("a list that is written is sorted");
        let mut writer = Writer::new();
        writer.put(&self.condemned).owned_sessions(&self.sessions);
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break GC-4.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| {
            Ok(Self { condemned: reader.array()?, sessions: reader.owned_sessions(AWAITED)? })
        })
    }

    /// Signs and seals the list of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the sessions are not sorted, or the retention key is another repository's.
    #[must_use]
    pub fn seal(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        generation: u32,
        salt: [u8; 32],
    ) -> (BlobName, Vec<u8>) {
        let name = BlobName::awaited(generation);
        let blob = seal_signed(keys, retention, (SealedKind::Awaited, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the list of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not such a list; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open_signed(keys, SealedKind::Awaited, &BlobName::awaited(generation), blob)?)
    }
}

/// What became of a generation's condemned packs, and what earlier generations deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcResult {
    /// The packs to delete, sorted.
    pub delete: Vec<PackRef>,
    /// The packs that turned out to be needed, sorted.
    pub rescued: Vec<PackRef>,
    /// How many generations this result speaks for: itself and the ones right before it. At least 1.
    pub covers: u32,
    /// The packs that those earlier generations deleted, sorted; none if there are no such generations.
    pub earlier: Vec<PackRef>,
}

impl GcResult {
    /// Checks that all lists are sorted, and that what is told of earlier generations is of some.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        check_packs(&self.delete)?;
        check_packs(&self.rescued)?;
        check_packs(&self.earlier)?;
        match self.covers {
            0 => Err(FormatError::BadValue("a result does not speak for its own generation")),
            1 if !self.earlier.is_empty() => {
                Err(FormatError::BadValue("a result lists packs of earlier generations but speaks for none"))
            }
            _ => Ok(()),
        }
    }

    fn check_of(&self, generation: u32) -> Result<(), FormatError> {
        self.check()?;
        if self.covers.saturating_sub(1) > generation {
            return Err(FormatError::BadValue("a result speaks for more generations than there were"));
        }
        Ok(())
    }

    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If [`GcResult::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a result that is written is valid");
        let mut writer = Writer::new();
        write_table(&mut writer, &self.delete);
        write_table(&mut writer, &self.rescued);
        writer.u32(self.covers);
        write_table(&mut writer, &self.earlier);
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break GC-2.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let result = parse_all(bytes, |reader| {
            let (delete, rescued) = (read_table(reader)?, read_table(reader)?);
            Ok(Self { delete, rescued, covers: reader.u32()?, earlier: read_table(reader)? })
        })?;
        result.check()?;
        Ok(result)
    }

    /// Signs and seals the result of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`GcResult::check`] finds something wrong, the result speaks for more generations than there were, or the
    /// retention key is another repository's.
    #[must_use]
    pub fn seal(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        generation: u32,
        salt: [u8; 32],
    ) -> (BlobName, Vec<u8>) {
        self.check_of(generation).expect("a result that is written is valid");
        let name = BlobName::result(generation);
        let blob = seal_signed(keys, retention, (SealedKind::GcResult, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the result of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not a result; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        let name = BlobName::result(generation);
        let result = Self::parse(&open_signed(keys, SealedKind::GcResult, &name, blob)?)?;
        result.check_of(generation)?;
        Ok(result)
    }
}

/// The end of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationSeal {
    /// The snapshots that there were when the generation ended, sorted.
    pub roster: Vec<SessionId>,
}

impl GenerationSeal {
    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If the roster is not sorted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        check_sorted(ROSTER, &self.roster).expect("a roster that is written is sorted");
        let mut writer = Writer::new();
        writer.sessions(&self.roster);
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break GC-3.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| Ok(Self { roster: reader.sessions(ROSTER)? }))
    }

    /// Signs and seals the end of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the roster is not sorted, or the retention key is another repository's.
    #[must_use]
    pub fn seal(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        generation: u32,
        salt: [u8; 32],
    ) -> (BlobName, Vec<u8>) {
        let name = BlobName::generation_seal(generation);
        let blob = seal_signed(keys, retention, (SealedKind::GenerationSeal, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the end of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not a seal; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        let name = BlobName::generation_seal(generation);
        Self::parse(&open_signed(keys, SealedKind::GenerationSeal, &name, blob)?)
    }
}
