//! A backup in which any single call goes wrong leaves nothing behind and makes no restore point that is wrong.

use crate::scene::{BLOCK, FOLDER, History, MIB, Scene};
use crate::world::noise;
use keepstone_peers::vcenter::{Failure, Fault, Violation};
use std::sync::Arc;

/// The other disk stays as it is.
const KEYS: [&str; 1] = ["scsi0-0"];

/// The calls of such a backup that are no questions.
const CHANGING: [&str; 4] = ["Login", "CreateSnapshot_Task", "RemoveSnapshot_Task", "Logout"];

fn scene() -> (Scene, History) {
    let scene = Scene::with_disks(&[3 * MIB, MIB]);
    scene.vm.disk(0).write(0, &noise(1, 3 << 20));
    let mut history = History::default();
    scene.back_up_well(&[]);
    assert_eq!(history.note(&scene, &KEYS), 1);
    (scene, history)
}

/// Every call of an incremental backup.
fn calls(scene: &Scene, history: &mut History) -> Vec<(String, u64)> {
    scene.vm.disk(0).write(0, &noise(2, 512));
    let counts = scene.calls_of(&FOLDER);
    history.note(scene, &KEYS);
    counts.into_iter().flat_map(|(method, count)| (1..=count).map(move |nth| (method.clone(), nth))).collect()
}

/// Backs up once for every call, that call failing, with another change each time.
/// Returns how many of the backups failed.
fn each_call_fails(share: usize, shares: usize, failure: &Failure) -> usize {
    let (scene, mut history) = scene();
    let mut calls = calls(&scene, &mut history);
    // That an answer to a question is lost is as if it had not been asked.
    calls.retain(|(method, _)| *failure != Failure::AnswerLost || CHANGING.contains(&method.as_str()));
    let mut failed = 0;
    for (number, (method, nth)) in (0..).zip(calls.iter()).skip(share).step_by(shares) {
        scene.vm.disk(0).write(number % 40 * BLOCK, &noise(number + 100, 700));
        scene.vcenter.fail(method, *nth, failure.clone());
        let before = scene.ours();
        let ended = scene.run(&FOLDER);
        scene.vcenter.heal(method);
        let of = format!("{failure:?} of {method} {nth}: {ended:?}");
        // In the end it is seen that there is a restore point if and only if that was said.
        match ended.code {
            Some(0 | 4) => history.add(&scene, &ended.json(), &KEYS),
            Some(1) => {
                assert_eq!(ended.stdout, "", "{of}");
                assert!(ended.stderr.contains("keepstone: error: "), "{of}");
                failed += 1;
            }
            _ => panic!("{of}"),
        }
        // What could not be removed was told, and is not asked to be forgotten.
        for left in scene.ours().into_iter().filter(|left| !before.contains(left)) {
            assert!(ended.stderr.contains(&left), "{of}");
            assert_ne!(ended.code, Some(0), "{of}");
        }
        // A session that nobody could leave, or whose name got lost, ends by itself.
        let lost = method == "Logout" || (method == "Login" && *failure == Failure::AnswerLost);
        let mut violations = scene.vcenter.violations();
        violations.retain(|violation| !lost || !matches!(violation, Violation::SessionLeft { .. }));
        assert_eq!(violations, [], "{of}");
        scene.vcenter.expire_sessions();
    }
    scene.vm.disk(0).write(5 * BLOCK, &noise(99, 700));
    let report = scene.back_up_well(&[]);
    assert_eq!(report["disks"][0]["mode"], "incremental");
    history.add(&scene, &report, &KEYS);
    history.all_restore(&scene);
    failed
}

/// The same, distributed among scenes that wait beside each other.
fn each_call_fails_with(failure: &Failure, shares: usize) -> usize {
    std::thread::scope(|threads| {
        let each = |share| threads.spawn(move || each_call_fails(share, shares, failure));
        let running: Vec<_> = (0..shares).map(each).collect();
        running.into_iter().map(|thread| thread.join().expect("a share of the calls")).sum()
    })
}

