//! What a pack tells of itself: its header and its directory (SPEC section 7).

use crate::bytes::{Reader, Writer, parse_all};
use crate::error::FormatError;
use crate::frame::{Codec, FrameKind, Location, check_lengths, check_limit};
use crate::ids::PayloadId;
use crate::keys::{Keys, SealedSessionKey};
use crate::limits::{DIRECTORY_ENTRY_LEN, PACK_HEADER_LEN, PACK_LEN_MAX, TAG_LEN};
use crate::name::{PackKind, PackName};
use crate::seal::{SealedKind, begins_sealed, check_version, open, sealed_len};

const MAGIC: &[u8; 8] = b"KEEPPACK";
/// The shortest frame: a payload of one byte and its tag.
const FRAME_LEN_MIN: usize = 1 + TAG_LEN;

/// What stands at the front of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// What the pack holds.
    pub kind: PackKind,
    /// Where the directory begins, in bytes; the frames end there.
    pub directory_offset: u32,
    /// The length of the directory, in bytes; the pack ends with it.
    pub directory_len: u32,
    /// How many frames there are.
    pub frame_count: u32,
    /// The salt of the pack key.
    pub salt: [u8; 32],
    /// The hash over all frames that the pack key is derived with.
    pub key_hash: [u8; 32],
    /// The session key, in a data pack.
    pub sealed_session_key: Option<SealedSessionKey>,
}

impl PackHeader {
    /// Parses the first [`PACK_HEADER_LEN`] bytes of a pack; what follows them is not looked at.
    ///
    /// # Errors
    /// A header that breaks SPEC section 7.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<8>()? != MAGIC {
            return Err(FormatError::BadMagic);
        }
        check_version(reader.u16()?)?;
        let kind = PackKind::from_number(reader.u8()?)?;
        if reader.u8()? != 0 {
            return Err(FormatError::BadFlags);
        }
        let (directory_offset, directory_len, frame_count) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if reader.u64()? != 0 {
            return Err(FormatError::BadFlags);
        }
        let (salt, key_hash) = (reader.array()?, reader.array()?);
        let sealed = SealedSessionKey { encapsulated: reader.array()?, ciphertext: reader.array()? };
        let sealed_session_key = match kind {
            PackKind::Data => Some(sealed),
            PackKind::Map if sealed.encapsulated == [0; 32] && sealed.ciphertext == [0; 48] => None,
            PackKind::Map => return Err(FormatError::BadFlags),
        };
        let header =
            Self { kind, directory_offset, directory_len, frame_count, salt, key_hash, sealed_session_key };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), FormatError> {
        let pack_len = u64::from(self.directory_offset).saturating_add(u64::from(self.directory_len));
        check_limit("pack length", pack_len, PACK_LEN_MAX)?;
        let count = self.frame_count as usize;
        let shortest = count.saturating_mul(FRAME_LEN_MIN).saturating_add(PACK_HEADER_LEN);
        if count == 0 || (self.directory_offset as usize) < shortest {
            return Err(FormatError::BadValue("the frames of a pack do not fit before its directory"));
        }
        if self.directory_len as usize != directory_stored_len(count) {
            return Err(FormatError::BadValue("the length of a directory does not fit its count of frames"));
        }
        Ok(())
    }

    /// Returns the header's bytes.
    ///
    /// # Panics
    /// If a data pack has no session key, or a map pack has one.
    #[must_use]
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let is_data = self.kind == PackKind::Data;
        assert_eq!(self.sealed_session_key.is_some(), is_data, "data packs alone have a session key");
        let mut writer = Writer::new();
        writer.put(MAGIC).u16(0).u8(self.kind as u8).u8(0);
        writer.u32(self.directory_offset).u32(self.directory_len).u32(self.frame_count).u64(0);
        writer.put(&self.salt).put(&self.key_hash);
        match &self.sealed_session_key {
            Some(sealed) => writer.put(&sealed.encapsulated).put(&sealed.ciphertext),
            None => writer.put(&[0; 80]),
        };
        writer.finish().try_into().expect("the fields of a pack's header are 176 bytes")
    }

    /// Returns the length of the pack's blob, in bytes.
    #[must_use]
    pub fn pack_len(&self) -> u32 {
        self.directory_offset.saturating_add(self.directory_len)
    }
}

/// What the directory of a pack tells about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// What the payload is.
    pub kind: FrameKind,
    /// How it is encoded.
    pub codec: Codec,
    /// The length of the payload, in bytes.
    pub plain_len: u32,
    /// The length of the frame with its tag, in bytes.
    pub stored_len: u32,
    /// The payload's id.
    pub id: PayloadId,
}

