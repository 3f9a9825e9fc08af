//! What an import makes of histories that parted.

use super::*;
use crate::world::{latest, undamaged};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, forget};
use keepstone_engine::repository::unlock_retention;
use repo_format::DiskMode;

/// Backs up a state at a place, and remembers it.
fn day(made: &mut Vec<(SessionId, Disks)>, at: &At<'_>, disks: &Disks) {
    made.push((at.back_up(disks).snapshot, disks.clone()));
}

#[test]
fn restore_points_of_parted_histories_restore_bit_for_bit_from_here_alone() {
    let (there, mut disks) = common_past(700_000);
    let here = there.copied();
    let (mut lost, mut since) = (Vec::new(), Vec::new());
    let mut promoted = disks.clone();
    for minute in 3..6 {
        change(&mut disks, u64::from(minute), 3);
        day(&mut lost, &At { store: &there, writer: THERE, vm: "vm", minute }, &disks);
        change(&mut promoted, 50 + u64::from(minute), 3);
        day(&mut since, &At { store: &here, writer: HERE, vm: "vm", minute: minute + 10 }, &promoted);
    }
    let other = Disks::from([("disk0", noise(99, 80_000))]);
    day(&mut lost, &At { store: &there, writer: THERE, vm: "another vm", minute: 7 }, &other);

    let imported = stored(&Import::new(&here, &there).run().unwrap());
    assert_eq!(imported.len(), 4);
    drop(there);
    let repository = open(&here);
    for (original, disks) in &lost {
        let (_, id) = imported.iter().find(|(from, _)| from == original).unwrap();
        holds(&repository, *id, disks);
    }
    for (id, disks) in &since {
        holds(&repository, *id, disks);
    }
    undamaged(&repository);
}

#[test]
fn an_imported_restore_point_keeps_time_tags_properties_and_change_ids_and_tells_its_original() {
    let (there, mut disks) = common_past(200_000);
    let here = there.copied();
    change(&mut disks, 3, 1);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    let (_, id) = stored(&Import::new(&here, &there).run().unwrap())[0];
    let (a, b) = (snapshot(&open(&there), original).commit, snapshot(&open(&here), id).commit);
    assert_ne!(original, id);
    assert_eq!((a.time, a.tags, &a.vm), (b.time, b.tags, &b.vm));
    let told = (IMPORTED_FROM.to_owned(), original.to_string());
    assert_eq!(b.properties, [vec![told], a.properties].concat());
    let of_disk = |commit: &repo_format::Commit| {
        let disk = &commit.disks[0];
        (disk.key.clone(), disk.size, disk.change_id.clone(), disk.mode)
    };
    let expected = ("disk0".to_owned(), 200_000, Some("host-there 3".to_owned()), DiskMode::Incremental);
    assert_eq!(of_disk(&snapshot(&open(&here), id).commit), expected);
}

#[test]
fn what_was_made_here_later_stays_the_newest() {
    let (there, disks) = common_past(100_000);
    let here = there.copied();
    let newest = At { store: &here, writer: HERE, vm: "vm", minute: 9 }.back_up(&disks).snapshot;
    At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks);
    assert_eq!(stored(&Import::new(&here, &there).run().unwrap()).len(), 1);
    assert_eq!(latest(&open(&here), "vm").session(), newest);
}

#[test]
fn the_next_backup_counts_from_the_newest_imported_restore_point() {
    let (there, mut disks) = common_past(400_000);
    let here = there.copied();
    change(&mut disks, 3, 1);
    let newest = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    assert_eq!(latest(&open(&here), "vm").session(), imported[0].1);
    assert_eq!(imported[0].0, newest);

    let areas = change(&mut disks, 4, 1);
    let at = At { store: &here, writer: HERE, vm: "vm", minute: 20 };
    let changes = Some(("host-there 3".to_owned(), areas));
    let report = at.back_up_from(&[("disk0", MemoryDisk { changes, ..at.disk(&disks["disk0"]) })]);
    assert_eq!((report.disks[0].mode, &report.disks[0].full_reason), ("incremental", &None));
    assert!(report.disks[0].read_bytes < 30_000, "{report:?}");
    holds(&open(&here), report.snapshot, &disks);
}

#[test]
fn disks_that_came_went_and_changed_their_size_are_imported() {
    let there = MemoryStore::new();
    create(&there, small_geometry());
    let mut disks =
        Disks::from([("a", noise(1, 300_000)), ("b", noise(2, 150_001)), ("c", noise(3, 70_000))]);
    At { store: &there, writer: THERE, vm: "vm", minute: 1 }.back_up(&disks);
    let here = there.copied();
    let mut made = Vec::new();
    change(&mut disks, 1, 2);
    disks.get_mut("a").unwrap().resize(411_111, 0);
    disks.get_mut("b").unwrap().truncate(90_000);
    day(&mut made, &At { store: &there, writer: THERE, vm: "vm", minute: 2 }, &disks);
    disks.remove("c");
    disks.insert("d", noise(4, 64 << 10));
    disks.get_mut("a").unwrap()[300_000..].fill(7);
    disks.get_mut("b").unwrap().fill(0);
    day(&mut made, &At { store: &there, writer: THERE, vm: "vm", minute: 3 }, &disks);
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    let repository = open(&here);
    for ((original, disks), (from, id)) in made.iter().zip(&imported) {
        assert_eq!(original, from);
        holds(&repository, *id, disks);
    }
    undamaged(&repository);
}

