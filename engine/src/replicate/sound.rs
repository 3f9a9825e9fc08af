//! Checks blobs that pass through this program: what was read wrongly once must not stay wrong at the copy for ever.

use crate::error::EngineError;
use crate::repository::{get_limited, get_sealed};
use crate::store::BlobStore;
use repo_format::{BlobName, FormatError, Keys, PackHeader, PackKind, PackName, PackOpener, open_directory};

/// How often a blob is read that is not the same twice, or an object that cannot be used.
const READS: usize = 4;

/// Checks that a pack is what its session sealed: its header, each of its frames, and its directory. Without the data key
/// the frames of data packs are not.
///
/// No frame is decoded: the tags of all of them tell that not one bit is another.
///
/// # Errors
/// What is wrong first.
pub(super) fn check_pack(keys: &Keys, name: &PackName, blob: &[u8]) -> Result<(), FormatError> {
    let header = PackHeader::parse(blob)?;
    let end = blob.get(header.directory_offset as usize..).ok_or(FormatError::Truncated)?;
    let frames = open_directory(keys, name, &header, end)?;
    if name.kind == PackKind::Data && !keys.can_read_data() {
        return Ok(());
    }
    let opener = PackOpener::new(keys, name, &header)?;
    let mut sealed = Vec::new();
    for (offset, frame) in &frames {
        let from = blob.get(*offset as usize..).and_then(|rest| rest.get(..frame.stored_len as usize));
        sealed.clear();
        sealed.extend_from_slice(from.ok_or(FormatError::Truncated)?);
        opener.open_frame(*offset, frame, &mut sealed)?;
    }
    Ok(())
}

/// Reads a blob that has nothing to check it by, until it is the same twice.
///
/// # Errors
/// [`EngineError::Damaged`] if it never is; a failing store.
pub(super) fn read_twice(
    store: &dyn BlobStore,
    name: &BlobName,
    limit: usize,
) -> Result<Vec<u8>, EngineError> {
    let mut bytes = get_limited(store, name, limit)?;
    for _ in 1..READS {
        let before = std::mem::replace(&mut bytes, get_limited(store, name, limit)?);
        if bytes == before {
            return Ok(bytes);
        }
    }
    let source = FormatError::BadValue("each time that it was read it was something else");
    Err(EngineError::Damaged { name: name.clone(), source })
}

/// Reads an object and opens it. One that does not open is read again, until it comes twice in the same way.
///
/// # Errors
/// [`EngineError::Damaged`]; a failing store.
pub(super) fn read_object<T>(
    store: &dyn BlobStore,
    name: &BlobName,
    open: impl Fn(&[u8]) -> Result<T, FormatError>,
) -> Result<(Vec<u8>, T), EngineError> {
    let mut before = Vec::new();
    for _ in 1..READS {
        let bytes = get_sealed(store, name)?;
        match open(&bytes) {
            Ok(opened) => return Ok((bytes, opened)),
            Err(_) if bytes == before => break,
            Err(_) => before = bytes,
        }
    }
    let bytes = get_sealed(store, name)?;
    let opened = open(&bytes).map_err(EngineError::damaged(name))?;
    Ok((bytes, opened))
}
