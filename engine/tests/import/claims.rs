//! What is damaged or missing at the other place, and what hosts claim that may write.

use super::*;
use crate::world::undamaged;
use repo_format::{BlobKind, BlobName, Decision, PackKind};

/// The packs of a session that are of a kind.
fn packs(store: &MemoryStore, session: SessionId, kind: PackKind) -> Vec<BlobName> {
    let is_of_it = |name: &BlobName| match name.kind() {
        Some(BlobKind::Pack(pack)) => pack.session == session && pack.kind == kind,
        _ => false,
    };
    store.names().into_iter().filter(is_of_it).collect()
}

/// Three restore points there that are not here.
fn three_lost() -> (MemoryStore, MemoryStore, Vec<(SessionId, Disks)>) {
    let (there, mut disks) = common_past(300_000);
    let here = there.copied();
    let mut lost = Vec::new();
    for minute in 3..6 {
        change(&mut disks, u64::from(minute), 2);
        lost.push((
            At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks).snapshot,
            disks.clone(),
        ));
    }
    (here, there, lost)
}

#[test]
fn restore_points_whose_map_is_missing_there_are_named_and_left_out() {
    let (here, there, lost) = three_lost();
    let of_other_vm = Disks::from([("disk0", noise(5, 80_000))]);
    At { store: &there, writer: THERE, vm: "web", minute: 8 }.back_up(&of_other_vm);
    // The third restore point has most of its map from the second.
    for name in packs(&there, lost[1].0, PackKind::Map) {
        there.delete(&name).unwrap();
    }
    let imported = Import::new(&here, &there).run().unwrap();
    let [first, second, third, other] = imported.as_slice() else { panic!("{imported:?}") };
    for (stored, disks) in [(first, &lost[0].1), (other, &of_other_vm)] {
        let Outcome::Stored { report, .. } = &stored.outcome else { panic!("{stored:?}") };
        holds(&open(&here), report.snapshot, disks);
    }
    for left_out in [second, third] {
        let Outcome::LeftOut { why } = &left_out.outcome else { panic!("{left_out:?}") };
        assert!(format!("{why:?}").contains(&lost[1].0.to_string()), "no blob is named: {why:?}");
    }
    undamaged(&open(&here));
}

#[test]
fn a_restore_point_of_which_something_stored_is_damaged_there_is_named_and_left_out() {
    let (here, there, lost) = three_lost();
    // The third one needs it too, but for what the fourth minute changed elsewhere: of that there is a whole pack.
    for name in packs(&there, lost[1].0, PackKind::Data) {
        let mut bytes = there.get(&name, None).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0);
        there.overwrite(&name, &bytes);
    }
    let imported = Import::new(&here, &there).run().unwrap();
    let is_stored = |point: &Imported| matches!(point.outcome, Outcome::Stored { .. });
    assert_eq!(imported.iter().map(is_stored).collect::<Vec<_>>()[..2], [true, false]);
    let Outcome::LeftOut { why } = &imported[1].outcome else { unreachable!() };
    assert!(format!("{why:?}").contains(&lost[1].0.to_string()), "{why:?}");
    undamaged(&open(&here));
    // What was read here is right however it is damaged there.
    for (point, (_, disks)) in imported.iter().zip(&lost) {
        if let Outcome::Stored { report, .. } = &point.outcome {
            holds(&open(&here), report.snapshot, disks);
        }
    }
}

#[test]
fn a_decision_there_that_is_not_authentic_is_told_and_imports_nothing() {
    let (here, there, lost) = three_lost();
    let name = snapshot(&open(&there), lost[1].0).name;
    let mut bytes = there.get(&name.blob(), None).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    there.overwrite(&name.blob(), &bytes);
    let (into, from) = (open(&here), open(&there));
    let chosen = choose(&into, &from, &Wanted { vms: &[], snapshots: &[] }).unwrap();
    let planned = plan(&into, &from, &chosen.vms[0]).unwrap();
    assert_eq!(planned.unreadable.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [name.blob()]);
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    assert_eq!(imported.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [lost[0].0, lost[2].0]);
    for ((_, id), (_, disks)) in imported.iter().zip([&lost[0], &lost[2]]) {
        holds(&into, *id, disks);
    }
    undamaged(&into);
}

#[test]
fn another_repository_is_not_imported_from() {
    let (here, _) = common_past(100_000);
    let other = MemoryStore::new();
    world::create_from_seed(&other, small_geometry(), [9; 32]).unwrap();
    let error = choose(&open(&here), &open(&other), &Wanted { vms: &[], snapshots: &[] }).unwrap_err();
    assert!(matches!(error, EngineError::BadJob(_)), "{error:?}");
}

/// A host that may write claims that its own restore point was imported from one that is not here. All that it tells is
/// right, but not what its disk holds.
#[test]
fn a_claim_to_be_imported_is_not_believed_where_the_disk_holds_something_else() {
    let (here, there, lost) = three_lost();
    let forged = {
        let repository = open(&here);
        let thief = At { store: &here, writer: "thief", vm: "vm", minute: 40 };
        let other = Disks::from([("disk0", noise(66, 300_000))]);
        let forged = snapshot(&repository, thief.back_up(&other).snapshot);
        let original = snapshot(&open(&there), lost[1].0).commit;
        let mut commit = forged.commit.clone();
        (commit.time, commit.tags) = (original.time, original.tags);
        commit.disks[0].change_id.clone_from(&original.disks[0].change_id);
        commit.properties = original.properties;
        commit.properties.insert(0, (IMPORTED_FROM.to_owned(), lost[1].0.to_string()));
        let bytes = Decision::Commit(Box::new(commit)).seal(repository.keys(), &forged.name, [4; 32]);
        here.overwrite(&forged.name.blob(), &bytes);
        forged.session()
    };
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    let repository = open(&here);
    assert_eq!(imported.len(), 3);
    for ((from, id), (original, disks)) in imported.iter().zip(&lost) {
        assert_eq!(from, original);
        assert_ne!(*id, forged);
        holds(&repository, *id, disks);
    }
}
