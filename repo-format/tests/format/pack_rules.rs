//! What a pack is bound to, and how it is sealed (SPEC section 7).

use repo_format::*;

use crate::samples::*;

/// A pack with what went into it.
pub struct SealedPack {
    pub name: PackName,
    pub blob: Vec<u8>,
    pub frames: Vec<(u32, FrameEntry)>,
}

/// A pack with these payloads: chunks, or pages.
pub fn sealed_pack(kind: PackKind, payloads: &[Vec<u8>]) -> SealedPack {
    let keys = keys();
    let name = pack_name(kind, 5);
    let frame_kind = if kind == PackKind::Data { FrameKind::Chunk } else { FrameKind::Page };
    let mut body = vec![0; PACK_HEADER_LEN];
    let mut encoder = Encoder::new(3);
    let mut frames = Vec::new();
    for payload in payloads {
        let offset = u32::try_from(body.len()).expect("a small pack");
        let codec = encoder.encode(payload, &mut body);
        body.extend_from_slice(&[0; TAG_LEN]);
        let stored_len = u32::try_from(body.len()).expect("a small pack") - offset;
        let plain_len = u32::try_from(payload.len()).expect("a small payload");
        let id = keys.payload_id(frame_kind, payload).unwrap();
        frames.push((offset, FrameEntry { kind: frame_kind, codec, plain_len, stored_len, id }));
    }
    let session_key = SessionKey::new([0x66; 32]);
    let sealed =
        seal_session_key(&session_key, &keys.data_public_key(), REPOSITORY, SESSION, [0x77; 32]).unwrap();
    let base = if kind == PackKind::Data { PackBase::Data(&session_key, &sealed) } else { PackBase::Map };
    let seal = PackSeal { keys: &keys, name: &name, base, salt: SALT, directory_salt: [0x34; 32] };
    let entries: Vec<FrameEntry> = frames.iter().map(|(_, frame)| *frame).collect();
    let blob = seal_pack(&seal, body, &entries);
    SealedPack { name, blob, frames }
}

pub fn small_pack(kind: PackKind) -> SealedPack {
    sealed_pack(kind, &[vec![7; 40], b"a chunk".to_vec(), vec![9; 300]])
}

fn verify(pack: &SealedPack, blob: &[u8]) -> Result<Vec<(u32, FrameEntry)>, FormatError> {
    verify_pack(&keys(), &pack.name, &mut blob.to_vec(), &mut Decoder::new())
}

#[test]
fn a_pack_has_the_length_that_was_foretold() {
    let pack = small_pack(PackKind::Data);
    let header = PackHeader::parse(&pack.blob).unwrap();
    assert_eq!(header.directory_len as usize, directory_stored_len(3));
    assert_eq!(header.frame_count, 3);
}

#[test]
fn a_directory_is_found_in_the_last_bytes_of_a_pack_if_all_of_it_is_there() {
    for kind in [PackKind::Data, PackKind::Map] {
        let pack = small_pack(kind);
        let start = PackHeader::parse(&pack.blob).unwrap().directory_offset as usize;
        for from in 0..pack.blob.len() {
            let found = find_directory(&pack.blob[from..]);
            assert_eq!(found, start.checked_sub(from), "the last bytes from {from} on");
        }
        // One whose length does not fit the bytes behind it is none.
        assert_eq!(find_directory(&pack.blob[..pack.blob.len() - 1]), None);
    }
    assert_eq!(find_directory(&[]), None);
}

#[test]
fn the_same_pack_sealed_again_has_the_same_bytes() {
    assert_eq!(small_pack(PackKind::Data).blob, small_pack(PackKind::Data).blob);
}

#[test]
fn other_content_under_the_same_salt_has_another_key() {
    let key_hash = |payload: &[u8]| {
        PackHeader::parse(&sealed_pack(PackKind::Data, &[payload.to_vec()]).blob).unwrap().key_hash
    };
    assert_ne!(key_hash(b"one"), key_hash(b"two"));
}

