//! Whether what is damaged under one name is another blob's content: swapped, or put under a wrong name.
//!
//! Every object is bound to its name, so each name that comes into question can be tried. These are the names of other
//! blobs of the kind that something is wrong with, and of those with the same length.

use super::findings::Findings;
use super::report::FindingKind;
use crate::directory;
use crate::error::EngineError;
use crate::repository::{Repository, get_sealed};
use crate::store::BlobInfo;
use repo_format::{BlobKind, BlobName, SealedKind, open};
use std::mem::discriminant;

/// Damaged blobs that are looked at. Where there are more, the names are not what is wrong.
const BLOBS_LOOKED_AT: usize = 256;
/// Names that are tried for one blob.
const NAMES_TRIED: usize = 256;
/// Bytes that are opened for one blob, over all names that are tried: some tens of milliseconds.
const BYTES_OPENED: usize = 64 << 20;

/// Tells of damaged blobs that are authentic under another name.
pub(super) fn check(
    repository: &Repository<'_>,
    blobs: &[BlobInfo],
    findings: &Findings,
) -> Result<(), EngineError> {
    let found = findings.blobs();
    let with_name = |(id, kind, blob): (_, FindingKind, String)| Some((id, kind, BlobName::parse(&blob)?));
    let found: Vec<_> = found.into_iter().filter_map(with_name).collect();
    for (id, _, blob) in found.iter().filter(|(_, kind, _)| kind.is_of_content()).take(BLOBS_LOOKED_AT) {
        let Some(kind) = blob.kind() else { continue };
        let is_other = |name: &BlobName| {
            name != blob && name.kind().is_some_and(|other| discriminant(&other) == discriminant(&kind))
        };
        let len = blobs.iter().find(|info| info.name == *blob).map(|info| info.len);
        let suspects = found.iter().map(|(_, _, name)| name);
        let as_long = blobs.iter().filter(|info| Some(info.len) == len).map(|info| &info.name);
        let names = suspects.chain(as_long).filter(|name| is_other(name)).take(NAMES_TRIED);
        if let Some(name) = authentic_as(repository, blob, &kind, names)? {
            findings.tell_more(*id, &format!("it is authentic, but is the content of {name}"));
        }
    }
    Ok(())
}

fn authentic_as<'n>(
    repository: &Repository<'_>,
    blob: &BlobName,
    kind: &BlobKind,
    names: impl Iterator<Item = &'n BlobName>,
) -> Result<Option<&'n BlobName>, EngineError> {
    if let BlobKind::Pack(stored_as) = kind {
        for name in names {
            if let Some(BlobKind::Pack(pack)) = name.kind()
                && pack.kind == stored_as.kind
                && directory::is_content_of(repository, stored_as, &pack)?
            {
                return Ok(Some(name));
            }
        }
        return Ok(None);
    }
    let Some(sealed) = SealedKind::of_blob(kind) else { return Ok(None) };
    let bytes = match get_sealed(repository.store(), blob) {
        Err(error) if error.is_damage() => return Ok(None),
        other => other?,
    };
    let mut names = names.take(BYTES_OPENED / bytes.len().max(1));
    Ok(names.find(|name| open(repository.keys(), sealed, name, &bytes).is_ok()))
}
