//! Where payloads are now whose packs were repacked (PROTOCOL 2 and 5).
//!
//! A repack record says which packs took over what was needed of an old one; where a payload is in them, their
//! directories tell. Every payload is checked against its id, so whichever record is followed, no wrong byte is read: all
//! records count here that are signed and whose sessions were committed, whatever they apply to.
//!
//! The records are listed when a pack turns out to be missing; also before the first payload is looked for by those who
//! read much, as what was repacked lies in order. Where there are none, as usual, that is one request, and nothing else
//! is done.
//!
//! # Memory
//! The leads of all records, some 200 bytes for each pack that was emptied and each that was filled from it, and
//! `DIRECTORIES_BYTES` of directories; while these are read, those of `READ_THREADS` packs.

use crate::cache::{Cache, Found};
use crate::directory;
use crate::error::EngineError;
use crate::frames::lock;
use crate::records::{Readable, Records};
use crate::repository::{Repository, get_sealed};
use crate::threads::{self, Condvar, scope};
use repo_format::{
    BlobKind, BlobName, Codec, Location, PREFIX_REPACK, PREFIX_TOMBSTONES, PackName, PackRef, PayloadId,
    RepackRecord, SessionId, Tombstone,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Directories that are kept: those of packs with a million frames, so of some 40 GiB of data. New packs are in the order
/// of disks, so what is read one after the other lies in few of them.
const DIRECTORIES_BYTES: u64 = 64 << 20;
/// What a directory takes beside its entries.
const DIRECTORY_BESIDE: u64 = 512;
/// Directories, and records, that are read at the same time.
const READ_THREADS: usize = 8;
/// Of the packs that one pack leads to, one directory is read, then so many times as many, until all that is looked for
/// was found.
const MORE_EACH_ROUND: usize = 4;
/// The packs that one pack leads to which are looked at; a pack of 256 MiB of the shortest chunks has as many entries.
const LEADS_FOLLOWED: usize = 1 << 16;

/// Where the frame of a payload is in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) codec: Codec,
}

impl Place {
    /// Where a location says that it is.
    pub(crate) fn named(location: &Location) -> Self {
        Self { offset: location.offset, stored_len: location.stored_len, codec: location.codec }
    }
}

/// Where a payload is to be read.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    /// Where its location says.
    Named,
    /// Where it was moved to.
    At(Arc<PackRef>, Place),
    /// Where it may be is nothing but packs that are to be avoided, or that cannot be used: why one of these cannot.
    Nowhere(Option<Arc<EngineError>>),
}

/// What the records say that count, of whole packs.
#[derive(Debug, Default)]
pub(crate) struct Leads {
    leads: HashMap<PackName, Vec<Arc<PackRef>>>,
    /// Records that need not be read again.
    settled: HashSet<BlobName>,
}

impl Leads {
    /// Those of records that were read already.
    pub(crate) fn of(records: &Records) -> Self {
        let mut leads = Self::default();
        for (session, old, new) in records.leads() {
            leads.insert(old, new);
            leads.settled.insert(BlobName::repack(session));
        }
        leads
    }

    fn add(&mut self, name: BlobName, record: &RepackRecord) {
        for (old, new) in leads(record) {
            self.insert(&old.name, new);
        }
        self.settled.insert(name);
    }

    fn insert(&mut self, old: &PackName, new: &PackRef) {
        let known = self.leads.entry(old.clone()).or_default();
        if !known.iter().any(|known| **known == *new) {
            known.push(Arc::new(new.clone()));
        }
    }

    /// The packs that a pack leads to: those from where nothing leads farther, and those on the way to them, the
    /// farthest first.
    fn ends(&self, pack: &PackName) -> (Vec<Arc<PackRef>>, Vec<Arc<PackRef>>) {
        let (mut ends, mut between) = (Vec::new(), Vec::new());
        let mut seen = HashSet::from([pack]);
        let mut next: VecDeque<&Arc<PackRef>> = self.leads.get(pack).into_iter().flatten().collect();
        while let Some(pack) = next.pop_front() {
            if seen.len() > LEADS_FOLLOWED || !seen.insert(&pack.name) {
                continue;
            }
            match self.leads.get(&pack.name) {
                Some(leads) => {
                    between.push(Arc::clone(pack));
                    next.extend(leads);
                }
                None => ends.push(Arc::clone(pack)),
            }
        }
        between.reverse();
        (ends, between)
    }
}

/// The old and the new packs of a record.
fn leads(record: &RepackRecord) -> impl Iterator<Item = (&PackRef, &PackRef)> {
    let pack = |number: u32| record.packs.get(number as usize);
    record
        .leads
        .iter()
        .flat_map(move |lead| lead.new.iter().filter_map(move |new| Some((pack(lead.old)?, pack(*new)?))))
}

