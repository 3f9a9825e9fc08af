//! What must not be referenced any more: condemned packs and the records of repacks (PROTOCOL W2, W4, W5).

use crate::error::EngineError;
use crate::map::FANOUT;
use crate::map::reader::MapReader;
use crate::repository::{Repository, get_sealed};
use crate::snapshots::{self, Snapshot};
use crate::store::StoreError;
use repo_format::{
    BlobKind, BlobName, Child, Condemned as CondemnedList, Decision, FormatError, GcResult, GenerationSeal,
    Lead, PREFIX_GC, PREFIX_REPACK, PackName, PackRef, RepackRecord, SessionId,
};
use std::collections::{BTreeMap, BTreeSet};

/// The condemned set C and the repack records, as seen by one listing.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    packs: BTreeSet<PackName>,
    records: Vec<Record>,
}

/// A repack record that counts, as far as whole packs are concerned.
#[derive(Debug)]
pub(crate) struct Record {
    session: SessionId,
    applies_to: Vec<SessionId>,
    /// For each pack that something was moved from, the packs that it went to.
    leads: BTreeMap<PackName, BTreeSet<PackName>>,
}

impl Condemned {
    /// Lists and reads `gc/`, then `k/`: the order is load-bearing (PROTOCOL W2).
    pub(crate) fn load(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let packs = condemned_packs(repository)?;
        let mut condemned = Self { packs, ..Self::default() };
        for record in committed_records(repository)? {
            condemned.add(record);
        }
        Ok(condemned)
    }

    fn add(&mut self, record: RepackRecord) {
        let leads = leads(&record);
        let RepackRecord { session, applies_to, .. } = record;
        self.records.push(Record { session, applies_to, leads });
    }

    /// Adds packs that are lost: they may be referenced as little as condemned ones.
    pub(crate) fn add_lost(&mut self, packs: impl IntoIterator<Item = PackName>) {
        self.packs.extend(packs);
    }

    /// Whether nothing is condemned and nothing moved: the usual case.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.records.is_empty()
    }

    pub(crate) fn contains(&self, pack: &PackName) -> bool {
        self.packs.contains(pack)
    }

    /// Whether a pack is of a repack session whose decision was read.
    pub(crate) fn is_of_repack(&self, pack: &PackName) -> bool {
        self.records.iter().any(|record| record.session == pack.session)
    }

    /// Whether a record moves a pack. Then nothing is to be taken from it: maps name whole packs, so a root with the
    /// record in its `via` could not say that it needs both the old pack and the new ones. Indexes list the new places.
    pub(crate) fn is_repacked(&self, pack: &PackName) -> bool {
        self.records.iter().any(|record| record.leads.contains_key(pack))
    }

    /// The records that apply to a root (PROTOCOL 2).
    pub(crate) fn applying_to(&self, root: &Snapshot) -> Vec<&Record> {
        let session = root.session();
        self.records
            .iter()
            .filter(|record| {
                record.applies_to.contains(&session) || root.commit.via.contains(&record.session)
            })
            .collect()
    }

    /// Whether what a name leads to, through some records, is condemned.
    pub(crate) fn leads_to_condemned(&self, pack: &PackName, records: &[&Record]) -> bool {
        follow(pack, records).0.iter().any(|end| self.packs.contains(end))
    }
}

fn condemned_packs(repository: &Repository<'_>) -> Result<BTreeSet<PackName>, EngineError> {
    #[derive(Default)]
    struct Generation {
        has_condemned: bool,
        has_result: bool,
        has_seal: bool,
    }
    let mut generations: BTreeMap<u32, Generation> = BTreeMap::new();
    for info in repository.list(PREFIX_GC)? {
        match info.name.kind() {
            Some(BlobKind::Condemned(n)) => generations.entry(n).or_default().has_condemned = true,
            Some(BlobKind::GcResult(n)) => generations.entry(n).or_default().has_result = true,
            Some(BlobKind::GenerationSeal(n)) => generations.entry(n).or_default().has_seal = true,
            _ => {}
        }
    }
    let mut packs = BTreeSet::new();
    for (n, generation) in generations {
        // A listing is no snapshot: it may show a seal and not the result that was there before it.
        let listed = if generation.has_result || generation.has_seal {
            result_or_seal(repository, n)?
        } else if generation.has_condemned {
            let name = BlobName::condemned(n);
            let bytes = get_sealed(repository.store(), &name)?;
            let list = signed(CondemnedList::open(repository.keys(), n, &bytes));
            list.map_err(EngineError::damaged(&name))?.map_or_else(Vec::new, |list| list.packs)
        } else {
            continue;
        };
        packs.extend(listed.into_iter().map(|pack| pack.name));
    }
    Ok(packs)
}

