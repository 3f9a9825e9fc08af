//! Reading frames out of packs: merged ranges, parallel requests, packs' keys cached.
//!
//! What was repacked is read where it is now ([`Moved`]), and what cannot be read in one place in any other that there is.
//!
//! A pack's key is derived from its header. It comes with the first range of the pack where that is near, else at the
//! same time: no request waits for another.

use crate::error::EngineError;
use crate::moved::{Leads, Moved, Place, Where};
use crate::records::Records;
use crate::repository::Repository;
use crate::store::StoreError;
use crate::threads::{self, Condvar, scope};
use repo_format::{
    Codec, Decoder, FrameEntry, FrameKind, Location, PACK_HEADER_LEN, PackHeader, PackKind, PackName,
    PackOpener, PackRef, SealedSessionKey, SessionId, SessionKey,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Frames closer than this are fetched in one request: reading the gap costs less than another request.
const MERGE_GAP: u64 = 16 << 10;
/// A merged request ends here: enough to be limited by bandwidth, little enough to have several in flight.
pub(crate) const REQUEST_LEN_MAX: u64 = 8 << 20;
/// Threads that wait for reads at the same time: pages and nodes are many small requests, each a round trip.
const READ_THREADS: usize = 32;
/// How often a frame that does not open is read again.
const READS_AGAIN: usize = 4;
/// Openers kept; one is about a hundred bytes and a key schedule.
const OPENERS_MAX: usize = 4096;

/// Opens frames of any pack of a repository.
pub(crate) struct FrameReader<'r, 's> {
    repository: &'r Repository<'s>,
    /// Nothing for a pack whose header somebody is reading.
    openers: threads::Mutex<HashMap<PackName, Option<Arc<PackOpener>>>>,
    /// When somebody has read a header, or has failed to.
    header_read: Condvar,
    session_keys: Mutex<HashMap<[u8; 32], Arc<SessionKey>>>,
    moved: Moved<'r, 's>,
}

/// Frames of one pack that one request fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) pack: PackRef,
    pub(crate) range: Range<u64>,
    /// The planned locations whose frames lie in the range, in the order of these; those that share one follow each other.
    pub(crate) members: Vec<Member>,
}

/// One of the locations that were planned for, and where in a fetched pack its frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The location's position in the input.
    pub(crate) location: usize,
    pub(crate) place: Place,
}

impl Fetch {
    /// How much it fetches at most.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The stored bytes of the frames that it is for, each once.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let frames = self.members.chunk_by(|a, b| a.place == b.place);
        frames.map(|places| u64::from(places[0].place.stored_len)).sum()
    }

    /// The members in groups that share a frame, which can be opened once.
    pub(crate) fn frames<'f, 'l>(
        &'f self,
        location: &'f dyn Fn(usize) -> &'l Location,
    ) -> impl Iterator<Item = &'f [Member]> {
        let payload = |member: &Member| {
            let Location { id, plain_len, .. } = location(member.location);
            (member.place, *id, *plain_len)
        };
        self.members.chunk_by(move |a, b| payload(a) == payload(b))
    }

    /// The sealed frame at a place in the fetched bytes, which are fewer than the range if the blob is short.
    fn frame<'b>(&self, bytes: &'b mut [u8], place: Place) -> Result<&'b mut [u8], EngineError> {
        let start = usize::try_from(u64::from(place.offset) - self.range.start);
        let start = start.expect("a member lies within a range that is in memory");
        let expected = u64::from(place.offset) + u64::from(place.stored_len);
        bytes
            .get_mut(start..start + place.stored_len as usize)
            .ok_or_else(|| EngineError::Short { name: self.pack.name.blob(), expected })
    }
}

/// What one request brought.
pub(crate) struct Fetched {
    pub(crate) fetch: Arc<Fetch>,
    opener: Arc<PackOpener>,
    bytes: Vec<u8>,
}

