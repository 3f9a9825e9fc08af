//! Sealed objects and what is in them.

use crate::fields::Fields;
use crate::samples::{self, SALT, keys};
use repo_format::{
    BlobName, Condemned, Decision, DecisionName, FormatError, GcResult, Index, Intent, RepackRecord,
    SealedKind, Tombstone, open, seal,
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
        (Ok(_), _) => {}
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
        Err(_) => sample,
    };
    let open_blob = |blob: &[u8]| Decision::open(keys(), &name, blob);
    check_object(data, &parsed, Decision::encode, (SealedKind::Decision, &name.blob()), open_blob)
}

/// The plaintext of an index.
pub fn index(data: &[u8]) -> bool {
    let name = samples::index_name();
    let open_blob = |blob: &[u8]| Index::open(keys(), &name, blob);
    check_object(data, &Index::parse(data), Index::encode, (SealedKind::Index, &name), open_blob)
}

/// The plaintext of a tombstone, of condemned packs, of the result of a generation or of a repack record, as the first
/// byte says.
pub fn session_objects(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    match which % 4 {
        0 => {
            let parsed = Tombstone::parse(data);
            let name = parsed.as_ref().map_or_else(|_| samples::tombstone().name(), Tombstone::name);
            let open_blob = |blob: &[u8]| Tombstone::open(keys(), &name, blob);
            check_object(data, &parsed, Tombstone::encode, (SealedKind::Tombstone, &name), open_blob)
        }
        1 => {
            let (parsed, name) = (Condemned::parse(data), BlobName::condemned(7));
            let open_blob = |blob: &[u8]| Condemned::open(keys(), 7, blob);
            check_object(data, &parsed, Condemned::encode, (SealedKind::Condemned, &name), open_blob)
        }
        2 => {
            let (parsed, name) = (GcResult::parse(data), BlobName::result(7));
            let open_blob = |blob: &[u8]| GcResult::open(keys(), 7, blob);
            check_object(data, &parsed, GcResult::encode, (SealedKind::GcResult, &name), open_blob)
        }
        _ => {
            let parsed = RepackRecord::parse(data);
            let session = parsed.as_ref().map_or(samples::SESSION, |record| record.session);
            let name = BlobName::repack(session);
            let open_blob = |blob: &[u8]| RepackRecord::open(keys(), &name, blob);
            check_object(data, &parsed, RepackRecord::encode, (SealedKind::Repack, &name), open_blob)
        }
    }
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
