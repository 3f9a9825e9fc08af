//! Everything of a backup that is done in order, by one thread: looking chunks up, packing, maps, indexes.

use super::budget::{MAP_PACK_PART, Share};
use super::dedup::{Dedup, Found};
use super::indexing::Indexing;
use super::level::{Seen, Slower};
use super::paging::Paging;
use super::pipeline::{Channels, Context, Event, PutJob, Stored, reporting_panic};
use super::reading::READERS;
use super::stages::{ChunkedRegion, EncodedRegion, NewChunk, Piece, Stages};
use crate::error::{EngineError, chain};
use crate::extent::total_length;
use crate::map::sequence::NewEntry;
use crate::observer::{Event as Told, Notice, Observer, Phase, begin, notify, tell};
use crate::pack::{ClosedPack, PackBuilder, Payload, Placed};
use crate::session::create;
use crate::threads::{Tasks, parallelism};
use repo_format::{FrameKind, Location, PackKind, PackRef, Totals};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Regions beyond one for each thread: they are being read, or wait to be encoded or packed, so that no thread runs dry.
const REGIONS_AHEAD: usize = READERS + 1;
/// Packs that are being sealed or put at a time: one for each thread that makes them, within these bounds. Fewer would
/// not fill a link with latency, and more would not be held in memory.
const PACKS_IN_FLIGHT: std::ops::RangeInclusive<usize> = 4..=8;