/// What a generation that has a result or a seal deletes: nothing if it was sealed without a result.
fn result_or_seal(repository: &Repository<'_>, n: u32) -> Result<Vec<PackRef>, EngineError> {
    let (keys, store) = (repository.keys(), repository.store());
    let name = BlobName::result(n);
    match get_sealed(store, &name) {
        Ok(bytes) => {
            let result = signed(GcResult::open(keys, n, &bytes)).map_err(EngineError::damaged(&name))?;
            Ok(result.map_or_else(Vec::new, |result| result.delete))
        }
        Err(EngineError::Store(StoreError::NotFound { .. })) => {
            let name = BlobName::generation_seal(n);
            let bytes = get_sealed(store, &name)?;
            signed(GenerationSeal::open(keys, n, &bytes)).map_err(EngineError::damaged(&name))?;
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn committed_records(repository: &Repository<'_>) -> Result<Vec<RepackRecord>, EngineError> {
    let mut records = Vec::new();
    for info in repository.list(PREFIX_REPACK)? {
        if !matches!(info.name.kind(), Some(BlobKind::Repack(_))) {
            continue;
        }
        let bytes = get_sealed(repository.store(), &info.name)?;
        let record = signed(RepackRecord::open(repository.keys(), &info.name, &bytes))
            .map_err(EngineError::damaged(&info.name))?;
        if let Some(record) = record
            && let Some(Decision::Repack(_)) = snapshots::read(repository, &record.decision)?
        {
            records.push(record);
        }
    }
    Ok(records)
}

/// An object that the retention did not sign is as if it were not there: anybody who backs up can make one.
fn signed<T>(opened: Result<T, FormatError>) -> Result<Option<T>, FormatError> {
    match opened {
        Err(FormatError::BadSignature) => Ok(None),
        other => other.map(Some),
    }
}

fn leads(record: &RepackRecord) -> BTreeMap<PackName, BTreeSet<PackName>> {
    let name = |number: u32| record.packs.get(number as usize).map(|pack| pack.name.clone());
    let lead = |lead: &Lead| {
        let new = lead.new.iter().filter_map(|number| name(*number)).collect();
        Some((name(lead.old)?, new))
    };
    record.leads.iter().filter_map(lead).collect()
}

/// The packs that a name leads to through records, and the sessions of the records that it passes.
fn follow(pack: &PackName, records: &[&Record]) -> (BTreeSet<PackName>, BTreeSet<SessionId>) {
    let mut ends = BTreeSet::new();
    let mut passed = BTreeSet::new();
    let mut seen = BTreeSet::from([pack.clone()]);
    let mut names = vec![pack.clone()];
    while let Some(name) = names.pop() {
        let mut moved = false;
        for record in records {
            let Some(leads) = record.leads.get(&name) else { continue };
            moved = true;
            passed.insert(record.session);
            names.extend(leads.iter().filter(|new| seen.insert((*new).clone())).cloned());
        }
        if !moved {
            ends.insert(name);
        }
    }
    (ends, passed)
}

/// The records that the names of a new snapshot pass through: its `via` (W4).
pub(crate) fn via<'p>(names: impl Iterator<Item = &'p PackName>, records: &[&Record]) -> Vec<SessionId> {
    if records.is_empty() {
        return Vec::new();
    }
    names.flat_map(|name| follow(name, records).1).collect::<BTreeSet<_>>().into_iter().collect()
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
