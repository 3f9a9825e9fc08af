//! Which packs are worth packing again.

use super::candidates::Candidates;
use super::usage::Usage;
use super::{Amount, PruneJob, PrunePlan};
use crate::error::EngineError;
use crate::observer::Observer;
use crate::pack_set::PackSet;
use crate::repository::Repository;
use crate::store::StoredTier;
use repo_format::{
    BlobKind, PACK_HEADER_LEN, PREFIX_DATA, PREFIX_MAP, PackHeader, PackKind, PackName, PackRef,
};
use std::collections::{BTreeMap, BTreeSet};

/// Packs of which less than one in so many bytes is not needed are left alone: packing them again would gain nothing.
const UNUSED_SHARE_MIN: u64 = 16;

/// What is packed again.
#[derive(Clone, Copy)]
pub struct RepackPolicy<'a> {
    /// How much may be stored that is not needed, in packs that are needed for something else.
    pub max_unused: Unused,
    /// How much is written again in one run, in bytes.
    pub max_repack: Option<u64>,
    /// Whether a pack is worth it: packing it again costs reading and writing what is needed of it, and where it is
    /// cooled, fees for reading and for deleting it early.
    pub worth: &'a dyn Fn(&PackUse) -> bool,
}

/// How much may be stored and not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// So many bytes.
    Bytes(u64),
    /// So many per cent of what is stored.
    Percent(u8),
    /// Any amount: nothing is packed again.
    Unlimited,
}

/// A pack, and how much of it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub pack: PackRef,
    /// The bytes of it that valid snapshots need: of its frames, and of what it takes to read them.
    pub used_bytes: u64,
    /// The tier that it is in, if the store tells.
    pub tier: Option<StoredTier>,
    /// When it was created, by the store's clock, milliseconds since 1970.
    pub modified: u64,
}

impl PackUse {
    /// What it has that nothing needs, in bytes.
    #[must_use]
    pub fn unused_bytes(&self) -> u64 {
        u64::from(self.pack.len).saturating_sub(self.used_bytes)
    }
}

/// The packs that are to be emptied, if any, and how much is stored and not needed besides.
pub(super) fn choose(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    observer: &dyn Observer,
) -> Result<(PackSet, u64), EngineError> {
    let (chosen, unused) = chosen(repository, job, candidates, observer)?;
    let emptied: u64 = chosen.iter().map(PackUse::unused_bytes).sum();
    Ok((chosen.into_iter().map(|pack| pack.pack).collect(), unused.saturating_sub(emptied)))
}

/// Adds to a plan what would be packed again.
pub(super) fn plan(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    plan: &mut PrunePlan,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let (chosen, unused) = chosen(repository, job, candidates, observer)?;
    plan.repack = Amount::default();
    plan.unused_bytes_left = unused;
    for pack in &chosen {
        plan.repack.add(pack.pack.len);
        plan.rewritten_bytes += pack.used_bytes;
        plan.unused_bytes_left = plan.unused_bytes_left.saturating_sub(pack.unused_bytes());
    }
    let unused: BTreeSet<PackName> = candidates.packs.iter().map(|pack| pack.name).collect();
    plan.packs = looked_up(repository, unused.into_iter().map(|name| (name, 0)).collect())?;
    plan.packs.extend(chosen);
    Ok(())
}

/// The packs to pack again, and how much is stored and not needed in packs that are needed.
fn chosen(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    observer: &dyn Observer,
) -> Result<(Vec<PackUse>, u64), EngineError> {
    if job.repack.max_unused == Unused::Unlimited {
        return Ok((Vec::new(), 0));
    }
    let used = Usage::measure(repository, job, candidates, observer)?.used();
    let needed_bytes = candidates.stored.bytes() - candidates.packs.bytes();
    let unused: u64 = used.values().map(|pack| u64::from(pack.0).saturating_sub(pack.1)).sum();
    let allowed = match job.repack.max_unused {
        Unused::Bytes(bytes) => bytes,
        Unused::Percent(percent) => needed_bytes / 100 * u64::from(percent),
        Unused::Unlimited => u64::MAX,
    };
    if unused <= allowed {
        return Ok((Vec::new(), unused));
    }
    let can_read_data = repository.keys().can_read_data();
    let may_be_read = |pack: &PackName| can_read_data || pack.kind == PackKind::Map;
    let partly = |(pack, (len, used)): (PackName, (u32, u64))| {
        let unused = u64::from(len).saturating_sub(used);
        (unused >= u64::from(len) / UNUSED_SHARE_MIN && may_be_read(&pack)).then_some((pack, used))
    };
    let mut packs = looked_up(repository, used.into_iter().filter_map(partly).collect())?;
    for pack in &mut packs {
        pack.used_bytes += overhead(repository, &pack.pack)?;
    }
    packs.retain(|pack| {
        pack.unused_bytes() >= u64::from(pack.pack.len) / UNUSED_SHARE_MIN && (job.repack.worth)(pack)
    });
    Ok((most_unused(packs, unused - allowed, job.repack.max_repack), unused))
}

