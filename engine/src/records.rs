//! Repack records that count, and where they lead (PROTOCOL 2, SPEC 10.5).

use crate::error::EngineError;
use crate::prune::Owner;
use crate::repository::{Repository, get_sealed};
use crate::snapshots::{self, Snapshot};
use crate::store::StoreError;
use crate::threads;
use repo_format::{
    BlobKind, BlobName, Decision, DecisionName, FormatError, PREFIX_REPACK, PackName, PackRef, RepackRecord,
    SessionId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Records that are read at the same time.
const READ_THREADS: usize = 32;

/// The records of repack sessions that were committed, as one listing shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    all: Vec<Record>,
    /// All packs that something was moved from, each with the records that did so by their numbers.
    repacked: HashMap<PackName, Vec<u32>>,
    /// Records without the retention role's signature: they count as if they were not there.
    pub(crate) unsigned: Vec<BlobName>,
}

/// What one repack session moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) session: SessionId,
    pub(crate) decision: DecisionName,
    /// Sorted.
    applies_to: Vec<SessionId>,
    /// For each pack that something was moved from, the packs that it went to.
    leads: BTreeMap<PackName, Vec<PackRef>>,
}

impl Records {
    /// Lists and reads `k/`, and the decisions of its records.
    ///
    /// # Errors
    /// A failing store, or a damaged record or decision: nobody knows then what moved where.
    pub(crate) fn load(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let mut records = Self::default();
        for info in repository.list(PREFIX_REPACK)? {
            if !matches!(info.name.kind(), Some(BlobKind::Repack(_))) {
                continue;
            }
            let bytes = match get_sealed(repository.store(), &info.name) {
                // One whose session was aborted, and that a pruner removed since it was listed.
                Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
                other => other?,
            };
            match RepackRecord::open(repository.keys(), &info.name, &bytes) {
                Ok(record) => {
                    if let Some(Decision::Repack(_)) = snapshots::read(repository, &record.decision)? {
                        records.add(record);
                    }
                }
                Err(FormatError::BadSignature) => records.unsigned.push(info.name),
                Err(source) => return Err(EngineError::Damaged { name: info.name, source }),
            }
        }
        Ok(records)
    }

    /// As [`Records::load`], without those that cannot be read, and without the unsigned ones.
    pub(crate) fn load_readable(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let mut records = Self::default();
        let names = repository.list(PREFIX_REPACK)?.into_iter().map(|info| info.name);
        let names: Vec<BlobName> =
            names.filter(|name| matches!(name.kind(), Some(BlobKind::Repack(_)))).collect();
        for readable in threads::each(&names, READ_THREADS, |name| Readable::of(repository, name)) {
            if let Readable::Counts(record) = readable? {
                records.add(record);
            }
        }
        Ok(records)
    }

    pub(crate) fn add(&mut self, record: RepackRecord) {
        let leads = leads(&record);
        let number = u32::try_from(self.all.len()).expect("there are fewer records than packs");
        for old in leads.keys() {
            self.repacked.entry(old.clone()).or_default().push(number);
        }
        let RepackRecord { session, decision, applies_to, .. } = record;
        self.all.push(Record { session, decision, applies_to, leads });
    }

