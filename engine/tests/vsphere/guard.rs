//! The guard of snapshots against the fake vCenter: whatever happens, nothing is left behind and nothing of others is
//! touched.

use keepstone_engine::Entropy;
use keepstone_engine::tls::Trust;
use keepstone_engine::vsphere::{
    Consistency, Guard, GuardError, Journal, MoRef, Power, QuiescePolicy, SnapshotName, TakeOver, VCenter,
    VCenterSettings, WaitError, Waiter,
};
use keepstone_peers::vcenter::{self, DiskSpec, Failure, Fault, Vm, VmSpec};
use repo_format::{RepositoryId, WriterId};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use zeroize::Zeroizing;

/// A fake with one virtual machine, and where a host keeps its journal.
struct World {
    peer: vcenter::VCenter,
    machine: Vm,
    vm: MoRef,
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let peer = vcenter::VCenter::start(directory.path());
        let spec = VmSpec { disks: vec![DiskSpec::of(1 << 20)], ..VmSpec::default() };
        let machine = peer.add_vm("DC0/vm/web", &spec);
        let vm = MoRef::new("VirtualMachine", machine.id());
        Self { peer, machine, vm, directory }
    }

    fn journal_file(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    /// Does something with a guard, in a session of its own that is logged out of.
    fn guard<T>(&self, number: u8, act: impl FnOnce(&mut Guard<'_>) -> T) -> T {
        let client = VCenter::connect(&settings(&self.peer)).unwrap();
        let waiter = Waiter {
            vcenter: &client,
            pause: &|_| ControlFlow::Continue(()),
            patience: Duration::from_mins(1),
        };
        let mut journal = Journal::open(&self.journal_file()).unwrap();
        let name = name(number);
        let mut guard = Guard { waiter, cleaning: waiter, vm: &self.vm, name: &name, journal: &mut journal };
        let done = act(&mut guard);
        // What is broken on purpose may break this too.
        let _ = client.logout();
        done
    }

    /// Makes and removes a snapshot, as a backup does that goes well. Returns what was removed before.
    fn whole_run(&self, number: u8) -> Vec<String> {
        self.guard(number, |guard| {
            let (info, left) = guard.clean(TakeOver::No).unwrap();
            guard.make(info.power, QuiescePolicy::Preferred).unwrap();
            guard.remove().unwrap();
            left
        })
    }

    fn noted(&self) -> String {
        std::fs::read_to_string(self.journal_file()).unwrap_or_default()
    }
}

fn settings(peer: &vcenter::VCenter) -> VCenterSettings {
    let host = peer.host();
    let (host, port) = host.split_once(':').unwrap();
    VCenterSettings {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: vcenter::USER.to_owned(),
        password: Zeroizing::new(vcenter::PASSWORD.to_owned()),
        trust: Trust::CaFile(peer.ca_file().to_owned()),
        connect_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        pause: Arc::new(|_| {}),
    }
}

fn name(number: u8) -> SnapshotName {
    SnapshotName::new(
        RepositoryId([0xab; 16]),
        &WriterId::new("backup-host").unwrap(),
        &Entropy::new([number; 32]),
    )
}

const NONE: [String; 0] = [];

#[test]
fn a_snapshot_is_made_and_removed_and_nothing_stays() {
    let world = World::new();
    world.machine.create_foreign_snapshot("theirs");
    world.guard(1, |guard| {
        let (info, left) = guard.clean(TakeOver::No).unwrap();
        assert_eq!((info.power, left), (Power::On, Vec::new()));
        let (_, consistency) = guard.make(info.power, QuiescePolicy::Required).unwrap();
        assert_eq!(consistency, Consistency::Quiesced);
        let made = name(1).to_string();
        assert_eq!(world.machine.snapshot_names(), ["theirs", made.as_str()]);
        assert!(world.noted().contains(&made));
        guard.remove().unwrap();
    });
    assert_eq!(world.machine.snapshot_names(), ["theirs"]);
    assert_eq!(world.noted(), "");
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn a_guest_that_does_not_come_to_rest_is_as_after_a_power_failure_or_a_failure() {
    let world = World::new();
    world.peer.fail_quiescing(2);
    world.guard(1, |guard| {
        let (_, consistency) = guard.make(Power::On, QuiescePolicy::Preferred).unwrap();
        assert_eq!(consistency, Consistency::CrashConsistent);
        guard.remove().unwrap();
    });
    assert_eq!(world.peer.count("CreateSnapshot_Task"), 3);
    world.peer.fail_quiescing(2);
    let failed = world.guard(2, |guard| guard.make(Power::On, QuiescePolicy::Required)).unwrap_err();
    assert!(matches!(failed.error, GuardError::Wait(WaitError::Failed { .. })), "{failed:?}");
    assert!(failed.left.is_none(), "{failed:?}");
    assert_eq!(world.noted(), "");
    assert_eq!(world.machine.snapshot_names(), NONE);
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn what_this_host_left_behind_is_removed_and_what_another_may_need_is_not() {
    let world = World::new();
    let mut journal = Journal::open(&world.journal_file()).unwrap();
    journal.note(&name(1).to_string()).unwrap();
    world.machine.create_foreign_snapshot("theirs");
    world.machine.create_leftover_snapshot(&name(1).to_string());
    assert_eq!(world.whole_run(2), [name(1).to_string()]);
    assert_eq!(world.machine.snapshot_names(), ["theirs"]);

    // Not noted here: another host may be reading it, unless it is old.
    let unknown = name(3).to_string();
    world.machine.create_leftover_snapshot(&unknown);
    let refused = world.guard(4, |guard| guard.clean(TakeOver::No).map(drop)).unwrap_err();
    assert!(matches!(&refused, GuardError::MayBeRunning { name } if *name == unknown), "{refused:?}");
    assert_eq!(world.machine.snapshot_names(), ["theirs", unknown.as_str()]);
    world.machine.set_snapshot_age(&unknown, Duration::from_hours(25));
    assert_eq!(world.whole_run(5), [unknown]);

    let unknown = name(6).to_string();
    world.machine.create_leftover_snapshot(&unknown);
    let (_, left) = world.guard(7, |guard| guard.clean(TakeOver::Yes)).unwrap();
    assert_eq!(left, [unknown]);
    assert_eq!(world.machine.snapshot_names(), ["theirs"]);
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn disks_that_were_left_unmerged_are_merged_before_anything_else() {
    let world = World::new();
    world.peer.leave_unconsolidated(1);
    world.whole_run(1);
    assert!(!world.machine.consolidation_needed());
    assert_eq!(world.machine.disk(0).file(), "[datastore1] web/web.vmdk");
    world.machine.set_consolidation_needed(true);
    world.whole_run(2);
    assert_eq!(world.peer.count("ConsolidateVMDisks_Task"), 2);
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn no_snapshot_is_made_while_a_consolidation_is_stuck() {
    let world = World::new();
    world.machine.set_consolidation_needed(true);
    world.peer.slow_tasks("ConsolidateVMDisks_Task", Some(u64::MAX));
    for number in 1..3 {
        let late = world.guard(number, |guard| guard.clean(TakeOver::No).map(drop)).unwrap_err();
        assert!(matches!(late, GuardError::Wait(WaitError::Late { .. })), "{late:?}");
    }
    world.peer.slow_tasks("ConsolidateVMDisks_Task", None);

    let world = World::new();
    world.machine.set_consolidation_needed(true);
    world.peer.fail_every("ConsolidateVMDisks_Task", Failure::Task(Fault::new("FileLocked", "locked")));
    let failed = world.guard(3, |guard| guard.clean(TakeOver::No).map(drop)).unwrap_err();
    assert!(matches!(failed, GuardError::Wait(WaitError::Failed { .. })), "{failed:?}");
    assert_eq!(world.peer.count("CreateSnapshot_Task"), 0);
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn tasks_of_others_are_waited_for() {
    let world = World::new();
    world.machine.start_other_task(5);
    world.peer.slow_tasks("RemoveSnapshot_Task", Some(4));
    world.peer.slow_tasks("CreateSnapshot_Task", Some(3));
    assert_eq!(world.whole_run(1), NONE);
    assert_eq!(world.whole_run(2), NONE);
    assert_eq!(world.peer.count("CreateSnapshot_Task"), 2);
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn a_virtual_machine_that_is_deleted_leaves_nothing_to_remove() {
    let world = World::new();
    let removed = world.guard(1, |guard| {
        guard.make(Power::On, QuiescePolicy::Off).unwrap();
        world.machine.delete();
        guard.remove()
    });
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(world.noted(), "");
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn a_snapshot_that_may_still_come_stays_noted_until_the_next_run() {
    let world = World::new();
    // The connection breaks before the server has done anything.
    world.peer.fail("CreateSnapshot_Task", 1, Failure::Dropped);
    let failed = world.guard(1, |guard| guard.make(Power::On, QuiescePolicy::Off)).unwrap_err();
    assert!(matches!(failed.error, GuardError::Wait(WaitError::Asking { .. })), "{failed:?}");
    assert!(failed.left.is_none(), "{failed:?}");
    assert_eq!(world.noted().trim(), name(1).to_string());
    world.machine.create_leftover_snapshot(&name(1).to_string());
    assert_eq!(world.whole_run(2), [name(1).to_string()]);
    assert_eq!(world.noted(), "");
}

#[test]
fn a_snapshot_that_cannot_be_removed_after_a_failure_is_told() {
    let world = World::new();
    world.peer.fail("CreateSnapshot_Task", 1, Failure::AnswerLost);
    world.peer.fail_every("RemoveSnapshot_Task", Failure::Task(Fault::new("FileLocked", "locked")));
    let failed = world.guard(1, |guard| guard.make(Power::On, QuiescePolicy::Off)).unwrap_err();
    assert!(matches!(failed.left.as_deref(), Some(GuardError::Wait(WaitError::Failed { .. }))), "{failed:?}");
    world.peer.heal("RemoveSnapshot_Task");
    assert_eq!(world.whole_run(2), [name(1).to_string()]);
}

/// A run breaks at the nth call of a method, and the next one has to find all in order.
fn breaks_and_recovers(method: &str, nth: u64, failure: &Failure) -> bool {
    let world = World::new();
    world.machine.create_foreign_snapshot("theirs");
    // The answers to later tries are lost as well, so that the run cannot clean up.
    for later in nth..nth + 40 {
        world.peer.fail(method, later, failure.clone());
    }
    let outcome = world.guard(1, |guard| {
        let (info, _) = guard.clean(TakeOver::No)?;
        guard.make(info.power, QuiescePolicy::Preferred).map_err(|not_made| not_made.error)?;
        guard.remove()
    });
    world.peer.heal(method);
    // What is reported as done is done.
    if outcome.is_ok() {
        assert_eq!(world.machine.snapshot_names(), ["theirs"], "{method} {nth}");
    }
    world.whole_run(2);
    assert_eq!(world.machine.snapshot_names(), ["theirs"], "{method} {nth} {failure:?}");
    assert!(!world.machine.consolidation_needed());
    world.peer.expire_sessions();
    assert_eq!(world.peer.violations(), [], "{method} {nth} {failure:?}");
    outcome.is_err()
}

#[test]
fn a_run_that_breaks_at_any_call_leaves_nothing_after_the_next() {
    let ways = [Failure::Dropped, Failure::AnswerLost, Failure::Status(503)];
    let mut broken = 0;
    for failure in &ways {
        for method in ["CreateSnapshot_Task", "RemoveSnapshot_Task"] {
            broken += usize::from(breaks_and_recovers(method, 1, failure));
        }
        for nth in 1..=16 {
            broken += usize::from(breaks_and_recovers("RetrievePropertiesEx", nth, failure));
        }
    }
    // Every run of those breaks, but for calls that come after the last.
    assert!(broken >= 3 * 14, "{broken}");
}