/// Finds payloads whose packs were repacked.
pub(crate) struct Moved<'r, 's> {
    repository: &'r Repository<'s>,
    /// The snapshots that are read.
    snapshots: Vec<SessionId>,
    /// Whether the records are listed before the first payload is looked for.
    lists_first: bool,
    state: threads::Mutex<State>,
    /// When a listing ended, or failed.
    listed: Condvar,
    directories: Cache<PackName, Contents>,
}

#[derive(Default)]
struct State {
    records: Arc<Leads>,
    /// Listings that were begun and that did not fail.
    begun: u64,
    /// As many as were begun when the last of those that ended began.
    ended: u64,
    is_listing: bool,
}

/// What a pack holds, as far as can be told.
#[derive(Clone)]
enum Contents {
    Frames(Arc<Directory>),
    /// It is missing or damaged.
    Unusable(Arc<EngineError>),
}

/// The frames of a pack by the ids of their payloads.
struct Directory(Box<[(IdStart, Place, u32)]>);

/// Half of an id. Two payloads whose ids begin alike would be told apart when the wrong one does not open.
type IdStart = [u8; 16];

impl Directory {
    fn read(repository: &Repository<'_>, pack: &PackRef) -> Result<Self, EngineError> {
        let frames = directory::read_from_end(repository, pack)?;
        let mut entries: Box<[_]> = frames
            .into_iter()
            .map(|(offset, frame)| {
                let place = Place { offset, stored_len: frame.stored_len, codec: frame.codec };
                (start_of(&frame.id), place, frame.plain_len)
            })
            .collect();
        entries.sort_unstable();
        Ok(Self(entries))
    }

    fn find(&self, location: &Location) -> Option<Place> {
        let id = start_of(&location.id);
        let first = self.0.partition_point(|(start, ..)| *start < id);
        let (start, place, plain_len) = self.0.get(first)?;
        (*start == id && *plain_len == location.plain_len).then_some(*place)
    }

    fn weight(&self) -> u64 {
        DIRECTORY_BESIDE + size_of_val(&*self.0) as u64
    }
}

fn start_of(id: &PayloadId) -> IdStart {
    let (start, _) = id.0.split_first_chunk().expect("an id is longer than a half of it");
    *start
}

/// The packs in which some payloads of one old pack may be.
struct Search {
    candidates: Vec<Arc<PackRef>>,
    next: usize,
    step: usize,
    /// The positions of those that were not found.
    left: Vec<usize>,
}

impl<'r, 's> Moved<'r, 's> {
    /// Lists records when a pack is missing.
    pub(crate) fn new(repository: &'r Repository<'s>) -> Self {
        let (snapshots, directories) = (Vec::new(), Cache::new(DIRECTORIES_BYTES));
        let (state, listed) = (threads::Mutex::default(), Condvar::new());
        Self { repository, snapshots, lists_first: false, state, listed, directories }
    }

    /// Lists records first. What of some snapshots is missing after these were forgotten is no damage.
    pub(crate) fn listing_first(repository: &'r Repository<'s>, snapshots: Vec<SessionId>) -> Self {
        Self { lists_first: true, ..Self::watching(repository, snapshots) }
    }

    /// As [`Moved::new`]. What of some snapshots is missing after these were forgotten is no damage.
    pub(crate) fn watching(repository: &'r Repository<'s>, snapshots: Vec<SessionId>) -> Self {
        Self { snapshots, ..Self::new(repository) }
    }

    /// Begins with records that were read already.
    pub(crate) fn knowing(repository: &'r Repository<'s>, records: Leads) -> Self {
        let state = State { records: Arc::new(records), begun: 1, ended: 1, is_listing: false };
        Self { state: threads::Mutex::new(state), ..Self::new(repository) }
    }

    /// Whether anything is known to have been repacked.
    pub(crate) fn has_leads(&self) -> Result<bool, EngineError> {
        Ok(!self.listed(u64::from(self.lists_first))?.leads.is_empty())
    }

