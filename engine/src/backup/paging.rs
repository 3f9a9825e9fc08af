//! The pages of new maps, from the moment a region is packed until their nodes are stored.

use super::StoredDisk;
use super::pipeline::Context;
use super::plan::DiskPlan;
use crate::error::EngineError;
use crate::map::sequence::{NewEntry, NewPage, into_pages};
use crate::map::writer::{MapPacker, MapWriter, Untouched};
use crate::pack::{ClosedPack, PackBuilder};
use repo_format::{Encoder, Entry, PackRef, Page};
use std::collections::VecDeque;

/// Entries of pages that may wait for the open pack: some 20 MiB. Then it is closed, however short it is.
const ENTRIES_WAITING: usize = 200_000;
/// zstd's level for pages and nodes: they are small, and mostly ids that do not compress.
const MAP_LEVEL: i32 = 3;

/// Pages in the order of the disks, and the maps that they go into.
pub(super) struct Paging<'o, 'f, 'r, 's> {
    plans: &'o [DiskPlan<'o>],
    packer: MapPacker<'o>,
    /// The maps that are not finished, in the order of the disks.
    writers: VecDeque<MapWriter<'o, 'f, 'r, 's>>,
    /// Pages that wait for those before them or for packs that they name to be closed, by the disk's number.
    waiting: VecDeque<(usize, PageUpdate)>,
    entries_waiting: usize,
    disks: Vec<StoredDisk>,
}

/// What becomes of one page of a disk.
enum PageUpdate {
    Write(NewPage),
    /// The parent's page of this cell was compared and is right.
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

impl<'o, 'f, 'r, 's> Paging<'o, 'f, 'r, 's> {
    /// Opens the maps of all disks; map packs are filled by `builder`.
    pub(super) fn begin(
        context: &'o Context<'_, 'f, 'r, 's>,
        builder: PackBuilder,
    ) -> Result<Self, EngineError> {
        let mut packer = MapPacker::new(context.repository.keys(), builder, Encoder::new(MAP_LEVEL));
        let mut writers = VecDeque::with_capacity(context.plans.len());
        for (plan, base) in context.plans.iter().zip(context.bases) {
            let mut writer = MapWriter::new(plan.shape, base, plan.untouched(), context.usable);
            writer.begin(&mut packer)?;
            writers.push_back(writer);
        }
        let unread = |plan: &DiskPlan<'_>| StoredDisk { shape: plan.shape, map: None, read_bytes: 0 };
        let disks = context.plans.iter().map(unread).collect();
        Ok(Self {
            plans: context.plans,
            packer,
            writers,
            waiting: VecDeque::new(),
            entries_waiting: 0,
            disks,
        })
    }

    pub(super) fn count_read(&mut self, disk: usize, bytes: u64) {
        self.disks[disk].read_bytes += bytes;
    }

    /// Takes a region's chunk sequence; `differing` tells the cells whose pages may not be the parent's.
    pub(super) fn queue(&mut self, disk: usize, region: u64, entries: Vec<NewEntry>, differing: &[bool]) {
        let plan = &self.plans[disk];
        for (page, differs) in into_pages(&plan.shape, region, entries).into_iter().zip(differing) {
            let update = match (differs, plan.untouched()) {
                (true, _) => PageUpdate::Write(page),
                (false, Untouched::Hole) => PageUpdate::Keep(page.cell),
                (false, Untouched::AsBase) => continue,
            };
            self.entries_waiting += update.weight();
            self.waiting.push_back((disk, update));
        }
    }

    /// Whether so much waits for the open data pack that it has to be closed.
    pub(super) fn is_full(&self) -> bool {
        self.entries_waiting > ENTRIES_WAITING
    }

    /// Writes the pages all of whose packs are closed, so that their lengths are known; returns the map packs that
    /// became full.
    pub(super) fn write(&mut self, data: &PackBuilder) -> Result<Vec<ClosedPack>, EngineError> {
        while let Some((disk, update)) = self.waiting.front() {
            if matches!(update, PageUpdate::Write(page) if names_open_pack(page, data)) {
                break;
            }
            self.finish_maps(*disk)?;
            let Some((_, update)) = self.waiting.pop_front() else { break };
            self.entries_waiting -= update.weight();
            let writer = self.writers.front_mut().expect("every disk with pages has a writer");
            match update {
                PageUpdate::Write(page) => {
                    writer.put_page(page.cell, &finished(data, page), &mut self.packer)?;
                }
                PageUpdate::Keep(cell) => writer.keep_page(cell, &mut self.packer)?,
            }
        }
        Ok(self.packer.take_closed())
    }

    /// Finishes all maps and the last map pack, when all data packs are closed.
    pub(super) fn finish(&mut self, data: &PackBuilder) -> Result<Vec<ClosedPack>, EngineError> {
        let mut closed = self.write(data)?;
        self.finish_maps(self.disks.len())?;
        self.packer.finish();
        closed.extend(self.packer.take_closed());
        for disk in &mut self.disks {
            if let Some(at) = &mut disk.map {
                self.packer.fill_len(&mut at.pack);
            }
        }
        Ok(closed)
    }

    /// What a map pack is, by its number.
    pub(super) fn pack_ref(&self, number: u32) -> PackRef {
        self.packer.builder().pack_ref(number)
    }

    /// The disks with their maps, and all map packs.
    pub(super) fn into_disks(self) -> (Vec<StoredDisk>, Vec<PackRef>) {
        (self.disks, self.packer.builder().closed())
    }

    /// Finishes the maps of the disks before `disk`.
    fn finish_maps(&mut self, disk: usize) -> Result<(), EngineError> {
        while self.writers.len() > self.disks.len() - disk {
            let done = self.disks.len() - self.writers.len();
            let writer = self.writers.pop_front().expect("there are writers left");
            self.disks[done].map = writer.finish(&mut self.packer)?;
        }
        Ok(())
    }
}

fn names_open_pack(page: &NewPage, data: &PackBuilder) -> bool {
    let is_open =
        |entry: &NewEntry| matches!(entry, NewEntry::Own(placed) if placed.pack >= data.open_number());
    page.entries.iter().any(is_open)
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
