//! The local index of a repository, brought up to date for a backup.

use crate::console::warn;
use crate::progress::Progress;
use crate::settings::Settings;
use keepstone_engine::index::{LocalIndex, Preference, sync};
use keepstone_engine::{EngineError, Repository};
use repo_format::{DecisionName, PREFIX_DECISIONS, SessionId, VmTag, decisions_prefix};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;

/// What the index may take when it has no directory and is held in memory: the entries of some 2 million chunks.
const MEMORY_BUDGET: u64 = 128 << 20;

/// What the checksums of the local index are keyed for.
const CHECK_CONTEXT: &str = "keepstone v0 local index";

/// Opens the index and fetches what other sessions added. Without a usable directory it is held in memory, and said.
///
/// # Errors
/// A failing store, or an interruption. A cache that cannot be used is none.
pub(crate) fn open(
    settings: &Settings,
    repository: &Repository<'_>,
    vms: &[String],
    budget_bytes: u64,
    progress: &Progress,
) -> anyhow::Result<LocalIndex> {
    let mut index = open_cached(settings, repository, budget_bytes)?;
    let sessions = sessions_of(repository, vms)?;
    let preference = Preference { sessions: &sessions, writers: std::slice::from_ref(&settings.writer) };
    match sync(&mut index, repository.store(), repository.keys(), &preference, progress) {
        Ok(report) => tracing::info!(?report, entries = index.entries(), "the index is up to date"),
        Err(EngineError::Index(error)) => {
            let error = anyhow::Error::new(error);
            warn(&format!("the index cache is incomplete, so more may be stored than needed: {error:#}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(index)
}

fn open_cached(
    settings: &Settings,
    repository: &Repository<'_>,
    budget_bytes: u64,
) -> anyhow::Result<LocalIndex> {
    let open = |root: Option<&Path>, budget_bytes| {
        let key = repository.keys().local_key(CHECK_CONTEXT);
        LocalIndex::open(root, repository.config().repository, key, budget_bytes)
    };
    let reason = match settings.cache_dir() {
        None => "there is no cache directory; name one with --cache-dir".to_owned(),
        Some(dir) => match open(Some(&dir), budget_bytes) {
            Ok(index) => return Ok(index),
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        },
    };
    warn(&format!("the index is held in memory and fetched anew in every backup: {reason}"));
    Ok(open(None, budget_bytes.min(MEMORY_BUDGET)).map_err(EngineError::Index)?)
}

/// The sessions that made the snapshots of VMs, the newest first. Those of many VMs are found in one listing.
fn sessions_of(repository: &Repository<'_>, vms: &[String]) -> Result<Vec<SessionId>, EngineError> {
    let tags: BTreeSet<VmTag> = vms.iter().map(|vm| repository.keys().vm_tag(vm)).collect();
    let blobs = match tags.first() {
        None => Vec::new(),
        Some(tag) if tags.len() == 1 => repository.list(&decisions_prefix(*tag))?,
        Some(_) => repository.list(PREFIX_DECISIONS)?,
    };
    let names = blobs.iter().filter_map(|blob| DecisionName::of(&blob.name));
    let mut names: Vec<DecisionName> = names.filter(|name| tags.contains(&name.vm)).collect();
    names.sort_by_key(|name| Reverse(name.seq));
    Ok(names.into_iter().map(|name| name.session).collect())
}
