//! Packs and their frames.

use crate::fields::Fields;
use crate::samples::{self, SALT, keys};
use repo_format::limits::CHUNK_LEN_MAX;
use repo_format::{
    Codec, Decoder, Encoder, FormatError, FrameEntry, FrameKind, PACK_HEADER_LEN, PackHeader, PackKind,
    PayloadId, SealedKind, TAG_LEN, encode_directory, open_directory, parse_directory, seal, verify_pack,
};

/// A pack as it is stored, by one without keys: hardly more than its header can be valid.
pub fn pack_header(data: &[u8]) -> bool {
    let Ok(header) = PackHeader::parse(data) else { return false };
    assert_eq!(header.encode(), data[..PACK_HEADER_LEN], "{header:?} has another encoding");
    for kind in [PackKind::Data, PackKind::Map] {
        let name = samples::pack_name(kind, 0);
        let directory = data.get(header.directory_offset as usize..).unwrap_or_default();
        let listed = open_directory(keys(), &name, &header, directory);
        if let Ok(verified) = verify_pack(keys(), &name, &mut data.to_vec(), &mut Decoder::new()) {
            assert_eq!(listed, Ok(verified));
        }
    }
    true
}

/// The plaintext of a directory, behind the kind of its pack and its offset there.
pub fn pack_directory(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let kind = if fields.u8().is_multiple_of(2) { PackKind::Data } else { PackKind::Map };
    let directory_offset = fields.u32();
    let plaintext = fields.rest;
    let parsed = parse_directory(plaintext, kind, directory_offset);
    if let Ok(frames) = &parsed {
        let entries: Vec<FrameEntry> = frames.iter().map(|(_, entry)| *entry).collect();
        assert_eq!(encode_directory(&entries), plaintext, "{entries:?} have another encoding");
        let ends = frames.iter().map(|(offset, entry)| offset + entry.stored_len);
        let starts = frames.iter().skip(1).map(|(offset, _)| *offset).chain([directory_offset]);
        assert!(ends.eq(starts), "a frame does not begin where the one before it ends");
    }
    let name = samples::pack_name(kind, 0);
    let header = PackHeader {
        kind,
        directory_offset,
        directory_len: 0,
        frame_count: u32::try_from(parsed.as_ref().map_or(0, Vec::len)).expect("inputs are short"),
        salt: SALT,
        key_hash: SALT,
        sealed_session_key: None,
    };
    let sealed = seal(keys(), SealedKind::PackDirectory, &name.blob(), SALT, plaintext);
    assert_eq!(open_directory(keys(), &name, &header, &sealed), parsed);
    parsed.is_ok()
}

/// What a writer who has the keys can put into a pack: any frames, properly sealed. Of the fields in front, one changes
/// a byte of the sealed pack, which must then be refused.
pub fn pack(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let kind = if fields.u8().is_multiple_of(2) { PackKind::Data } else { PackKind::Map };
    let (at, change) = (fields.u16(), fields.u8());
    let mut decoder = Decoder::new();
    let (mut body, mut entries, mut all_sound) = (vec![0; PACK_HEADER_LEN], Vec::new(), true);
    while !fields.rest.is_empty() {
        let Some((entry, encoded, is_sound)) = read_frame(&mut fields, kind, &mut decoder) else { continue };
        body.extend_from_slice(encoded);
        body.extend_from_slice(&[0; TAG_LEN]);
        entries.push(entry);
        all_sound &= is_sound;
    }
    if entries.is_empty() {
        return false;
    }
    let name = samples::pack_name(kind, 0);
    let mut blob = samples::sealed_pack(&name, body, &entries);
    let at = usize::from(at) % blob.len();
    blob[at] ^= change;
    let verified = verify_pack(keys(), &name, &mut blob, &mut decoder);
    assert_eq!(verified.is_ok(), all_sound && change == 0, "{verified:?} of {entries:?}");
    if let Ok(frames) = verified {
        assert!(frames.iter().map(|(_, entry)| entry).eq(&entries));
    }
    all_sound && change == 0
}

/// Reads a frame that a pack's directory may list, its encoded payload, and whether that is one with the right id.
fn read_frame<'a>(
    fields: &mut Fields<'a>,
    pack_kind: PackKind,
    decoder: &mut Decoder,
) -> Option<(FrameEntry, &'a [u8], bool)> {
    let (flags, declared_len, encoded_len) = (fields.u8(), fields.u32(), fields.u16());
    let encoded = fields.bytes(usize::from(encoded_len));
    let kind = match pack_kind {
        PackKind::Data => FrameKind::Chunk,
        PackKind::Map if flags & 1 == 0 => FrameKind::Page,
        PackKind::Map => FrameKind::Node,
    };
    let codec = if flags & 2 == 0 { Codec::Raw } else { Codec::Zstd };
    let plain_len = match codec {
        Codec::Raw => encoded.len(),
        // Longer ones are possible, and only cost more time.
        Codec::Zstd => (declared_len as usize).min(CHUNK_LEN_MAX),
    };
    if encoded.is_empty() || (codec == Codec::Zstd && encoded.len() >= plain_len) {
        return None;
    }
    let mut payload = vec![0; plain_len];
    let is_whole = decoder.decode_into(codec, encoded, &mut payload).is_ok();
    let is_sound = is_whole && flags & 4 == 0;
    let id = if is_sound {
        keys().payload_id(kind, &payload).expect("the root key is known")
    } else {
        PayloadId([0; 32])
    };
    let entry = FrameEntry {
        kind,
        codec,
        plain_len: u32::try_from(plain_len).expect("limited above"),
        stored_len: u32::try_from(encoded.len() + TAG_LEN).expect("inputs are short"),
        id,
    };
    Some((entry, encoded, is_sound))
}

/// An encoded payload, behind its codec and the length that it is said to have.
pub fn chunk_frame(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let codec = if fields.u8().is_multiple_of(2) { Codec::Raw } else { Codec::Zstd };
    let plain_len = fields.u32() as usize;
    if plain_len > CHUNK_LEN_MAX {
        return false;
    }
    let mut decoder = Decoder::new();
    let mut payload = vec![0; plain_len];
    let taken = decoder.decode_into(codec, fields.rest, &mut payload);
    match (&taken, codec) {
        (Ok(()), Codec::Raw) => assert_eq!(payload, fields.rest),
        (Ok(()), Codec::Zstd) => assert!(fields.rest.len() < plain_len),
        (Err(FormatError::BadZstd), Codec::Zstd) | (Err(FormatError::BadValue(_)), Codec::Raw) => {}
        (Err(error), _) => panic!("an undocumented error: {error}"),
    }
    // Whatever it was, the decoder's reused state is as good as new.
    let (mut encoded, mut again) = (Vec::new(), vec![0; payload.len()]);
    let codec = Encoder::new(1).encode(&payload, &mut encoded);
    assert_eq!(decoder.decode_into(codec, &encoded, &mut again), Ok(()));
    assert_eq!(again, payload);
    taken.is_ok()
}
