//! AES-256-GCM with keys that seal one object each (SEAL-3, PACK-5, SLOT-3).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::error::FormatError;
use crate::limits::TAG_LEN;

/// The nonce of objects that have a key for themselves.
pub(crate) const ZERO_NONCE: [u8; 12] = [0; 12];

/// A key, expanded for use.
pub(crate) struct AeadKey(LessSafeKey);

impl AeadKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key of AES-256 has 32 bytes")))
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], plaintext: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), plaintext)
            .expect("AES-256-GCM seals anything under 64 GiB");
        tag.as_ref().try_into().expect("the tag of AES-256-GCM has 16 bytes")
    }

    /// Decrypts `ciphertext || tag` in place and returns the plaintext, which is at its front.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], FormatError> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
            .map_err(|_| FormatError::BadTag)
    }
}
