//! Which restore points are whole: everything that a restore of them needs is there (PROTOCOL 8).
//!
//! A restore point *names* packs: those of its disks' root nodes, and those that all nodes at and above level 2 name
//! (NODE-2). A pack is *available* to it if a blob of that name and of exactly the declared length is there, **or** if a
//! repack record that counts (signed, its REPACK decision there) and applies to the restore point leads on from the pack,
//! and every pack that it leads to is available in turn. A restore point is *whole* if all that it names is available and
//! every node on the way could be read; one of a pack that is not there is read where a record leads, as restores do.
//!
//! So it takes no more than listings and nodes, and more blobs never make a restore point less whole: what is available
//! stays so, whatever records arrive. No pack is told to be missing by records that were read before it was listed: what
//! was moved from a pack and deleted before that is looked for where it went.
//!
//! # Memory
//! 60 bytes for each pack that was listed ([`Presence`]), the records, and for nodes and roots what [`NamedPacks`] says:
//! the *facts* are the packs that are named and not there, 150 bytes each once, and 4 bytes for each node that names one
//! or is above one that does. Where all is there, that is 60 bytes for each pack and each distinct node of level 2 and
//! above.

use super::presence::Presence;
use crate::amount::size;
use crate::error::{EngineError, chain};
use crate::frames::FrameReader;
use crate::map::named::{NamedPacks, Notes, ROOTS_AT_ONCE};
use crate::records::{Readable, Record, Records};
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use crate::store::StoreError;
use repo_format::{BlobKind, BlobName, Location, PREFIX_REPACK, PackName, PackRef, SessionId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

/// Missing blobs of a restore point that are told by name, unless it is asked for more.
pub const NAMES_TOLD: usize = 8;
/// The fact that what a node names is not known, as the node is in a pack that is not there.
const OUT_OF_REACH: u32 = 0;

/// Whether everything is there that a restore point needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// It is.
    Yes,
    /// Something is not.
    No(Missing),
}

impl Whole {
    /// Whether it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// What is not there.
    #[must_use]
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Yes => None,
            Self::No(missing) => Some(missing),
        }
    }
}

/// What a restore point lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Packs that are not there with their lengths. Of one whose content was moved, those that it was moved to.
    pub blobs: u64,
    /// The sum of their declared lengths.
    pub bytes: u64,
    /// There may be more: a part of the map is in packs that are not there, or is damaged.
    pub at_least: bool,
    /// The first of the packs, in the order of their names; as many as are told.
    pub names: Vec<MissingBlob>,
    /// Parts of the map that are there and damaged.
    pub damaged: Vec<DamagedNode>,
}

/// How many missing blobs a text names.
const NAMES_IN_TEXT: usize = 3;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blobs, bytes, at_least, names, damaged } = self;
        if *blobs > 0 || damaged.is_empty() {
            let least = if *at_least { "at least " } else { "" };
            let noun = if *blobs == 1 { "blob" } else { "blobs" };
            write!(f, "{least}{blobs} {noun} with {} missing", size(*bytes))?;
            let named: Vec<&str> = names.iter().take(NAMES_IN_TEXT).map(|blob| blob.name.as_str()).collect();
            if !named.is_empty() {
                let more = if named.len() as u64 == *blobs { "" } else { " and others" };
                write!(f, " ({}{more})", named.join(", "))?;
            }
        }
        if let Some(DamagedNode { blob, reason }) = damaged.first() {
            let and = if *blobs == 0 { "" } else { ", and " };
            write!(f, "{and}its map cannot be read in {blob}: {reason}")?;
        }
        Ok(())
    }
}

/// A pack that is not there as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingBlob {
    /// The pack's blob.
    pub name: BlobName,
    /// How long it should be.
    pub len: u64,
    /// The length of the blob that has its name: it is there in part, or is another one.
    pub found: Option<u64>,
}

/// A part of a disk's map that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedNode {
    /// The blob that holds it.
    pub blob: BlobName,
    /// What is wrong.
    pub reason: String,
}

/// Tells which restore points of a place are whole. Opens nothing for writing, and writes nothing.
pub struct Completeness<'r, 's> {
    named: NamedPacks<'r, 's>,
    place: Place<'r, 's>,
    names_told: usize,
}

/// What was found out about a place.
struct Place<'r, 's> {
    repository: &'r Repository<'s>,
    presence: Presence,
    records: Records,
    facts: Vec<Fact>,
    /// The facts that packs are not there, by the packs.
    absent: HashMap<PackRef, u32>,
}

/// What keeps those restore points from being whole which name it.
enum Fact {
    OutOfReach,
    Absent(PackRef),
    Damaged(DamagedNode),
}

impl<'r, 's> Completeness<'r, 's> {
    /// Lists all packs that are there at once: for what looks at many restore points.
    ///
    /// # Errors
    /// A failing store.
    pub fn of_everything(repository: &'r Repository<'s>) -> Result<Self, EngineError> {
        Self::with(repository, Presence::of_everything(repository)?)
    }

