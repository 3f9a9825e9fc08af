//! The retention key and what it signs (SPEC sections 3 and 6).

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bytes::Writer;
use crate::error::FormatError;
use crate::keys::Keys;
use crate::limits::SIGNATURE_LEN;
use crate::name::BlobName;
use crate::seal::{SealedKind, open, seal};

const CONTEXT: &[u8] = b"keepstone v0 retention signature";

/// The Ed25519 key that forgets and prunes (KEY-4). Its seed is erased when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RetentionKey {
    seed: [u8; 32],
    #[zeroize(skip)]
    public: [u8; 32],
}

impl RetentionKey {
    /// Takes 32 bytes that nobody can guess.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let public = key_pair(&seed).public_key().as_ref().try_into();
        Self { seed, public: public.expect("a public key of Ed25519 has 32 bytes") }
    }

    /// Returns the public half, which the config tells.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let signature = key_pair(&self.seed).sign(message);
        signature.as_ref().try_into().expect("a signature of Ed25519 has 64 bytes")
    }
}

impl fmt::Debug for RetentionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetentionKey(..)")
    }
}

impl PartialEq for RetentionKey {
    fn eq(&self, other: &Self) -> bool {
        // Equal seeds have equal public keys and others do not, and these are no secret.
        self.public == other.public
    }
}

impl Eq for RetentionKey {}

fn key_pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed of Ed25519")
}

/// Seals an object with the retention's signature behind its content (SIG-1).
///
/// # Panics
/// If the retention key is another repository's, or the object is longer than its limit.
#[must_use]
pub fn seal_signed(
    keys: &Keys,
    retention: &RetentionKey,
    (kind, name): (SealedKind, &BlobName),
    salt: [u8; 32],
    mut content: Vec<u8>,
) -> Vec<u8> {
    assert_eq!(retention.public(), keys.retention_public(), "the retention key must be the repository's");
    let signature = retention.sign(&message(keys, kind, name, &content));
    content.extend_from_slice(&signature);
    seal(keys, kind, name, salt, &content)
}

/// Opens an object that [`seal_signed`] made, and returns its content.
///
/// # Errors
/// As [`open`]; then [`FormatError::BadSignature`] for an object that is authentic and not signed by the retention.
pub fn open_signed(
    keys: &Keys,
    kind: SealedKind,
    name: &BlobName,
    blob: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let mut plaintext = open(keys, kind, name, blob)?;
    let content_len = plaintext.len().checked_sub(SIGNATURE_LEN).ok_or(FormatError::BadSignature)?;
    let signature = plaintext.split_off(content_len);
    check_signature(keys, (kind, name), &plaintext, &signature)?;
    Ok(plaintext)
}

/// Checks what stands behind the content of a signed object.
pub(crate) fn check_signature(
    keys: &Keys,
    (kind, name): (SealedKind, &BlobName),
    content: &[u8],
    signature: &[u8],
) -> Result<(), FormatError> {
    UnparsedPublicKey::new(&ED25519, keys.retention_public())
        .verify(&message(keys, kind, name, content), signature)
        .map_err(|_| FormatError::BadSignature)
}

/// SIG-1: what is signed is bound to the repository, the type and the place.
fn message(keys: &Keys, kind: SealedKind, name: &BlobName, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(CONTEXT).u8(kind as u8).put(&keys.repository().0).str16(name.as_str()).put(content);
    writer.finish()
}