    /// Tells for each location where its payload is to be read. `avoided` are packs that are not to be read.
    ///
    /// What records lead to comes first, so that what was put in order is read in order, then what locations name, then
    /// what was moved on since.
    pub(crate) fn places<'l>(
        &self,
        locations: impl Iterator<Item = &'l Location>,
        avoided: &BTreeSet<PackName>,
    ) -> Result<Vec<Where>, EngineError> {
        let records = self.listed(u64::from(self.lists_first))?;
        let locations: Vec<&Location> = locations.collect();
        let named = |location: &&Location| {
            if avoided.contains(&location.pack.name) { Where::Nowhere(None) } else { Where::Named }
        };
        let mut found: Vec<Where> = locations.iter().map(named).collect();
        if records.leads.is_empty() {
            return Ok(found);
        }
        let mut moved: BTreeMap<&PackName, Vec<usize>> = BTreeMap::new();
        for (position, location) in locations.iter().enumerate() {
            if records.leads.contains_key(&location.pack.name) {
                moved.entry(&location.pack.name).or_default().push(position);
            }
        }
        let search = |(pack, left)| Search::new(&records, pack, left, avoided);
        let mut searches: Vec<Search> = moved.into_iter().map(search).collect();
        for search in &mut searches {
            search.look_at_kept(&self.directories, &locations, &mut found);
        }
        while searches.iter().any(|search| !search.round().is_empty()) {
            let round: BTreeSet<&Arc<PackRef>> = searches.iter().flat_map(Search::round).collect();
            let contents = self.read_all(&round.into_iter().collect::<Vec<_>>())?;
            for search in &mut searches {
                search.look(&contents, &locations, &mut found);
            }
        }
        for search in &searches {
            self.forget_unusable(search, &found);
        }
        Ok(found)
    }

    /// Has what was missing or damaged looked for anew the next time, if something was not found for that.
    fn forget_unusable(&self, search: &Search, found: &[Where]) {
        if search.left.iter().any(|position| matches!(found[*position], Where::Nowhere(_))) {
            for pack in &search.candidates {
                if let Some(Contents::Unusable(_)) = self.directories.get(&pack.name) {
                    self.directories.forget(&pack.name);
                }
            }
        }
    }

    /// Whether a record that is known leads on from a pack.
    pub(crate) fn knows(&self, pack: &PackName) -> bool {
        threads::lock(&self.state).records.leads.contains_key(pack)
    }

    /// Whether a record leads on from a pack that is missing; if none is known, they are listed once more.
    pub(crate) fn leads_on(&self, pack: &PackName) -> Result<bool, EngineError> {
        if !self.knows(pack) {
            self.list_again()?;
        }
        Ok(self.knows(pack))
    }

    /// Lists the records once more: a pack is missing that may have been repacked since.
    pub(crate) fn list_again(&self) -> Result<(), EngineError> {
        let begun = threads::lock(&self.state).begun;
        self.listed(begun + 1).map(drop)
    }

    /// Fails if a snapshot that is read has been forgotten: then its packs go.
    pub(crate) fn check_not_forgotten(&self) -> Result<(), EngineError> {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        for info in self.repository.list(PREFIX_TOMBSTONES)? {
            let Some(BlobKind::Tombstone { session, .. }) = info.name.kind() else { continue };
            if !self.snapshots.contains(&session) {
                continue;
            }
            let bytes = get_sealed(self.repository.store(), &info.name)?;
            if Tombstone::open(self.repository.keys(), &info.name, &bytes).is_ok() {
                return Err(EngineError::ForgottenMeanwhile { snapshot: session });
            }
        }
        Ok(())
    }

    /// The records of the listing with that number, or of a later one; waits for one that is under way, or lists.
    fn listed(&self, number: u64) -> Result<Arc<Leads>, EngineError> {
        let mut state = threads::lock(&self.state);
        loop {
            if state.ended >= number {
                return Ok(Arc::clone(&state.records));
            }
            if !state.is_listing {
                break;
            }
            state = self.listed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_listing = true;
        state.begun += 1;
        let (begun, known) = (state.begun, Arc::clone(&state.records));
        drop(state);
        let _listing = Listing(self);
        let records = load(self.repository, known)?;
        let mut state = threads::lock(&self.state);
        state.ended = begun;
        state.records = Arc::clone(&records);
        Ok(records)
    }

    /// What some packs hold, several read at a time.
    fn read_all(&self, packs: &[&Arc<PackRef>]) -> Result<HashMap<PackName, Contents>, EngineError> {
        let contents = in_threads(packs, |pack| Ok((pack.name.clone(), self.contents(pack)?)))?;
        Ok(contents.into_iter().collect())
    }

    /// What a pack holds: kept, awaited from whoever reads it, or read.
    fn contents(&self, pack: &PackRef) -> Result<Contents, EngineError> {
        loop {
            match self.directories.find(&pack.name) {
                Found::Here(contents) => return Ok(contents),
                Found::Awaited(flight) => {
                    // Whoever read it may have failed; that may have been a failure of its own.
                    if let Some(Ok(contents)) = flight.wait() {
                        return Ok(contents);
                    }
                }
                Found::Claimed(claim) => {
                    let (contents, weight) = match Directory::read(self.repository, pack) {
                        Ok(directory) => {
                            let weight = directory.weight();
                            (Contents::Frames(Arc::new(directory)), weight)
                        }
                        Err(error) if error.is_damage() => {
                            (Contents::Unusable(Arc::new(error)), DIRECTORY_BESIDE)
                        }
                        Err(error) => return Err(error),
                    };
                    claim.settle(Ok(contents.clone()), Some(weight));
                    return Ok(contents);
                }
            }
        }
    }
}

