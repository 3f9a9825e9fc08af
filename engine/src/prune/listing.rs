//! Listings that are not believed at once: what is missing in one could be deleted with all that only it needs
//! (PROTOCOL 4, interlocks).
//!
//! Each prefix has three canaries, at its first key, in the middle and at its last, which every listing has to show. What
//! everything depends on is listed twice with pages of different lengths.

use crate::error::EngineError;
use crate::repository::{Repository, exists};
use crate::session::create;
use crate::store::{BlobInfo, BlobStore, Put};
use repo_format::{BlobKind, BlobName, CANARY};
use std::collections::BTreeSet;

/// The length of the pages of the first of two listings; a prime number, so that their ends are elsewhere.
const FIRST_PAGE: usize = 997;

/// Makes the canaries that a listing does not show.
///
/// # Errors
/// [`EngineError::ListingLies`] if one is there and is not listed; a failing store.
pub(super) fn make_canaries(repository: &Repository<'_>) -> Result<(), EngineError> {
    for name in BlobName::canaries() {
        if exists(repository.store(), &name)?.is_some() {
            continue;
        }
        match repository.store().put_new(&name, CANARY) {
            Ok(Put::Created) => {}
            // Another prune may have made it since.
            Ok(Put::Identical | Put::Different) if exists(repository.store(), &name)?.is_some() => {}
            Ok(Put::Identical | Put::Different) => return Err(EngineError::ListingLies { name }),
            // It may have been applied.
            Err(_) => create(repository.store(), &name, CANARY)?,
        }
    }
    Ok(())
}

/// Lists a prefix, and checks that it shows the prefix's canaries.
///
/// # Errors
/// [`EngineError::ListingLies`]; a failing store.
pub(super) fn list(repository: &Repository<'_>, prefix: &str) -> Result<Vec<BlobInfo>, EngineError> {
    let listed = repository.list(prefix)?;
    check_canaries(repository, prefix, &listed)?;
    Ok(listed)
}

/// Lists a prefix twice, with pages of different lengths: all that one of them shows.
///
/// # Errors
/// [`EngineError::ListingLies`] if the second lacks what the first has and what is there; a failing store.
pub(super) fn list_twice(repository: &Repository<'_>, prefix: &str) -> Result<Vec<BlobInfo>, EngineError> {
    let first = in_short_pages(repository.store(), prefix)?;
    let second = list(repository, prefix)?;
    check_canaries(repository, prefix, &first)?;
    check_against(repository, &first, &second.iter().map(|info| &info.name).collect())?;
    Ok(second)
}

/// Checks that what one listing showed is in another that was made later, or is gone.
///
/// # Errors
/// As [`list_twice`].
pub(super) fn check_against(
    repository: &Repository<'_>,
    first: &[BlobInfo],
    second: &BTreeSet<&BlobName>,
) -> Result<(), EngineError> {
    for info in first {
        if !second.contains(&info.name) && exists(repository.store(), &info.name)?.is_some() {
            return Err(EngineError::ListingLies { name: info.name.clone() });
        }
    }
    Ok(())
}

/// Lists a prefix in pages that end elsewhere than usual.
pub(super) fn in_short_pages(store: &dyn BlobStore, prefix: &str) -> Result<Vec<BlobInfo>, EngineError> {
    let mut blobs = Vec::new();
    let mut from = None;
    loop {
        let page = store.list(prefix, from.as_ref(), FIRST_PAGE)?;
        blobs.extend(page.blobs);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(blobs),
        }
    }
}

/// Where no prune was yet, there are no canaries.
fn check_canaries(repository: &Repository<'_>, prefix: &str, listed: &[BlobInfo]) -> Result<(), EngineError> {
    let is_canary = |info: &&BlobInfo| matches!(info.name.kind(), Some(BlobKind::Canary));
    let shown: BTreeSet<&BlobName> = listed.iter().filter(is_canary).map(|info| &info.name).collect();
    for name in BlobName::canaries() {
        let is_missing = name.as_str().starts_with(prefix) && !shown.contains(&name);
        if is_missing && exists(repository.store(), &name)?.is_some() {
            return Err(EngineError::ListingLies { name });
        }
    }
    Ok(())
}
