//! The pipeline: one owner that keeps order, rayon for CPU work, plain threads that wait for the store.
//!
//! Regions are chunked and encoded in any order, and looked up, packed and mapped in theirs; so the same input
//! gives the same blobs. Bounds: a region enters for a credit that one leaving gives back; packs are appended to
//! only while few are on their way. Nothing blocks but the owner (on events) and the threads of the store, and
//! events are never waited for by a task; so there is no circle to wait in. The first failure stops all stages.

use super::dedup::{Dedup, Found};
use super::feed::{RegionJob, feed};
use super::plan::DiskPlan;
use super::stages::{ChunkedRegion, EncodedRegion, NewChunk, Piece, Stages};
use super::{StoredDisk, begin, tell};
use crate::buffers::BufferPool;
use crate::chunker::Chunker;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::extent::total_length;
use crate::index::LocalIndex;
use crate::map::reader::MapReader;
use crate::map::sequence::{NewEntry, NewPage, into_pages};
use crate::map::writer::{MapPacker, MapWriter, Untouched};
use crate::observer::{Event as Told, Observer, Phase};
use crate::pack::{ClosedPack, PackBuilder, Payload, Placed};
use crate::region::RegionPool;
use crate::repository::Repository;
use crate::session::{Session, create};
use repo_format::{
    BlobName, Encoder, Entry, FrameKind, Index, IndexEntry, PACK_HEADER_LEN, PackKind, PackName, PackRef,
    Page, SessionKey, Totals, seal_session_key,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Regions beyond one for each thread: they wait to be encoded or packed, so that no thread runs dry.
const REGIONS_AHEAD: usize = 2;
/// Packs that are being sealed or put at a time.
const PACKS_IN_FLIGHT: usize = 4;
/// Threads that put.
const PUT_THREADS: usize = 4;
/// An index checkpoint is written for so many stored bytes: what is uploaded again after a crash.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Entries of pages that may wait for the open pack: some 20 MiB. Then it is closed, however short it is.
const ENTRIES_WAITING: usize = 200_000;
/// zstd's level for pages and nodes: they are small, and mostly ids that do not compress.
const MAP_LEVEL: i32 = 3;

/// What a run works on.
pub(super) struct Context<'a, 'f, 'r, 's> {
    pub(super) repository: &'r Repository<'s>,
    pub(super) session: &'a Session,
    pub(super) entropy: &'a Entropy,
    pub(super) compression: i32,
    pub(super) plans: &'a [DiskPlan<'a>],
    pub(super) bases: &'a [MapReader<'f, 'r, 's>],
    pub(super) usable: &'a (dyn Fn(&PackName) -> bool + Sync),
}

/// What a run has put into the store.
pub(crate) struct Stored {
    pub(crate) disks: Vec<StoredDisk>,
    /// All packs of the session.
    pub(crate) packs: Vec<PackRef>,
    pub(crate) totals: Totals,
}

/// What reaches the owner.
enum Event<'a> {
    Job(RegionJob),
    Fed,
    Chunked(ChunkedRegion<'a>),
    Encoded(EncodedRegion),
    /// A pack is in the store, with the index entries of its chunks.
    PackStored(PackRef),
    IndexStored(u32),
    Failed(EngineError),
}

/// A blob to put, and what to say when it is there.
struct PutJob<'a> {
    name: BlobName,
    bytes: Vec<u8>,
    done: Event<'a>,
}

