//! Packs: sealing them whole, and opening them frame by frame (SPEC section 7).

use std::cmp::Ordering;

use zeroize::Zeroizing;

use crate::aead::AeadKey;
use crate::codec::Decoder;
use crate::directory::{
    FrameEntry, PackHeader, directory_stored_len, encode_directory, open_directory, parse_directory,
};
use crate::error::FormatError;
use crate::frame::check_lengths;
use crate::ids::RepositoryId;
use crate::keys::{Keys, SealedSessionKey, SessionKey, derive, equal_in_constant_time};
use crate::limits::{PACK_HEADER_LEN, PACK_LEN_MAX, TAG_LEN};
use crate::name::{PackKind, PackName};
use crate::seal::{SealedKind, name_field, seal};

/// How much of the header the key hash covers.
const COVERED_LEN: usize = 64;
/// The length of a frame's fixed associated data (PACK-3).
const FIXED_AAD_LEN: usize = 64;
/// The length of the longest name of a pack: `d/`, a writer, a session id and a number.
const NAME_LEN_MAX: usize = 2 + 63 + 1 + 32 + 1 + 8;

/// What the key of a pack follows from.
#[derive(Clone, Copy, Debug)]
pub enum PackBase<'a> {
    /// The session key of a data pack, and the same sealed for its header.
    Data(&'a SessionKey, &'a SealedSessionKey),
    /// The inventory key of a map pack.
    Map,
}

impl PackBase<'_> {
    fn kind(&self) -> PackKind {
        match self {
            Self::Data(..) => PackKind::Data,
            Self::Map => PackKind::Map,
        }
    }

    fn key<'k>(&'k self, keys: &'k Keys) -> &'k [u8; 32] {
        match self {
            Self::Data(session_key, _) => session_key.bytes(),
            Self::Map => keys.inventory(),
        }
    }
}

/// All that it takes to seal a pack besides its content.
#[derive(Clone, Copy, Debug)]
pub struct PackSeal<'a> {
    /// The repository's keys.
    pub keys: &'a Keys,
    /// The name that the pack will have.
    pub name: &'a PackName,
    /// What its key follows from.
    pub base: PackBase<'a>,
    /// 32 random bytes, new for every pack.
    pub salt: [u8; 32],
    /// 32 random bytes, new for every pack.
    pub directory_salt: [u8; 32],
}

/// Seals a pack in place and returns its blob.
///
/// `body` is [`PACK_HEADER_LEN`] bytes of any content, then each frame's encoded payload followed by [`TAG_LEN`] bytes of
/// any content; `frames` tells of them in that order. A capacity that leaves room for [`directory_stored_len`] more
/// bytes saves a copy.
///
/// # Panics
/// If `frames` is empty or does not fit `body`, a frame does not belong into packs of this kind, or the pack is longer
/// than [`PACK_LEN_MAX`].
#[must_use]
pub fn seal_pack(seal_with: &PackSeal<'_>, mut body: Vec<u8>, frames: &[FrameEntry]) -> Vec<u8> {
    let PackSeal { keys, name, base, salt, directory_salt } = *seal_with;
    assert_eq!(base.kind(), name.kind, "a pack's key must be of the pack's kind");
    let directory_plain = encode_directory(frames);
    let directory_offset = u32::try_from(body.len()).expect("a pack is shorter than 4 GiB");
    parse_directory(&directory_plain, name.kind, directory_offset).expect("the frames must fit the pack");
    let directory_len = directory_stored_len(frames.len());
    assert!(body.len().saturating_add(directory_len) <= PACK_LEN_MAX, "a pack must keep to its limit");

    let mut header = PackHeader {
        kind: name.kind,
        directory_offset,
        directory_len: u32::try_from(directory_len).expect("a directory is shorter than its pack"),
        frame_count: u32::try_from(frames.len()).expect("a pack has fewer than 2^32 frames"),
        salt,
        key_hash: [0; 32],
        sealed_session_key: match base {
            PackBase::Data(_, sealed) => Some(sealed.clone()),
            PackBase::Map => None,
        },
    };
    let mut hasher = KeyHasher::new(keys, base.key(keys), name, &header);
    for_each_frame(keys.repository(), &mut body, frames, |aad, frame| {
        let (_, tag_place) = split_tag(frame);
        tag_place.fill(0);
        hasher.add_frame(aad);
    });
    let (_, payloads) = body.split_at(PACK_HEADER_LEN);
    header.key_hash = hasher.finish(payloads);

    let key = pack_key(base.key(keys), &header, keys.repository());
    let mut full_aad = FrameAad::new(name);
    for_each_frame(keys.repository(), &mut body, frames, |aad, frame| {
        let (encoded, tag_place) = split_tag(frame);
        let tag = key.seal(frame_nonce(aad), full_aad.with(aad), encoded);
        tag_place.copy_from_slice(&tag);
    });
    let (header_place, _) = body.split_at_mut(PACK_HEADER_LEN);
    header_place.copy_from_slice(&header.encode());
    body.extend_from_slice(&seal(
        keys,
        SealedKind::PackDirectory,
        &name.blob(),
        directory_salt,
        &directory_plain,
    ));
    body
}