#[test]
fn an_import_that_is_run_again_finds_everything_here() {
    let (there, mut disks) = common_past(300_000);
    let here = there.copied();
    for minute in 3..6 {
        change(&mut disks, u64::from(minute), 2);
        At { store: &there, writer: THERE, vm: "vm", minute }.back_up(&disks);
    }
    assert_eq!(stored(&Import::new(&here, &there).run().unwrap()).len(), 3);
    let before = here.names();
    assert_eq!(Import { writer: "host-c", seed: 201, ..Import::new(&here, &there) }.run().unwrap().len(), 0);
    assert_eq!(here.names(), before);
    let is_here = |(_, fate): &(SessionId, Fate)| matches!(fate, Fate::Here { .. });
    assert!(Import::new(&here, &there).fates().iter().all(is_here));
    // And back: what was imported from there is there.
    assert!(Import::new(&there, &here).fates().iter().all(is_here));
}

fn forget_one(store: &dyn BlobStore, id: SessionId) {
    let repository = open(store);
    let key = unlock_retention(&repository, world::PASSWORD).unwrap();
    let named = [Selector::Id(id.to_string())];
    let job = ForgetJob {
        what: What::Named(&named),
        last_ones: LastOnes::Stay,
        times: Times::Checked,
        time: NOW,
        entropy: &Entropy::new([77; 32]),
    };
    assert_eq!(forget(&repository, &key, &job, &Quiet).unwrap().going().count(), 1);
}

#[test]
fn what_was_forgotten_here_is_not_imported_again_unless_it_is_named() {
    let (there, mut disks) = common_past(100_000);
    let here = there.copied();
    let past = snapshots::list(&open(&here), None).unwrap().snapshots[0].session();
    change(&mut disks, 3, 1);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    let (_, id) = stored(&Import::new(&here, &there).run().unwrap())[0];
    forget_one(&here, id);
    forget_one(&here, past);
    // A prune removes the decisions of what was forgotten.
    let decision_of = |name: &repo_format::BlobName| match name.kind() {
        Some(repo_format::BlobKind::Decision(name)) => Some(name.session),
        _ => None,
    };
    for name in here.names() {
        if decision_of(&name).is_some_and(|session| session == id || session == past) {
            here.delete(&name).unwrap();
        }
    }
    assert_eq!(Import::new(&here, &there).run().unwrap().len(), 0);
    let fates = Import::new(&here, &there).fates();
    let forgotten: Vec<_> =
        fates.iter().filter(|(_, fate)| *fate == Fate::Forgotten).map(|(id, _)| *id).collect();
    assert_eq!(forgotten, [past, original]);

    let named = [Selector::Id(original.to_string())];
    let again = stored(&Import { named: &named, seed: 3, ..Import::new(&here, &there) }.run().unwrap());
    assert_eq!(again[0].0, original);
    assert_ne!(again[0].1, id);
    holds(&open(&here), again[0].1, &disks);
}

#[test]
fn an_import_that_was_begun_very_often_is_made_all_the_same_and_is_known_when_it_is_forgotten() {
    let (there, mut disks) = common_past(100_000);
    let here = there.copied();
    change(&mut disks, 3, 1);
    At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks);
    for _ in 0..40 {
        // What is left of one that ended there: its intent, which takes the id.
        let begun = here.copied();
        let (_, imported) = stored(&Import::new(&begun, &there).run().unwrap())[0];
        let intent = repo_format::BlobName::intent(&WriterId::new(HERE).unwrap(), imported);
        here.put_new(&intent, &begun.get(&intent, None).unwrap()).unwrap();
    }
    let (_, imported) = stored(&Import::new(&here, &there).run().unwrap())[0];
    holds(&open(&here), imported, &disks);
    forget_one(&here, imported);
    assert!(stored(&Import::new(&here, &there).run().unwrap()).is_empty());
}

#[test]
fn a_session_that_was_aborted_here_is_imported_under_another_id() {
    let (there, mut disks) = common_past(100_000);
    let here = there.copied();
    change(&mut disks, 3, 1);
    let original = At { store: &there, writer: THERE, vm: "vm", minute: 3 }.back_up(&disks).snapshot;
    // Its intent arrived and nothing else, and whoever promoted the replica aborted it.
    let repository = open(&here);
    let name = snapshot(&open(&there), original).name;
    let intent = repo_format::BlobName::intent(&name.writer, original);
    here.put_new(&intent, &there.get(&intent, None).unwrap()).unwrap();
    let abort = repo_format::Decision::Abort(repo_format::Abort {
        session: original,
        time: NOW,
        program: "test".to_owned(),
        by: repo_format::AbortBy::Writer,
    });
    here.put_new(&name.blob(), &abort.seal(repository.keys(), &name, [5; 32])).unwrap();
    let imported = stored(&Import::new(&here, &there).run().unwrap());
    holds(&repository, imported[0].1, &disks);
}
