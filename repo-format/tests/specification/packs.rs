//! Packs and their parts (SPEC section 7).

use crate::decode::blob_name;
use crate::fields::{self, Fields, hex};
use crate::keys::keys;
use crate::vector::Vector;
use repo_format::{
    BlobKind, Codec, Decoder, FormatError, FrameEntry, PACK_HEADER_LEN, PackBase, PackHeader, PackKind,
    PackName, PackSeal, TAG_LEN, encode_directory, parse_directory, seal_pack, verify_pack,
};

pub fn directory(vector: &Vector) -> Result<Fields, FormatError> {
    let kind = PackKind::from_number(vector.number("pack-kind"))?;
    let frames = parse_directory(&vector.bytes, kind, vector.number("directory-offset"))?;
    let entries: Vec<FrameEntry> = frames.iter().map(|(_, frame)| *frame).collect();
    assert_eq!(encode_directory(&entries), vector.bytes, "{}", vector.name);
    Ok(fields::frames(&frames))
}

pub fn pack_header(vector: &Vector) -> Result<Fields, FormatError> {
    let header = PackHeader::parse(&vector.bytes)?;
    assert_eq!(header.encode().as_slice(), vector.bytes, "{}", vector.name);
    Ok(fields::pack_header(&header))
}

/// Opens a whole pack, and seals it again.
pub fn pack(vector: &Vector) -> Result<Fields, FormatError> {
    let (keys, name) = (keys(vector), pack_name(vector));
    let mut blob = vector.bytes.clone();
    let mut decoder = Decoder::new();
    let frames = verify_pack(&keys, &name, &mut blob, &mut decoder)?;
    let mut fields = fields::frames(&frames);
    for (number, (offset, frame)) in frames.iter().enumerate() {
        let end = (*offset + frame.stored_len) as usize - TAG_LEN;
        let mut payload = vec![0; frame.plain_len as usize];
        decoder.decode_into(frame.codec, &blob[*offset as usize..end], &mut payload)?;
        fields.insert(format!("frame.{number}.payload"), hex(&payload));
    }
    assert!(seal_again(vector, &name, &blob, &frames) == vector.bytes, "{}", vector.name);
    Ok(fields)
}

/// Seals the pack whose decrypted blob this is.
fn seal_again(vector: &Vector, name: &PackName, blob: &[u8], frames: &[(u32, FrameEntry)]) -> Vec<u8> {
    let keys = keys(vector);
    let header = PackHeader::parse(blob).unwrap();
    let opened = header.sealed_session_key.as_ref().map(|sealed| {
        let key = keys.open_session_key(sealed, name.session).unwrap();
        (key, sealed)
    });
    let base = opened.as_ref().map_or(PackBase::Map, |(key, sealed)| PackBase::Data(key, sealed));
    let directory = header.directory_offset as usize;
    let directory_salt = blob[directory + 16..directory + 48].try_into().unwrap();
    let entries: Vec<FrameEntry> = frames.iter().map(|(_, frame)| *frame).collect();
    let mut body = blob[..directory].to_vec();
    body[..PACK_HEADER_LEN].fill(0);
    seal_pack(&PackSeal { keys: &keys, name, base, salt: header.salt, directory_salt }, body, &entries)
}

fn pack_name(vector: &Vector) -> PackName {
    match blob_name(vector).kind() {
        Some(BlobKind::Pack(name)) => name,
        other => panic!("{}: {other:?} is no pack", vector.name),
    }
}

pub fn payload(vector: &Vector) -> Result<Fields, FormatError> {
    let mut payload = vec![0; vector.number("plain-length")];
    Decoder::new().decode_into(Codec::from_number(vector.number("codec"))?, &vector.bytes, &mut payload)?;
    Ok([("payload".to_owned(), hex(&payload))].into())
}
