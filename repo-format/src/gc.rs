//! The pruner's generations (SPEC 10.4).

use crate::bytes::{Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::PackRef;
use crate::ids::SessionId;
use crate::keys::Keys;
use crate::name::BlobName;
use crate::seal::{SealedKind, open, seal};
use crate::table::{check_packs, read_table, write_table};

/// The packs that a generation is to delete if nothing turns out to need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// The packs, sorted.
    pub packs: Vec<PackRef>,
}

impl Condemned {
    /// Encodes the plaintext.
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

    /// Parses the plaintext.
    ///
    /// # Errors
    /// Bytes that break GC-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| Ok(Self { packs: read_table(reader)? }))
    }

    /// Seals the list of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If the packs are not sorted.
    #[must_use]
    pub fn seal(&self, keys: &Keys, generation: u32, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::condemned(generation);
        let blob = seal(keys, SealedKind::Condemned, &name, salt, &self.encode());
        (name, blob)
    }

    /// Opens the list of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not such a list.
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open(keys, SealedKind::Condemned, &BlobName::condemned(generation), blob)?)
    }
}

/// What became of a generation's condemned packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcResult {
    /// The packs to delete, sorted.
    pub delete: Vec<PackRef>,
    /// The packs that turned out to be needed, sorted.
    pub rescued: Vec<PackRef>,
    /// The valid roots that were marked from, sorted.
    pub roster: Vec<SessionId>,
}

impl GcResult {
    /// Checks that all lists are sorted.
    ///
    /// # Errors
    /// The list that is not.
    pub fn check(&self) -> Result<(), FormatError> {
        check_packs(&self.delete)?;
        check_packs(&self.rescued)?;
        check_sorted("the sessions of a roster", &self.roster)
    }

    /// Encodes the plaintext.
    ///
    /// # Panics
    /// If [`GcResult::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a result that is written is valid");
        let mut writer = Writer::new();
        write_table(&mut writer, &self.delete);
        write_table(&mut writer, &self.rescued);
        writer.sessions(&self.roster);
        writer.finish()
    }

    /// Parses the plaintext.
    ///
    /// # Errors
    /// Bytes that break GC-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        parse_all(bytes, |reader| {
            let (delete, rescued) = (read_table(reader)?, read_table(reader)?);
            Ok(Self { delete, rescued, roster: reader.sessions("the sessions of a roster")? })
        })
    }

    /// Seals the result of a generation; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`GcResult::check`] finds something wrong.
    #[must_use]
    pub fn seal(&self, keys: &Keys, generation: u32, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::result(generation);
        let blob = seal(keys, SealedKind::GcResult, &name, salt, &self.encode());
        (name, blob)
    }

    /// Opens the result of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not a result.
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open(keys, SealedKind::GcResult, &BlobName::result(generation), blob)?)
    }
}

/// The end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationSeal;

impl GenerationSeal {
    /// Seals a generation; returns the name of its blob and the blob.
    #[must_use]
    pub fn seal(keys: &Keys, generation: u32, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::generation_seal(generation);
        let blob = seal(keys, SealedKind::GenerationSeal, &name, salt, &[]);
        (name, blob)
    }

    /// Checks the seal of a generation.
    ///
    /// # Errors
    /// A blob that is not authentic or not a seal.
    pub fn open(keys: &Keys, generation: u32, blob: &[u8]) -> Result<Self, FormatError> {
        let name = BlobName::generation_seal(generation);
        parse_all(&open(keys, SealedKind::GenerationSeal, &name, blob)?, |_| Ok(Self))
    }
}