/// How many packs are sealed or put at a time on this machine.
pub(super) fn packs_in_flight() -> usize {
    parallelism().clamp(*PACKS_IN_FLIGHT.start(), *PACKS_IN_FLIGHT.end())
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

enum Decided {
    Hole(u32),
    At(Location),
    /// A new chunk of this session, by its number.
    Own(u64),
}

pub(super) struct Owner<'o, 'a, 'f, 'r, 's, 't> {
    context: &'o Context<'a, 'f, 'r, 's>,
    stages: &'t Stages<'t>,
    tasks: Tasks<'o, 't>,
    channels: Channels<'t>,
    dedup: Dedup<'o, 's>,
    /// What it may hold in memory.
    share: Share<'o>,
    /// Regions that have entered.
    granted: u64,
    observer: &'o dyn Observer,
    /// Chunked regions that wait for earlier ones, and the next one to look up.
    chunked: BTreeMap<u64, ChunkedRegion<'t>>,
    next_lookup: u64,
    /// Regions between lookup and packing; the first one has the number `next_pack`.
    decided: VecDeque<DecidedRegion>,
    next_pack: u64,
    data: PackBuilder,
    /// The number of the first new chunk in the open data pack.
    first_in_pack: u64,
    /// Places of new chunks, from the number `first_place` on.
    places: VecDeque<Placed>,
    first_place: u64,
    paging: Paging<'o, 'f, 'r, 's>,
    indexing: Indexing,
    packs_in_flight: usize,
    /// Regions that are being chunked or encoded, or wait for a processor to do so.
    tasks_out: usize,
    /// The first of the decided regions was encoded and had to wait for the store.
    waits_for_store: bool,
    seen: Seen,
    totals: Totals,
}

impl<'o, 'a, 'f, 'r, 's, 't> Owner<'o, 'a, 'f, 'r, 's, 't> {
    pub(super) fn new(
        context: &'o Context<'a, 'f, 'r, 's>,
        stages: &'t Stages<'t>,
        (tasks, channels): (Tasks<'o, 't>, Channels<'t>),
        (dedup, share): (Dedup<'o, 's>, Share<'o>),
        observer: &'o dyn Observer,
    ) -> Result<Self, EngineError> {
        let session = context.session;
        let pack_len = context.repository.config().geometry.pack_len;
        let of = || (session.writer.clone(), session.id);
        let data = PackBuilder::new(PackKind::Data, of(), pack_len, Arc::clone(&stages.bodies));
        // Long allocations of data packs are not for short map packs.
        let map = if context.resources.budget.is_shared() {
            PackBuilder::new(PackKind::Map, of(), pack_len / MAP_PACK_PART, Arc::default())
        } else {
            PackBuilder::new(PackKind::Map, of(), pack_len, Arc::clone(&stages.bodies))
        };
        Ok(Self {
            context,
            stages,
            tasks,
            channels,
            dedup,
            share,
            granted: 0,
            observer,
            chunked: BTreeMap::new(),
            next_lookup: 0,
            decided: VecDeque::new(),
            next_pack: 0,
            data,
            first_in_pack: 0,
            places: VecDeque::new(),
            first_place: 0,
            paging: Paging::begin(context, map)?,
            indexing: Indexing::default(),
            packs_in_flight: 0,
            tasks_out: 0,
            waits_for_store: false,
            seen: Seen::default(),
            totals: Totals::default(),
        })
    }

    /// Goes through all regions, and stops all stages if anything fails.
    pub(super) fn run(mut self) -> Result<Stored, EngineError> {
        match self.all_regions().and_then(|()| self.finish()) {
            Ok(()) => Ok(self.into_stored()),
            Err(error) => {
                self.stages.stop();
                if !matches!(error, EngineError::Store(_)) {
                    self.index_what_is_stored();
                }
                Err(error)
            }
        }
    }

    fn all_regions(&mut self) -> Result<(), EngineError> {
        let total = self.context.plans.iter().map(|plan| total_length(&plan.areas)).sum();
        let disk = self.context.plans.iter().map(|plan| plan.key).collect::<Vec<_>>().join(", ");
        begin(self.observer, Phase::Backup { disk }, total)?;
        self.grant();
        let mut regions = None;
        while regions != Some(self.next_pack) {
            match self.receive()? {
                Event::Loaded(region) => {
                    self.spawn(move |stages| stages.chunk(region).map(Event::Chunked));
                }
                Event::Fed(count) => {
                    regions = Some(count);
                    // What is not needed any more.
                    (count..self.granted).for_each(|_| self.share.give_region());
                    self.granted = u64::MAX;
                }
                Event::Chunked(region) => {
                    self.tasks_out -= 1;
                    self.look_up_ready(region)?;
                }
                Event::Encoded(encoded) => {
                    self.tasks_out -= 1;
                    let position =
                        usize::try_from(encoded.seq - self.next_pack).expect("few regions are open");
                    self.decided[position].encoded = Some(encoded);
                }
                other => self.note_stored(other)?,
            }
            self.pack_ready()?;
            self.grant();
            self.tell_index_failure()?;
        }
        Ok(())
    }

    fn receive(&self) -> Result<Event<'t>, EngineError> {
        match self.channels.received.recv() {
            Ok(Event::Failed(error)) => Err(error),
            Ok(event) => Ok(event),
            Err(_) => unreachable!("the owner holds a sender itself"),
        }
    }

    fn tell_index_failure(&mut self) -> Result<(), EngineError> {
        match self.dedup.take_failure() {
            Some(error) => {
                let name = "the local index".to_owned();
                notify(self.observer, Notice::IndexSkipped { name, reason: chain(&error) })
            }
            None => Ok(()),
        }
    }

    /// Lets regions in, as many as there is room for.
    fn grant(&mut self) {
        while self.granted < u64::MAX && self.share.take_region(parallelism() + REGIONS_AHEAD) {
            self.granted += 1;
            // The feed may have ended already.
            let _ended = self.channels.credits.send(());
        }
    }

    /// Has something done by the pool; what comes of it reaches the owner as an event.
    fn spawn(&mut self, work: impl FnOnce(&'t Stages<'t>) -> Result<Event<'t>, EngineError> + Send + 't) {
        self.tasks_out += 1;
        let (stages, events) = (self.stages, self.channels.events.clone());
        self.tasks.spawn(move || {
            reporting_panic(&events, || {
                if !stages.is_stopped() {
                    // The owner has failed if it does not listen any more.
                    let _ended = events.send(work(stages).unwrap_or_else(Event::Failed));
                }
            });
        });
    }

    /// Looks up the regions whose turn it is.
    fn look_up_ready(&mut self, region: ChunkedRegion<'t>) -> Result<(), EngineError> {
        self.paging.count_read(region.disk, region.read_bytes);
        tell(self.observer, Told::Progress(region.area_bytes))?;
        self.chunked.insert(region.seq, region);
        while let Some(region) = self.chunked.remove(&self.next_lookup) {
            self.next_lookup += 1;
            self.look_up(region)?;
        }
        Ok(())
    }

    fn look_up(&mut self, region: ChunkedRegion<'t>) -> Result<(), EngineError> {
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
                let (seq, chunks) = (region.seq, new.clone());
                self.spawn(move |stages| Ok(Event::Encoded(stages.encode(seq, &buffer, &chunks))));
                None
            }
            _ => Some(EncodedRegion { seq: region.seq, bytes: Vec::new(), frames: Vec::new() }),
        };
        let (disk, differing) = (region.disk, region.differing);
        self.decided.push_back(DecidedRegion {
            disk,
            region: region.region,
            entries,
            differing,
            new,
            encoded,
        });
        Ok(())
    }

    /// Packs the regions whose turn it is, while few packs are on their way.
    fn pack_ready(&mut self) -> Result<(), EngineError> {
        while self.decided.front().is_some_and(|region| region.encoded.is_some())
            && self.share.has_room_for_pack(self.packs_in_flight, packs_in_flight())
        {
            let region = self.decided.pop_front().expect("there is a first one");
            if !region.new.is_empty() {
                self.note_slower();
            }
            self.next_pack += 1;
            self.pack(region)?;
            self.share.give_region();
        }
        self.waits_for_store |=
            self.decided.front().is_some_and(|region| region.encoded.is_some() && !region.new.is_empty());
        Ok(())
    }

    /// Lets the level of compression follow whatever is slower, the store or the processors.
    fn note_slower(&mut self) {
        let processors_are_short = self.tasks_out > parallelism();
        let slower = match (std::mem::take(&mut self.waits_for_store), self.packs_in_flight) {
            (true, _) => Slower::Store,
            (false, 0) if processors_are_short => Slower::Processors,
            // What is slower may be the source.
            (false, _) => Slower::Neither,
        };
        self.stages.level.note(&mut self.seen, slower);
    }

    fn pack(&mut self, region: DecidedRegion) -> Result<(), EngineError> {
        let encoded = region.encoded.expect("only encoded regions are packed");
        self.pack_chunks(&region.new, &encoded);
        self.stages.outputs.give(encoded.bytes);
        let place = |decided| match decided {
            Decided::Hole(len) => NewEntry::Hole(len),
            Decided::At(at) => NewEntry::At(at),
            Decided::Own(number) => NewEntry::Own(self.place(number)),
        };
        let entries = region.entries.into_iter().map(place).collect();
        self.paging.queue(region.disk, region.region, entries, &region.differing);
        if self.paging.is_full() {
            self.close_data_pack();
        }
        for closed in self.paging.write(&self.data)? {
            self.send_pack(closed);
        }
        Ok(())
    }

    fn pack_chunks(&mut self, chunks: &[NewChunk], encoded: &EncodedRegion) {
        let mut rest = encoded.bytes.as_slice();
        for (chunk, (codec, len)) in chunks.iter().zip(&encoded.frames) {
            let (bytes, behind) = rest.split_at(*len as usize);
            rest = behind;
            if let Some(closed) = self.data.make_room(bytes.len()) {
                self.send_data_pack(closed);
            }
            let (plain_len, id) = (chunk.len, chunk.id);
            let payload = Payload { kind: FrameKind::Chunk, codec: *codec, plain_len, id, encoded: bytes };
            self.places.push_back(self.data.push(payload));
            self.totals.new_chunks += 1;
            self.totals.new_bytes += u64::from(plain_len);
        }
    }

    fn place(&self, number: u64) -> Placed {
        let position = usize::try_from(number - self.first_place).expect("few chunks are remembered");
        self.places[position]
    }

    fn close_data_pack(&mut self) {
        if let Some(closed) = self.data.close() {
            self.send_data_pack(closed);
        }
    }

    fn send_data_pack(&mut self, closed: ClosedPack) {
        self.indexing.pack_closed(&closed, self.first_in_pack);
        self.first_in_pack = self.totals.new_chunks;
        self.send_pack(closed);
    }

    /// Has a full pack sealed and put.
    fn send_pack(&mut self, closed: ClosedPack) {
        self.packs_in_flight += 1;
        let pack = match closed.name.kind {
            PackKind::Data => self.data.pack_ref(closed.name.number),
            PackKind::Map => self.paging.pack_ref(closed.name.number),
        };
        let (stages, puts, events) = (self.stages, self.channels.puts.clone(), self.channels.events.clone());
        self.tasks.spawn(move || {
            reporting_panic(&events, || {
                if !stages.is_stopped() {
                    let name = pack.name.blob();
                    let job = PutJob { name, bytes: stages.seal(closed), done: Event::PackStored(pack) };
                    let _ended = puts.send(job);
                }
            });
        });
    }

    fn note_stored(&mut self, event: Event<'t>) -> Result<(), EngineError> {
        match event {
            Event::PackStored(pack) => self.note_pack(pack),
            Event::IndexStored(number) => {
                let checkpoint = self.indexing.checkpoint_stored(number);
                self.dedup.checkpoint(&checkpoint.name, &checkpoint.index, checkpoint.before);
                self.forget_places(checkpoint.before);
                Ok(())
            }
            _ => unreachable!("only packs and indexes are stored"),
        }
    }

    fn note_pack(&mut self, pack: PackRef) -> Result<(), EngineError> {
        self.packs_in_flight -= 1;
        self.share.packs_left(self.packs_in_flight);
        let len = u64::from(pack.len);
        if pack.name.kind == PackKind::Map {
            self.totals.map_packs += 1;
            return self.count_stored(len, true);
        }
        self.totals.data_packs += 1;
        // Before it is told of: after an interrupt it is listed, too.
        let full = self.indexing.pack_stored(pack);
        self.count_stored(len, false)?;
        if full || (self.context.checkpoint_due)() { self.put_index() } else { Ok(()) }
    }

    fn put_index(&mut self) -> Result<(), EngineError> {
        if let Some((number, name, bytes)) = self.indexing.checkpoint(self.context, self.first_in_pack) {
            self.count_stored(bytes.len() as u64, true)?;
            let _ended = self.channels.puts.send(PutJob { name, bytes, done: Event::IndexStored(number) });
        }
        Ok(())
    }

    fn count_stored(&mut self, bytes: u64, is_metadata: bool) -> Result<(), EngineError> {
        self.totals.stored_bytes += bytes;
        self.totals.metadata_bytes += if is_metadata { bytes } else { 0 };
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

    /// Packs, indexes and maps to their ends.
    fn finish(&mut self) -> Result<(), EngineError> {
        self.close_data_pack();
        for closed in self.paging.finish(&self.data)? {
            self.send_pack(closed);
        }
        while self.packs_in_flight > 0 {
            let event = self.receive()?;
            self.note_stored(event)?;
        }
        self.put_index()?;
        while !self.indexing.is_settled() {
            let event = self.receive()?;
            self.note_stored(event)?;
        }
        self.tell_index_failure()
    }

    fn into_stored(self) -> Stored {
        let mut packs = self.data.closed();
        let (disks, map_packs) = self.paging.into_disks();
        packs.extend(map_packs);
        Stored { disks, packs, totals: self.totals }
    }

    /// After a failure: lists what is in the store and in no index, so that the next backup need not store it again.
    /// That is an offer only; what was to be reported is the failure.
    fn index_what_is_stored(&mut self) {
        while let Ok(event) = self.channels.received.try_recv() {
            match event {
                Event::PackStored(pack) if pack.name.kind == PackKind::Data => {
                    self.indexing.pack_stored(pack);
                }
                Event::IndexStored(number) => drop(self.indexing.checkpoint_stored(number)),
                _ => {}
            }
        }
        let _with_the_others = self.indexing.checkpoint(self.context, self.totals.new_chunks);
        for (name, bytes) in self.indexing.unsettled(self.context) {
            let _not_listed = create(self.context.repository.store(), &name, &bytes);
        }
    }
}