impl FrameEntry {
    /// Returns the entry of the frame at a location.
    #[must_use]
    pub fn at(location: &Location, kind: FrameKind) -> Self {
        let Location { codec, plain_len, stored_len, id, .. } = *location;
        Self { kind, codec, plain_len, stored_len, id }
    }
}

/// Encodes the plaintext of a directory (PACK-8).
#[must_use]
pub fn encode_directory(frames: &[FrameEntry]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.count(frames.len());
    for frame in frames {
        writer.u8(frame.kind as u8).u8(frame.codec as u8);
        writer.u32(frame.plain_len).u32(frame.stored_len).put(&frame.id.0);
    }
    writer.finish()
}

/// Parses the plaintext of a directory: the frames of a pack of that kind, with their offsets.
///
/// # Errors
/// A directory that breaks PACK-1, PACK-2, PACK-7 or PACK-8.
pub fn parse_directory(
    bytes: &[u8],
    kind: PackKind,
    directory_offset: u32,
) -> Result<Vec<(u32, FrameEntry)>, FormatError> {
    let frames = parse_all(bytes, |reader| {
        let count = reader.count(DIRECTORY_ENTRY_LEN)?;
        let mut frames = Vec::with_capacity(count);
        let mut offset = PACK_HEADER_LEN as u64;
        for _ in 0..count {
            let frame = read_frame_entry(reader, kind)?;
            let start = u32::try_from(offset).map_err(|_| MISPLACED_DIRECTORY)?;
            offset = offset.saturating_add(u64::from(frame.stored_len));
            frames.push((start, frame));
        }
        if frames.is_empty() || offset != u64::from(directory_offset) {
            return Err(MISPLACED_DIRECTORY);
        }
        Ok(frames)
    })?;
    Ok(frames)
}

const MISPLACED_DIRECTORY: FormatError =
    FormatError::BadValue("the frames of a pack do not end where its directory begins");

fn read_frame_entry(reader: &mut Reader<'_>, pack_kind: PackKind) -> Result<FrameEntry, FormatError> {
    let kind = FrameKind::from_number(reader.u8()?)?;
    let codec = Codec::from_number(reader.u8()?)?;
    let (plain_len, stored_len, id) = (reader.u32()?, reader.u32()?, reader.payload_id()?);
    if kind.pack_kind() != pack_kind {
        return Err(FormatError::BadType { what: "frame kind", found: kind as u8 });
    }
    check_lengths(kind, codec, stored_len, plain_len)?;
    Ok(FrameEntry { kind, codec, plain_len, stored_len, id })
}

/// Returns the length of the directory of a pack with so many frames, in bytes.
#[must_use]
pub fn directory_stored_len(frame_count: usize) -> usize {
    sealed_len(frame_count.saturating_mul(DIRECTORY_ENTRY_LEN).saturating_add(4))
}

/// Finds where the directory begins in the last bytes of a pack, counted from their first: so a pack can be asked for its
/// directory with one read. Nothing if it begins before them, or is none.
///
/// What is found is only where one may begin: [`open`] tells whether it is authentic, and [`parse_directory`] whether it fits
/// the frames before it.
#[must_use]
pub fn find_directory(end: &[u8]) -> Option<usize> {
    let frames_max = end.len().checked_div(DIRECTORY_ENTRY_LEN)?;
    (1..=frames_max).find_map(|count| {
        let start = end.len().checked_sub(directory_stored_len(count))?;
        let plain_len = count.saturating_mul(DIRECTORY_ENTRY_LEN).saturating_add(4);
        begins_sealed(end.get(start..)?, SealedKind::PackDirectory, plain_len).then_some(start)
    })
}

/// Opens the directory of a pack: its frames with their offsets. `sealed` is the end of the blob, from the directory's
/// offset on.
///
/// # Errors
/// A directory that is not authentic or breaks PACK-8.
pub fn open_directory(
    keys: &Keys,
    name: &PackName,
    header: &PackHeader,
    sealed: &[u8],
) -> Result<Vec<(u32, FrameEntry)>, FormatError> {
    let plaintext = open(keys, SealedKind::PackDirectory, &name.blob(), sealed)?;
    let frames = parse_directory(&plaintext, name.kind, header.directory_offset)?;
    if frames.len() != header.frame_count as usize {
        return Err(FormatError::BadValue("a pack's header and directory count different frames"));
    }
    Ok(frames)
}
