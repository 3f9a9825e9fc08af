//! How much a repository holds, and what of it is needed.

use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::listing::for_each_blob;
use crate::map::{FANOUT, Shape};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Snapshot};
use repo_format::{BlobKind, Child, FrameKind, Location, Node, PackKind, PackName, PayloadId, SessionId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Nodes that are read in one batch: some MiB of them.
const NODES_AT_ONCE: usize = 256;

/// What a repository holds; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsReport {
    /// Snapshots that are there and not forgotten.
    pub snapshots: u64,
    /// Decisions and tombstones that could not be read, and are left out of all that follows.
    pub unreadable: u64,
    /// VMs with a snapshot.
    pub vms: u64,
    /// The sizes of all disks of all snapshots together: what restoring every one of them would write.
    pub logical_bytes: u64,
    /// All blobs, by what their names say they are.
    pub blobs: BlobStats,
    /// Bytes of all blobs.
    pub stored_bytes: u64,
    /// Bytes of packs that a snapshot needs.
    pub referenced_bytes: u64,
    /// Packs that no snapshot needs: of interrupted, running and forgotten sessions.
    pub unreferenced_packs: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Packs that a snapshot needs and that are not there.
    pub missing_packs: u64,
    /// Plain bytes of the chunks that the snapshots' sessions stored.
    pub new_bytes: u64,
    /// Logical bytes for each of those, holes and repeated chunks included; nothing if no chunk was stored.
    pub deduplication_ratio: Option<f64>,
    /// Plain bytes of those chunks for each byte that was stored of them; nothing if none was stored.
    pub compression_ratio: Option<f64>,
}

/// Blobs by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobStats {
    /// Data packs.
    pub data_packs: Count,
    /// Map packs.
    pub map_packs: Count,
    /// Indexes.
    pub indexes: Count,
    /// Decisions.
    pub decisions: Count,
    /// Intents.
    pub intents: Count,
    /// Tombstones.
    pub tombstones: Count,
    /// What pruners wrote: generations and repack records.
    pub prune_records: Count,
    /// The config and key slots.
    pub keys: Count,
    /// Blobs whose names have no meaning.
    pub unknown: Count,
}

/// So many blobs of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Counts what a repository holds. Reads decisions and the nodes of all maps, each once, but no page.
///
/// # Errors
/// A map node that cannot be read, or a failing store.
pub fn stats(repository: &Repository<'_>) -> Result<StatsReport, EngineError> {
    // Snapshots first: whatever is listed after them holds all that they need.
    let (mut sums, mut roots) = (Sums::default(), Roots::default());
    let mut vms: BTreeSet<String> = BTreeSet::new();
    let found = snapshots::each(repository, &Query::default(), &mut |snapshot| {
        sums.add(&snapshot);
        roots.add(repository, &snapshot);
        vms.insert(snapshot.commit.vm);
    })?;
    let mut blobs = BlobStats::default();
    let mut stored_bytes = 0;
    let mut packs: HashMap<PackName, u64> = HashMap::new();
    for_each_blob(repository.store(), &mut |info| {
        stored_bytes += info.len;
        let kind = info.name.kind();
        blobs.of(kind.as_ref()).add(info.len);
        if let Some(BlobKind::Pack(name)) = kind {
            packs.insert(name, info.len);
        }
    })?;
    let needed = needed_packs(repository, roots)?;
    let lengths = needed.iter().filter_map(|name| packs.get(name));
    let (present, referenced_bytes) = lengths.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len));
    let Sums { snapshots, logical_bytes, new_bytes, data_bytes, .. } = sums;
    Ok(StatsReport {
        snapshots,
        unreadable: found.unreadable.len() as u64,
        vms: vms.len() as u64,
        logical_bytes,
        blobs,
        stored_bytes,
        referenced_bytes,
        unreferenced_packs: packs.len() as u64 - present,
        unreferenced_bytes: packs.values().sum::<u64>() - referenced_bytes,
        missing_packs: needed.len() as u64 - present,
        new_bytes,
        deduplication_ratio: ratio(logical_bytes, new_bytes),
        compression_ratio: ratio(new_bytes, data_bytes),
    })
}

/// What the snapshots of one VM are; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmStatsReport {
    /// The VM.
    pub vm: String,
    /// Its snapshots that are there and not forgotten.
    pub snapshots: u64,
    /// Decisions and tombstones that could not be read, and are left out of all that follows.
    pub unreadable: u64,
    /// The sizes of all disks of all of them together.
    pub logical_bytes: u64,
    /// Packs that they need, others' included.
    pub referenced_packs: u64,
    /// Plain bytes of the chunks that their sessions stored.
    pub new_bytes: u64,
    /// Bytes that their sessions stored, maps and indexes included.
    pub stored_bytes: u64,
    /// Logical bytes for each plain byte of new chunks; nothing if none was stored.
    pub deduplication_ratio: Option<f64>,
    /// Plain bytes of new chunks for each byte that was stored of them; nothing if none was stored.
    pub compression_ratio: Option<f64>,
}

