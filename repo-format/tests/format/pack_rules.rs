//! What a pack must be (SPEC section 7).

use repo_format::limits::PACK_LEN_MAX;
use repo_format::*;

use crate::raw::Raw;
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
        let id = keys.payload_id(frame_kind, payload);
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
    let foreign = Keys::from_root(&root_key(), RepositoryId([0; 16]));
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

#[test]
fn a_payload_that_does_not_have_its_id_is_found() {
    let keys = keys();
    let name = pack_name(PackKind::Map, 5);
    let frame = FrameEntry {
        kind: FrameKind::Node,
        codec: Codec::Raw,
        plain_len: 4,
        stored_len: 20,
        id: keys.map_id(b"othr"),
    };
    let body = [&[0; PACK_HEADER_LEN][..], b"data", &[0; TAG_LEN]].concat();
    let seal =
        PackSeal { keys: &keys, name: &name, base: PackBase::Map, salt: SALT, directory_salt: [0x34; 32] };
    let mut blob = seal_pack(&seal, body, &[frame]);
    assert_eq!(verify_pack(&keys, &name, &mut blob, &mut Decoder::new()), Err(FormatError::WrongId));
}

#[test]
fn lengths_of_the_blob_are_those_of_the_header() {
    let pack = small_pack(PackKind::Map);
    assert_eq!(verify(&pack, &pack.blob[..pack.blob.len() - 1]), Err(FormatError::Truncated));
    let longer = [&pack.blob[..], &[0]].concat();
    assert_eq!(verify(&pack, &longer), Err(FormatError::TrailingBytes));
    assert_eq!(verify(&pack, &pack.blob[..100]), Err(FormatError::Truncated));
}

fn raw_header(kind: u8, offset: u32, len: u32, count: u32) -> Raw {
    let sealed = if kind == 1 { [1; 80] } else { [0; 80] };
    Raw::new()
        .put(b"KEEPPACK")
        .u16(0)
        .u8(kind)
        .u8(0)
        .u32(offset)
        .u32(len)
        .u32(count)
        .u64(0)
        .put(&[2; 64])
        .put(&sealed)
}

#[test]
fn headers_that_break_a_rule_are_rejected() {
    let misfit = FormatError::BadValue("the frames of a pack do not fit before its directory");
    let count_misfit = FormatError::BadValue("the length of a directory does not fit its count of frames");
    assert!(PackHeader::parse(&raw_header(1, 193, 142, 1).0).is_ok());
    assert!(PackHeader::parse(&raw_header(2, 193, 142, 1).0).is_ok());
    let changed = |at: usize, value: u8| {
        let mut bytes = raw_header(2, 193, 142, 1).0;
        bytes[at] = value;
        bytes
    };
    let too_long = u32::try_from(PACK_LEN_MAX).unwrap() - 141;
    let broken = [
        (changed(0, b'k'), FormatError::BadMagic),
        (changed(8, 1), FormatError::UnsupportedVersion { found: 1 }),
        (changed(9, 1), FormatError::UnsupportedVersion { found: 256 }),
        (changed(10, 3), FormatError::BadType { what: "pack kind", found: 3 }),
        (changed(11, 1), FormatError::BadFlags),
        (changed(24, 1), FormatError::BadFlags),
        (changed(31, 1), FormatError::BadFlags),
        (changed(96, 1), FormatError::BadFlags),
        (changed(175, 1), FormatError::BadFlags),
        (raw_header(2, 192, 142, 1).0, misfit.clone()),
        (raw_header(2, 193, 100, 0).0, misfit.clone()),
        (raw_header(2, 193, 142, u32::MAX).0, misfit),
        (raw_header(2, 193, 141, 1).0, count_misfit.clone()),
        (raw_header(2, 300, 142, 2).0, count_misfit),
        (
            raw_header(2, too_long, 142, 1).0,
            FormatError::LimitExceeded {
                what: "pack length",
                found: PACK_LEN_MAX as u64 + 1,
                limit: PACK_LEN_MAX as u64,
            },
        ),
        (raw_header(2, 193, 142, 1).0[..175].to_vec(), FormatError::Truncated),
    ];
    for (bytes, error) in broken {
        assert_eq!(PackHeader::parse(&bytes), Err(error));
    }
}

fn raw_entry(raw: Raw, kind: u8, codec: u8, plain_len: u32, stored_len: u32) -> Raw {
    raw.u8(kind).u8(codec).u32(plain_len).u32(stored_len).put(&[8; 32])
}

