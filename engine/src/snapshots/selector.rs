//! Finding the one snapshot that a user means.

use super::query::CLOCKS_APART;
use super::{Query, Snapshot, Snapshots, is_forgotten, matching, read};
use crate::error::EngineError;
use crate::repository::Repository;
use repo_format::{Decision, DecisionName, PREFIX_DECISIONS};

/// What a user calls a snapshot by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The beginning of its id, in hex.
    Id(String),
    /// The newest of a VM.
    Latest(String),
    /// The newest of a VM that is not later than a time (milliseconds since 1970).
    AtTime(String, u64),
}

/// Finds the one snapshot that a selector means.
///
/// # Errors
/// [`EngineError::NoSuchSnapshot`], [`EngineError::AmbiguousSnapshot`], a decision that cannot be read and may be of the
/// snapshot that is meant, or a failing store.
pub fn find(repository: &Repository<'_>, selector: &Selector) -> Result<Snapshot, EngineError> {
    let (vm, wanted) = match selector {
        Selector::Id(id) => (None, id.clone()),
        Selector::Latest(vm) => (Some(vm.as_str()), format!("{vm}@latest")),
        Selector::AtTime(vm, _) => (Some(vm.as_str()), format!("of {vm} that is so old")),
    };
    let mut found = match selector {
        Selector::Id(id) => find_by_id(repository, id)?,
        Selector::Latest(_) => {
            not_later(matching(repository, &Query { vm, newest: Some(1), since: None })?, u64::MAX)?
        }
        Selector::AtTime(_, time) => not_later(back_to(repository, vm, *time)?, *time)?,
    };
    match (selector, found.len()) {
        (Selector::Id(_), 2..) => Err(EngineError::AmbiguousSnapshot {
            wanted,
            found: found.iter().map(Snapshot::session).collect(),
        }),
        _ => found.pop().ok_or(EngineError::NoSuchSnapshot { wanted }),
    }
}

/// The snapshots of one VM from the newest one back to the last that is not later than a time.
fn back_to(repository: &Repository<'_>, vm: Option<&str>, time: u64) -> Result<Snapshots, EngineError> {
    let mut since = time.saturating_sub(CLOCKS_APART);
    loop {
        let found = matching(repository, &Query { vm, newest: None, since: Some(since) })?;
        if since == 0 || found.snapshots.iter().any(|snapshot| snapshot.commit.time <= time) {
            return Ok(found);
        }
        // The VM was not backed up for a while: twice as far back.
        since = time.saturating_sub((time - since).saturating_mul(2));
    }
}

/// The snapshots of one VM that are not later than a time. A decision that cannot be read could be of the last of them,
/// unless a later one that can be read is: an older snapshot must not silently take its place.
fn not_later(listed: Snapshots, time: u64) -> Result<Vec<Snapshot>, EngineError> {
    let Snapshots { mut snapshots, unreadable, .. } = listed;
    let later = snapshots.iter().filter(|snapshot| snapshot.commit.time > time);
    let first_later = later.map(|snapshot| snapshot.name.seq).min();
    snapshots.retain(|snapshot| snapshot.commit.time <= time);
    let last = snapshots.last().map(|snapshot| snapshot.name.seq);
    for (name, error) in unreadable {
        if let Some(name) = DecisionName::of(&name)
            && last.is_none_or(|last| name.seq >= last)
            && first_later.is_none_or(|later| name.seq <= later)
        {
            return Err(error);
        }
    }
    Ok(snapshots)
}

/// Reads only the decisions whose names fit.
fn find_by_id(repository: &Repository<'_>, prefix: &str) -> Result<Vec<Snapshot>, EngineError> {
    let mut found = Vec::new();
    for info in repository.list(PREFIX_DECISIONS)? {
        let Some(name) = DecisionName::of(&info.name) else { continue };
        if !name.session.to_string().starts_with(prefix) {
            continue;
        }
        if let Some(Decision::Commit(commit)) = read(repository, &name)?
            && !is_forgotten(repository, &name)?
        {
            found.push(Snapshot { name, commit: *commit });
        }
    }
    Ok(found)
}
