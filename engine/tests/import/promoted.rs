//! Imports into a replica that was promoted, and why not into one that was not.

use super::*;
use crate::world::{latest, undamaged};
use keepstone_engine::lineage;
use keepstone_engine::repository::unlock_retention;
use repo_format::{BlobKind, DecisionName, Lineage, LineageId, LineageStep};

/// Says of a place that it was promoted, after all that is in it.
fn promote(store: &MemoryStore, set_aside: Vec<DecisionName>) {
    let repository = open(store);
    let time = NOW + 8 * MINUTE;
    lineage::mark(&repository, ("elsewhere", time), &Entropy::new([40; 32])).unwrap();
    let lineage = Lineage {
        number: 1,
        id: LineageId([7; 16]),
        time,
        step: LineageStep::Promoted,
        first_generation: 0,
        set_aside,
    };
    let key = unlock_retention(&repository, PASSWORD).unwrap();
    let (name, bytes) = lineage.seal(repository.keys(), &key, [41; 32]);
    store.put_new(&name, &bytes).unwrap();
    store.set_time(time + MINUTE);
}

#[test]
fn what_was_made_since_a_promotion_stays_newer_however_much_is_imported() {
    let (there, mut disks) = common_past(200_000);
    let here = there.copied();
    promote(&here, Vec::new());
    let mut promoted = disks.clone();
    change(&mut promoted, 50, 1);
    let newest = At { store: &here, writer: HERE, vm: "vm", minute: 9 }.back_up(&promoted).snapshot;
    for minute in 3..8 {
        change(&mut disks, u64::from(minute), 1);
        At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks);
    }
    assert_eq!(stored(&Import::new(&here, &there).run().unwrap()).len(), 5);
    let repository = open(&here);
    assert_eq!(latest(&repository, "vm").session(), newest);
    undamaged(&repository);

    // The next backup counts from what was made here last.
    let areas = change(&mut promoted, 51, 1);
    let at = At { store: &here, writer: HERE, vm: "vm", minute: 20 };
    let changes = Some(("host-here 9".to_owned(), areas));
    let report = at.back_up_from(&[("disk0", MemoryDisk { changes, ..at.disk(&promoted["disk0"]) })]);
    assert_eq!((report.disks[0].mode, report.disks[0].full_reason.clone()), ("incremental", None));
    holds(&repository, report.snapshot, &promoted);

    // And back: at the old primary it is newer than what was made there, and the chain goes on.
    stored(&Import { seed: 7, ..Import::new(&there, &here) }.run().unwrap());
    let back = latest(&open(&there), "vm");
    holds(&open(&there), back.session(), &promoted);
    undamaged(&open(&there));
    let areas = change(&mut promoted, 52, 1);
    let at = At { store: &there, writer: THERE, vm: "vm", minute: 21 };
    let changes = Some(("host-here 20".to_owned(), areas));
    let report = at.back_up_from(&[("disk0", MemoryDisk { changes, ..at.disk(&promoted["disk0"]) })]);
    assert_eq!((report.disks[0].mode, report.disks[0].full_reason.clone()), ("incremental", None));
    holds(&open(&there), report.snapshot, &promoted);
}

#[test]
fn a_restore_point_that_was_set_aside_is_imported_from_where_it_is_whole() {
    let (there, mut disks) = common_past(200_000);
    change(&mut disks, 3, 2);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    let here = there.copied();
    // Of its packs none arrived, but the decision did.
    let of_it = |name: &repo_format::BlobName| match name.kind() {
        Some(BlobKind::Pack(pack)) => pack.session == original,
        _ => false,
    };
    for name in here.names().into_iter().filter(of_it) {
        here.delete(&name).unwrap();
    }
    promote(&here, vec![snapshot(&open(&there), original).name]);
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    assert_eq!(imported[0].0, original);
    holds(&open(&here), imported[0].1, &disks);
    assert_eq!(Import { seed: 2, ..Import::new(&here, &there) }.run().unwrap().len(), 0);
}

#[test]
fn nothing_is_imported_into_a_replica() {
    let (there, _) = common_past(100_000);
    let here = there.copied();
    lineage::mark(&open(&here), ("elsewhere", NOW), &Entropy::new([40; 32])).unwrap();
    let before = here.names();
    let error = Import::new(&here, &there).run().unwrap_err();
    assert!(matches!(error, EngineError::IsAReplica), "{error:?}");
    assert_eq!(here.names(), before);
}