/// The right to list. Dropped, it is somebody else's.
struct Listing<'m, 'r, 's>(&'m Moved<'r, 's>);

impl Drop for Listing<'_, '_, '_> {
    fn drop(&mut self) {
        threads::lock(&self.0.state).is_listing = false;
        self.0.listed.notify_all();
    }
}

impl Search {
    fn new(records: &Leads, pack: &PackName, left: Vec<usize>, avoided: &BTreeSet<PackName>) -> Self {
        let (mut candidates, between) = records.ends(pack);
        if avoided.contains(pack) {
            candidates.extend(between);
        }
        candidates.retain(|pack| !avoided.contains(&pack.name));
        Self { candidates, next: 0, step: 1, left }
    }

    /// The packs to look at next; none if all was found.
    fn round(&self) -> &[Arc<PackRef>] {
        let rest = self.candidates.get(self.next..).unwrap_or_default();
        if self.left.is_empty() { &[] } else { &rest[..rest.len().min(self.step)] }
    }

    /// Looks at those whose directories are kept, which then need not be looked at again.
    fn look_at_kept(
        &mut self,
        kept: &Cache<PackName, Contents>,
        locations: &[&Location],
        found: &mut [Where],
    ) {
        let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut self.candidates)
            .into_iter()
            .map(|pack| (kept.get(&pack.name), pack))
            .partition(|(contents, _)| contents.is_some());
        for (contents, pack) in &known {
            if let Some(contents) = contents {
                self.look_at(pack, contents, locations, found);
            }
        }
        self.next = known.len();
        self.candidates = known.into_iter().chain(unknown).map(|(_, pack)| pack).collect();
    }

    fn look(&mut self, contents: &HashMap<PackName, Contents>, locations: &[&Location], found: &mut [Where]) {
        let round = self.round().to_vec();
        for pack in &round {
            if let Some(contents) = contents.get(&pack.name) {
                self.look_at(pack, contents, locations, found);
            }
        }
        self.next += round.len();
        self.step *= MORE_EACH_ROUND;
    }

    fn look_at(
        &mut self,
        pack: &Arc<PackRef>,
        contents: &Contents,
        locations: &[&Location],
        found: &mut [Where],
    ) {
        self.left.retain(|&position| match contents {
            Contents::Frames(directory) => match directory.find(locations[position]) {
                Some(place) => {
                    found[position] = Where::At(Arc::clone(pack), place);
                    false
                }
                None => true,
            },
            Contents::Unusable(error) => {
                if let Where::Nowhere(none @ None) = &mut found[position] {
                    *none = Some(Arc::clone(error));
                }
                true
            }
        });
    }
}

/// The records that there are now; those that were settled before are not read again.
fn load(repository: &Repository<'_>, known: Arc<Leads>) -> Result<Arc<Leads>, EngineError> {
    let is_new =
        |name: &BlobName| matches!(name.kind(), Some(BlobKind::Repack(_))) && !known.settled.contains(name);
    let names = repository.list(PREFIX_REPACK)?.into_iter().map(|info| info.name);
    let new: Vec<BlobName> = names.filter(is_new).collect();
    if new.is_empty() {
        return Ok(known);
    }
    let mut records = Leads { leads: known.leads.clone(), settled: known.settled.clone() };
    for (name, record) in new.iter().zip(in_threads(&new, |name| Readable::of(repository, name))?) {
        match record {
            Readable::Counts(record) => records.add(name.clone(), &record),
            Readable::Never => drop(records.settled.insert(name.clone())),
            Readable::Unknown => {}
        }
    }
    Ok(Arc::new(records))
}

/// Does something for each of some items, several at a time, and gives the results in their order. Ends with the first failure.
fn in_threads<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, EngineError> + Sync,
) -> Result<Vec<R>, EngineError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let failure: Mutex<Option<EngineError>> = Mutex::default();
    let run = || {
        while lock(&failure).is_none() {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(position) else { return };
            match work(item) {
                Ok(result) => lock(&results)[position] = Some(result),
                Err(error) => drop(lock(&failure).get_or_insert(error)),
            }
        }
    };
    match items.len().min(threads::waiting(READ_THREADS)) {
        0 => {}
        1 => run(),
        threads => scope(|scope| {
            for _ in 0..threads {
                scope.spawn(run);
            }
        }),
    }
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(results.into_iter().map(|result| result.expect("nothing failed")).collect())
}
