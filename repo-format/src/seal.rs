//! Sealed objects (SPEC section 6).

use crate::aead::{AeadKey, ZERO_NONCE};
use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::frame::check_limit;
use crate::keys::{Keys, derive, equal_in_constant_time};
use crate::limits::{SEAL_HEADER_LEN, SEALED_PLAIN_LEN_MAX, TAG_LEN};
use crate::name::{BlobKind, BlobName};

const MAGIC: &[u8; 8] = b"KEEPSEAL";
/// How much of the header the key hash covers: all of it but the key hash.
const COVERED_LEN: usize = 48;

/// What a sealed object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SealedKind {
    /// An intent.
    Intent = 1,
    /// A decision.
    Decision = 2,
    /// An index.
    Index = 3,
    /// A tombstone.
    Tombstone = 4,
    /// The condemned packs of a generation.
    Condemned = 5,
    /// The result of a generation.
    GcResult = 6,
    /// The seal of a generation.
    GenerationSeal = 7,
    /// A repack record.
    Repack = 8,
    /// The directory of a pack.
    PackDirectory = 9,
    /// A pin.
    Pin = 10,
    /// The sessions that a generation waits for.
    Awaited = 11,
    /// That a place is a replica.
    ReplicaMarker = 12,
    /// What a promoted place is.
    Lineage = 13,
    /// What is told of a replica.
    Barrier = 14,
}

impl SealedKind {
    /// Returns what the blob of this kind is sealed as; `None` for the config, key slots, canaries and unknown names.
    #[must_use]
    pub fn of_blob(kind: &BlobKind) -> Option<Self> {
        match kind {
            BlobKind::Config | BlobKind::KeySlot(_) | BlobKind::Canary => None,
            BlobKind::Intent { .. } => Some(Self::Intent),
            BlobKind::Pack(_) => Some(Self::PackDirectory),
            BlobKind::Index { .. } => Some(Self::Index),
            BlobKind::Decision(_) => Some(Self::Decision),
            BlobKind::Tombstone { .. } => Some(Self::Tombstone),
            BlobKind::Condemned(_) => Some(Self::Condemned),
            BlobKind::Awaited(_) => Some(Self::Awaited),
            BlobKind::GcResult(_) => Some(Self::GcResult),
            BlobKind::GenerationSeal(_) => Some(Self::GenerationSeal),
            BlobKind::Repack(_) => Some(Self::Repack),
            BlobKind::Pin { .. } => Some(Self::Pin),
            BlobKind::ReplicaMarker => Some(Self::ReplicaMarker),
            BlobKind::Lineage(_) => Some(Self::Lineage),
            BlobKind::Barrier { .. } => Some(Self::Barrier),
        }
    }
}

/// Seals an object that is to stand in the blob `name`. `salt` is 32 random bytes, new for every object.
///
/// # Panics
/// If the plaintext is longer than [`SEALED_PLAIN_LEN_MAX`].
#[must_use]
pub fn seal(keys: &Keys, kind: SealedKind, name: &BlobName, salt: [u8; 32], plaintext: &[u8]) -> Vec<u8> {
    assert!(plaintext.len() <= SEALED_PLAIN_LEN_MAX, "a sealed object must keep to its limit");
    let mut header = Writer::new();
    header.put(MAGIC).u16(0).u8(kind as u8).u8(0).count(plaintext.len()).put(&salt);
    let mut blob = header.finish();
    blob.reserve_exact(sealed_len(plaintext.len()).saturating_sub(COVERED_LEN));
    let hash = key_hash(keys, &blob, name, plaintext);
    blob.extend_from_slice(&hash);
    let aad = associated_data(keys, &blob, name);
    blob.extend_from_slice(plaintext);
    let (_, body) = blob.split_at_mut(SEAL_HEADER_LEN);
    let tag = object_key(keys, &salt, &hash).seal(ZERO_NONCE, &aad, body);
    blob.extend_from_slice(&tag);
    blob
}

