//! What a place is that was promoted (SPEC 10.8).

use crate::bytes::{Reader, Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::ids::LineageId;
use crate::keys::Keys;
use crate::name::{BlobKind, BlobName, DecisionName};
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;

const SET_ASIDE: &str = "the snapshots set aside";
/// A tag, a writer of one character, a number and a session id.
const DECISION_NAME_LEN_MIN: usize = 16 + 2 + 4 + 16;

/// What happened to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LineageStep {
    /// A replica was promoted: it is written to from now on. The place that it was copied from may be, too.
    Promoted = 1,
    /// Nothing is written any more to the place that it was copied from.
    OtherSideGone = 2,
}

impl LineageStep {
    fn from_number(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Promoted),
            2 => Ok(Self::OtherSideGone),
            found => Err(FormatError::BadType { what: "a lineage's step", found }),
        }
    }
}

/// What a promoted place is. Of the objects of one place, the one with the highest number holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The object's number, from 1.
    pub number: u32,
    /// What tells this promotion from others.
    pub id: LineageId,
    /// When this was told.
    pub time: u64,
    /// What happened.
    pub step: LineageStep,
    /// The first generation that is this place's own; those before it arrived from where it was copied from.
    pub first_generation: u32,
    /// The snapshots that were not whole when the place was promoted, sorted.
    pub set_aside: Vec<DecisionName>,
}

impl Lineage {
    /// Checks the number and the order of the snapshots.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.number == 0 {
            return Err(FormatError::BadValue("the numbers of lineages begin with 1"));
        }
        check_sorted(SET_ASIDE, &self.set_aside)
    }

    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If [`Lineage::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a lineage that is written is valid");
        let mut writer = Writer::new();
        writer.u32(self.number).put(&self.id.0).u64(self.time).u8(self.step as u8);
        writer.u32(self.first_generation).count(self.set_aside.len());
        for name in &self.set_aside {
            writer.decision_name(name);
        }
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break LIN-2.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let lineage = parse_all(bytes, parse_fields)?;
        lineage.check()?;
        Ok(lineage)
    }

    /// Signs and seals the object; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`Lineage::check`] finds something wrong, or the retention key is another repository's.
    #[must_use]
    pub fn seal(&self, keys: &Keys, retention: &RetentionKey, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::lineage(self.number);
        let blob = seal_signed(keys, retention, (SealedKind::Lineage, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the object in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the object that its name calls for; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let lineage = Self::parse(&open_signed(keys, SealedKind::Lineage, name, blob)?)?;
        match name.kind() {
            Some(BlobKind::Lineage(number)) if number == lineage.number => Ok(lineage),
            _ => Err(FormatError::BadValue("the lineage is not the one that its name calls for")),
        }
    }
}

fn parse_fields(reader: &mut Reader<'_>) -> Result<Lineage, FormatError> {
    let (number, id, time) = (reader.u32()?, LineageId(reader.array()?), reader.u64()?);
    let step = LineageStep::from_number(reader.u8()?)?;
    let first_generation = reader.u32()?;
    let count = reader.count(DECISION_NAME_LEN_MIN)?;
    let set_aside = (0..count).map(|_| reader.decision_name()).collect::<Result<_, _>>()?;
    Ok(Lineage { number, id, time, step, first_generation, set_aside })
}
