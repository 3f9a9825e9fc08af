//! The guard of snapshots, at a server that nobody wrote for it.

use std::ops::ControlFlow;
use std::time::Duration;

use keepstone_engine::Entropy;
use keepstone_engine::vsphere::{
    Consistency, Guard, GuardError, Journal, QuiescePolicy, Quiescing, SnapshotName, TakeOver, Waiter,
};
use keepstone_peers::vcsim::Layout;
use repo_format::{RepositoryId, WriterId};

use super::{MIB, World};

/// More than a test takes, however fast it asks.
const PATIENCE: Duration = Duration::from_hours(1_000_000);

fn name(writer: &str, number: u8) -> SnapshotName {
    SnapshotName::new(RepositoryId([5; 16]), &WriterId::new(writer).unwrap(), &Entropy::new([number; 32]))
}

impl World {
    fn waiter(&self) -> Waiter<'_> {
        Waiter { vcenter: &self.vcenter, pause: &|_| ControlFlow::Continue(()), patience: PATIENCE }
    }

    fn guard<'a>(&'a self, name: &'a SnapshotName, journal: &'a mut Journal) -> Guard<'a> {
        Guard { waiter: self.waiter(), cleaning: self.waiter(), vm: &self.vm, name, journal }
    }

    fn make_snapshot_called(&self, name: &str) {
        let task = self.vcenter.create_snapshot(&self.vm, name, "", Quiescing::None).unwrap();
        self.finish(&task);
    }

    fn snapshot_names(&self) -> Vec<String> {
        self.vcsim.machine("web").snapshots.into_iter().map(|snapshot| snapshot.name).collect()
    }
}

#[test]
fn leftovers_are_removed_and_the_snapshots_of_others_stay() {
    let world = World::new(&Layout::of(&[("web", &[MIB])]));
    let [left, strange, ours] = [name("host1", 1), name("host2", 2), name("host1", 3)];
    world.vcsim.create_snapshot("web", "before the upgrade");
    world.make_snapshot_called(&left.to_string());
    world.make_snapshot_called(&strange.to_string());
    let all = ["before the upgrade".to_owned(), left.to_string(), strange.to_string()];
    assert_eq!(world.snapshot_names(), all);
    let contents = world.vcsim.contents("web", "scsi0:0");

    let mut journal = Journal::nowhere();
    let mut guard = world.guard(&ours, &mut journal);
    let refused = guard.clean(TakeOver::No).unwrap_err();
    assert!(matches!(refused, GuardError::MayBeRunning { .. }), "{refused:?}");
    assert_eq!(world.snapshot_names(), all);

    let (info, removed) = guard.clean(TakeOver::Yes).unwrap();
    assert_eq!(removed, [left.to_string()]);
    let others = ["before the upgrade".to_owned(), strange.to_string()];
    assert_eq!(world.snapshot_names(), others);

    let (_, consistency) = guard.make(info.power, QuiescePolicy::Required).unwrap();
    assert_eq!(consistency, Consistency::Quiesced);
    let made = world.vcsim.machine("web").snapshots.pop().unwrap();
    assert_eq!((made.name, made.quiesced), (ours.to_string(), true));

    guard.remove().unwrap();
    assert_eq!(world.snapshot_names(), others);
    assert!(world.vcsim.contents("web", "scsi0:0") == contents);
}

#[test]
fn what_was_noted_is_removed_without_being_asked_for_and_nothing_twice() {
    let world = World::new(&Layout::of(&[("web", &[MIB])]));
    let [first, second] = [name("host1", 1), name("host1", 2)];
    let mut journal = Journal::nowhere();
    let power = world.vcenter.vm(&world.vm).unwrap().power;
    world.guard(&first, &mut journal).make(power, QuiescePolicy::Off).unwrap();

    // As if that one had been killed, on the same host.
    let mut guard = world.guard(&second, &mut journal);
    let (_, removed) = guard.clean(TakeOver::No).unwrap();
    assert_eq!(removed, [first.to_string()]);
    guard.make(power, QuiescePolicy::Off).unwrap();
    // Somebody else cleans up.
    world.vcsim.remove_snapshot("web", &second.to_string());
    guard.remove().unwrap();
    assert_eq!(world.snapshot_names(), Vec::<String>::new());
    assert_eq!(guard.clean(TakeOver::No).unwrap().1, Vec::<String>::new());
}
