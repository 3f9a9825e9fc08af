//! Copying payloads into new packs, in the order in which they are wanted.

use super::RepackJob;
use super::frames::{OldFrames, Wanted};
use crate::buffers::BufferPool;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::frames::{FrameReader, lock};
use crate::observer::{Event, Observer, tell};
use crate::pack::{ClosedPack, PackBuilder, Payload};
use crate::repository::Repository;
use crate::session::create;
use crate::threads;
use crate::unnamed::Unnamed;
use repo_format::{
    BlobName, FrameKind, Index, IndexEntry, Location, PACK_HEADER_LEN, PackBase, PackKind, PackRef, PackSeal,
    PayloadId, SealedSessionKey, SessionKey, packs_prefix, seal_pack, seal_session_key,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Payloads that are read together: enough to keep several requests on their way.
pub(super) const BATCH_LEN: u64 = 16 << 20;
/// Packs that are put at the same time.
pub(super) const PUTS_AT_ONCE: usize = 4;
/// Parts of maps that are not walked again; of more, some are, which costs time.
const PARTS_REMEMBERED: usize = 4 << 20;
/// Entries of one index: within its limit (SPEC 12).
const INDEX_ENTRIES_MAX: usize = 400_000;

/// What was copied.
pub(super) struct Copied {
    /// For each emptied pack, the packs that hold now what is needed of it.
    pub(super) leads: BTreeMap<PackRef, BTreeSet<PackRef>>,
    /// The new packs.
    pub(super) packs: Vec<PackRef>,
    pub(super) frames: u64,
    /// Packs that are not emptied, because something that is needed of them cannot be read.
    pub(super) left: u64,
}

/// Copies what is wanted.
pub(super) struct Copier<'c, 'r, 's> {
    repository: &'r Repository<'s>,
    job: &'c RepackJob<'c>,
    session: &'c Unnamed,
    observer: &'c dyn Observer,
    frames: FrameReader<'r, 's>,
    old: OldFrames,
    /// Parts of maps that were walked, by class.
    walked: HashSet<[u8; 16]>,
    /// What is to be read next: the first frames that hold it, and its ids.
    batch: Vec<(usize, PayloadId)>,
    batch_len: u64,
    /// For each payload that was copied, by the place of its first old frame, the number of its new pack.
    copied: HashMap<usize, u32>,
    data: PackBuilder,
    map: PackBuilder,
    closed: Vec<ClosedPack>,
    sealing: Sealing<'c>,
    indexing: Indexing,
}

/// What the new packs are sealed with.
struct Sealing<'c> {
    entropy: &'c Entropy,
    session_key: SessionKey,
    sealed_session_key: SealedSessionKey,
}

/// The entries of the data packs that are in no index yet.
#[derive(Default)]
struct Indexing {
    packs: Vec<PackRef>,
    entries: Vec<IndexEntry>,
    next: u32,
}

impl<'c, 'r, 's> Copier<'c, 'r, 's> {
    pub(super) fn new(
        repository: &'r Repository<'s>,
        job: &'c RepackJob<'c>,
        session: &'c Unnamed,
        old: OldFrames,
        observer: &'c dyn Observer,
    ) -> Result<Self, EngineError> {
        let config = repository.config();
        let session_key = SessionKey::new(job.entropy.draw("session key", 0));
        let seed = job.entropy.draw("session key encapsulation", 0);
        let sealed_session_key = seal_session_key(
            &session_key,
            &config.data_public_key,
            config.repository,
            session.session(),
            seed,
        )
        .map_err(EngineError::damaged(&BlobName::config()))?;
        let bodies = Arc::new(BufferPool::default());
        let builder = |kind| {
            let owner = (job.writer.clone(), session.session());
            PackBuilder::new(kind, owner, config.geometry.pack_len, Arc::clone(&bodies))
        };
        Ok(Self {
            repository,
            job,
            session,
            observer,
            frames: FrameReader::new(repository),
            old,
            walked: HashSet::new(),
            batch: Vec::new(),
            batch_len: 0,
            copied: HashMap::new(),
            data: builder(PackKind::Data),
            map: builder(PackKind::Map),
            closed: Vec::new(),
            sealing: Sealing { entropy: job.entropy, session_key, sealed_session_key },
            indexing: Indexing::default(),
        })
    }

