//! What a backup that reads a disk in full does not take on trust: that the parent's packs of it are all there.
//!
//! Inheritance needs no such check (PROTOCOL W4), and spends no request on it. But a full backup is what an operator
//! turns to after damage, and has all bytes at hand: what was lost is stored again.

use crate::error::{EngineError, chain};
use crate::map::reader::MapReader;
use crate::observer::{Notice, Observer, notify};
use crate::repository::Repository;
use repo_format::{PackName, packs_prefix};
use std::collections::{BTreeMap, BTreeSet};

/// The packs that a map names and that are not in the store with their lengths; nothing if the map itself cannot be
/// read, so that nothing of it can be used.
pub(super) fn lost_packs(
    repository: &Repository<'_>,
    map: &MapReader<'_, '_, '_>,
    observer: &dyn Observer,
) -> Result<Option<BTreeSet<PackName>>, EngineError> {
    // Down to the nodes above the pages: all of them are what the new map is compared with.
    let needed = match map.pack_set(1) {
        Ok(needed) => needed,
        Err(error) if error.is_damage() => {
            let notice = Notice::Unreadable { name: map.name().to_string(), reason: chain(&error) };
            notify(observer, notice)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let prefixes: BTreeSet<String> =
        needed.keys().map(|name| packs_prefix(name.kind, &name.writer, name.session)).collect();
    let mut listed = BTreeMap::new();
    for prefix in prefixes {
        listed.extend(repository.list(&prefix)?.into_iter().map(|info| (info.name, info.len)));
    }
    let is_lost = |(name, len): &(PackName, u32)| listed.get(&name.blob()) != Some(&u64::from(*len));
    let lost: BTreeSet<PackName> = needed.into_iter().filter(is_lost).map(|(name, _)| name).collect();
    for pack in &lost {
        notify(observer, Notice::PackLost { name: pack.blob().to_string() })?;
    }
    Ok(Some(lost))
}