impl Fetched {
    /// How many bytes it brought.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What became of some locations.
pub(crate) enum Got {
    Fetched(Fetched),
    /// They can be read nowhere.
    Lost {
        members: Vec<Member>,
        error: EngineError,
    },
}

/// What is in no other place, with what is wrong with one of these if there are any.
type Lost = (Member, Option<Arc<EngineError>>);

/// Where a frame is, for planning.
#[derive(Clone, Copy)]
struct Spot<'l> {
    pack: &'l PackRef,
    place: Place,
    /// The position of its location.
    location: usize,
}

impl<'l> Spot<'l> {
    /// Where a location says that it is; the first one.
    fn named(location: &'l Location) -> Self {
        Self { pack: &location.pack, place: Place::named(location), location: 0 }
    }

    fn start(&self) -> u64 {
        u64::from(self.place.offset)
    }

    fn end(&self) -> u64 {
        self.start() + u64::from(self.place.stored_len)
    }
}

/// What may be fetched beside what is wanted, so that there are fewer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// Every short gap: round trips are what limits.
    Short,
    /// The shortest gaps, together no more than a sixteenth of what is wanted: bytes are what limits.
    Few,
}

impl Gaps {
    /// The share of what is wanted that [`Gaps::Few`] adds at most; the headers of packs come on top.
    const FEW_ONE_IN: u64 = 16;

    /// The longest gap that is fetched. The spots are in the order of their places.
    fn longest(self, spots: &[Spot<'_>], known: impl Fn(&PackName) -> bool) -> u64 {
        if self == Self::Short {
            return MERGE_GAP;
        }
        let mut gaps = Vec::new();
        let (mut wanted, mut before): (u64, Option<(&PackName, u64)>) = (0, None);
        for spot in spots {
            let (pack, start) = (&spot.pack.name, spot.start());
            let reached = match before {
                Some((last, reached)) if last == pack => reached,
                _ if known(pack) => start,
                _ => PACK_HEADER_LEN as u64,
            };
            let end = spot.end();
            wanted += end.saturating_sub(reached.max(start));
            gaps.extend(start.checked_sub(reached).filter(|gap| (1..=MERGE_GAP).contains(gap)));
            before = Some((pack, end.max(reached)));
        }
        gaps.sort_unstable();
        let mut left = wanted / Self::FEW_ONE_IN;
        let mut longest = 0;
        for equal in gaps.chunk_by(|a, b| a == b) {
            // All of a length or none, so that what is planned does not depend on where they are.
            match left.checked_sub(equal.iter().sum()) {
                Some(rest) => (left, longest) = (rest, equal[0]),
                None => break,
            }
        }
        longest
    }
}

/// Groups frames into as few requests as is sensible; what is wanted twice is fetched once. The first request of a pack
/// that is not `known` brings the pack's header too if that is near.
fn plan_fetches(mut spots: Vec<Spot<'_>>, gaps: Gaps, known: impl Fn(&PackName) -> bool) -> Vec<Fetch> {
    spots.sort_by(|a, b| (&a.pack.name, a.place).cmp(&(&b.pack.name, b.place)));
    let gap = gaps.longest(&spots, &known);
    let mut fetches: Vec<Fetch> = Vec::new();
    for spot in spots {
        let (start, end) = (spot.start(), spot.end());
        let member = Member { location: spot.location, place: spot.place };
        match fetches.last_mut() {
            Some(last)
                if last.pack.name == spot.pack.name
                    && start <= last.range.end + gap
                    && end.max(last.range.end) - last.range.start <= REQUEST_LEN_MAX =>
            {
                last.range.end = last.range.end.max(end);
                last.members.push(member);
            }
            last => {
                let is_first = last.is_none_or(|last| last.pack.name != spot.pack.name);
                let is_near = start <= PACK_HEADER_LEN as u64 + gap;
                let with_header = is_first && is_near && !known(&spot.pack.name);
                let start = if with_header { 0 } else { start };
                fetches.push(Fetch { pack: spot.pack.clone(), range: start..end, members: vec![member] });
            }
        }
    }
    fetches
}

impl<'r, 's> FrameReader<'r, 's> {
    pub(crate) fn new(repository: &'r Repository<'s>) -> Self {
        Self::with(repository, Moved::new(repository))
    }