/// Runs the pipeline over all touched regions of all disks.
pub(super) fn run(
    context: &Context<'_, '_, '_, '_>,
    index: &mut LocalIndex,
    observer: &dyn Observer,
) -> Result<Stored, EngineError> {
    let config = context.repository.config();
    let keys = context.repository.keys();
    let session_key = SessionKey::new(context.entropy.draw("session key", 0));
    let sealed_session_key = seal_session_key(
        &session_key,
        &config.data_public_key,
        config.repository,
        context.session.id,
        context.entropy.draw("session key encapsulation", 0),
    )
    .map_err(EngineError::damaged(&BlobName::config()))?;
    let stages = Stages {
        keys,
        plans: context.plans,
        condemned: &context.session.condemned,
        entropy: context.entropy,
        compression: context.compression,
        chunker: Chunker::new(&config.geometry.chunker, keys.chunker_seed()),
        pool: RegionPool::new(config.geometry.region_len),
        session_key,
        sealed_session_key,
        encoders: Mutex::default(),
        outputs: BufferPool::default(),
        bodies: Arc::default(),
        stopped: AtomicBool::new(false),
    };
    let (events, received) = channel();
    let (credits, granted) = channel();
    let (puts, to_put) = channel();
    let to_put = Mutex::new(to_put);
    std::thread::scope(|threads| {
        for _ in 0..PUT_THREADS {
            let events = events.clone();
            threads.spawn(|| put_blobs(context.repository, &stages, &to_put, events));
        }
        let fed = events.clone();
        threads.spawn(move || {
            // The owner has failed if it does not listen any more.
            let send = |job: Result<RegionJob, EngineError>| {
                drop(fed.send(job.map_or_else(Event::Failed, Event::Job)))
            };
            feed(context.plans, context.bases, &granted, &send);
            drop(fed.send(Event::Fed));
        });
        rayon::in_place_scope(|tasks| {
            let owner = Owner::new(
                context,
                &stages,
                tasks,
                Dedup::new(context.repository, context.session, index),
                observer,
            );
            let result = owner.run(Channels { events, received, credits, puts });
            if result.is_err() {
                stages.stop();
            }
            result
        })
    })
}

fn put_blobs<'a>(
    repository: &Repository<'_>,
    stages: &Stages<'_>,
    jobs: &Mutex<Receiver<PutJob<'a>>>,
    events: Sender<Event<'a>>,
) {
    loop {
        // The lock is held while waiting: one thread waits for a job, the others for the lock.
        let Ok(job) = crate::frames::lock(jobs).recv() else { return };
        if stages.is_stopped() {
            continue;
        }
        let event = match create(repository.store(), &job.name, &job.bytes) {
            Ok(()) => job.done,
            Err(error) => Event::Failed(error),
        };
        stages.bodies.give(job.bytes);
        if events.send(event).is_err() {
            return;
        }
    }
}

struct Channels<'a> {
    events: Sender<Event<'a>>,
    received: Receiver<Event<'a>>,
    credits: Sender<()>,
    puts: Sender<PutJob<'a>>,
}

/// A region that was looked up and waits for its turn to be packed.
struct DecidedRegion {
    disk: usize,
    region: u64,
    entries: Vec<Decided>,
    differing: Vec<bool>,
    new: Vec<NewChunk>,
    encoded: Option<EncodedRegion>,
}

/// What becomes of one page of a disk.
enum PageUpdate {
    Write(NewPage),
    /// The parent's page of this cell is right, although nothing says so but that it was compared.
    Keep(u64),
}

impl PageUpdate {
    /// Roughly its memory, in entries.
    fn weight(&self) -> usize {
        match self {
            Self::Write(page) => 1 + page.entries.len(),
            Self::Keep(_) => 1,
        }
    }
}

enum Decided {
    Hole(u32),
    At(repo_format::Location),
    Own(u64),
}

/// Everything that is done in order, by one thread.
struct Owner<'o, 'a, 'f, 'r, 's, 't> {
    context: &'o Context<'a, 'f, 'r, 's>,
    stages: &'t Stages<'t>,
    tasks: &'o rayon::Scope<'t>,
    dedup: Dedup<'o, 's>,
    observer: &'o dyn Observer,
    /// Chunked regions that wait for earlier ones, and the next one to look up.
    chunked: BTreeMap<u64, ChunkedRegion<'t>>,
    next_lookup: u64,
    /// Regions between lookup and packing; the first one has the number `next_pack`.
    decided: VecDeque<DecidedRegion>,
    next_pack: u64,
    data: PackBuilder,
    map: MapPacker<'o>,
    writers: VecDeque<MapWriter<'o, 'f, 'r, 's>>,
    /// Places of new chunks, from the number `first_place` on.
    places: VecDeque<Placed>,
    first_place: u64,
    /// Pages that wait for those before them or for packs that they name to be closed, and their entries.
    pages: VecDeque<(usize, PageUpdate)>,
    entries_waiting: usize,
    disks: Vec<StoredDisk>,
    indexing: Indexing,
    packs_in_flight: usize,
    totals: Totals,
}

