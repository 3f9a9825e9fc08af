//! Reading frames out of packs: merged ranges, parallel requests, packs' keys cached.
//!
//! What was repacked is read where it is now ([`Moved`]), and what cannot be read in one place in any other that there is.
//!
//! A pack's key is derived from its header. It comes with the first range of the pack where that is near, else at the
//! same time: no request waits for another.

mod each;
mod openers;
mod plan;
mod scratch;

pub(crate) use each::Payload;
pub(crate) use plan::{Fetch, Gaps, Member};
pub(crate) use scratch::{Encoded, Scratch};

use crate::error::EngineError;
use crate::moved::{Leads, Moved, Place, Where};
use crate::records::Records;
use crate::repository::Repository;
use crate::store::StoreError;
use crate::threads::{self, Condvar, scope};
use plan::{Spot, plan_fetches};
use repo_format::{FrameEntry, FrameKind, Location, PackName, PackOpener, SessionId, SessionKey};
use std::collections::{BTreeSet, HashMap};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

/// How often a frame that does not open is read again.
const READS_AGAIN: usize = 4;

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

    /// Opens and decodes the frame of a location out of fetched bytes, in place, and checks its id. One that is short
    /// or does not open is read again, and the pack's header with it: bytes may be changed on their way as well as where they are
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
        let sealed = fetch.frame(bytes, place);
        let mut result =
            sealed.and_then(|sealed| self.open_once(opener, pack, (offset, &frame), sealed, scratch));
        let mut before = None;
        for _ in 0..READS_AGAIN {
            if !matches!(&result, Err(EngineError::Damaged { .. } | EngineError::Short { .. })) {
                break;
            }
            let mut bytes = self.read_again(pack, place)?;
            let found = blake3::hash(&bytes);
            result = if bytes.len() == stored_len as usize {
                self.open_once(&*self.opener(pack)?, pack, (offset, &frame), &mut bytes, scratch)
            } else {
                let expected = u64::from(offset) + u64::from(stored_len);
                Err(EngineError::Short { name: pack.blob(), expected })
            };
            // What comes twice in the same way was not changed on its way.
            if before.replace(found) == Some(found) {
                break;
            }
        }
        result
    }

    /// Reads a frame, fewer bytes if the blob is short, and forgets what its pack's header was.
    fn read_again(&self, pack: &PackName, place: Place) -> Result<Vec<u8>, EngineError> {
        self.forget_opener(pack);
        let start = u64::from(place.offset);
        let range = start..start + u64::from(place.stored_len);
        Ok(self.repository.store().get(&pack.blob(), Some(range))?)
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
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere ends the operation anyway; the data under these locks is never half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