    /// A reader of some snapshots: if these are forgotten meanwhile, what they lack is no damage.
    pub(crate) fn of_snapshots(repository: &'r Repository<'s>, snapshots: Vec<SessionId>) -> Self {
        Self::with(repository, Moved::listing_first(repository, snapshots))
    }

    /// As [`FrameReader::of_snapshots`], of little: records are listed when a pack is missing.
    pub(crate) fn watching(repository: &'r Repository<'s>, snapshots: Vec<SessionId>) -> Self {
        Self::with(repository, Moved::watching(repository, snapshots))
    }

    /// A reader that knows records which were read already.
    pub(crate) fn knowing(repository: &'r Repository<'s>, records: &Records) -> Self {
        Self::with(repository, Moved::knowing(repository, Leads::of(records)))
    }

    fn with(repository: &'r Repository<'s>, moved: Moved<'r, 's>) -> Self {
        Self {
            repository,
            openers: threads::Mutex::default(),
            header_read: Condvar::new(),
            session_keys: Mutex::default(),
            moved,
        }
    }

    pub(crate) fn repository(&self) -> &'r Repository<'s> {
        self.repository
    }

    /// Where what was repacked is.
    pub(crate) fn moved(&self) -> &Moved<'r, 's> {
        &self.moved
    }

    /// Where payloads are now.
    pub(crate) fn places(&self, locations: &[Location]) -> Result<Vec<Where>, EngineError> {
        self.moved.places(locations.iter(), &BTreeSet::new())
    }

    /// Groups locations into as few requests as is sensible, of the packs that hold them now; equal locations are fetched
    /// once.
    pub(crate) fn plan(&self, locations: &[Location], gaps: Gaps) -> Result<Vec<Arc<Fetch>>, EngineError> {
        if !self.moved.has_leads()? {
            let numbered = locations.iter().enumerate();
            let spot = |(location, at): (usize, _)| Spot { location, ..Spot::named(at) };
            return Ok(self.fetches(numbered.map(spot).collect(), gaps));
        }
        let all: Vec<(usize, &Location)> = locations.iter().enumerate().collect();
        Ok(self.plan_avoiding(&all, gaps, &BTreeSet::new())?.0)
    }

    /// As [`FrameReader::plan`], with the locations' positions; leaves alone some packs that cannot be read. Returns
    /// also the locations for which nothing else is left, with what else is wrong.
    fn plan_avoiding(
        &self,
        locations: &[(usize, &Location)],
        gaps: Gaps,
        avoided: &BTreeSet<PackName>,
    ) -> Result<(Vec<Arc<Fetch>>, Vec<Lost>), EngineError> {
        let places = self.moved.places(locations.iter().map(|(_, location)| *location), avoided)?;
        let (mut spots, mut lost) = (Vec::with_capacity(locations.len()), Vec::new());
        for (&(position, location), found) in locations.iter().zip(&places) {
            let (pack, place) = match found {
                Where::Named => (&location.pack, Place::named(location)),
                Where::At(pack, place) => (&**pack, *place),
                Where::Nowhere(error) => {
                    lost.push((Member { location: position, place: Place::named(location) }, error.clone()));
                    continue;
                }
            };
            spots.push(Spot { pack, place, location: position });
        }
        Ok((self.fetches(spots, gaps), lost))
    }

    fn fetches(&self, spots: Vec<Spot<'_>>, gaps: Gaps) -> Vec<Arc<Fetch>> {
        let known = |pack: &PackName| threads::lock(&self.openers).contains_key(pack);
        plan_fetches(spots, gaps, known).into_iter().map(Arc::new).collect()
    }