/// Opens a sealed object that stands in the blob `name`, and returns its plaintext.
///
/// # Errors
/// A header that breaks SPEC section 6; a kind other than `kind`, or one that the name does not call for; [`FormatError::BadTag`] for a wrong key, another
/// name or changed bytes; [`FormatError::WrongKeyHash`].
pub fn open(keys: &Keys, kind: SealedKind, name: &BlobName, blob: &[u8]) -> Result<Vec<u8>, FormatError> {
    if name.kind().as_ref().and_then(SealedKind::of_blob) != Some(kind) {
        return Err(FormatError::BadType { what: "the type of a sealed object", found: kind as u8 });
    }
    let (header, sealed) = blob.split_at_checked(SEAL_HEADER_LEN).ok_or(FormatError::Truncated)?;
    let (covered, _) = header.split_at_checked(COVERED_LEN).ok_or(FormatError::Truncated)?;
    let mut reader = Reader::new(header);
    if &reader.array::<8>()? != MAGIC {
        return Err(FormatError::BadMagic);
    }
    check_version(reader.u16()?)?;
    let found = reader.u8()?;
    if found != kind as u8 {
        return Err(FormatError::BadType { what: "the type of a sealed object", found });
    }
    if reader.u8()? != 0 {
        return Err(FormatError::BadFlags);
    }
    let plain_len = reader.u32()?;
    let (salt, hash) = (reader.array::<32>()?, reader.array::<32>()?);
    check_limit("plaintext length", u64::from(plain_len), SEALED_PLAIN_LEN_MAX)?;
    match (sealed.len() as u64).checked_sub(u64::from(plain_len)) {
        Some(rest) if rest == TAG_LEN as u64 => {}
        Some(rest) if rest > TAG_LEN as u64 => return Err(FormatError::TrailingBytes),
        _ => return Err(FormatError::Truncated),
    }

    let aad = associated_data(keys, header, name);
    let mut plaintext = sealed.to_vec();
    let len = object_key(keys, &salt, &hash).open(ZERO_NONCE, &aad, &mut plaintext)?.len();
    plaintext.truncate(len);
    if !equal_in_constant_time(&hash, &key_hash(keys, covered, name, &plaintext)) {
        return Err(FormatError::WrongKeyHash);
    }
    Ok(plaintext)
}

/// Whether bytes begin as a sealed object of a kind whose plaintext has that length.
pub(crate) fn begins_sealed(bytes: &[u8], kind: SealedKind, plain_len: usize) -> bool {
    if !bytes.starts_with(MAGIC) {
        return false;
    }
    let mut begin = Writer::new();
    begin.put(MAGIC).u16(0).u8(kind as u8).u8(0).count(plain_len);
    bytes.starts_with(&begin.finish())
}

/// Returns the length of a sealed object, in bytes.
pub(crate) fn sealed_len(plain_len: usize) -> usize {
    plain_len.saturating_add(SEAL_HEADER_LEN + TAG_LEN)
}

pub(crate) fn check_version(found: u16) -> Result<(), FormatError> {
    if found == 0 { Ok(()) } else { Err(FormatError::UnsupportedVersion { found: u64::from(found) }) }
}

/// `str16 name`, as key hashes and associated data have it.
pub(crate) fn name_field(name: &str) -> Vec<u8> {
    let mut field = Writer::new();
    field.str16(name);
    field.finish()
}

/// SEAL-2; `covered` is what stands before the key hash.
fn key_hash(keys: &Keys, covered: &[u8], name: &BlobName, plaintext: &[u8]) -> [u8; 32] {
    let mut hasher = keys.seal_hasher();
    hasher.update(covered).update(&keys.repository().0).update(&name_field(name.as_str())).update(plaintext);
    *hasher.finalize().as_bytes()
}

/// SEAL-1.
fn associated_data(keys: &Keys, header: &[u8], name: &BlobName) -> Vec<u8> {
    [header, &keys.repository().0, &name_field(name.as_str())].concat()
}

/// SEAL-3.
fn object_key(keys: &Keys, salt: &[u8; 32], hash: &[u8; 32]) -> AeadKey {
    AeadKey::new(&derive("keepstone v0 seal key", &[keys.inventory(), salt, hash]))
}