/// The packs of which the least is needed, until `too_much` would be gone.
fn most_unused(mut packs: Vec<PackUse>, mut too_much: u64, max_repack: Option<u64>) -> Vec<PackUse> {
    // By the share that is needed, without fractions.
    packs.sort_by(|a, b| {
        let share = |one: &PackUse, other: &PackUse| u128::from(one.used_bytes) * u128::from(other.pack.len);
        share(a, b).cmp(&share(b, a)).then_with(|| a.pack.cmp(&b.pack))
    });
    let mut room = max_repack.unwrap_or(u64::MAX);
    packs.retain(|pack| {
        if too_much == 0 || pack.used_bytes > room {
            return false;
        }
        too_much = too_much.saturating_sub(pack.unused_bytes());
        room -= pack.used_bytes;
        true
    });
    packs
}

/// What a pack has besides frames, in bytes: its header and its directory, which may be as long as frames that are short.
fn overhead(repository: &Repository<'_>, pack: &PackRef) -> Result<u64, EngineError> {
    let name = pack.name.blob();
    let bytes = repository.store().get(&name, Some(0..PACK_HEADER_LEN as u64))?;
    let header = PackHeader::parse(&bytes).map_err(EngineError::damaged(&name))?;
    Ok(PACK_HEADER_LEN as u64 + u64::from(pack.len.saturating_sub(header.directory_offset)))
}

/// Adds what the store tells of packs.
fn looked_up(
    repository: &Repository<'_>,
    mut used: BTreeMap<PackName, u64>,
) -> Result<Vec<PackUse>, EngineError> {
    let mut packs = Vec::new();
    if used.is_empty() {
        return Ok(packs);
    }
    for prefix in [PREFIX_MAP, PREFIX_DATA] {
        for info in repository.list(prefix)? {
            let Some(BlobKind::Pack(name)) = info.name.kind() else { continue };
            let Some(used_bytes) = used.remove(&name) else { continue };
            let pack = PackRef { name, len: u32::try_from(info.len).unwrap_or(u32::MAX) };
            packs.push(PackUse { pack, used_bytes, tier: info.tier, modified: info.modified });
        }
    }
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::{SessionId, WriterId};

    fn pack(number: u32, len: u32, used_bytes: u64) -> PackUse {
        let writer = WriterId::new("host").unwrap();
        let name = PackName { kind: PackKind::Data, writer, session: SessionId([1; 16]), number };
        PackUse { pack: PackRef { name, len }, used_bytes, tier: None, modified: 0 }
    }

    fn chosen(packs: &[PackUse], too_much: u64, max_repack: Option<u64>) -> Vec<u32> {
        most_unused(packs.to_vec(), too_much, max_repack).iter().map(|pack| pack.pack.name.number).collect()
    }

    #[test]
    fn the_emptiest_packs_are_packed_again_first_and_no_more_than_it_takes() {
        let packs = [pack(0, 1000, 900), pack(1, 1000, 10), pack(2, 500, 100), pack(3, 1000, 1000)];
        assert_eq!(chosen(&packs, 1, None), [1]);
        assert_eq!(chosen(&packs, 1000, None), [1, 2]);
        assert_eq!(chosen(&packs, 1400, None), [1, 2, 0]);
    }

    #[test]
    fn no_more_is_written_again_than_allowed() {
        let packs = [pack(0, 1000, 900), pack(1, 1000, 10), pack(2, 500, 100)];
        assert_eq!(chosen(&packs, 5000, Some(105)), [1]);
        assert_eq!(chosen(&packs, 5000, Some(110)), [1, 2]);
        assert_eq!(chosen(&packs, 5000, Some(9)), Vec::<u32>::new());
    }
}
