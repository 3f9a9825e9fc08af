//! Objects made with nothing but the primitives and SPEC.md, so that our encoder is not its own witness.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, Serializable};
use repo_format::*;

use crate::pack_rules::small_pack;
use crate::raw::Raw;
use crate::samples::*;

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let bytes: Vec<u8> =
        (0..N).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect();
    bytes.try_into().expect("of that length")
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    blake3::derive_key(context, &parts.concat())
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    *blake3::keyed_hash(key, &parts.concat()).as_bytes()
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

fn from_root(context: &str) -> [u8; 32] {
    derive(context, &[&[0x44; 32], &REPOSITORY.0])
}

fn inventory_key() -> [u8; 32] {
    from_root("keepstone v0 inventory")
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
fn keys_are_derived_as_the_specification_tells() {
    let keys = keys();
    let chunk_id_key = from_root("keepstone v0 chunk id");
    let seed = derive("keepstone v0 chunker seed", &[&chunk_id_key]);
    let vm_tag_key = derive("keepstone v0 vm tag", &[&inventory_key()]);
    let map_id_key = derive("keepstone v0 map id", &[&inventory_key()]);
    assert_eq!(keys.chunk_id(b"chunk").0, keyed(&chunk_id_key, &[b"chunk"]));
    assert_eq!(keys.map_id(b"page").0, keyed(&map_id_key, &[b"page"]));
    assert_eq!(keys.chunker_seed().to_le_bytes(), seed[..8]);
    assert_eq!(keys.vm_tag("db-1").0, keyed(&vm_tag_key, &[b"db-1"])[..16]);
    assert_eq!(keys.local_key("cache"), derive("cache", &[&inventory_key()]));
    let private = from_root("keepstone v0 data private key");
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private).expect("32 bytes");
    let public = X25519HkdfSha256::sk_to_pk(&private).to_bytes();
    assert_eq!(keys.data_public_key().as_slice(), public.as_slice());
    assert_eq!(keys.repository(), REPOSITORY);
}

#[test]
fn a_sealed_object_made_by_hand_opens() {
    let name = BlobName::intent(&writer(), SESSION);
    let intent = Intent { session: SESSION, decision: decision_name(), generation: 1, time: 2 };
    let plaintext = intent.encode();
    let len = u32::try_from(plaintext.len()).unwrap();
    let head = Raw::new().put(b"KEEPSEAL").u16(0).u8(1).u8(0).u32(len).put(&SALT).0;
    let place = Raw::new().put(&REPOSITORY.0).str16(name.as_str()).0;
    let hash_key = derive("keepstone v0 seal hash", &[&inventory_key()]);
    let key_hash = keyed(&hash_key, &[&head, &place, &plaintext]);
    let key = derive("keepstone v0 seal key", &[&inventory_key(), &SALT, &key_hash]);
    let aad = [&head[..], &key_hash, &place].concat();
    let blob = [&head[..], &key_hash, &aes_seal(&key, [0; 12], &aad, &plaintext)].concat();
    assert_eq!(Intent::open(&keys(), &name, &blob), Ok(intent.clone()));
    assert_eq!(intent.seal(&keys(), SALT), (name, blob));
}

#[test]
fn a_seal_whose_key_hash_is_not_that_of_its_content_is_rejected() {
    let name = BlobName::repack(SESSION);
    let key_hash = [9; 32];
    let head = Raw::new().put(b"KEEPSEAL").u16(0).u8(8).u8(0).u32(4).put(&SALT).put(&key_hash).0;
    let key = derive("keepstone v0 seal key", &[&inventory_key(), &SALT, &key_hash]);
    let aad = Raw::new().put(&head).put(&REPOSITORY.0).str16(name.as_str()).0;
    let blob = [&head[..], &aes_seal(&key, [0; 12], &aad, b"text")].concat();
    assert_eq!(open(&keys(), SealedKind::Repack, &name, &blob), Err(FormatError::WrongKeyHash));
}

#[test]
fn a_pack_can_be_opened_by_hand() {
    for kind in [PackKind::Data, PackKind::Map] {
        let SealedByHand { blob, pack_key, key_hash } = open_by_hand(kind);
        assert_eq!(blob[64..96], key_hash);
        let pack = small_pack(kind);
        for (offset, frame) in &pack.frames {
            let header = PackHeader::parse(&blob).unwrap();
            let opener = PackOpener::new(&keys(), &pack.name, &header).unwrap();
            let mut sealed = blob[*offset as usize..][..frame.stored_len as usize].to_vec();
            let encoded = opener.open_frame(*offset, frame, &mut sealed).unwrap();
            let mut nonce = [0; 12];
            nonce[..4].copy_from_slice(&offset.to_le_bytes());
            let aad = [&fixed_aad(*offset, frame)[..], pack.name.blob().as_str().as_bytes()].concat();
            let by_hand = aes_seal(&pack_key, nonce, &aad, encoded);
            assert_eq!(by_hand, blob[*offset as usize..][..frame.stored_len as usize]);
        }
    }
}

struct SealedByHand {
    blob: Vec<u8>,
    pack_key: [u8; 32],
    key_hash: [u8; 32],
}

/// Derives the key of [`small_pack`] from its bytes, and its key hash from its payloads.
fn open_by_hand(kind: PackKind) -> SealedByHand {
    let pack = small_pack(kind);
    let blob = pack.blob;
    let base = match kind {
        PackKind::Data => open_session_key_by_hand(&blob),
        PackKind::Map => inventory_key(),
    };
    let header = PackHeader::parse(&blob).unwrap();
    let opener = PackOpener::new(&keys(), &pack.name, &header).unwrap();
    let mut hashed = Raw::new().put(&blob[..64]).put(&REPOSITORY.0).str16(pack.name.blob().as_str());
    let mut payloads = Raw::new();
    for (offset, frame) in &pack.frames {
        let mut sealed = blob[*offset as usize..][..frame.stored_len as usize].to_vec();
        let encoded = opener.open_frame(*offset, frame, &mut sealed).unwrap();
        hashed = hashed.put(&fixed_aad(*offset, frame));
        payloads = payloads.put(encoded).put(&[0; 16]);
    }
    let hashed = hashed.put(&payloads.0);
    let key_hash = keyed(&derive("keepstone v0 pack hash", &[&base]), &[&hashed.0]);
    let pack_key = derive("keepstone v0 pack key", &[&base, &SALT, &key_hash, &REPOSITORY.0]);
    SealedByHand { blob, pack_key, key_hash }
}

fn open_session_key_by_hand(blob: &[u8]) -> [u8; 32] {
    let private = from_root("keepstone v0 data private key");
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private).expect("32 bytes"),
        &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&blob[96..128]).expect("32 bytes"),
        &[b"keepstone v0 session key", &REPOSITORY.0[..]].concat(),
        &blob[128..176],
        &SESSION.0,
    );
    opened.expect("the session key opens").try_into().expect("32 bytes")
}

fn fixed_aad(offset: u32, frame: &FrameEntry) -> [u8; 64] {
    let aad = Raw::new().u8(frame.kind as u8).u8(frame.codec as u8).u16(0).u32(offset);
    let aad = aad.u32(frame.stored_len).u32(frame.plain_len).put(&REPOSITORY.0).put(&frame.id.0);
    aad.0.try_into().expect("64 bytes")
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