#[test]
fn with_a_fault() {
    let failed = each_call_fails_with(&Fault::new("GenericVmConfigFault", "Something is wrong.").into(), 6);
    assert!(failed > 10, "only {failed} failed");
}

#[test]
fn with_a_fault_of_its_task() {
    let (scene, mut history) = scene();
    let fault = Failure::Task(Fault::new("GenericVmConfigFault", "Something is wrong."));
    for (method, what, code) in
        [("CreateSnapshot_Task", "make the snapshot", 1), ("RemoveSnapshot_Task", "remove the snapshot", 4)]
    {
        scene.vm.disk(0).write(BLOCK, &noise(u64::from(code == 4), 700));
        scene.vcenter.fail(method, 1, fault.clone());
        let ended = scene.run(&FOLDER);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let expected = format!("vCenter could not {what}: Something is wrong. (GenericVmConfigFault)");
        assert!(ended.stderr.contains(&expected), "{ended:?}");
        assert_eq!(scene.ours().len(), usize::from(code == 4));
        history.note(&scene, &KEYS);
        assert_eq!(scene.vcenter.violations(), []);
    }
    scene.back_up_well(&[]);
    history.note(&scene, &KEYS);
    history.all_restore(&scene);
}

#[test]
fn with_a_connection_that_is_cut() {
    // All questions are asked again, but for the one that makes the snapshot; removing it is told of.
    assert_eq!(each_call_fails_with(&Failure::Dropped, 8), 1);
}

#[test]
fn with_an_answer_that_is_lost() {
    // The snapshot is found by its name, and removed.
    assert_eq!(each_call_fails_with(&Failure::AnswerLost, 2), 1);
}

/// Whichever call finds that the session has ended, the backup goes on in a new one.
#[test]
fn a_session_that_ends_at_any_call_is_replaced() {
    std::thread::scope(|threads| {
        for share in 0..6 {
            threads.spawn(move || {
                let (scene, mut history) = scene();
                let calls = calls(&scene, &mut history);
                for (number, (method, nth)) in (0..).zip(calls.iter()).skip(share).step_by(6) {
                    scene.vm.disk(0).write(number % 40 * BLOCK, &noise(number + 100, 700));
                    let vcenter = Arc::downgrade(&scene.vcenter);
                    scene.vcenter.at(method, *nth, move || {
                        vcenter.upgrade().expect("the scene is there").expire_sessions();
                    });
                    let (code, report) = scene.back_up(&[]);
                    assert_eq!(code, 0, "{method} {nth}: {report}");
                    history.add(&scene, &report, &KEYS);
                }
                history.all_restore(&scene);
            });
        }
    });
}

#[test]
fn a_vm_that_is_deleted_in_the_middle() {
    for (method, nth) in [
        ("CreateSnapshot_Task", 1),
        ("GET /folder", 2),
        ("RetrievePropertiesEx", 4),
        ("RemoveSnapshot_Task", 1),
    ] {
        let scene = Scene::with_disks(&[3 * MIB]);
        scene.vm.disk(0).write(0, &noise(1, 3 << 20));
        let vm = scene.vm.clone();
        scene.vcenter.at(method, nth, move || vm.delete());
        let ended = scene.run(&FOLDER);
        if method == "RemoveSnapshot_Task" {
            // With the VM its snapshots have gone, and the backup is whole.
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(scene.snapshots().len(), 1);
        } else {
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{method}: {ended:?}");
            assert_eq!(scene.snapshots(), [""; 0]);
        }
        // What nobody could know of before it was read.
        let known = |violation: &Violation| !matches!(violation, Violation::UnfrozenDiskRead { .. });
        assert_eq!(scene.vcenter.violations().into_iter().filter(known).collect::<Vec<_>>(), []);
    }
}