/// What the index blobs of this session list.
#[derive(Default)]
struct Indexing {
    /// Entries of packs that are not in the store yet, by pack number.
    entries: BTreeMap<u32, Vec<IndexEntry>>,
    /// Packs that are, and are in no index yet.
    stored: Vec<PackRef>,
    stored_bytes: u64,
    /// Index blobs on their way.
    underway: BTreeMap<u32, (BlobName, Index, u64)>,
    next: u32,
    /// The number of the first new chunk in each pack.
    first_chunk: BTreeMap<u32, u64>,
}

impl<'o, 'a, 'f, 'r, 's, 't> Owner<'o, 'a, 'f, 'r, 's, 't> {
    fn new(
        context: &'o Context<'a, 'f, 'r, 's>,
        stages: &'t Stages<'t>,
        tasks: &'o rayon::Scope<'t>,
        dedup: Dedup<'o, 's>,
        observer: &'o dyn Observer,
    ) -> Self {
        let session = context.session;
        let pack_len = context.repository.config().geometry.pack_len;
        let builder = |kind| {
            let of = (session.writer.clone(), session.id);
            PackBuilder::new(kind, of, pack_len, Arc::clone(&stages.bodies))
        };
        let writers = context
            .plans
            .iter()
            .zip(context.bases)
            .map(|(plan, base)| MapWriter::new(plan.shape, base, plan.untouched(), context.usable))
            .collect();
        let map = MapPacker::new(context.repository.keys(), builder(PackKind::Map), Encoder::new(MAP_LEVEL));
        let read_nothing = |plan: &DiskPlan<'_>| StoredDisk { shape: plan.shape, map: None, read_bytes: 0 };
        Self {
            context,
            stages,
            tasks,
            dedup,
            observer,
            chunked: BTreeMap::new(),
            next_lookup: 0,
            decided: VecDeque::new(),
            next_pack: 0,
            data: builder(PackKind::Data),
            map,
            writers,
            places: VecDeque::new(),
            first_place: 0,
            pages: VecDeque::new(),
            entries_waiting: 0,
            disks: context.plans.iter().map(read_nothing).collect(),
            indexing: Indexing::default(),
            packs_in_flight: 0,
            totals: Totals::default(),
        }
    }

    fn run(mut self, channels: Channels<'t>) -> Result<Stored, EngineError> {
        let total = self.context.plans.iter().map(|plan| total_length(&plan.areas)).sum();
        let disk = self.context.plans.iter().map(|plan| plan.key).collect::<Vec<_>>().join(", ");
        begin(self.observer, Phase::Backup { disk }, total)?;
        for writer in &mut self.writers {
            writer.begin(&mut self.map)?;
        }
        for _ in 0..rayon::current_num_threads() + REGIONS_AHEAD {
            self.grant(&channels);
        }
        let mut regions_open = 0usize;
        let mut fed = false;
        while !(fed && regions_open == 0) {
            match self.receive(&channels)? {
                Event::Job(job) => {
                    regions_open += 1;
                    self.spawn_chunking(job, &channels);
                }
                Event::Fed => fed = true,
                Event::Chunked(region) => self.look_up_ready(region, &channels)?,
                Event::Encoded(encoded) => {
                    let position = encoded.seq - self.next_pack;
                    self.decided[position as usize].encoded = Some(encoded);
                }
                other => self.note_stored(other, &channels)?,
            }
            regions_open -= self.pack_ready(&channels)?;
        }
        self.finish(&channels)
    }

