//! The primitives are those of their own specifications, and nothing but their arguments decides what they give.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use repo_format::*;

use crate::samples::*;

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let bytes: Vec<u8> =
        (0..N).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect();
    bytes.try_into().expect("of that length")
}

fn aes_seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"));
    let mut sealed = plaintext.to_vec();
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
        .expect("a short plaintext");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

#[test]
fn aes_256_gcm_is_that_of_its_specification() {
    // Test case 14 of "The Galois/Counter Mode of Operation" (McGrew, Viega).
    let sealed = aes_seal(&[0; 32], [0; 12], &[], &[0; 16]);
    let expected: [u8; 32] = unhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    assert_eq!(sealed, expected);
}

#[test]
fn x25519_is_that_of_rfc_7748() {
    // Section 5.2, the first iteration: the base point times nine.
    let mut nine = [0; 32];
    nine[0] = 9;
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&nine).expect("32 bytes");
    let expected: [u8; 32] = unhex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    assert_eq!(X25519HkdfSha256::sk_to_pk(&private).to_bytes().as_slice(), expected);
}

#[test]
fn the_seed_decides_the_encapsulation() {
    let keys = keys();
    let sealed = |seed| {
        seal_session_key(&SessionKey::new([1; 32]), &keys.data_public_key(), REPOSITORY, SESSION, seed)
            .unwrap()
    };
    assert_eq!(sealed([1; 32]), sealed([1; 32]));
    assert_ne!(sealed([1; 32]).encapsulated, sealed([2; 32]).encapsulated);
    assert_eq!(keys.open_session_key(&sealed([1; 32]), SESSION), Ok(SessionKey::new([1; 32])));
    let other = SessionId([0; 16]);
    assert_eq!(keys.open_session_key(&sealed([1; 32]), other), Err(FormatError::BadTag));
}
