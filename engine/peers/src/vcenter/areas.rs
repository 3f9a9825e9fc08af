//! `QueryChangedDiskAreas`: what changed on a disk between two snapshots, a page an answer.

use super::element::Element;
use super::fault::Fault;
use super::machine::Disk;
use super::state::{State, Violation};
use super::tracking::{ChangeId, Extent, extents};
use super::value::{Value, long, object};

/// How the answers about a disk's changed areas are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The nth changed extent, counted from 0, is kept secret: well-formed answers that miss a change.
    MissingExtent(usize),
    /// The answer is for an offset 64 KiB after the one that was asked for.
    OtherStart,
    /// The answer reaches nowhere.
    ZeroLength,
    /// The answer reaches below zero.
    NegativeLength,
    /// The answer reaches past the capacity.
    BeyondCapacity,
    /// An extent lies in the one before it.
    Overlapping,
    /// The extents come from the last to the first.
    Unsorted,
    /// An extent is empty.
    EmptyExtent,
    /// An extent reaches past what the answer says to cover.
    OutsidePage,
    /// Every answer covers one byte more and nothing else.
    Endless,
}

/// What `*` answers: the areas that are allocated, as far as vSphere knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocated {
    /// The blocks that were written.
    Blocks,
    /// The whole disk.
    Everything,
    /// A fault, as on datastores that are not VMFS.
    Fault,
}

/// An answer before it is written.
struct Page {
    start: i64,
    length: i64,
    areas: Vec<(i64, i64)>,
}

/// Answers `QueryChangedDiskAreas` of a virtual machine.
pub(super) fn query(state: &mut State, vm: &str, call: &Element) -> Result<Value, Fault> {
    let snapshot = call.text_of("snapshot").ok_or_else(|| Fault::invalid_argument("snapshot"))?;
    let key: i32 = call.number_of("deviceKey").ok_or_else(|| Fault::invalid_argument("deviceKey"))?;
    let frozen = state.snapshots.get(snapshot).filter(|found| found.vm == vm);
    let Some(frozen) = frozen.filter(|found| !found.removed) else {
        if let Some(removed) = frozen {
            let violation = Violation::RemovedSnapshotQueried { snapshot: removed.name.clone() };
            state.violations.push(violation);
        }
        return Err(Fault::not_found(super::value::Reference::new("VirtualMachineSnapshot", snapshot)));
    };
    let disk = frozen.disks.iter().find(|disk| disk.key == key);
    let disk = disk.ok_or_else(|| Fault::invalid_argument("deviceKey"))?;
    let capacity = disk.contents.capacity();
    let start: u64 = call.number_of("startOffset").ok_or_else(|| Fault::invalid_argument("startOffset"))?;
    if start >= capacity {
        return Err(Fault::invalid_argument("startOffset"));
    }
    let change_id = call.text_of("changeId").ok_or_else(|| Fault::invalid_argument("changeId"))?;
    let mut areas = match change_id {
        "*" => allocated(disk, state.allocated)?,
        since => changed(disk, since)?,
    };
    let lie = state.lie(vm, disk.number);
    if let Some(Lie::MissingExtent(number)) = lie
        && change_id != "*"
        && number < areas.len()
    {
        areas.remove(number);
    }
    let mut page = page(&areas, start, capacity, state.extents_max);
    if let Some(lie) = lie {
        spoil(&mut page, lie, i64::try_from(capacity).expect("capacities fit i64"));
    }
    Ok(page.value())
}

fn changed(disk: &Disk, since: &str) -> Result<Vec<Extent>, Fault> {
    let since = ChangeId::parse(since).ok_or_else(|| Fault::invalid_argument("changeId"))?;
    let tracked = disk.tracking.as_ref().and_then(|tracking| tracking.changed_since(since));
    let blocks = tracked.ok_or_else(|| Fault::file_fault(&disk.file.to_string()))?;
    Ok(extents(blocks, &disk.contents))
}

fn allocated(disk: &Disk, answer: Allocated) -> Result<Vec<Extent>, Fault> {
    match answer {
        _ if disk.tracking.is_none() => Err(Fault::file_fault(&disk.file.to_string())),
        Allocated::Blocks => Ok(extents(disk.contents.allocated(), &disk.contents)),
        Allocated::Everything => Ok(vec![Extent { start: 0, length: disk.contents.capacity() }]),
        Allocated::Fault => Err(Fault::file_fault(&disk.file.to_string())),
    }
}

/// Takes the extents from an offset on, as many as an answer holds.
fn page(areas: &[Extent], start: u64, capacity: u64, extents_max: usize) -> Page {
    let mut later = areas.iter().filter(|area| area.start + area.length > start);
    let taken: Vec<(u64, u64)> = later
        .by_ref()
        .take(extents_max)
        .map(|area| (area.start.max(start), area.start + area.length))
        .collect();
    let end = match (later.next(), taken.last()) {
        (Some(_), Some((_, end))) => *end,
        _ => capacity,
    };
    let signed = |number: u64| i64::try_from(number).expect("capacities fit i64");
    Page {
        start: signed(start),
        length: signed(end - start),
        areas: taken.into_iter().map(|(start, end)| (signed(start), signed(end - start))).collect(),
    }
}

fn spoil(page: &mut Page, lie: Lie, capacity: i64) {
    match lie {
        Lie::MissingExtent(_) => {}
        Lie::OtherStart => page.start += 64 << 10,
        Lie::ZeroLength => page.length = 0,
        Lie::NegativeLength => page.length = -page.length,
        Lie::BeyondCapacity => {
            page.length = capacity - page.start + 512;
            page.areas = vec![(capacity - 512, 1024)];
        }
        Lie::Overlapping => page.areas = vec![(page.start, 1024), (page.start + 512, 1024)],
        Lie::Unsorted => page.areas = vec![(page.start + 1024, 512), (page.start, 512)],
        Lie::EmptyExtent => page.areas = vec![(page.start, 0)],
        Lie::OutsidePage => {
            page.length = 512;
            page.areas = vec![(page.start, 1024)];
        }
        Lie::Endless => {
            page.length = 1;
            page.areas.clear();
        }
    }
}

impl Page {
    fn value(&self) -> Value {
        let extent = |(start, length): &(i64, i64)| {
            object("DiskChangeExtent", vec![("start", long(start)), ("length", long(length))])
        };
        let fields = vec![
            ("startOffset", long(self.start)),
            ("length", long(self.length)),
            ("changedArea", Value::List("DiskChangeExtent", self.areas.iter().map(extent).collect())),
        ];
        object("DiskChangeInfo", fields)
    }
}
