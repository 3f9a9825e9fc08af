//! A repository that was kept for long: snapshots were pinned and forgotten, packs deleted, rescued and packed again, one
//! session was aborted, another one waited for, and one generation is open.

use crate::watched::{Answer, Verb, WatchedStore};
use crate::world::{NOW, create, memory_index, mixed, noise, open, retention_key, small_geometry_of};
use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, forget};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::pins::{self, Pinning};
use keepstone_engine::prune::{PruneEnd, PruneJob, PruneReport, RepackPolicy, Unused, prune};
use keepstone_engine::snapshots::{Selector, Snapshot, list};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Extent, Repository};
use repo_format::{BlobKind, ChunkerParams, SessionId, WriterId};
use std::sync::Mutex;

const REGION: usize = 64 << 10;
const HOUR: u64 = 60 * 60 * 1000;

/// A disk that was backed up.
pub struct Kept {
    pub vm: &'static str,
    pub disk: &'static str,
    pub bytes: Vec<u8>,
    run: u8,
}

pub struct Retained {
    pub store: MemoryStore,
    /// The disks of all snapshots that were not forgotten, the oldest first.
    pub kept: Vec<Kept>,
    /// The snapshots that were.
    pub forgotten: [SessionId; 2],
}

impl Retained {
    /// The snapshot that has a disk.
    pub fn snapshot(&self, kept: &Kept) -> Snapshot {
        let listed = list(&open(&self.store), Some(kept.vm)).expect("it lists").snapshots;
        listed.into_iter().find(|it| it.commit.time == time_of(kept.run)).expect("it is a snapshot")
    }
}

/// Makes the repository.
pub fn repository() -> Retained {
    let mut history = History { store: MemoryStore::new(), kept: Vec::new(), run: 0 };
    history.store.set_time(NOW);
    create(&history.store, small_geometry_of(ChunkerParams::default().name));
    let data = MemoryDisk::new(noise(2, 100_000));
    let mut system = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(mixed(1, 300_001)) };
    let day_1 = system.bytes.clone();
    let first = history.back_up("alpha", &[("data", &data), ("system", &system)]);
    change(&mut system, REGION, &noise(3, 2 * REGION), ("day 1", "day 2"));
    history.back_up("alpha", &[("data", &data), ("system", &system)]);
    history.back_up("beta", &[("disk0", &MemoryDisk::new([&system.bytes[..], &noise(5, 50_000)].concat()))]);
    history.pin("alpha", Pinning::Pinned { reason: "before the upgrade" });
    history.pin("beta", Pinning::Pinned { reason: "by mistake" });
    history.pin("beta", Pinning::NotPinned);
    history.forget(first);

    // While a prune waits for a host that died, and for another one, that one needs what is condemned.
    let dead = history.dies("host-b", "gamma", &noise(6, 80_000));
    let delta = history.back_up_during_a_prune("delta", &MemoryDisk::new(day_1[REGION..2 * REGION].to_vec()));
    let report = history.prune(&[dead]);
    assert_eq!((report.generation, report.sealed), (Some(1), true), "{report:?}");

    // A snapshot whose names pass through the record of what was moved.
    change(&mut system, 3 * REGION, &[7; 512], ("day 2", "day 3"));
    history.back_up("alpha", &[("system", &system)]);

    // A generation that waits for a host that may yet commit.
    history.forget(delta);
    history.dies("host-d", "epsilon", &noise(8, 20_000));
    let report = history.prune(&[]);
    assert_eq!((report.generation, report.waiting.len()), (Some(2), 1), "{report:?}");

    let forgotten = [first, delta];
    let History { store, mut kept, .. } = history;
    kept.retain(|(session, _)| !forgotten.contains(session));
    Retained { store, kept: kept.into_iter().map(|(_, kept)| kept).collect(), forgotten }
}

/// Changes a part of a disk between two points.
fn change(disk: &mut MemoryDisk, at: usize, bytes: &[u8], (since, now): (&str, &str)) {
    disk.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    disk.changes = Some((since.into(), vec![Extent { start: at as u64, length: bytes.len() as u64 }]));
    disk.change_id = Some(now.into());
}

/// What is done, each in a run of its own, which makes its time and randomness.
struct History {
    store: MemoryStore,
    kept: Vec<(SessionId, Kept)>,
    run: u8,
}

fn time_of(run: u8) -> u64 {
    NOW + u64::from(run) * HOUR
}

type Disks<'a> = [(&'static str, &'a MemoryDisk)];

impl History {
    fn begin(&mut self) -> (Entropy, u64) {
        self.run += 1;
        self.store.set_time(time_of(self.run));
        (Entropy::new([self.run; 32]), time_of(self.run))
    }