    /// All moves of packs, with the sessions of their records.
    pub(crate) fn leads(&self) -> impl Iterator<Item = (SessionId, &PackName, &PackRef)> {
        self.all.iter().flat_map(|record| {
            let session = record.session;
            let leads = record.leads.iter();
            leads.flat_map(move |(old, new)| new.iter().map(move |new| (session, old, new)))
        })
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> &[Record] {
        &self.all
    }

    /// The record of a session, if it counts.
    pub(crate) fn of(&self, session: SessionId) -> impl Iterator<Item = &Record> {
        self.all.iter().filter(move |record| record.session == session)
    }

    /// The decision of a repack session whose record counts.
    pub(crate) fn decision(&self, session: SessionId) -> Option<&DecisionName> {
        self.of(session).next().map(|record| &record.decision)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a session's record is known: it counts, or it is unsigned.
    pub(crate) fn knows(&self, session: SessionId) -> bool {
        self.all.iter().any(|record| record.session == session)
            || self.unsigned.contains(&BlobName::repack(session))
    }

    /// Whether a pack is of a repack session whose COMMIT was read.
    pub(crate) fn is_of_repack(&self, pack: &PackName) -> bool {
        self.all.iter().any(|record| record.session == pack.session)
    }

    /// Whether some record moved what some roots need of a pack.
    pub(crate) fn is_repacked(&self, pack: &PackName) -> bool {
        self.repacked.contains_key(pack)
    }

    /// The packs that something was moved from.
    pub(crate) fn repacked(&self) -> impl Iterator<Item = &PackName> {
        self.repacked.keys()
    }

    /// The records that moved something from a pack, to whichever roots they apply.
    pub(crate) fn moving(&self, pack: &PackName) -> impl Iterator<Item = &Record> {
        self.repacked.get(pack).into_iter().flatten().filter_map(|number| self.all.get(*number as usize))
    }

    /// The records that apply to a root: those that list it, and those that it lists in its `via` (PROTOCOL 2).
    pub(crate) fn applying_to(&self, root: &Snapshot) -> Vec<&Record> {
        self.applying(root.session(), &root.commit.via)
    }

    /// As [`Records::applying_to`], of a root by its session and its `via`.
    pub(crate) fn applying(&self, root: SessionId, via: &[SessionId]) -> Vec<&Record> {
        self.all.iter().filter(|record| record.applies_to(root, via)).collect()
    }
}

impl Record {
    /// Whether it applies to a root, by its session and its `via`.
    pub(crate) fn applies_to(&self, root: SessionId, via: &[SessionId]) -> bool {
        self.applies_to.binary_search(&root).is_ok() || via.contains(&self.session)
    }

    /// The session that made it, and its writer.
    pub(crate) fn owner(&self) -> Owner {
        (self.session, self.decision.writer.clone())
    }

    /// The packs that something was moved to.
    pub(crate) fn new_packs(&self) -> impl Iterator<Item = &PackRef> {
        self.leads.values().flatten()
    }

    /// The packs that what was in a pack was moved to; none if nothing was.
    pub(crate) fn leads_from(&self, pack: &PackName) -> &[PackRef] {
        self.leads.get(pack).map_or(&[], Vec::as_slice)
    }

    /// The packs that something was moved from.
    pub(crate) fn moved(&self) -> impl Iterator<Item = &PackName> {
        self.leads.keys()
    }
}

/// What is known of a record, for those who can do without it.
pub(crate) enum Readable {
    Counts(RepackRecord),
    /// Its session ended in another way.
    Never,
    /// Its session is not decided, or something cannot be read, which a verification tells.
    Unknown,
}

impl Readable {
    /// Reads a record and its decision.
    pub(crate) fn of(repository: &Repository<'_>, name: &BlobName) -> Result<Self, EngineError> {
        let bytes = match get_sealed(repository.store(), name) {
            Err(error) if error.is_damage() => return Ok(Self::Unknown),
            other => other?,
        };
        let Ok(record) = RepackRecord::open(repository.keys(), name, &bytes) else {
            return Ok(Self::Unknown);
        };
        match snapshots::read(repository, &record.decision) {
            Ok(Some(Decision::Repack(_))) => Ok(Self::Counts(record)),
            Ok(Some(Decision::Commit(_) | Decision::Abort(_))) => Ok(Self::Never),
            Ok(None) => Ok(Self::Unknown),
            Err(error) if error.is_damage() => Ok(Self::Unknown),
            Err(error) => Err(error),
        }
    }
}

fn leads(record: &RepackRecord) -> BTreeMap<PackName, Vec<PackRef>> {
    let pack = |number: u32| record.packs.get(number as usize).cloned();
    let lead = |lead: &repo_format::Lead| {
        let new = lead.new.iter().filter_map(|number| pack(*number)).collect();
        Some((pack(lead.old)?.name, new))
    };
    record.leads.iter().filter_map(lead).collect()
}

/// Where a name leads through the records that apply to a root.
pub(crate) struct Way<'p> {
    /// The packs from which no record leads on: the name itself if none leads from it.
    pub(crate) ends: BTreeSet<&'p PackName>,
    /// All packs that it comes by, with the name and the ends.
    pub(crate) packs: BTreeSet<&'p PackName>,
    /// Those of the ends that a record leads to, as it tells them.
    pub(crate) new: BTreeSet<&'p PackRef>,
    /// The sessions of the records that it passes.
    pub(crate) passed: BTreeSet<SessionId>,
}

impl<'p> Way<'p> {
    /// Follows a name.
    pub(crate) fn of(pack: &'p PackName, records: &[&'p Record]) -> Self {
        let mut way = Self {
            ends: BTreeSet::new(),
            packs: BTreeSet::from([pack]),
            new: BTreeSet::new(),
            passed: BTreeSet::new(),
        };
        let mut packs: Vec<(&PackName, Option<&PackRef>)> = vec![(pack, None)];
        while let Some((name, told)) = packs.pop() {
            let mut is_moved = false;
            for record in records {
                let Some(leads) = record.leads.get(name) else { continue };
                is_moved = true;
                way.passed.insert(record.session);
                for new in leads {
                    if way.packs.insert(&new.name) {
                        packs.push((&new.name, Some(new)));
                    }
                }
            }
            if !is_moved {
                way.ends.insert(name);
                way.new.extend(told);
            }
        }
        way
    }

    /// The packs that a root needs for the name: those that it leads to. If one of them is not there, all on the way are
    /// needed too: in a copy that a record reached before the packs that it leads to, the old pack is what there is.
    pub(crate) fn needed(self, is_there: &dyn Fn(&PackRef) -> bool) -> BTreeSet<&'p PackName> {
        if self.new.iter().all(|new| is_there(new)) { self.ends } else { self.packs }
    }
}