/// Calls `action` with each frame's fixed associated data and its bytes.
fn for_each_frame(
    repository: RepositoryId,
    body: &mut [u8],
    frames: &[FrameEntry],
    mut action: impl FnMut(&[u8; FIXED_AAD_LEN], &mut [u8]),
) {
    let (_, mut rest) = body.split_at_mut(PACK_HEADER_LEN);
    let mut offset = u32::try_from(PACK_HEADER_LEN).expect("a header is short");
    for frame in frames {
        let (bytes, behind) = rest.split_at_mut(frame.stored_len as usize);
        action(&fixed_aad(repository, offset, frame), bytes);
        rest = behind;
        offset = offset.saturating_add(frame.stored_len);
    }
}

fn split_tag(frame: &mut [u8]) -> (&mut [u8], &mut [u8; TAG_LEN]) {
    frame.split_last_chunk_mut().expect("a frame is longer than its tag")
}

/// Opens the frames of one pack.
pub struct PackOpener {
    repository: RepositoryId,
    key: AeadKey,
    aad: FrameAad,
}

impl PackOpener {
    /// Derives the key of a pack; for a data pack this opens the session key, which costs much more than the rest.
    ///
    /// # Errors
    /// A header that is not that of a pack of this name, or a session key that does not open.
    pub fn new(keys: &Keys, name: &PackName, header: &PackHeader) -> Result<Self, FormatError> {
        check_kind(name, header)?;
        match &header.sealed_session_key {
            Some(sealed) => {
                let session_key = keys.open_session_key(sealed, name.session)?;
                Ok(Self::with_base_key(keys, name, header, session_key.bytes()))
            }
            None => Ok(Self::with_base_key(keys, name, header, keys.inventory())),
        }
    }

    /// Derives the key of a data pack from a session key that was opened before.
    ///
    /// # Errors
    /// A header or name that is not a data pack's.
    pub fn new_with_session_key(
        keys: &Keys,
        name: &PackName,
        header: &PackHeader,
        session_key: &SessionKey,
    ) -> Result<Self, FormatError> {
        check_kind(name, header)?;
        if name.kind != PackKind::Data {
            return Err(FormatError::BadType { what: "pack kind", found: name.kind as u8 });
        }
        Ok(Self::with_base_key(keys, name, header, session_key.bytes()))
    }

    fn with_base_key(keys: &Keys, name: &PackName, header: &PackHeader, base: &[u8; 32]) -> Self {
        let repository = keys.repository();
        Self { repository, key: pack_key(base, header, repository), aad: FrameAad::new(name) }
    }

    /// Opens the frame at `offset` in place and returns its encoded payload, which is at the front of `sealed`.
    ///
    /// The payload is still to be decoded and its id to be checked.
    ///
    /// # Errors
    /// Lengths that do not fit; [`FormatError::BadTag`] if this is not that frame.
    pub fn open_frame<'a>(
        &self,
        offset: u32,
        frame: &FrameEntry,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], FormatError> {
        check_lengths(frame.kind, frame.codec, frame.stored_len, frame.plain_len)?;
        if sealed.len() != frame.stored_len as usize {
            return Err(FormatError::Truncated);
        }
        let fixed = fixed_aad(self.repository, offset, frame);
        self.key.open(frame_nonce(&fixed), self.aad.clone().with(&fixed), sealed)
    }
}

impl std::fmt::Debug for PackOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackOpener").finish_non_exhaustive()
    }
}

fn check_kind(name: &PackName, header: &PackHeader) -> Result<(), FormatError> {
    if header.kind == name.kind && header.sealed_session_key.is_some() == (name.kind == PackKind::Data) {
        Ok(())
    } else {
        Err(FormatError::BadType { what: "pack kind", found: header.kind as u8 })
    }
}