/// Counts what the snapshots of one VM are. Reads its decisions and the nodes of their maps, and lists nothing of other
/// VMs.
///
/// # Errors
/// As [`stats`].
pub fn stats_of(repository: &Repository<'_>, vm: &str) -> Result<VmStatsReport, EngineError> {
    let (mut sums, mut roots) = (Sums::default(), Roots::default());
    let query = Query { vm: Some(vm), ..Query::default() };
    let found = snapshots::each(repository, &query, &mut |snapshot| {
        sums.add(&snapshot);
        roots.add(repository, &snapshot);
    })?;
    let needed = needed_packs(repository, roots)?;
    let Sums { snapshots, logical_bytes, new_bytes, stored_bytes, data_bytes } = sums;
    Ok(VmStatsReport {
        vm: vm.to_owned(),
        snapshots,
        unreadable: found.unreadable.len() as u64,
        logical_bytes,
        referenced_packs: needed.len() as u64,
        new_bytes,
        stored_bytes,
        deduplication_ratio: ratio(logical_bytes, new_bytes),
        compression_ratio: ratio(new_bytes, data_bytes),
    })
}

/// What snapshots say of themselves, added up.
#[derive(Default)]
struct Sums {
    snapshots: u64,
    logical_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// Without metadata.
    data_bytes: u64,
}

impl Sums {
    fn add(&mut self, snapshot: &Snapshot) {
        let totals = &snapshot.commit.totals;
        self.snapshots += 1;
        // What decisions say of themselves may be anything.
        for disk in &snapshot.commit.disks {
            self.logical_bytes = self.logical_bytes.saturating_add(disk.size);
        }
        self.new_bytes = self.new_bytes.saturating_add(totals.new_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(totals.stored_bytes);
        let data_bytes = totals.stored_bytes.saturating_sub(totals.metadata_bytes);
        self.data_bytes = self.data_bytes.saturating_add(data_bytes);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

impl BlobStats {
    fn of(&mut self, kind: Option<&BlobKind>) -> &mut Count {
        match kind {
            Some(BlobKind::Config | BlobKind::KeySlot(_)) => &mut self.keys,
            Some(BlobKind::Intent { .. }) => &mut self.intents,
            Some(BlobKind::Pack(name)) => match name.kind {
                PackKind::Data => &mut self.data_packs,
                PackKind::Map => &mut self.map_packs,
            },
            Some(BlobKind::Index { .. }) => &mut self.indexes,
            Some(BlobKind::Decision(_)) => &mut self.decisions,
            Some(BlobKind::Tombstone { .. }) => &mut self.tombstones,
            Some(
                BlobKind::Condemned(_)
                | BlobKind::Awaited(_)
                | BlobKind::GcResult(_)
                | BlobKind::GenerationSeal(_)
                | BlobKind::Repack(_)
                | BlobKind::Pin { .. }
                | BlobKind::Canary,
            ) => &mut self.prune_records,
            None => &mut self.unknown,
        }
    }
}

/// A node that is still to be read, and its place on a disk.
struct Wanted {
    shape: Shape,
    index: u64,
    at: Location,
}

/// What makes out a node and where it is said to be: one that is elsewhere for another snapshot may be damaged there.
type NodePlace = (PayloadId, SessionId, u32, u32, u32);

fn node_place(at: &Location) -> NodePlace {
    (at.id, at.pack.name.session, at.pack.name.number, at.offset, at.stored_len)
}

/// The maps of some snapshots.
#[derive(Default)]
struct Roots {
    packs: HashSet<PackName>,
    seen: HashSet<NodePlace>,
    wanted: BTreeMap<u8, Vec<Wanted>>,
}

impl Roots {
    fn add(&mut self, repository: &Repository<'_>, snapshot: &Snapshot) {
        for disk in &snapshot.commit.disks {
            let Some(at) = &disk.map else { continue };
            let shape = Shape::new(&repository.config().geometry, disk.size);
            self.packs.insert(at.pack.name.clone());
            if self.seen.insert(node_place(at)) {
                let root = Wanted { shape, index: 0, at: at.clone() };
                self.wanted.entry(shape.root_level()).or_default().push(root);
            }
        }
    }
}

/// All packs that maps need (SPEC NODE-3): reads the nodes down to level 2, or to the root of a smaller disk.
fn needed_packs(repository: &Repository<'_>, roots: Roots) -> Result<HashSet<PackName>, EngineError> {
    let frames = FrameReader::new(repository);
    let Roots { mut packs, mut seen, mut wanted } = roots;
    while let Some((level, nodes)) = wanted.pop_last() {
        for batch in nodes.chunks(NODES_AT_ONCE) {
            let locations: Vec<Location> = batch.iter().map(|node| node.at.clone()).collect();
            for (node, payload) in batch.iter().zip(frames.read_all(FrameKind::Node, &locations)?) {
                let Wanted { shape, index, at } = node;
                let parsed = Node::parse(&payload, level, shape.child_count(level, *index), &at.pack)
                    .map_err(EngineError::damaged(&at.pack.name.blob()))?;
                packs.extend(parsed.packs().into_iter().map(|pack| pack.name));
                if level <= 2 {
                    continue;
                }
                for (slot, child) in (0..).zip(parsed.children) {
                    if let Child::Stored { at, .. } = child
                        && seen.insert(node_place(&at))
                    {
                        let below = Wanted { shape: *shape, index: index * FANOUT + slot, at };
                        wanted.entry(level - 1).or_default().push(below);
                    }
                }
            }
        }
    }
    Ok(packs)
}
