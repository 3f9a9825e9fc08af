//! Sealed objects and what is in them.

use crate::fields::Fields;
use crate::samples::{self, SALT, keys};
use repo_format::{
    Awaited, Barrier, BlobName, Condemned, Decision, DecisionName, FormatError, GcResult, GenerationSeal,
    Index, Intent, Lineage, Pin, RepackRecord, ReplicaMarker, SealedKind, Tombstone, open, seal,
};
use std::fmt::Debug;

/// Checks what a parser made of a plaintext: its one encoding is `bytes`, and sealed under the name `name` it is
/// refused with the parser's own error, or is either opened as the same value or refused for its name.
fn check_object<T: Debug + PartialEq>(
    bytes: &[u8],
    parsed: &Result<T, FormatError>,
    encode: impl FnOnce(&T) -> Vec<u8>,
    (kind, name): (SealedKind, &BlobName),
    open_blob: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> bool {
    if let Ok(value) = parsed {
        assert_eq!(encode(value), bytes, "{value:?} has another encoding");
    }
    // Miri runs no foreign code, such as sealing is.
    if cfg!(miri) {
        return parsed.is_ok();
    }
    let opened = open_blob(&seal(keys(), kind, name, SALT, bytes));
    match (parsed, &opened) {
        // What stands behind a pruner's ABORT is no signature: that is looked at before it is parsed to its end.
        (Ok(_), _) | (Err(FormatError::TrailingBytes), Err(FormatError::BadSignature)) => {}
        (Err(parse_error), Err(open_error)) => assert_eq!(parse_error, open_error),
        (Err(error), Ok(value)) => panic!("{value:?} was opened and is none: {error}"),
    }
    if let (Ok(value), Ok(opened)) = (parsed, &opened) {
        assert_eq!(value, opened);
    }
    parsed.is_ok()
}

/// The plaintext of an intent.
pub fn intent(data: &[u8]) -> bool {
    let parsed = Intent::parse(data);
    let name = parsed.as_ref().map_or_else(|_| samples::intent().name(), Intent::name);
    let open_blob = |blob: &[u8]| Intent::open(keys(), &name, blob);
    check_object(data, &parsed, Intent::encode, (SealedKind::Intent, &name), open_blob)
}

/// The plaintext of a decision, and with it the location of a map's root.
pub fn decision(data: &[u8]) -> bool {
    let parsed = Decision::parse(data);
    let sample = samples::decision_name();
    let name = match &parsed {
        Ok(Decision::Commit(commit)) => {
            DecisionName { vm: keys().vm_tag(&commit.vm), session: commit.session, ..sample }
        }
        Ok(Decision::Abort(abort)) => DecisionName { session: abort.session, ..sample },
        Ok(Decision::Repack(repacked)) => {
            DecisionName { vm: keys().vm_tag(""), session: repacked.session, ..sample }
        }
        Err(_) => sample,
    };
    if parsed.as_ref().is_ok_and(Decision::is_signed) {
        return check_signed(
            data,
            &parsed,
            Decision::encode,
            |value| (name.blob(), value.seal_signed(keys(), &samples::retention_key(), &name, SALT)),
            |_, blob| Decision::open(keys(), &name, blob),
        );
    }
    let open_blob = |blob: &[u8]| Decision::open(keys(), &name, blob);
    check_object(data, &parsed, Decision::encode, (SealedKind::Decision, &name.blob()), open_blob)
}

/// The plaintext of an index.
pub fn index(data: &[u8]) -> bool {
    let name = samples::index_name();
    let open_blob = |blob: &[u8]| Index::open(keys(), &name, blob);
    check_object(data, &Index::parse(data), Index::encode, (SealedKind::Index, &name), open_blob)
}

/// The content of an object that the retention signs: of a tombstone, of condemned packs, of the result or the seal of a
/// generation, of a repack record, of a pin or of what is told of replicas, as the first byte says; among them the plaintext
/// of a replica's mark, which is not signed.
pub fn session_objects(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    let (keys, key) = (keys(), &samples::retention_key());
    match which % 10 {
        0 => check_signed(
            data,
            &Tombstone::parse(data),
            Tombstone::encode,
            |value| value.seal(keys, key, SALT),
            |name, blob| Tombstone::open(keys, name, blob),
        ),
        1 => check_signed(
            data,
            &Condemned::parse(data),
            Condemned::encode,
            |value| value.seal(keys, key, 7, SALT),
            |_, blob| Condemned::open(keys, 7, blob),
        ),
        2 => check_signed(
            data,
            &GcResult::parse(data),
            GcResult::encode,
            |value| value.seal(keys, key, u32::MAX, SALT),
            |_, blob| GcResult::open(keys, u32::MAX, blob),
        ),
        3 => check_signed(
            data,
            &RepackRecord::parse(data),
            RepackRecord::encode,
            |value| value.seal(keys, key, SALT),
            |name, blob| RepackRecord::open(keys, name, blob),
        ),
        4 => check_signed(
            data,
            &GenerationSeal::parse(data),
            GenerationSeal::encode,
            |value| value.seal(keys, key, 7, SALT),
            |_, blob| GenerationSeal::open(keys, 7, blob),
        ),
        5 => check_signed(
            data,
            &Awaited::parse(data),
            Awaited::encode,
            |value| value.seal(keys, key, 7, SALT),
            |_, blob| Awaited::open(keys, 7, blob),
        ),
        6 => check_signed(
            data,
            &Pin::parse(data),
            Pin::encode,
            |value| value.seal(keys, key, 1, SALT),
            |name, blob| Pin::open(keys, name, blob),
        ),
        7 => check_signed(
            data,
            &Lineage::parse(data),
            Lineage::encode,
            |value| value.seal(keys, key, SALT),
            |name, blob| Lineage::open(keys, name, blob),
        ),
        8 => check_object(
            data,
            &ReplicaMarker::parse(data),
            ReplicaMarker::encode,
            (SealedKind::ReplicaMarker, &BlobName::replica_marker()),
            |blob| ReplicaMarker::open(keys, blob),
        ),
        _ => check_signed(
            data,
            &Barrier::parse(data),
            Barrier::encode,
            |value| value.seal(keys, key, SALT),
            |name, blob| Barrier::open(keys, name, blob),
        ),
    }
}

/// Checks what a parser made of a content: its one encoding is `bytes`, and signed and sealed it is opened as the same
/// value. Sealed without the signature it is not opened.
fn check_signed<T: Debug + PartialEq>(
    bytes: &[u8],
    parsed: &Result<T, FormatError>,
    encode: impl FnOnce(&T) -> Vec<u8>,
    seal_value: impl FnOnce(&T) -> (BlobName, Vec<u8>),
    open_blob: impl Fn(&BlobName, &[u8]) -> Result<T, FormatError>,
) -> bool {
    let Ok(value) = parsed else { return false };
    assert_eq!(encode(value), bytes, "{value:?} has another encoding");
    // Miri runs no foreign code, such as sealing is.
    if cfg!(miri) {
        return true;
    }
    let (name, blob) = seal_value(value);
    assert_eq!(open_blob(&name, &blob).as_ref(), Ok(value));
    let kind = name.kind().as_ref().and_then(SealedKind::of_blob).expect("it is a sealed object");
    let unsigned = seal(keys(), kind, &name, SALT, bytes);
    assert_eq!(open_blob(&name, &unsigned), Err(FormatError::BadSignature));
    true
}

/// A sealed object as it is stored. An input that no kind takes is sealed itself, changed in one byte and opened.
pub fn sealed_object(data: &[u8]) -> bool {
    for (kind, name) in samples::sealed_names() {
        if let Ok(plaintext) = open(keys(), kind, &name, data) {
            let mut fields = Fields::new(data);
            fields.bytes(16);
            let salt = fields.bytes(32).try_into().expect("what was opened has a whole header");
            assert_eq!(seal(keys(), kind, &name, salt, &plaintext), data, "sealing is not deterministic");
            return true;
        }
    }
    let mut fields = Fields::new(data);
    let (at, change) = (fields.u16(), fields.u8());
    let (kind, name) = (SealedKind::Index, samples::index_name());
    let mut blob = seal(keys(), kind, &name, SALT, fields.rest);
    let at = usize::from(at) % blob.len();
    blob[at] ^= change;
    match open(keys(), kind, &name, &blob) {
        Ok(plaintext) => assert_eq!((change, plaintext.as_slice()), (0, fields.rest)),
        Err(error) => assert_ne!(change, 0, "an intact object was refused: {error}"),
    }
    false
}