/// Checks all of a pack: its directory, every frame, every payload's id and the key hash. Returns its frames with their
/// offsets; the frames in `blob` are then decrypted.
///
/// # Errors
/// What is wrong first.
pub fn verify_pack(
    keys: &Keys,
    name: &PackName,
    blob: &mut [u8],
    decoder: &mut Decoder,
) -> Result<Vec<(u32, FrameEntry)>, FormatError> {
    let header = PackHeader::parse(blob)?;
    check_kind(name, &header)?;
    match (header.pack_len() as usize).cmp(&blob.len()) {
        Ordering::Less => return Err(FormatError::TrailingBytes),
        Ordering::Greater => return Err(FormatError::Truncated),
        Ordering::Equal => {}
    }
    let (front, directory) = blob.split_at_mut(header.directory_offset as usize);
    let frames = open_directory(keys, name, &header, directory)?;
    let session_key = match &header.sealed_session_key {
        Some(sealed) => Some(keys.open_session_key(sealed, name.session)?),
        None => None,
    };
    let base = session_key.as_ref().map_or(keys.inventory(), SessionKey::bytes);
    let opener = PackOpener::with_base_key(keys, name, &header, base);
    let mut hasher = KeyHasher::new(keys, base, name, &header);
    let (_, mut rest) = front.split_at_mut(PACK_HEADER_LEN);
    let mut payload = Vec::new();
    for (offset, frame) in &frames {
        let (sealed, behind) =
            rest.split_at_mut_checked(frame.stored_len as usize).ok_or(FormatError::Truncated)?;
        rest = behind;
        hasher.add_frame(&fixed_aad(keys.repository(), *offset, frame));
        let encoded = opener.open_frame(*offset, frame, sealed)?;
        payload.resize(frame.plain_len as usize, 0);
        decoder.decode_into(frame.codec, encoded, &mut payload)?;
        keys.check_payload(frame.kind, frame.id, &payload)?;
        let (_, tag_place) = split_tag(sealed);
        tag_place.fill(0);
    }
    let (_, payloads) = front.split_at(PACK_HEADER_LEN);
    if equal_in_constant_time(&hasher.finish(payloads), &header.key_hash) {
        Ok(frames)
    } else {
        Err(FormatError::WrongKeyHash)
    }
}

/// PACK-4.
struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    fn new(keys: &Keys, base: &[u8; 32], name: &PackName, header: &PackHeader) -> Self {
        let key = Zeroizing::new(derive("keepstone v0 pack hash", &[base]));
        let mut hasher = blake3::Hasher::new_keyed(&key);
        let header = header.encode();
        let (covered, _) = header.split_at(COVERED_LEN);
        hasher.update(covered).update(&keys.repository().0).update(&name_field(name.blob().as_str()));
        Self(hasher)
    }

    fn add_frame(&mut self, fixed_aad: &[u8; FIXED_AAD_LEN]) {
        self.0.update(fixed_aad);
    }

    /// Ends with all encoded payloads, each with zeros in the place of its tag: one long piece is hashed almost twice as
    /// fast as many short ones.
    fn finish(mut self, payloads: &[u8]) -> [u8; 32] {
        *self.0.update(payloads).finalize().as_bytes()
    }
}

/// PACK-5.
fn pack_key(base: &[u8; 32], header: &PackHeader, repository: RepositoryId) -> AeadKey {
    let material: [&[u8]; 4] = [base, &header.salt, &header.key_hash, &repository.0];
    AeadKey::new(&Zeroizing::new(derive("keepstone v0 pack key", &material)))
}

/// PACK-3.
fn fixed_aad(repository: RepositoryId, offset: u32, frame: &FrameEntry) -> [u8; FIXED_AAD_LEN] {
    let mut aad = [0; FIXED_AAD_LEN];
    aad[0] = frame.kind as u8;
    aad[1] = frame.codec as u8;
    aad[4..8].copy_from_slice(&offset.to_le_bytes());
    aad[8..12].copy_from_slice(&frame.stored_len.to_le_bytes());
    aad[12..16].copy_from_slice(&frame.plain_len.to_le_bytes());
    aad[16..32].copy_from_slice(&repository.0);
    aad[32..64].copy_from_slice(&frame.id.0);
    aad
}

/// The nonce of a frame (PACK-5): the offset out of its associated data, and zeros.
fn frame_nonce(fixed_aad: &[u8; FIXED_AAD_LEN]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&fixed_aad[4..8]);
    nonce
}

/// A frame's whole associated data, in a buffer that only its front changes in from frame to frame.
#[derive(Clone)]
struct FrameAad {
    bytes: [u8; FIXED_AAD_LEN + NAME_LEN_MAX],
    len: usize,
}

impl FrameAad {
    fn new(name: &PackName) -> Self {
        let name = name.blob();
        let name = name.as_str().as_bytes();
        let mut bytes = [0; FIXED_AAD_LEN + NAME_LEN_MAX];
        for (target, byte) in bytes.iter_mut().skip(FIXED_AAD_LEN).zip(name) {
            *target = *byte;
        }
        Self { bytes, len: name.len().saturating_add(FIXED_AAD_LEN) }
    }

    fn with(&mut self, fixed: &[u8; FIXED_AAD_LEN]) -> &[u8] {
        self.bytes[..FIXED_AAD_LEN].copy_from_slice(fixed);
        self.bytes.get(..self.len).expect("no pack has a longer name")
    }
}