    fn repository(&self) -> Repository<'_> {
        open(&self.store)
    }

    fn back_up(&mut self, vm: &'static str, disks: &Disks<'_>) -> SessionId {
        let run = self.begin();
        back_up(&self.store, "host-a", vm, disks, run).expect("it is backed up");
        self.keep(vm, disks)
    }

    /// The session of the newest snapshot, which has these disks.
    fn keep(&mut self, vm: &'static str, disks: &Disks<'_>) -> SessionId {
        let session = self.latest(vm).session();
        for (disk, source) in disks {
            let kept = Kept { vm, disk, bytes: source.bytes.clone(), run: self.run };
            self.kept.push((session, kept));
        }
        session
    }

    fn latest(&self, vm: &str) -> Snapshot {
        crate::world::latest(&self.repository(), vm)
    }

    /// Begins a session that stores everything and decides nothing.
    fn dies(&mut self, writer: &str, vm: &str, bytes: &[u8]) -> SessionId {
        let run = self.begin();
        let store = WatchedStore::new(&self.store, |call| {
            if call.is(Verb::Put, "r/") { Answer::Refused } else { Answer::Given }
        });
        back_up(&store, writer, vm, &[("disk0", &MemoryDisk::new(bytes.to_vec()))], run)
            .expect_err("it cannot commit");
        let of_writer = |kind| match kind {
            Some(BlobKind::Intent { writer: it, session }) if it.as_str() == writer => Some(session),
            _ => None,
        };
        self.store.names().iter().find_map(|name| of_writer(name.kind())).expect("it began")
    }

    /// Backs up a disk; before it commits, a prune goes as far as it can.
    fn back_up_during_a_prune(&mut self, vm: &'static str, disk: &MemoryDisk) -> SessionId {
        let run = self.begin();
        let at_commit = Mutex::new(Some(Entropy::new([0x80 | self.run; 32])));
        let time = run.1;
        let store = WatchedStore::new(&self.store, |call| {
            if let Some(entropy) =
                call.is(Verb::Put, "r/").then(|| at_commit.lock().unwrap().take()).flatten()
            {
                let report = pruned(&self.store, &[], (entropy, time));
                assert_eq!((report.generation, report.waiting.len()), (Some(0), 2), "{report:?}");
            }
            Answer::Given
        });
        back_up(&store, "host-c", vm, &[("disk0", disk)], run).expect("it is waited for");
        drop(store);
        self.keep(vm, &[("disk0", disk)])
    }

    fn prune(&mut self, abort: &[SessionId]) -> PruneReport {
        let run = self.begin();
        pruned(&self.store, abort, run)
    }

    fn pin(&mut self, vm: &str, pinning: Pinning<'_>) {
        let (entropy, time) = self.begin();
        let repository = self.repository();
        let snapshot = self.latest(vm);
        pins::set(&repository, &retention_key(&repository), &snapshot, (pinning, time), &entropy)
            .expect("it is pinned or unpinned");
    }

    fn forget(&mut self, session: SessionId) {
        let (entropy, time) = self.begin();
        let repository = self.repository();
        let job = ForgetJob {
            what: What::Named(&[Selector::Id(session.to_string())]),
            last_ones: LastOnes::MayGo,
            times: Times::Checked,
            time,
            entropy: &entropy,
        };
        forget(&repository, &retention_key(&repository), &job, &Quiet).expect("it is forgotten");
    }
}

fn back_up(
    store: &dyn BlobStore,
    writer: &str,
    vm: &str,
    disks: &Disks<'_>,
    (entropy, time): (Entropy, u64),
) -> Result<(), EngineError> {
    let repository = open(store);
    let mut index = memory_index(&repository);
    sync(&mut index, store, repository.keys(), &Preference::default(), &Quiet)?;
    let writer = WriterId::new(writer).expect("a writer id");
    let job = BackupJob {
        vm,
        writer: &writer,
        disks: disks.iter().map(|(key, source)| JobDisk::new(key, *source as &dyn DiskSource)).collect(),
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: Vec::new(),
        properties: Vec::new(),
        time,
        program: "test",
        entropy,
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(&repository, &mut index, &job, &Quiet).map(drop)
}

/// Prunes all that is not needed, however little of a pack that is.
fn pruned(store: &MemoryStore, abort: &[SessionId], (entropy, time): (Entropy, u64)) -> PruneReport {
    let repository = open(store);
    let job = PruneJob {
        writer: &WriterId::new("pruner").expect("a writer id"),
        time,
        program: "test",
        entropy: &entropy,
        patience: 1000 * HOUR,
        abort,
        unfinished: Unfinished::MayRun { ended: &[] },
        condemn_at_most: 100,
        repack: RepackPolicy { max_unused: Unused::Bytes(0), max_repack: None, worth: &|_| true },
        end: PruneEnd::All,
    };
    prune(&repository, &retention_key(&repository), &job, &Quiet).expect("it prunes")
}
