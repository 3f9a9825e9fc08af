//! Frames: where payloads lie in packs (SPEC section 7).

use crate::error::FormatError;
use crate::ids::PayloadId;
use crate::limits::{
    CHUNK_LEN_MAX, NODE_LEN_MAX, PACK_HEADER_LEN, PACK_LEN_MAX, PACK_LEN_MIN, PAGE_LEN_MAX, TAG_LEN,
};
use crate::name::{PackKind, PackName};

/// How a payload is encoded before it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The payload itself.
    Raw = 1,
    /// One zstd frame, shorter than the payload.
    Zstd = 2,
}

impl Codec {
    /// Reads the number that stands for a codec.
    ///
    /// # Errors
    /// Any number but 1 and 2.
    pub fn from_number(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Raw),
            2 => Ok(Self::Zstd),
            found => Err(FormatError::BadType { what: "codec", found }),
        }
    }
}

/// What the payload of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A chunk of a disk.
    Chunk = 1,
    /// A page of a disk map.
    Page = 2,
    /// A node of a disk map.
    Node = 3,
}

impl FrameKind {
    /// Reads the number that stands for a kind.
    ///
    /// # Errors
    /// Any number but 1, 2 and 3.
    pub fn from_number(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Chunk),
            2 => Ok(Self::Page),
            3 => Ok(Self::Node),
            found => Err(FormatError::BadType { what: "frame kind", found }),
        }
    }

    /// Returns the kind of packs that hold such frames (PACK-7).
    #[must_use]
    pub fn pack_kind(self) -> PackKind {
        match self {
            Self::Chunk => PackKind::Data,
            Self::Page | Self::Node => PackKind::Map,
        }
    }

    /// Returns the highest plain length that any config allows, in bytes.
    #[must_use]
    pub fn plain_len_max(self) -> usize {
        match self {
            Self::Chunk => CHUNK_LEN_MAX,
            Self::Page => PAGE_LEN_MAX,
            Self::Node => NODE_LEN_MAX,
        }
    }
}

/// A pack and the length of its blob; ordered by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRef {
    /// The pack's name.
    pub name: PackName,
    /// The length of its blob, in bytes.
    pub len: u32,
}

impl PackRef {
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        check_pack_len(self.len)
    }
}

pub(crate) fn check_pack_len(len: u32) -> Result<(), FormatError> {
    if (len as usize) < PACK_LEN_MIN {
        return Err(FormatError::BadValue("a pack is too short to be one"));
    }
    check_limit("pack length", u64::from(len), PACK_LEN_MAX)
}

pub(crate) fn check_limit(what: &'static str, found: u64, limit: usize) -> Result<(), FormatError> {
    let limit = limit as u64;
    if found > limit { Err(FormatError::LimitExceeded { what, found, limit }) } else { Ok(()) }
}

/// Where a payload is stored, and all that it takes to open and check it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: PackRef,
    /// How the payload is encoded.
    pub codec: Codec,
    /// Where the frame begins in the pack's blob, in bytes.
    pub offset: u32,
    /// The length of the frame with its tag, in bytes.
    pub stored_len: u32,
    /// The length of the payload, in bytes.
    pub plain_len: u32,
    /// The payload's id.
    pub id: PayloadId,
}

impl Location {
    /// Checks that the frame lies within its pack and that its lengths fit the codec and the kind of payload.
    ///
    /// # Errors
    /// A frame that breaks TABLE-2, PACK-2 or PACK-7.
    pub fn check(&self, kind: FrameKind) -> Result<(), FormatError> {
        self.pack.check()?;
        check_place(self.offset, self.stored_len, self.pack.len)?;
        self.check_but_pack_len(kind)
    }

    /// As [`Location::check`], for a pack whose length is not known.
    pub(crate) fn check_but_pack_len(&self, kind: FrameKind) -> Result<(), FormatError> {
        if self.pack.name.kind != kind.pack_kind() {
            return Err(FormatError::BadValue("a payload is in a pack of the wrong kind"));
        }
        check_lengths(kind, self.codec, self.stored_len, self.plain_len)
    }
}

/// Checks that a frame lies behind the header of its pack and within it.
pub(crate) fn check_place(offset: u32, stored_len: u32, pack_len: u32) -> Result<(), FormatError> {
    let end = offset.checked_add(stored_len);
    if (offset as usize) < PACK_HEADER_LEN || end.is_none_or(|end| end > pack_len) {
        return Err(FormatError::BadValue("a frame does not lie within its pack"));
    }
    Ok(())
}

/// Checks that a frame's lengths fit its codec (PACK-2) and stay within the limit of its kind.
pub(crate) fn check_lengths(
    kind: FrameKind,
    codec: Codec,
    stored_len: u32,
    plain_len: u32,
) -> Result<(), FormatError> {
    check_limit("plain length", u64::from(plain_len), kind.plain_len_max())?;
    let encoded_len = u64::from(stored_len).saturating_sub(TAG_LEN as u64);
    let fits = match codec {
        Codec::Raw => encoded_len == u64::from(plain_len),
        Codec::Zstd => encoded_len < u64::from(plain_len),
    };
    if encoded_len == 0 || !fits {
        return Err(FormatError::BadValue("the lengths of a frame do not fit its codec"));
    }
    Ok(())
}