    fn receive(&self, channels: &Channels<'t>) -> Result<Event<'t>, EngineError> {
        match channels.received.recv() {
            Ok(Event::Failed(error)) => Err(error),
            Ok(event) => Ok(event),
            Err(_) => unreachable!("the owner holds a sender itself"),
        }
    }

    fn grant(&self, channels: &Channels<'t>) {
        // The feed may have ended already.
        let _ended = channels.credits.send(());
    }

    fn spawn_chunking(&self, job: RegionJob, channels: &Channels<'t>) {
        let (stages, events) = (self.stages, channels.events.clone());
        self.tasks.spawn(move |_| {
            if !stages.is_stopped() {
                drop(events.send(stages.chunk(job).map_or_else(Event::Failed, Event::Chunked)));
            }
        });
    }

    /// Looks up the regions whose turn it is.
    fn look_up_ready(
        &mut self,
        region: ChunkedRegion<'t>,
        channels: &Channels<'t>,
    ) -> Result<(), EngineError> {
        self.disks[region.disk].read_bytes += region.read_bytes;
        tell(self.observer, Told::Progress(region.area_bytes))?;
        self.chunked.insert(region.seq, region);
        while let Some(region) = self.chunked.remove(&self.next_lookup) {
            self.next_lookup += 1;
            self.look_up(region, channels)?;
        }
        Ok(())
    }

    fn look_up(&mut self, region: ChunkedRegion<'t>, channels: &Channels<'t>) -> Result<(), EngineError> {
        let mut entries = Vec::with_capacity(region.pieces.len());
        let mut new = Vec::new();
        for piece in region.pieces {
            self.totals.chunks += u64::from(!matches!(piece, Piece::Hole(_)));
            entries.push(match piece {
                Piece::Hole(len) => Decided::Hole(len),
                Piece::At(at) => Decided::At(at),
                Piece::Candidate { start, len, id } => match self.dedup.find(id, len)? {
                    Found::At(at) => Decided::At(at),
                    Found::Own(number) => Decided::Own(number),
                    Found::New => {
                        new.push(NewChunk { start, len, id });
                        Decided::Own(self.dedup.note_new(id))
                    }
                },
            });
        }
        let encoded = match region.buffer {
            Some(buffer) if !new.is_empty() => {
                let (stages, events, chunks) = (self.stages, channels.events.clone(), new.clone());
                self.tasks.spawn(move |_| {
                    if !stages.is_stopped() {
                        drop(events.send(Event::Encoded(stages.encode(region.seq, &buffer, &chunks))));
                    }
                });
                None
            }
            _ => Some(EncodedRegion { seq: region.seq, bytes: Vec::new(), frames: Vec::new() }),
        };
        self.decided.push_back(DecidedRegion {
            disk: region.disk,
            region: region.region,
            entries,
            differing: region.differing,
            new,
            encoded,
        });
        Ok(())
    }

    /// Packs the regions whose turn it is, while few packs are on their way; returns how many.
    fn pack_ready(&mut self, channels: &Channels<'t>) -> Result<usize, EngineError> {
        let mut packed = 0;
        while self.packs_in_flight < PACKS_IN_FLIGHT
            && self.decided.front().is_some_and(|region| region.encoded.is_some())
        {
            let region = self.decided.pop_front().expect("there is a first one");
            self.next_pack += 1;
            packed += 1;
            self.pack(region, channels)?;
            self.grant(channels);
        }
        Ok(packed)
    }

    fn pack(&mut self, region: DecidedRegion, channels: &Channels<'t>) -> Result<(), EngineError> {
        let encoded = region.encoded.expect("only encoded regions are packed");
        let mut rest = encoded.bytes.as_slice();
        for (chunk, (codec, len)) in region.new.iter().zip(encoded.frames) {
            let (bytes, behind) = rest.split_at(len as usize);
            rest = behind;
            if let Some(closed) = self.data.make_room(bytes.len()) {
                self.send_pack(closed, channels);
            }
            let payload =
                Payload { kind: FrameKind::Chunk, codec, plain_len: chunk.len, id: chunk.id, encoded: bytes };
            let placed = self.data.push(payload);
            self.indexing.first_chunk.entry(placed.pack).or_insert(self.totals.new_chunks);
            self.places.push_back(placed);
            self.totals.new_chunks += 1;
            self.totals.new_bytes += u64::from(chunk.len);
        }
        self.stages.outputs.give(encoded.bytes);
        let entries = region
            .entries
            .into_iter()
            .map(|entry| match entry {
                Decided::Hole(len) => NewEntry::Hole(len),
                Decided::At(at) => NewEntry::At(at),
                Decided::Own(number) => NewEntry::Own(self.places[(number - self.first_place) as usize]),
            })
            .collect();
        self.queue_pages(region.disk, region.region, entries, &region.differing);
        if self.entries_waiting > ENTRIES_WAITING
            && let Some(closed) = self.data.close()
        {
            self.send_pack(closed, channels);
        }
        self.write_pages(channels)
    }

    fn queue_pages(&mut self, disk: usize, region: u64, entries: Vec<NewEntry>, differing: &[bool]) {
        let plan = &self.context.plans[disk];
        for (page, differs) in into_pages(&plan.shape, region, entries).into_iter().zip(differing) {
            let update = match (differs, plan.untouched()) {
                (true, _) => PageUpdate::Write(page),
                (false, Untouched::Hole) => PageUpdate::Keep(page.cell),
                (false, Untouched::AsBase) => continue,
            };
            self.entries_waiting += update.weight();
            self.pages.push_back((disk, update));
        }
    }

    /// Writes the pages all of whose packs are closed, so that their lengths are known.
    fn write_pages(&mut self, channels: &Channels<'t>) -> Result<(), EngineError> {
        while let Some((disk, update)) = self.pages.front() {
            if let PageUpdate::Write(page) = update
                && page.entries.iter().any(|entry| self.is_open(entry))
            {
                break;
            }
            self.finish_maps(*disk)?;
            let Some((_, update)) = self.pages.pop_front() else { break };
            self.entries_waiting -= update.weight();
            let writer = self.writers.front_mut().expect("every disk with pages has a writer");
            match update {
                PageUpdate::Write(page) => {
                    writer.put_page(page.cell, &finished(&self.data, page), &mut self.map)?
                }
                PageUpdate::Keep(cell) => writer.keep_page(cell, &mut self.map)?,
            }
        }
        for closed in self.map.take_closed() {
            self.send_pack(closed, channels);
        }
        Ok(())
    }

    fn is_open(&self, entry: &NewEntry) -> bool {
        matches!(entry, NewEntry::Own(placed) if placed.pack >= self.data.open_number())
    }

    /// Finishes the maps of the disks before `disk`.
    fn finish_maps(&mut self, disk: usize) -> Result<(), EngineError> {
        while self.writers.len() > self.disks.len() - disk {
            let done = self.disks.len() - self.writers.len();
            let writer = self.writers.pop_front().expect("there are writers left");
            self.disks[done].map = writer.finish(&mut self.map)?;
        }
        Ok(())
    }

    /// Has a full pack sealed and put.
    fn send_pack(&mut self, closed: ClosedPack, channels: &Channels<'t>) {
        let name = closed.name.clone();
        if name.kind == PackKind::Data {
            self.indexing.entries.insert(name.number, index_entries(&closed));
        }
        self.packs_in_flight += 1;
        let (stages, puts) = (self.stages, channels.puts.clone());
        let builder = if name.kind == PackKind::Data { &self.data } else { self.map.builder() };
        let pack = builder.pack_ref(name.number);
        self.tasks.spawn(move |_| {
            if !stages.is_stopped() {
                let blob = name.blob();
                drop(puts.send(PutJob {
                    name: blob,
                    bytes: stages.seal(closed),
                    done: Event::PackStored(pack),
                }));
            }
        });
    }

    fn note_stored(&mut self, event: Event<'t>, channels: &Channels<'t>) -> Result<(), EngineError> {
        match event {
            Event::PackStored(pack) => {
                self.packs_in_flight -= 1;
                self.count_stored(u64::from(pack.len), pack.name.kind == PackKind::Map)?;
                if pack.name.kind == PackKind::Data {
                    self.totals.data_packs += 1;
                    self.indexing.stored_bytes += u64::from(pack.len);
                    self.indexing.stored.push(pack);
                    if self.indexing.stored_bytes >= CHECKPOINT_BYTES {
                        self.write_index(channels)?;
                    }
                } else {
                    self.totals.map_packs += 1;
                }
                Ok(())
            }
            Event::IndexStored(number) => {
                let (name, index, before) =
                    self.indexing.underway.remove(&number).expect("an index that is stored was underway");
                self.dedup.checkpoint(&name, &index, before)?;
                self.forget_places(before);
                Ok(())
            }
            _ => unreachable!("only packs and indexes are stored"),
        }
    }

    fn count_stored(&mut self, bytes: u64, metadata: bool) -> Result<(), EngineError> {
        self.totals.stored_bytes += bytes;
        self.totals.metadata_bytes += if metadata { bytes } else { 0 };
        tell(self.observer, Told::Transferred(bytes))
    }

    /// Drops the places of chunks that the index on disk has now, but for those that decided regions refer to.
    fn forget_places(&mut self, before: u64) {
        let referred =
            self.decided.iter().flat_map(|region| &region.entries).filter_map(|entry| match entry {
                Decided::Own(number) => Some(*number),
                _ => None,
            });
        let keep = referred.min().unwrap_or(before).min(before);
        while self.first_place < keep && self.places.pop_front().is_some() {
            self.first_place += 1;
        }
    }

    /// Puts an index of the packs that are in the store and in no index yet.
    fn write_index(&mut self, channels: &Channels<'t>) -> Result<(), EngineError> {
        let mut packs = std::mem::take(&mut self.indexing.stored);
        if packs.is_empty() {
            return Ok(());
        }
        packs.sort();
        self.indexing.stored_bytes = 0;
        let session = self.context.session;
        let mut entries = Vec::new();
        for (number, pack) in (0u32..).zip(&packs) {
            let of_pack = self.indexing.entries.remove(&pack.name.number).expect("each pack is indexed once");
            entries.extend(of_pack.into_iter().map(|entry| IndexEntry { pack: number, ..entry }));
        }
        entries.sort_by_key(|entry| entry.id);
        let number = self.indexing.next;
        self.indexing.next += 1;
        let name = BlobName::index(&session.writer, session.id, number);
        let index = Index { sessions: vec![(session.id, session.decision.clone())], packs, entries };
        let salt = self.context.entropy.draw("index salt", u64::from(number));
        let bytes = index.seal(self.context.repository.keys(), &name, salt);
        self.count_stored(bytes.len() as u64, true)?;
        // Chunks below this one are in packs that are in the store: the oldest one that is not tells.
        let oldest = self.indexing.entries.keys().next().copied().unwrap_or(self.data.open_number());
        let before = self.indexing.first_chunk.get(&oldest).copied().unwrap_or(self.totals.new_chunks);
        self.indexing.first_chunk = self.indexing.first_chunk.split_off(&oldest);
        self.indexing.underway.insert(number, (name.clone(), index, before));
        drop(channels.puts.send(PutJob { name, bytes, done: Event::IndexStored(number) }));
        Ok(())
    }

    /// Packs, indexes and maps to their ends.
    fn finish(mut self, channels: &Channels<'t>) -> Result<Stored, EngineError> {
        if let Some(closed) = self.data.close() {
            self.send_pack(closed, channels);
        }
        self.write_pages(channels)?;
        self.finish_maps(self.disks.len())?;
        self.map.finish();
        for closed in self.map.take_closed() {
            self.send_pack(closed, channels);
        }
        while self.packs_in_flight > 0 {
            let event = self.receive(channels)?;
            self.note_stored(event, channels)?;
        }
        self.write_index(channels)?;
        while !self.indexing.underway.is_empty() {
            let event = self.receive(channels)?;
            self.note_stored(event, channels)?;
        }
        for disk in &mut self.disks {
            if let Some(at) = &mut disk.map {
                self.map.fill_len(&mut at.pack);
            }
        }
        let packs = self.data.closed().into_iter().chain(self.map.builder().closed()).collect();
        Ok(Stored { disks: self.disks, packs, totals: self.totals })
    }
}

/// A page with the places of this session's chunks, whose packs are closed.
fn finished(data: &PackBuilder, page: NewPage) -> Page {
    let entries = page
        .entries
        .into_iter()
        .map(|entry| match entry {
            NewEntry::Hole(len) => Entry::Hole { len },
            NewEntry::At(at) => Entry::Chunk(at),
            NewEntry::Own(placed) => Entry::Chunk(data.location(&placed)),
        })
        .collect();
    Page { first: page.first, entries }
}

/// The index entries of a pack's chunks; the pack's number within an index is put in later.
fn index_entries(closed: &ClosedPack) -> Vec<IndexEntry> {
    let mut offset = u32::try_from(PACK_HEADER_LEN).expect("a header is short");
    closed
        .frames
        .iter()
        .map(|frame| {
            let entry = IndexEntry {
                id: frame.id,
                codec: frame.codec,
                pack: 0,
                offset,
                stored_len: frame.stored_len,
                plain_len: frame.plain_len,
            };
            offset += frame.stored_len;
            entry
        })
        .collect()
}