    /// Whether a part of a map has not been walked for a class of roots.
    pub(super) fn is_new(&mut self, class: u32, at: &Location) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&at.id.0).update(&at.pack.name.session.0).update(&at.pack.name.number.to_le_bytes());
        hasher.update(&at.offset.to_le_bytes()).update(&class.to_le_bytes());
        let key = *hasher.finalize().as_bytes().first_chunk().expect("32 bytes begin with 16 bytes");
        if self.walked.len() >= PARTS_REMEMBERED {
            !self.walked.contains(&key)
        } else {
            self.walked.insert(key)
        }
    }

    /// Reads parts of maps.
    pub(super) fn read(&self, kind: FrameKind, at: &[Location]) -> Result<Vec<Vec<u8>>, EngineError> {
        self.frames.read_all(kind, at)
    }

    /// Wants a payload, as far as it is in some of the packs that are emptied.
    pub(super) fn want(&mut self, packs: &[u32], at: &Location) -> Result<(), EngineError> {
        for &pack in packs {
            match self.old.want(pack, at) {
                // What a location names and its pack's directory lacks is damage.
                Wanted::NotThere if self.old.pack(pack).name == at.pack.name => self.old.spoil(pack),
                Wanted::NotThere | Wanted::Before => {}
                Wanted::First(first) => {
                    self.batch.push((first, at.id));
                    self.batch_len += u64::from(at.plain_len);
                }
            }
        }
        if self.batch_len >= BATCH_LEN { self.copy_batch() } else { Ok(()) }
    }

    fn copy_batch(&mut self) -> Result<(), EngineError> {
        self.batch_len = 0;
        let batch = std::mem::take(&mut self.batch);
        let sources: Vec<(FrameKind, Location)> =
            batch.iter().map(|(first, id)| self.old.source(*first, *id)).collect();
        // Runs of one kind keep their order: pages and nodes go to other packs than chunks anyway.
        for kind in [FrameKind::Chunk, FrameKind::Page, FrameKind::Node] {
            let of_kind: Vec<usize> = (0..batch.len()).filter(|place| sources[*place].0 == kind).collect();
            let locations: Vec<Location> = of_kind.iter().map(|place| sources[*place].1.clone()).collect();
            for (place, encoded) in of_kind.into_iter().zip(self.frames.read_each_encoded(kind, &locations)?)
            {
                let (first, id) = batch[place];
                let (_, at) = &sources[place];
                match encoded {
                    Ok(encoded) => {
                        let payload = Payload {
                            kind,
                            codec: encoded.codec,
                            plain_len: at.plain_len,
                            id,
                            encoded: &encoded.bytes,
                        };
                        let pack = self.push(payload)?;
                        self.copied.insert(first, pack);
                    }
                    Err(_) => self.spoil_all(first),
                }
                tell(self.observer, Event::Progress(u64::from(at.stored_len)))?;
            }
        }
        Ok(())
    }

    /// A payload that is needed and cannot be read stays where it is, in all packs that should have it.
    fn spoil_all(&mut self, first: usize) {
        let packs: Vec<u32> = self.old.same(first).iter().map(|frame| frame.pack).collect();
        for pack in packs {
            self.old.spoil(pack);
        }
    }

    /// Puts a payload into the open pack of its kind; returns that pack's number.
    fn push(&mut self, payload: Payload<'_>) -> Result<u32, EngineError> {
        let builder = match payload.kind.pack_kind() {
            PackKind::Data => &mut self.data,
            PackKind::Map => &mut self.map,
        };
        self.closed.extend(builder.make_room(payload.encoded.len()));
        let placed = builder.push(payload);
        if self.closed.len() >= PUTS_AT_ONCE {
            self.put_closed()?;
        }
        Ok(placed.pack)
    }

    /// Seals and puts the packs that are full, and then indexes them.
    fn put_closed(&mut self) -> Result<(), EngineError> {
        let closed = Mutex::new(std::mem::take(&mut self.closed).into_iter());
        let failure: Mutex<Option<EngineError>> = Mutex::default();
        let stored: Mutex<Vec<(PackRef, Vec<IndexEntry>)>> = Mutex::default();
        let work = || {
            loop {
                let next = lock(&closed).next();
                let Some(pack) = next else { return };
                let (name, entries) = (pack.name.clone(), entries(&pack));
                let bytes = self.sealing.seal(self.repository, pack);
                let len = u32::try_from(bytes.len()).expect("a pack is shorter than 4 GiB");
                match create(self.repository.store(), &name.blob(), &bytes) {
                    Ok(()) => lock(&stored).push((PackRef { name, len }, entries)),
                    Err(error) => drop(lock(&failure).get_or_insert(error)),
                }
            }
        };
        threads::scope(|scope| {
            for _ in 0..threads::waiting(PUTS_AT_ONCE) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut stored = stored.into_inner().unwrap_or_else(PoisonError::into_inner);
        stored.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (pack, entries) in stored {
            tell(self.observer, Event::Transferred(u64::from(pack.len)))?;
            if pack.name.kind == PackKind::Data {
                self.index(pack, entries)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, pack: PackRef, entries: Vec<IndexEntry>) -> Result<(), EngineError> {
        if self.indexing.entries.len() + entries.len() > INDEX_ENTRIES_MAX {
            self.put_index()?;
        }
        let number = u32::try_from(self.indexing.packs.len()).expect("an index has fewer than 2^32 packs");
        self.indexing.packs.push(pack);
        self.indexing.entries.extend(entries.into_iter().map(|entry| IndexEntry { pack: number, ..entry }));
        Ok(())
    }

    fn put_index(&mut self) -> Result<(), EngineError> {
        let Indexing { packs, mut entries, next } = std::mem::take(&mut self.indexing);
        self.indexing.next = next;
        if packs.is_empty() {
            return Ok(());
        }
        entries.sort_unstable_by_key(|entry| entry.id);
        let sessions = vec![(self.session.session(), self.session.decision.clone())];
        let name = BlobName::index(self.job.writer, self.session.session(), next);
        let salt = self.job.entropy.draw("index salt", u64::from(next));
        self.indexing.next += 1;
        let index = Index { sessions, packs, entries };
        create(self.repository.store(), &name, &index.seal(self.repository.keys(), &name, salt))
    }

    /// Copies what is left, and tells where everything is. All of it is in the store then.
    pub(super) fn finish(mut self) -> Result<Copied, EngineError> {
        self.copy_batch()?;
        let last = [self.data.close(), self.map.close()];
        self.closed.extend(last.into_iter().flatten());
        self.put_closed()?;
        self.put_index()?;
        let packs: Vec<PackRef> = [self.data.closed(), self.map.closed()].concat();
        self.check(&packs)?;
        let mut leads: BTreeMap<PackRef, BTreeSet<PackRef>> = BTreeMap::new();
        for (first, frame) in self.old.wanted() {
            if self.old.is_spoiled(frame.pack) {
                continue;
            }
            let old = self.old.pack(frame.pack);
            let builder = match old.name.kind {
                PackKind::Data => &self.data,
                PackKind::Map => &self.map,
            };
            if let Some(&number) = self.copied.get(&first) {
                leads.entry(old.clone()).or_default().insert(builder.pack_ref(number));
            }
        }
        let (frames, left) = (self.copied.len() as u64, self.old.spoiled());
        Ok(Copied { leads, packs, frames, left })
    }

    /// W6: the new packs are in the store, each with its length.
    fn check(&self, packs: &[PackRef]) -> Result<(), EngineError> {
        let mut listed: BTreeMap<BlobName, u64> = BTreeMap::new();
        for kind in [PackKind::Data, PackKind::Map] {
            let prefix = packs_prefix(kind, self.job.writer, self.session.session());
            listed.extend(self.repository.list(&prefix)?.into_iter().map(|info| (info.name, info.len)));
        }
        let missing = packs.iter().find(|pack| listed.get(&pack.name.blob()) != Some(&u64::from(pack.len)));
        missing.map_or(Ok(()), |pack| Err(EngineError::PackVanished { name: pack.name.blob() }))
    }
}

impl Sealing<'_> {
    fn seal(&self, repository: &Repository<'_>, pack: ClosedPack) -> Vec<u8> {
        let number = u64::from(pack.name.number);
        let (base, purpose, directory) = match pack.name.kind {
            PackKind::Data => {
                let base = PackBase::Data(&self.session_key, &self.sealed_session_key);
                (base, "data pack salt", "data pack directory salt")
            }
            PackKind::Map => (PackBase::Map, "map pack salt", "map pack directory salt"),
        };
        let seal = PackSeal {
            keys: repository.keys(),
            name: &pack.name,
            base,
            salt: self.entropy.draw(purpose, number),
            directory_salt: self.entropy.draw(directory, number),
        };
        seal_pack(&seal, pack.body, &pack.frames)
    }
}

/// What an index lists of a pack; the pack's number in it is put in later.
fn entries(pack: &ClosedPack) -> Vec<IndexEntry> {
    let mut offset = u32::try_from(PACK_HEADER_LEN).expect("a header is short");
    let entry = |frame: &repo_format::FrameEntry| {
        let repo_format::FrameEntry { codec, plain_len, stored_len, id, .. } = *frame;
        let entry = IndexEntry { id, codec, pack: 0, offset, stored_len, plain_len };
        offset += stored_len;
        entry
    };
    pack.frames.iter().map(entry).collect()
}
