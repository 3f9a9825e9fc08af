//! What an import costs.

use super::*;
use keepstone_engine::store::RecordingStore;

#[test]
fn an_import_reads_and_stores_what_changed() {
    let len = 8 << 20;
    let (there, mut disks) = common_past(len);
    let (there, here) = (RecordingStore::new(there.copied()), RecordingStore::new(there));
    for minute in 3..6 {
        change(&mut disks, u64::from(minute), 4);
        At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks);
    }
    let before = (here.requests(), there.requests());
    let imported = Import::new(&here, &there).run().unwrap();
    let (to, from) = (here.requests().since(&before.0), there.requests().since(&before.1));
    for point in &imported {
        let Outcome::Stored { base: Some(_), report } = &point.outcome else { panic!("{point:?}") };
        let disk = &report.disks[0];
        assert_eq!(disk.mode, "incremental");
        // Four places of 400 bytes, and the chunks of 4 KiB at most that they are in.
        assert!(disk.changed_bytes <= 4 * 12_000, "{disk:?}");
        assert!(disk.read_bytes <= 4 * 24_000, "{disk:?}");
        assert!(report.new_bytes <= 4 * 24_000, "{report:?}");
    }
    assert_eq!(stored(&imported).len(), 3);
    assert!(from.get_bytes < 1 << 20, "{from:?}");
    assert!(to.put_bytes < 1 << 20, "{to:?}");
    assert_eq!((from.put, from.delete, to.delete), (0, 0, 0));
}

#[test]
fn without_a_common_restore_point_everything_is_read_and_what_is_here_is_not_stored_again() {
    let (there, mut disks) = common_past(1 << 20);
    // The same repository at another place, which has the VM from another time by a backup of its own.
    let here = MemoryStore::new();
    for name in there.names() {
        if matches!(name.kind(), Some(repo_format::BlobKind::Config | repo_format::BlobKind::KeySlot(_))) {
            here.put_new(&name, &there.get(&name, None).unwrap()).unwrap();
        }
    }
    At { store: &here, writer: HERE, vm: "vm", minute: 30 }.back_up(&disks);
    change(&mut disks, 3, 1);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    let imported = Import::new(&here, &there).run().unwrap();
    assert_eq!(stored(&imported).len(), 3);
    let Outcome::Stored { base: None, report } = &imported[0].outcome else { panic!("{imported:?}") };
    assert_eq!((report.disks[0].mode, report.disks[0].read_bytes), ("full", 1 << 20));
    assert!(report.new_bytes < 30_000, "{report:?}");
    let modes = imported.iter().map(|point| match &point.outcome {
        Outcome::Stored { report, .. } => report.disks[0].mode,
        Outcome::LeftOut { why } => panic!("{why}"),
    });
    assert_eq!(modes.collect::<Vec<_>>(), ["full", "incremental", "incremental"]);
    let (from, id) = stored(&imported)[2];
    assert_eq!(from, original);
    holds(&open(&here), id, &disks);
}

#[test]
fn where_the_parent_is_not_at_both_places_changes_count_from_the_one_before() {
    let (there, mut disks) = common_past(1 << 20);
    let here = there.copied();
    let mut ids = Vec::new();
    for minute in 3..5 {
        change(&mut disks, u64::from(minute), 1);
        ids.push(At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks).snapshot);
    }
    let named = [Selector::Id(ids[1].to_string())];
    let imported = Import { named: &named, ..Import::new(&here, &there) }.run().unwrap();
    let Outcome::Stored { base: Some(_), report } = &imported[0].outcome else { panic!("{imported:?}") };
    assert_eq!(report.disks[0].mode, "incremental");
    holds(&open(&here), report.snapshot, &disks);
    // And the one before it, which comes later and is no newer for that.
    let imported = Import { seed: 9, ..Import::new(&here, &there) }.run().unwrap();
    assert_eq!(stored(&imported)[0].0, ids[0]);
    assert_eq!(world::latest(&open(&here), "vm").session(), report.snapshot);
    world::undamaged(&open(&here));
}