    /// Lists the packs of a session when something of it is first named: for what looks at few restore points.
    ///
    /// # Errors
    /// A failing store.
    pub fn by_session(repository: &'r Repository<'s>) -> Result<Self, EngineError> {
        Self::with(repository, Presence::as_asked())
    }

    fn with(repository: &'r Repository<'s>, presence: Presence) -> Result<Self, EngineError> {
        Ok(Self::knowing(repository, presence, Records::load_readable(repository)?))
    }

    fn knowing(repository: &'r Repository<'s>, presence: Presence, records: Records) -> Self {
        let named = NamedPacks::new(FrameReader::knowing(repository, &records));
        let (facts, absent) = (vec![Fact::OutOfReach], HashMap::new());
        let place = Place { repository, presence, records, facts, absent };
        Self { named, place, names_told: NAMES_TOLD }
    }

    /// Tells up to so many missing blobs of each restore point by name.
    #[must_use]
    pub fn telling(self, names: usize) -> Self {
        Self { names_told: names, ..self }
    }

    /// Tells for each restore point whether it is whole. They are valid roots: their decisions were read, and no
    /// tombstone forgets them. Hundreds at a time take fewer round trips than one by one.
    ///
    /// # Errors
    /// A failing store; what is missing or damaged is told in the result.
    pub fn of(&mut self, roots: &[Snapshot]) -> Result<Vec<Whole>, EngineError> {
        let mut found = Vec::with_capacity(roots.len());
        for roots in roots.chunks(ROOTS_AT_ONCE) {
            found.extend(self.of_some(roots)?);
        }
        Ok(found)
    }

    /// As [`Completeness::of`], of one restore point.
    ///
    /// # Errors
    /// As [`Completeness::of`].
    pub fn of_one(&mut self, root: &Snapshot) -> Result<Whole, EngineError> {
        Ok(self.of_some(std::slice::from_ref(root))?.swap_remove(0))
    }

    fn of_some(&mut self, roots: &[Snapshot]) -> Result<Vec<Whole>, EngineError> {
        loop {
            let facts = self.named.facts(roots, &mut self.place)?;
            let of_roots = roots.iter().zip(facts);
            let found: Vec<Whole> =
                of_roots.map(|(root, facts)| self.place.whole(root, &facts, self.names_told)).collect();
            if found.iter().all(Whole::is_whole) || !self.place.has_newer_records()? {
                return Ok(found);
            }
            *self = Self::by_session(self.place.repository)?.telling(self.names_told);
        }
    }
}

/// Whether a restore point is whole as far as some records lead, whatever others there are.
///
/// # Errors
/// A failing store.
pub(crate) fn is_whole_by(
    repository: &Repository<'_>,
    records: Records,
    root: &Snapshot,
) -> Result<bool, EngineError> {
    let mut known = Completeness::knowing(repository, Presence::as_asked(), records);
    let facts = known.named.facts(std::slice::from_ref(root), &mut known.place)?;
    Ok(facts.iter().all(|facts| known.place.whole(root, facts, 0).is_whole()))
}

impl Notes for Place<'_, '_> {
    fn note(&mut self, named: &[Vec<PackRef>]) -> Result<Vec<Vec<u32>>, EngineError> {
        self.presence.look_for(self.repository, named.iter().flatten())?;
        let known = self.facts.len();
        let facts = named.iter().map(|packs| self.absent_of(packs)).collect();
        self.look_for_moved(known)?;
        Ok(facts)
    }

    fn out_of_reach(&self, node: &Location) -> Option<u32> {
        let is_reachable = self.presence.has(&node.pack)
            || self.led_to(vec![&node.pack.name]).into_iter().any(|new| self.presence.has(new));
        (!is_reachable).then_some(OUT_OF_REACH)
    }

    fn unreadable(&mut self, node: &Location, damage: EngineError) -> Result<u32, EngineError> {
        if let EngineError::Store(StoreError::NotFound { .. }) = &damage {
            return Ok(OUT_OF_REACH);
        }
        let blob = damage.damaged_blob().unwrap_or(&node.pack.name.blob()).clone();
        Ok(self.fact(Fact::Damaged(DamagedNode { blob, reason: chain(&damage) })))
    }
}

