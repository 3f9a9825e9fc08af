//! The parameters that a repository is cut and packed by (CONF-4).

use crate::error::FormatError;
use crate::limits::CHUNK_LEN_MAX;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

const _: () = assert!(CHUNK_LEN_MAX == MIB as usize);

/// How boundaries of chunks are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkerName {
    /// `fastcdc-2020` (CHUNK-2).
    FastCdc2020,
    /// `mincdc-hash4` (CHUNK-4).
    MinCdcHash4,
}

impl ChunkerName {
    /// Returns the name as it stands in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FastCdc2020 => "fastcdc-2020",
            Self::MinCdcHash4 => "mincdc-hash4",
        }
    }

    /// Reads the name as it stands in the config.
    ///
    /// # Errors
    /// A chunker that is not known.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        match text {
            "fastcdc-2020" => Ok(Self::FastCdc2020),
            "mincdc-hash4" => Ok(Self::MinCdcHash4),
            _ => Err(FormatError::BadValue("the chunker is not known")),
        }
    }
}

/// A chunker with the lengths that it aims at, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkerParams {
    /// The chunker.
    pub name: ChunkerName,
    /// The shortest chunk, except for the last one of a region.
    pub min: u32,
    /// The length that is aimed at: of most chunks with FastCDC, the middle of `min` and `max` with MinCDC.
    pub average: u32,
    /// The longest chunk.
    pub max: u32,
}

impl ChunkerParams {
    /// Returns the lengths that repositories are made with (SPEC section 4).
    #[must_use]
    pub fn of(name: ChunkerName) -> Self {
        let (min, average, max) = match name {
            ChunkerName::FastCdc2020 => (8 * KIB, 32 * KIB, 128 * KIB),
            ChunkerName::MinCdcHash4 => (20 * KIB, 42 * KIB, 64 * KIB),
        };
        Self { name, min, average, max }
    }

    fn lengths_are_allowed(&self) -> bool {
        let Self { name, min, average, max } = *self;
        let ordered = 64 <= min && min <= average && average <= max;
        ordered
            && match name {
                ChunkerName::FastCdc2020 => {
                    [min, average, max].iter().all(|len| len & 1 == 0) && average >= 256
                }
                ChunkerName::MinCdcHash4 => average == min.midpoint(max),
            }
    }
}

impl Default for ChunkerParams {
    /// Returns the defaults of SPEC section 4.
    fn default() -> Self {
        Self::of(ChunkerName::MinCdcHash4)
    }
}

/// How disks are divided, and how large packs become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// How regions are cut into chunks.
    pub chunker: ChunkerParams,
    /// The length of a region, in bytes.
    pub region_len: u32,
    /// The length of a cell, in bytes.
    pub cell_len: u32,
    /// The length at which a pack is closed, in bytes.
    pub pack_len: u32,
}

impl Default for Geometry {
    /// Returns the defaults of SPEC section 4.
    fn default() -> Self {
        Self { chunker: ChunkerParams::default(), region_len: 16 * MIB, cell_len: MIB, pack_len: 32 * MIB }
    }
}

impl Geometry {
    /// Checks the parameters against each other (CONF-4).
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        let max = self.chunker.max;
        let cell = self.cell_len;
        let rules = [
            (self.chunker.lengths_are_allowed(), "the chunker's lengths are not allowed"),
            (cell.is_power_of_two() && (4 * KIB..=MIB).contains(&cell), "the cell length is not allowed"),
            ((KIB..=cell).contains(&max), "the chunker's maximum is not allowed"),
            (
                self.region_len.checked_rem(cell) == Some(0) && (cell..=64 * MIB).contains(&self.region_len),
                "the region length is not allowed",
            ),
            ((64 * KIB..=256 * MIB).contains(&self.pack_len), "the pack length is not allowed"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, broken)) => Err(FormatError::BadValue(broken)),
            None => Ok(()),
        }
    }
}
