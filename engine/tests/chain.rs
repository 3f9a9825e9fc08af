//! Chains of backups over random histories: every snapshot restores, and every map is the one that a full backup of
//! the same bytes makes.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::backup::Reading;
use keepstone_engine::contents::contents;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{Extent, Repository, extent};
use proptest::prelude::*;
use world::{
    back_up_reading, create, latest, memory_index, mixed, noise, restored, small_geometry, undamaged,
};

/// What happens to a disk between two backups.
#[derive(Clone, Debug)]
enum Change {
    /// Bytes are overwritten with others that do not compress.
    Noise(Extent),
    /// Bytes become zero.
    Zero(Extent),
    /// Bytes are reported as changed and are not.
    Nothing(Extent),
    /// The disk is given another size.
    Resize(usize),
}

const SIZE_MAX: usize = 400_000;

fn extents() -> impl Strategy<Value = Extent> {
    // Edges of regions, cells and sectors matter as much as any other place.
    let edge = (0..24u64).prop_map(|n| n * (16 << 10));
    let start = prop_oneof![0..SIZE_MAX as u64, edge.clone(), edge.prop_map(|at| at.saturating_sub(1))];
    let length = prop_oneof![1..200u64, Just(4096u64), 1..60_000u64, Just(16 << 10), Just(64 << 10)];
    (start, length).prop_map(|(start, length)| Extent { start, length })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => extents().prop_map(Change::Noise),
        2 => extents().prop_map(Change::Zero),
        1 => extents().prop_map(Change::Nothing),
        1 => (1..SIZE_MAX).prop_map(Change::Resize),
    ];
    prop::collection::vec(change, 0..4)
}

fn apply(disk: &mut MemoryDisk, changes: &[Change], seed: u64) -> Vec<Extent> {
    let mut areas = Vec::new();
    for (number, change) in (0u64..).zip(changes) {
        let size = disk.bytes.len();
        let clip = |extent: &Extent| extent.clip(0, size as u64);
        match change {
            Change::Resize(new) => {
                // What was cut off and came back as zeros did change.
                areas.extend(Extent::between(size as u64, *new as u64));
                disk.bytes.resize(*new, 0);
            }
            Change::Noise(extent) | Change::Zero(extent) | Change::Nothing(extent) => {
                let Some(area) = clip(extent) else { continue };
                let part = &mut disk.bytes[area.start as usize..area.end() as usize];
                match change {
                    Change::Noise(_) => part.copy_from_slice(&noise(seed + number, part.len())),
                    Change::Zero(_) => part.fill(0),
                    _ => {}
                }
                areas.push(area);
            }
        }
    }
    let size = disk.bytes.len() as u64;
    extent::normalized(areas.into_iter().filter_map(|area| area.clip(0, size)).collect())
}

/// The zero sectors, as a source that knows what is allocated tells them.
fn allocated(bytes: &[u8]) -> Vec<Extent> {
    let sectors = bytes.chunks(512).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    let extents = sectors.map(|(n, sector)| Extent { start: n as u64 * 512, length: sector.len() as u64 });
    extent::normalized(extents.collect())
}

/// The map that a full backup of `bytes` into an empty repository with the same keys makes.
fn fresh_contents(bytes: &[u8], knows_allocation: bool) -> Vec<keepstone_engine::contents::ContentPiece> {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = MemoryDisk::new(bytes.to_vec());
    disk.allocated = knows_allocation.then(|| allocated(bytes));
    let mut index = memory_index(&repository);
    back_up_reading(&repository, &mut index, "vm", &[("disk0", &disk)], 1, Reading::Changes).unwrap();
    contents(&repository, latest(&repository, "vm").disk(None).unwrap()).unwrap()
}

fn check_day(repository: &Repository<'_>, bytes: &[u8]) {
    let snapshot = latest(repository, "vm");
    let found = restored(repository, &snapshot, "disk0").unwrap();
    let differs = found.iter().zip(bytes).position(|(found, byte)| found != byte);
    assert_eq!((found.len(), differs), (bytes.len(), None), "the disk differs");
    let stored = contents(repository, snapshot.disk(None).unwrap()).unwrap();
    assert_eq!(stored, fresh_contents(bytes, false));
    assert_eq!(stored, fresh_contents(bytes, true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_of_a_chain_is_what_a_full_backup_makes(
        seed in any::<u32>(),
        size in 1..SIZE_MAX,
        days in prop::collection::vec((changes(), prop::bool::weighted(0.2)), 1..5),
    ) {
        let store = MemoryStore::new();
        let repository = create(&store, small_geometry());
        let mut index = memory_index(&repository);
        let mut disk = MemoryDisk { change_id: Some("day 0".into()), ..MemoryDisk::new(mixed(seed.into(), size)) };
        back_up_reading(&repository, &mut index, "vm", &[("disk0", &disk)], 0, Reading::Changes).unwrap();
        check_day(&repository, &disk.bytes);
        let mut history = vec![(latest(&repository, "vm"), disk.bytes.clone())];
        for (day, (changes, everything)) in (1u8..).zip(&days) {
            let areas = apply(&mut disk, changes, u64::from(seed) + 1000 * u64::from(day));
            disk.changes = Some((format!("day {}", day - 1), areas));
            disk.change_id = Some(format!("day {day}"));
            let reading = if *everything { Reading::Everything } else { Reading::Changes };
            let report =
                back_up_reading(&repository, &mut index, "vm", &[("disk0", &disk)], day, reading).unwrap();
            prop_assert_eq!(report.disks[0].mode, if *everything { "full" } else { "incremental" });
            check_day(&repository, &disk.bytes);
            history.push((latest(&repository, "vm"), disk.bytes.clone()));
        }
        for (snapshot, bytes) in &history {
            prop_assert!(restored(&repository, snapshot, "disk0").unwrap() == *bytes);
        }
        undamaged(&repository);
    }
}