#[test]
fn directories_that_break_a_rule_are_rejected() {
    let one = |kind, codec, plain_len, stored_len| {
        raw_entry(Raw::new().u32(1), kind, codec, plain_len, stored_len).0
    };
    let parse = |bytes: &[u8]| parse_directory(bytes, PackKind::Data, 276);
    let frame = FrameEntry {
        kind: FrameKind::Chunk,
        codec: Codec::Raw,
        plain_len: 84,
        stored_len: 100,
        id: PayloadId([8; 32]),
    };
    assert_eq!(parse(&one(1, 1, 84, 100)), Ok(vec![(176, frame)]));
    assert_eq!(encode_directory(&[frame]), one(1, 1, 84, 100));

    let misplaced = FormatError::BadValue("the frames of a pack do not end where its directory begins");
    let misfit = FormatError::BadValue("the lengths of a frame do not fit its codec");
    let two = |first, second| {
        raw_entry(raw_entry(Raw::new().u32(2), 1, 1, first - 16, first), 1, 1, second - 16, second).0
    };
    assert!(parse(&two(50, 50)).is_ok());
    let broken = [
        (two(50, 49), misplaced.clone()),
        (two(50, 51), misplaced.clone()),
        (Raw::new().u32(0).0, misplaced),
        (one(2, 1, 84, 100), FormatError::BadType { what: "frame kind", found: 2 }),
        (one(4, 1, 84, 100), FormatError::BadType { what: "frame kind", found: 4 }),
        (one(1, 0, 84, 100), FormatError::BadType { what: "codec", found: 0 }),
        (one(1, 3, 84, 100), FormatError::BadType { what: "codec", found: 3 }),
        (one(1, 1, 85, 100), misfit.clone()),
        (one(1, 2, 84, 100), misfit.clone()),
        (one(1, 2, 84, 16), misfit.clone()),
        (one(1, 1, 0, 16), misfit.clone()),
        (one(1, 1, 0, 3), misfit),
        (
            one(1, 2, (1 << 20) + 1, 100),
            FormatError::LimitExceeded { what: "plain length", found: (1 << 20) + 1, limit: 1 << 20 },
        ),
        (Raw::new().u32(u32::MAX).0, FormatError::Truncated),
        ([one(1, 1, 84, 100), vec![0]].concat(), FormatError::TrailingBytes),
    ];
    for (bytes, error) in broken {
        assert_eq!(parse(&bytes), Err(error));
    }
}

#[test]
fn zstd_frames_that_break_a_rule_are_rejected() {
    let payload = [3_u8; 5000];
    let decode = |encoded: &[u8], plain_len: usize| {
        Decoder::new().decode_into(Codec::Zstd, encoded, &mut vec![0; plain_len])
    };
    let mut good = Vec::new();
    assert_eq!(Encoder::new(3).encode(&payload, &mut good), Codec::Zstd);
    assert_eq!(decode(&good, 5000), Ok(()));
    assert_eq!(decode(&good, 4999), Err(FormatError::BadZstd));
    assert_eq!(decode(&good, 5001), Err(FormatError::BadZstd));
    assert_eq!(decode(&good[..good.len() - 1], 5000), Err(FormatError::BadZstd));
    assert_eq!(decode(&[&good[..], &[0]].concat(), 5000), Err(FormatError::BadZstd));
    assert_eq!(decode(&[&good[..], &good].concat(), 10_000), Err(FormatError::BadZstd));
    assert_eq!(decode(&[], 5000), Err(FormatError::BadZstd));

    // Magic, a frame header, and one RLE block of 5000 bytes.
    let frame = |header: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd], header, &[0x43, 0x9c, 0x00, 3]].concat();
    let size = &5000_u32.to_le_bytes();
    assert_eq!(decode(&frame(&[&[0xa0], &size[..]].concat()), 5000), Ok(()), "single segment");
    assert_eq!(decode(&frame(&[&[0x80, 0x68], &size[..]].concat()), 5000), Ok(()), "8 MiB of window");
    assert_eq!(decode(&frame(&[&[0x80, 0x69], &size[..]].concat()), 5000), Err(FormatError::BadZstd));
    assert_eq!(
        decode(&frame(&[&[0xa1, 0x00], &size[..]].concat()), 5000),
        Err(FormatError::BadZstd),
        "dictionary"
    );
    assert_eq!(decode(&frame(&[0x00, 0x50]), 5000), Err(FormatError::BadZstd), "no content size");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &good[..]].concat();
    assert_eq!(decode(&skippable, 5000), Err(FormatError::BadZstd), "skippable frame");
}

#[test]
fn a_raw_payload_has_its_plain_length() {
    let error = FormatError::BadValue("a raw payload does not have its plain length");
    assert_eq!(Decoder::new().decode_into(Codec::Raw, b"abc", &mut [0; 4]), Err(error));
}