#[test]
fn a_pack_opens_only_under_its_own_name() {
    for kind in [PackKind::Data, PackKind::Map] {
        let pack = small_pack(kind);
        let header = PackHeader::parse(&pack.blob).unwrap();
        let other = PackName { number: 6, ..pack.name.clone() };
        let opener = PackOpener::new(&keys(), &other, &header).unwrap();
        let (offset, frame) = &pack.frames[0];
        let mut sealed = pack.blob[*offset as usize..][..frame.stored_len as usize].to_vec();
        assert_eq!(opener.open_frame(*offset, frame, &mut sealed), Err(FormatError::BadTag));
        let blob = &mut pack.blob.clone();
        assert_eq!(verify_pack(&keys(), &other, blob, &mut Decoder::new()), Err(FormatError::BadTag));
    }
}

#[test]
fn a_data_pack_is_bound_to_its_session_and_repository() {
    let pack = small_pack(PackKind::Data);
    let header = PackHeader::parse(&pack.blob).unwrap();
    let other = PackName { session: SessionId([0; 16]), ..pack.name.clone() };
    assert_eq!(PackOpener::new(&keys(), &other, &header).map(drop), Err(FormatError::BadTag));
    let foreign = Keys::from_root(&root_key(), RepositoryId([0; 16]), [0; 32]);
    assert_eq!(PackOpener::new(&foreign, &pack.name, &header).map(drop), Err(FormatError::BadTag));
}

#[test]
fn an_opened_session_key_can_be_used_again() {
    let keys = keys();
    let pack = small_pack(PackKind::Data);
    let header = PackHeader::parse(&pack.blob).unwrap();
    let session_key = keys.open_session_key(header.sealed_session_key.as_ref().unwrap(), SESSION).unwrap();
    assert_eq!(session_key, SessionKey::new([0x66; 32]));
    let opener = PackOpener::new_with_session_key(&keys, &pack.name, &header, &session_key).unwrap();
    let (offset, frame) = &pack.frames[1];
    let mut sealed = pack.blob[*offset as usize..][..frame.stored_len as usize].to_vec();
    assert_eq!(opener.open_frame(*offset, frame, &mut sealed).unwrap(), b"a chunk");
}

#[test]
fn a_frame_opens_only_as_what_it_is() {
    let pack = small_pack(PackKind::Data);
    let header = PackHeader::parse(&pack.blob).unwrap();
    let opener = PackOpener::new(&keys(), &pack.name, &header).unwrap();
    let (offset, frame) = pack.frames[0];
    let sealed = &pack.blob[offset as usize..][..frame.stored_len as usize];
    let open = |offset: u32, frame: FrameEntry| {
        opener.open_frame(offset, &frame, &mut sealed.to_vec()).map(|encoded| encoded.to_vec())
    };
    assert!(open(offset, frame).is_ok());
    assert_eq!(open(offset + 1, frame), Err(FormatError::BadTag));
    assert_eq!(open(offset, FrameEntry { kind: FrameKind::Page, ..frame }), Err(FormatError::BadTag));
    assert_eq!(open(offset, FrameEntry { plain_len: 41, ..frame }), Err(FormatError::BadTag));
    assert_eq!(open(offset, FrameEntry { id: PayloadId([0; 32]), ..frame }), Err(FormatError::BadTag));
    let longer = FrameEntry { stored_len: frame.stored_len + 1, ..frame };
    assert_eq!(open(offset, longer), Err(FormatError::Truncated));
    let raw = FrameEntry { codec: Codec::Raw, ..frame };
    assert_eq!(open(offset, raw), Err(FormatError::BadValue("the lengths of a frame do not fit its codec")));
}

#[test]
fn two_packs_do_not_mix() {
    let (pack, other) =
        (small_pack(PackKind::Data), sealed_pack(PackKind::Data, &[vec![7; 40], vec![8; 40]]));
    let (offset, frame) = &pack.frames[0];
    let range = *offset as usize..(*offset + frame.stored_len) as usize;
    let mut mixed = pack.blob.clone();
    mixed[range.clone()].copy_from_slice(&other.blob[range]);
    assert_eq!(verify(&pack, &mixed), Err(FormatError::BadTag));
}