    /// Fetches what was planned for some locations, which it is told by their positions. What cannot be read where it was
    /// thought to be is fetched from where else it may be.
    ///
    /// # Errors
    /// A store that fails, a snapshot that was forgotten meanwhile, what `take` returns. Damage is none: it is handed over.
    pub(crate) fn fetch<'l>(
        &self,
        fetch: &Arc<Fetch>,
        location: &dyn Fn(usize) -> &'l Location,
        take: &mut dyn FnMut(Got) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut next = vec![(Arc::clone(fetch), BTreeSet::new())];
        while let Some((fetch, mut avoided)) = next.pop() {
            let error = match self.fetch_once(&fetch) {
                Ok((opener, bytes)) => {
                    take(Got::Fetched(Fetched { fetch, opener, bytes }))?;
                    continue;
                }
                Err(error) if error.is_damage() => error,
                Err(error) => return Err(error),
            };
            // So this ends: each time it goes on without a pack that it went on with before.
            assert!(avoided.insert(fetch.pack.name.clone()), "what is avoided is not planned for");
            let members: Vec<(usize, &Location)> =
                fetch.members.iter().map(|member| (member.location, location(member.location))).collect();
            let (fetches, lost) = self.plan_elsewhere(&members, &error, &avoided)?;
            next.extend(fetches.into_iter().map(|fetch| (fetch, avoided.clone())));
            // Those that are lost for the same reason together.
            for lost in lost.chunk_by(|(_, a), (_, b)| a.is_none() && b.is_none()) {
                let cause = lost[0].1.as_deref().unwrap_or(&error);
                let Some(error) = cause.damage() else { return Err(error) };
                take(Got::Lost { members: lost.iter().map(|(member, _)| *member).collect(), error })?;
            }
        }
        Ok(())
    }

    /// Plans for what could not be read where it was thought to be.
    fn plan_elsewhere(
        &self,
        locations: &[(usize, &Location)],
        error: &EngineError,
        avoided: &BTreeSet<PackName>,
    ) -> Result<(Vec<Arc<Fetch>>, Vec<Lost>), EngineError> {
        let is_missing = matches!(error, EngineError::Store(StoreError::NotFound { .. }));
        if is_missing {
            // It may have been repacked since the records were listed.
            self.moved.list_again()?;
        }
        let (fetches, lost) = self.plan_avoiding(locations, Gaps::Few, avoided)?;
        if is_missing && !lost.is_empty() {
            self.moved.check_not_forgotten()?;
        }
        Ok((fetches, lost))
    }

    /// The bytes of one fetch, fewer than its range if the blob is short, and what opens the frames in them.
    fn fetch_once(&self, fetch: &Fetch) -> Result<(Arc<PackOpener>, Vec<u8>), EngineError> {
        let pack = &fetch.pack.name;
        let get = || self.repository.store().get(&pack.blob(), Some(fetch.range.clone()));
        match self.claim(pack) {
            None => {
                // Whoever reads the header began before.
                let bytes = get()?;
                Ok((self.opener(pack)?, bytes))
            }
            Some(claim) if fetch.range.start == 0 => {
                let bytes = get()?;
                let opener = claim.settle(|| self.opener_from_bytes(pack, &bytes))?;
                Ok((opener, bytes))
            }
            Some(claim) => {
                let (opener, bytes) = scope(|scope| {
                    let opener = scope.spawn(|| claim.settle(|| self.read_opener(pack)));
                    let bytes = get();
                    (opener.join().unwrap_or_else(|panic| resume_unwind(panic)), bytes)
                });
                match (opener, bytes) {
                    // That the store fails is worse than what was found out in spite of it.
                    (Err(opener), Err(bytes)) if opener.is_damage() => Err(bytes.into()),
                    (opener, bytes) => Ok((opener?, bytes?)),
                }
            }
        }
    }