impl Place<'_, '_> {
    /// Whether records count by now that were not known when packs were listed. Where all were listed at once, records were
    /// read after that.
    fn has_newer_records(&self) -> Result<bool, EngineError> {
        if self.presence.is_of_everything() {
            return Ok(false);
        }
        let known: HashSet<SessionId> = self.records.all().iter().map(|record| record.session).collect();
        for info in self.repository.list(PREFIX_REPACK)? {
            let is_new =
                matches!(info.name.kind(), Some(BlobKind::Repack(session)) if !known.contains(&session));
            if is_new && matches!(Readable::of(self.repository, &info.name)?, Readable::Counts(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn absent_of(&mut self, packs: &[PackRef]) -> Vec<u32> {
        let mut facts = Vec::new();
        for pack in packs {
            if self.presence.has(pack) {
                continue;
            }
            let known = self.absent.get(pack).copied();
            facts.push(known.unwrap_or_else(|| {
                let fact = self.fact(Fact::Absent(pack.clone()));
                self.absent.insert(pack.clone(), fact);
                fact
            }));
        }
        facts.sort_unstable();
        facts
    }

    fn fact(&mut self, fact: Fact) -> u32 {
        self.facts.push(fact);
        u32::try_from(self.facts.len() - 1).expect("what is wrong is in memory")
    }

    /// The packs that records lead to from some packs, whatever the records apply to.
    fn led_to<'p>(&'p self, mut packs: Vec<&'p PackName>) -> Vec<&'p PackRef> {
        let mut seen: HashSet<&PackName> = packs.iter().copied().collect();
        let mut led_to = Vec::new();
        while let Some(pack) = packs.pop() {
            for new in self.records.moving(pack).flat_map(|record| record.leads_from(pack)) {
                if seen.insert(&new.name) {
                    packs.push(&new.name);
                    led_to.push(new);
                }
            }
        }
        led_to
    }

    /// Sees to it that it is known whether those packs are there that records lead to from absent ones, of those that
    /// have become known since so many facts were.
    fn look_for_moved(&mut self, known: usize) -> Result<(), EngineError> {
        let absent = self.facts[known..].iter().filter_map(|fact| match fact {
            Fact::Absent(pack) => Some(&pack.name),
            _ => None,
        });
        let led_to: Vec<PackRef> = self.led_to(absent.collect()).into_iter().cloned().collect();
        self.presence.look_for(self.repository, led_to.iter())
    }

    fn whole(&self, root: &Snapshot, facts: &[u32], names_told: usize) -> Whole {
        if facts.is_empty() {
            return Whole::Yes;
        }
        let mut missing = Missing::default();
        let mut packs = BTreeSet::new();
        let mut moved = Moved { place: self, root, known: HashMap::new(), way: Vec::new() };
        for fact in facts {
            match &self.facts[*fact as usize] {
                Fact::OutOfReach => missing.at_least = true,
                Fact::Damaged(damage) => {
                    missing.at_least = true;
                    missing.damaged.push(damage.clone());
                }
                Fact::Absent(pack) => packs.extend(moved.lacking(pack).iter().copied()),
            }
        }
        if packs.is_empty() && !missing.at_least {
            return Whole::Yes;
        }
        missing.blobs = packs.len() as u64;
        missing.bytes = packs.iter().map(|pack| u64::from(pack.len)).sum();
        missing.names = packs.into_iter().take(names_told).map(|pack| self.missing(pack)).collect();
        Whole::No(missing)
    }

    fn missing(&self, pack: &PackRef) -> MissingBlob {
        let found = self.presence.len(&pack.name).map(u64::from);
        MissingBlob { name: pack.name.blob(), len: u64::from(pack.len), found }
    }
}

fn applies(record: &Record, root: &Snapshot) -> bool {
    record.applies_to(root.session(), &root.commit.via)
}

/// Where names lead for one root.
struct Moved<'p, 'r, 's> {
    place: &'p Place<'r, 's>,
    root: &'p Snapshot,
    known: HashMap<&'p PackName, Rc<[&'p PackRef]>>,
    /// The packs that the one that is looked at was reached by.
    way: Vec<&'p PackName>,
}

impl<'p> Moved<'p, '_, '_> {
    /// The packs that are not there and that would have to be for a pack to be available: itself, or those that a record
    /// leads to, the fewest bytes.
    fn lacking(&mut self, pack: &'p PackRef) -> Rc<[&'p PackRef]> {
        if self.place.presence.has(pack) {
            return Rc::from([]);
        }
        if let Some(known) = self.known.get(&pack.name) {
            return Rc::clone(known);
        }
        let mut least: Option<BTreeSet<&'p PackRef>> = None;
        // Signed records do not lead in circles; if they did, this would end.
        if !self.way.contains(&&pack.name) {
            self.way.push(&pack.name);
            let (records, root) = (&self.place.records, self.root);
            for record in records.moving(&pack.name).filter(|record| applies(record, root)) {
                let leads = record.leads_from(&pack.name).iter();
                let lacking: BTreeSet<_> = leads.flat_map(|new| self.lacking(new).to_vec()).collect();
                if least.as_ref().is_none_or(|least| bytes(&lacking) < bytes(least)) {
                    least = Some(lacking);
                }
            }
            self.way.pop();
        }
        let lacking: Rc<[_]> = least.map_or_else(|| Rc::from([pack]), |least| least.into_iter().collect());
        self.known.insert(&pack.name, Rc::clone(&lacking));
        lacking
    }
}

fn bytes(packs: &BTreeSet<&PackRef>) -> u64 {
    packs.iter().map(|pack| u64::from(pack.len)).sum()
}
