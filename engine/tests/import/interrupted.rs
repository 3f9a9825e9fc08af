//! Imports that stop anywhere, and two at once.

use super::*;
use crate::world::undamaged;
use crate::world::watched::{Call, Watched};
use keepstone_engine::store::{Fault, FaultStore};

#[test]
fn an_import_that_stops_at_any_call_goes_on_when_it_is_run_again() {
    let (there, mut disks) = common_past(150_000);
    let mut lost = Vec::new();
    let past = there.copied();
    for minute in 3..5 {
        change(&mut disks, u64::from(minute), 2);
        lost.push((
            At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks).snapshot,
            disks.clone(),
        ));
    }
    let mut stopped = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::NotApplied, Fault::AnswerLost] {
        for call in 0.. {
            let here = past.copied();
            let faulty = FaultStore::new(here, call, fault);
            let first = Import::new(&faulty, &there).run();
            if faulty.calls() <= call {
                break;
            }
            stopped += u32::from(first.is_err());
            let here = faulty.inner();
            Import { seed: 201, ..Import::new(here, &there) }.run().unwrap();
            let repository = open(here);
            let fates = Import::new(here, &there).fates();
            for (original, disks) in &lost {
                let found = fates.iter().find(|(id, _)| id == original);
                let Some((_, Fate::Here { snapshot })) = found else {
                    panic!("call {call}, {fault:?}: {found:?}");
                };
                holds(&repository, *snapshot, disks);
            }
            let there = snapshots::list(&repository, None).unwrap();
            assert_eq!(there.snapshots.len(), 4, "call {call}, {fault:?}");
            if call % 7 == 0 {
                undamaged(&repository);
            }
        }
    }
    assert!(stopped > 50, "only {stopped} imports were stopped");
}

#[test]
fn a_place_that_cannot_be_read_any_more_stops_an_import_and_nothing_is_lost() {
    let (there, mut disks) = common_past(150_000);
    let here = there.copied();
    change(&mut disks, 3, 2);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    for call in 0.. {
        let here = here.copied();
        let gone = FaultStore::new(there.copied(), call, Fault::CrashBefore);
        let first = Import::new(&here, &gone).run();
        if gone.calls() <= call {
            assert_eq!(stored(&first.unwrap())[0].0, original);
            break;
        }
        assert!(first.is_err(), "call {call}: {first:?}");
        let again = stored(&Import { seed: 201, ..Import::new(&here, &there) }.run().unwrap());
        holds(&open(&here), again[0].1, &disks);
    }
}

#[test]
fn of_two_imports_at_once_the_one_that_sees_the_other_leaves_its_restore_points_out() {
    let (there, mut disks) = common_past(100_000);
    let here = there.copied();
    change(&mut disks, 3, 2);
    At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks);
    // Another host had just begun: its intent comes between what this one lists first and its own.
    let other = here.copied();
    stored(&Import { writer: "host-c", seed: 5, ..Import::new(&other, &there) }.run().unwrap());
    let intent = other.names().into_iter().find(|name| {
        matches!(name.kind(), Some(repo_format::BlobKind::Intent { writer, .. }) if writer.as_str() == "host-c")
    });
    let intent = intent.unwrap();
    let bytes = other.get(&intent, None).unwrap();
    let racing = Watched::new(&here, |call| {
        if let Call::Put(name) = call
            && matches!(name.kind(), Some(repo_format::BlobKind::Intent { .. }))
        {
            here.put_new(&intent, &bytes).unwrap();
        }
    });
    let imported = Import::new(&racing, &there).run().unwrap();
    let [Imported { outcome: Outcome::LeftOut { why: EngineError::Rival { writer, .. } }, .. }] =
        imported.as_slice()
    else {
        panic!("{imported:?}");
    };
    assert_eq!(writer.as_str(), "host-c");
    // Whoever comes next imports it.
    let again = stored(&Import { seed: 9, ..Import::new(&here, &there) }.run().unwrap());
    holds(&open(&here), again[0].1, &disks);
}