    /// What opens the frames of a pack: from the cache, or by reading the pack's header.
    pub(crate) fn opener(&self, pack: &PackName) -> Result<Arc<PackOpener>, EngineError> {
        loop {
            if let Some(claim) = self.claim(pack) {
                return claim.settle(|| self.read_opener(pack));
            }
            let being_read = |openers: &mut HashMap<_, _>| matches!(openers.get(pack), Some(None));
            let openers = self.header_read.wait_while(threads::lock(&self.openers), being_read);
            let openers = openers.unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(opener)) = openers.get(pack) {
                return Ok(Arc::clone(opener));
            }
            // Whoever read it failed; that may have been a failure of its own.
        }
    }

    /// Makes the caller the one who reads a pack's header, unless it was read or somebody does so.
    fn claim<'c>(&'c self, pack: &'c PackName) -> Option<Claim<'c, 'r, 's>> {
        let mut openers = threads::lock(&self.openers);
        if openers.contains_key(pack) {
            return None;
        }
        if openers.len() >= OPENERS_MAX {
            openers.retain(|_, opener| opener.is_none());
        }
        openers.insert(pack.clone(), None);
        Some(Claim { frames: self, pack })
    }

    /// Parses the header that begins some bytes of a pack; of bytes that are damaged, the header is read again.
    fn opener_from_bytes(&self, pack: &PackName, bytes: &[u8]) -> Result<PackOpener, EngineError> {
        let Some(header) = bytes.get(..PACK_HEADER_LEN) else {
            return Err(EngineError::Short { name: pack.blob(), expected: PACK_HEADER_LEN as u64 });
        };
        match self.opener_from_header(pack, header) {
            Err(EngineError::Damaged { .. }) => self.read_opener(pack),
            result => result,
        }
    }

    fn read_opener(&self, pack: &PackName) -> Result<PackOpener, EngineError> {
        let mut opener = self.read_opener_once(pack);
        for _ in 0..READS_AGAIN {
            if !matches!(&opener, Err(EngineError::Damaged { .. })) {
                break;
            }
            // It may have been changed on its way.
            opener = self.read_opener_once(pack);
        }
        opener
    }

    fn read_opener_once(&self, pack: &PackName) -> Result<PackOpener, EngineError> {
        let name = pack.blob();
        let header_len = PACK_HEADER_LEN as u64;
        let bytes = self.repository.store().get(&name, Some(0..header_len))?;
        if bytes.len() < PACK_HEADER_LEN {
            return Err(EngineError::Short { name, expected: header_len });
        }
        self.opener_from_header(pack, &bytes)
    }

    /// Parses a pack's header and derives the pack's key.
    pub(crate) fn opener_from_header(
        &self,
        pack: &PackName,
        header: &[u8],
    ) -> Result<PackOpener, EngineError> {
        let name = pack.blob();
        let header = PackHeader::parse(header).map_err(EngineError::damaged(&name))?;
        let keys = self.repository.keys();
        match (&header.sealed_session_key, pack.kind) {
            (Some(sealed), PackKind::Data) => {
                let session_key = self.session_key(sealed, pack)?;
                PackOpener::new_with_session_key(keys, pack, &header, &session_key)
            }
            _ => PackOpener::new(keys, pack, &header),
        }
        .map_err(EngineError::damaged(&name))
    }

    fn session_key(
        &self,
        sealed: &SealedSessionKey,
        pack: &PackName,
    ) -> Result<Arc<SessionKey>, EngineError> {
        // The ciphertext is authenticated: the same encapsulated key with another ciphertext does not open.
        let cache_key = *blake3::Hasher::new()
            .update(&sealed.encapsulated)
            .update(&sealed.ciphertext)
            .update(&pack.session.0)
            .finalize()
            .as_bytes();
        if let Some(session_key) = lock(&self.session_keys).get(&cache_key) {
            return Ok(Arc::clone(session_key));
        }
        let opened = self.repository.keys().open_session_key(sealed, pack.session);
        let session_key = Arc::new(opened.map_err(EngineError::damaged(&pack.blob()))?);
        lock(&self.session_keys).insert(cache_key, Arc::clone(&session_key));
        Ok(session_key)
    }

    /// Opens and decodes the frame of a location out of fetched bytes, in place, and checks its id. One that does not
    /// open is read again, and the pack's header with it: bytes may be changed on their way as well as where they are
    /// kept. Then it is read from where else it may be.
    ///
    /// The frame's bytes are garbage afterwards. The scratch's plain bytes become the payload.
    pub(crate) fn open(
        &self,
        fetched: &mut Fetched,
        place: Place,
        (kind, location): (FrameKind, &Location),
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
        let mut avoided = BTreeSet::from([fetched.fetch.pack.name.clone()]);
        let first = match self.open_fetched(fetched, place, (kind, location), scratch) {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        loop {
            let (next, _) = self.plan_elsewhere(&[(0, location)], &first, &avoided)?;
            let Some(fetch) = next.into_iter().next() else { return Err(first) };
            // So this ends: each time it goes on without a pack that it went on with before.
            assert!(avoided.insert(fetch.pack.name.clone()), "what is avoided is not planned for");
            let opened = self.fetch_once(&fetch).and_then(|(opener, bytes)| {
                let place = fetch.members[0].place;
                let mut fetched = Fetched { fetch: Arc::clone(&fetch), opener, bytes };
                self.open_fetched(&mut fetched, place, (kind, location), scratch)
            });
            match opened {
                Err(error) if error.is_damage() => {}
                result => return result,
            }
        }
    }

    fn open_fetched(
        &self,
        fetched: &mut Fetched,
        place: Place,
        (kind, location): (FrameKind, &Location),
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
        let Fetched { fetch, opener, bytes } = fetched;
        let pack = &fetch.pack.name;
        let Place { offset, stored_len, codec } = place;
        let frame = FrameEntry { kind, codec, plain_len: location.plain_len, stored_len, id: location.id };
        let sealed = fetch.frame(bytes, place)?;
        let mut result = self.open_once(opener, pack, (offset, &frame), sealed, scratch);
        let mut before = None;
        for _ in 0..READS_AGAIN {
            if !matches!(&result, Err(EngineError::Damaged { .. })) {
                break;
            }
            let mut bytes = self.read_again(pack, place)?;
            let found = blake3::hash(&bytes);
            let opener = self.opener(pack)?;
            result = self.open_once(&opener, pack, (offset, &frame), &mut bytes, scratch);
            // What comes twice in the same way was not changed on its way.
            if before.replace(found) == Some(found) {
                break;
            }
        }
        result
    }

    /// Reads a frame, and forgets what its pack's header was.
    fn read_again(&self, pack: &PackName, place: Place) -> Result<Vec<u8>, EngineError> {
        let name = pack.blob();
        self.forget_opener(pack);
        let end = u64::from(place.offset) + u64::from(place.stored_len);
        let bytes = self.repository.store().get(&name, Some(u64::from(place.offset)..end))?;
        if bytes.len() != place.stored_len as usize {
            return Err(EngineError::Short { name, expected: end });
        }
        Ok(bytes)
    }

    /// Has a pack's header read anew, if nobody does so already.
    fn forget_opener(&self, pack: &PackName) {
        let mut openers = threads::lock(&self.openers);
        if let Some(Some(_)) = openers.get(pack) {
            openers.remove(pack);
        }
    }

    fn open_once(
        &self,
        opener: &PackOpener,
        pack: &PackName,
        (offset, frame): (u32, &FrameEntry),
        sealed: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
        let keys = self.repository.keys();
        let result = opener.open_frame(offset, frame, sealed).and_then(|encoded| {
            let (decoder, plain) = scratch.parts(frame.plain_len as usize);
            decoder.decode_into(frame.codec, encoded, plain)?;
            keys.check_payload(frame.kind, frame.id, plain)?;
            if let Some(kept) = &mut scratch.encoded {
                kept.codec = frame.codec;
                kept.bytes.clear();
                kept.bytes.extend_from_slice(encoded);
            }
            Ok(())
        });
        result.map_err(|source| EngineError::Damaged { name: pack.blob(), source })
    }

    /// Reads payloads of one kind, in the order of `locations`, with several requests at a time.
    pub(crate) fn read_all(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        self.read_each(kind, locations)?.into_iter().collect()
    }

    /// As [`FrameReader::read_all`]; what is damaged or missing keeps nothing else from being read.
    pub(crate) fn read_each(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Payload>, EngineError> {
        self.read_each_as(kind, locations, &Scratch::default, &|scratch| scratch.plain().to_vec())
    }

    /// As [`FrameReader::read_each`]: payloads that were checked, as they are encoded.
    pub(crate) fn read_each_encoded(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Result<Encoded, EngineError>>, EngineError> {
        let take = |scratch: &Scratch| scratch.encoded.clone().expect("it is kept");
        self.read_each_as(kind, locations, &Scratch::keeping_encoded, &take)
    }

    fn read_each_as<T: Send>(
        &self,
        kind: FrameKind,
        locations: &[Location],
        scratch: &(dyn Fn() -> Scratch + Sync),
        take: Take<'_, T>,
    ) -> Result<Vec<Result<T, EngineError>>, EngineError> {
        let fetches = self.plan(locations, Gaps::Short)?;
        let results: Results<T> = Mutex::new(locations.iter().map(|_| None).collect());
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<EngineError>> = Mutex::default();
        let work = || {
            let mut scratch = scratch();
            while let Some(fetch) = fetches.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&failure).is_some() {
                    return;
                }
                if let Err(error) = self.read_fetch((kind, locations), fetch, &mut scratch, (take, &results))
                {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        let threads = fetches.len().min(threads::waiting(READ_THREADS));
        if threads <= 1 {
            work();
        } else {
            scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results
            .into_iter()
            .map(|payload| payload.expect("every location is a member of a fetch"))
            .collect())
    }

    fn read_fetch<T>(
        &self,
        (kind, locations): (FrameKind, &[Location]),
        fetch: &Arc<Fetch>,
        scratch: &mut Scratch,
        (take, results): (Take<'_, T>, &Results<T>),
    ) -> Result<(), EngineError> {
        let location = |position: usize| &locations[position];
        self.fetch(fetch, &location, &mut |got| {
            match got {
                Got::Lost { members, error } => {
                    for member in members {
                        let Some(damage) = error.damage() else { return Err(error) };
                        lock(results)[member.location] = Some(Err(damage));
                    }
                }
                Got::Fetched(mut fetched) => {
                    let fetch = Arc::clone(&fetched.fetch);
                    for members in fetch.frames(&location) {
                        let Member { location: first, place } = members[0];
                        let opened = self.open(&mut fetched, place, (kind, location(first)), scratch);
                        for member in members {
                            let payload = match &opened {
                                Ok(()) => Ok(take(scratch)),
                                Err(error) => match error.damage() {
                                    Some(damage) => Err(damage),
                                    None => return opened,
                                },
                            };
                            lock(results)[member.location] = Some(payload);
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

/// The right to read the header of a pack, for which others wait. Dropped without an opener, it is somebody else's.
struct Claim<'c, 'r, 's> {
    frames: &'c FrameReader<'r, 's>,
    pack: &'c PackName,
}

impl Claim<'_, '_, '_> {
    fn settle(
        self,
        read: impl FnOnce() -> Result<PackOpener, EngineError>,
    ) -> Result<Arc<PackOpener>, EngineError> {
        let opener = Arc::new(read()?);
        threads::lock(&self.frames.openers).insert(self.pack.clone(), Some(Arc::clone(&opener)));
        Ok(opener)
    }
}

impl Drop for Claim<'_, '_, '_> {
    fn drop(&mut self) {
        let mut openers = threads::lock(&self.frames.openers);
        if let Some(None) = openers.get(self.pack) {
            openers.remove(self.pack);
        }
        drop(openers);
        self.frames.header_read.notify_all();
    }
}

/// A payload, or the damage that keeps it from being read.
pub(crate) type Payload = Result<Vec<u8>, EngineError>;

/// What is taken of a frame that was opened.
type Take<'t, T> = &'t (dyn Fn(&Scratch) -> T + Sync);

/// What became of locations, by their positions.
type Results<T> = Mutex<Vec<Option<Result<T, EngineError>>>>;

/// A payload as it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) codec: Codec,
    pub(crate) bytes: Vec<u8>,
}

/// What a thread needs to open frames, used again and again.
#[derive(Default)]
pub(crate) struct Scratch {
    /// As long as the longest payload so far, so that it is not filled with zeros for each.
    memory: Vec<u8>,
    plain_len: usize,
    /// How the payload that was opened last is encoded, if that is kept.
    encoded: Option<Encoded>,
    decoder: Decoder,
}

impl Scratch {
    fn keeping_encoded() -> Self {
        Self { encoded: Some(Encoded { codec: Codec::Raw, bytes: Vec::new() }), ..Self::default() }
    }

    /// The payload that was opened last.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.memory[..self.plain_len]
    }

    /// What decodes, and room for a payload.
    fn parts(&mut self, plain_len: usize) -> (&mut Decoder, &mut [u8]) {
        if self.memory.len() < plain_len {
            self.memory.resize(plain_len, 0);
        }
        self.plain_len = plain_len;
        (&mut self.decoder, &mut self.memory[..plain_len])
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere ends the operation anyway; the data under these locks is never half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::{PayloadId, SessionId, WriterId};

    fn locations(places: &[(u32, u32, u32)]) -> Vec<Location> {
        let writer = WriterId::new("host").unwrap();
        let location = |&(number, offset, stored_len): &(u32, u32, u32)| {
            let name = PackName {
                kind: PackKind::Data,
                writer: writer.clone(),
                session: SessionId([1; 16]),
                number,
            };
            let pack = PackRef { name, len: 1 << 25 };
            let (id, plain_len, codec) = (PayloadId([7; 32]), stored_len, Codec::Raw);
            Location { pack, offset, stored_len, plain_len, codec, id }
        };
        places.iter().map(location).collect()
    }

    fn spots(locations: &[Location]) -> Vec<Spot<'_>> {
        let numbered = locations.iter().enumerate();
        numbered.map(|(location, at)| Spot { location, ..Spot::named(at) }).collect()
    }

    fn ranges(places: &[(u32, u32, u32)], gaps: Gaps) -> Vec<(u32, Range<u64>)> {
        let fetches = plan_fetches(spots(&locations(places)), gaps, |_| true);
        fetches.into_iter().map(|fetch| (fetch.pack.name.number, fetch.range)).collect()
    }

    #[test]
    fn short_gaps_are_fetched_where_round_trips_limit() {
        let places = [(1, 1000, 100), (1, 1100 + (16 << 10), 100), (1, 100_000, 100), (2, 100, 1)];
        assert_eq!(
            ranges(&places, Gaps::Short),
            [(1, 1000..1200 + (16 << 10)), (1, 100_000..100_100), (2, 100..101)]
        );
    }

    #[test]
    fn few_gaps_are_the_shortest_and_cost_no_more_than_a_sixteenth() {
        // 16 000 bytes are wanted: gaps of 1000 bytes in all may be fetched.
        let places = [(1, 1000, 8000), (1, 9300, 7000), (1, 17_000, 500), (1, 18_300, 500)];
        assert_eq!(ranges(&places, Gaps::Few), [(1, 1000..16_300 + 1200), (1, 18_300..18_800)]);
        // What is wanted twice counts once.
        let twice = [places.as_slice(), &[(1, 1000, 8000)]].concat();
        assert_eq!(ranges(&twice, Gaps::Few), ranges(&places, Gaps::Few));
        // Two equal gaps that are too long together are both left out.
        assert_eq!(
            ranges(&[(1, 1000, 8000), (1, 9600, 8000), (1, 18_200, 16)], Gaps::Few),
            [(1, 1000..9000), (1, 9600..17_600), (1, 18_200..18_216)]
        );
    }

    #[test]
    fn a_header_that_is_not_known_comes_with_the_first_range_where_that_is_next_to_it() {
        let first = u32::try_from(PACK_HEADER_LEN).unwrap();
        let fetched = |offset, gaps| {
            plan_fetches(spots(&locations(&[(1, offset, 50)])), gaps, |_| false)[0].range.start
        };
        assert_eq!(fetched(first, Gaps::Few), 0);
        assert_eq!(fetched(first + 100, Gaps::Few), u64::from(first) + 100);
        assert_eq!(fetched(first + 100, Gaps::Short), 0);
    }
}
