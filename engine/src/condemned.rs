//! What must not be referenced any more: condemned packs and the records of repacks (PROTOCOL W2, W4, W5).

use crate::error::EngineError;
use crate::generations::Generations;
use crate::map::FANOUT;
use crate::map::reader::MapReader;
use crate::pack_set::PackSet;
use crate::records::{Record, Records, Way};
use crate::replica::Presence;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Child, PackName, SessionId};
use std::collections::BTreeSet;

/// The condemned set C and the repack records, as seen by one listing.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    packs: PackSet,
    records: Records,
    /// Packs that lead to packs that are not there, by way of condemned ones.
    stranded: BTreeSet<PackName>,
}

impl Condemned {
    /// Lists and reads `gc/`, then `k/`: the order is load-bearing (PROTOCOL W2).
    pub(crate) fn load(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let packs = Generations::list(repository)?.condemned(repository)?;
        let records = Records::load(repository)?;
        Ok(Self { packs, records, stranded: BTreeSet::new() })
    }

    /// Finds out what of a root's names is not to be kept because what they lead to has not all arrived, and something on
    /// the way is condemned (W4): in a promoted place a record may be there without the packs, and then it is the packs on
    /// the way that a root needs.
    ///
    /// # Errors
    /// A failing store.
    pub(crate) fn look_for_stranded(
        &mut self,
        repository: &Repository<'_>,
        root: &Snapshot,
    ) -> Result<(), EngineError> {
        let applying = self.records.applying_to(root);
        let moved: BTreeSet<&PackName> = applying.iter().flat_map(|record| record.moved()).collect();
        let ways = moved.into_iter().map(|name| (name, Way::of(name, &applying)));
        let is_condemned = |pack: &&PackName| self.packs.contains(pack);
        let ways: Vec<_> = ways.filter(|(_, way)| way.packs.iter().any(is_condemned)).collect();
        let mut presence = Presence::as_asked();
        presence.look_for(repository, ways.iter().flat_map(|(_, way)| way.new.iter().copied()))?;
        let stranded = ways.into_iter().filter_map(|(name, way)| {
            let needed = way.needed(&|pack| presence.has(pack));
            needed.iter().any(is_condemned).then(|| name.clone())
        });
        self.stranded = stranded.collect();
        Ok(())
    }

    /// Adds packs that are lost: they may be referenced as little as condemned ones.
    pub(crate) fn add_lost(&mut self, packs: impl IntoIterator<Item = PackName>) {
        for pack in packs {
            self.packs.insert_name(&pack, 0);
        }
    }

    /// Whether nothing is condemned and nothing moved: the usual case.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.records.is_empty()
    }

    pub(crate) fn contains(&self, pack: &PackName) -> bool {
        self.packs.contains(pack)
    }

    /// Whether a pack is of a repack session whose COMMIT was read.
    pub(crate) fn is_of_repack(&self, pack: &PackName) -> bool {
        self.records.is_of_repack(pack)
    }

    /// Whether what some snapshots need of a pack was moved. Then nothing is to be taken from it any more: maps name whole
    /// packs, so a root with the record in its `via` could not say that it needs both the old pack and the new one. The new
    /// place of what was moved is a hit of its own.
    pub(crate) fn is_repacked(&self, pack: &PackName) -> bool {
        self.records.is_repacked(pack)
    }

    /// All records that count.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// The records that apply to a root (PROTOCOL 2).
    pub(crate) fn applying_to(&self, root: &Snapshot) -> Vec<&Record> {
        self.records.applying_to(root)
    }

    /// Whether what a name leads to, through some records, is condemned.
    pub(crate) fn leads_to_condemned(&self, pack: &PackName, records: &[&Record]) -> bool {
        self.stranded.contains(pack)
            || Way::of(pack, records).ends.into_iter().any(|end| self.packs.contains(end))
    }
}

/// The records that the names of a new snapshot pass through: its `via` (W4).
pub(crate) fn via<'p>(names: impl Iterator<Item = &'p PackName>, records: &[&Record]) -> Vec<SessionId> {
    if records.is_empty() {
        return Vec::new();
    }
    names.flat_map(|name| Way::of(name, records).passed).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Cells of a parent's map that cannot be inherited, because something on the way to them or named in them
/// leads to a condemned pack. They are read again from the source, so those behind its `size` do not count.
pub(crate) fn forced_cells(
    map: &MapReader<'_, '_, '_>,
    size: u64,
    usable: &dyn Fn(&PackName) -> bool,
) -> Result<BTreeSet<u64>, EngineError> {
    let mut forced = BTreeSet::new();
    let root_level = map.shape().root_level();
    let mut stack = vec![(root_level, 0u64)];
    while let Some((level, index)) = stack.pop() {
        if index.saturating_mul(map.shape().span(level)) >= size {
            continue;
        }
        let Child::Stored { at, names } = map.child(level, index)? else { continue };
        if level == 0 {
            if !usable(&at.pack.name) || !names.iter().all(|pack| usable(&pack.name)) {
                forced.insert(index);
            }
            continue;
        }
        if !usable(&at.pack.name) {
            // Any cell below makes the writer come by and store the node again.
            forced.insert(index * FANOUT.pow(u32::from(level)));
        }
        let below_is_fine = level == 1 && names.iter().all(|pack| usable(&pack.name));
        if !below_is_fine {
            stack.extend(
                (index * FANOUT..)
                    .take(usize::from(map.shape().child_count(level, index)))
                    .map(|child| (level - 1, child)),
            );
        }
    }
    Ok(forced)
}
