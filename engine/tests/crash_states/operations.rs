//! A small repository, and what is done to it.

use crate::disks::Disks;
use crate::lab::{NOW, PASSWORD, cheap_kdf, retention_key};
use crate::random::Random;
use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, forget};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::prune::{PruneEnd, PruneJob, RepackPolicy, Unused, prune};
use keepstone_engine::snapshots::{self, Selector};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{Finding, FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{ChunkerName, ChunkerParams, Geometry, SessionId, SlotName, WriterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

const DAY: u64 = 24 * 60 * 60 * 1000;
/// How old an undecided session may get.
const PATIENCE: u64 = 7 * DAY;
/// Versions of the VM that is backed up; more than any sequence needs.
const VERSIONS: usize = 8;
/// Prunes after which nothing is left to do.
const PRUNES_MAX: u64 = 6;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Full,
    Incremental,
    Forget,
    Prune,
    Repack,
    Verify,
}

impl Operation {
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Incremental, Self::Forget, Self::Prune, Self::Repack, Self::Verify];
}

/// The states of a VM, one after the other, and another VM that shares content with it.
fn disks() -> &'static Arc<Disks> {
    static DISKS: OnceLock<Arc<Disks>> = OnceLock::new();
    DISKS.get_or_init(|| {
        let disks = Disks::alike(&["one", "two"], 12_000);
        let mut random = Random::new(7);
        for _ in 0..VERSIONS {
            disks.next_version(0, &mut random);
        }
        disks.next_version(1, &mut random);
        Arc::new(disks)
    })
}

/// A repository, what was acknowledged, and how far time went.
#[derive(Clone)]
pub struct Scene {
    pub store: MemoryStore,
    /// The version of each snapshot that was reported and not forgotten.
    holds: BTreeMap<SessionId, usize>,
    forgotten: BTreeSet<SessionId>,
    next_version: usize,
    /// Operations that may have changed something.
    changes: u64,
}

impl Scene {
    /// Three snapshots, in a repository that was pruned.
    pub fn new() -> Self {
        let store = MemoryStore::new();
        store.set_time(NOW);
        make(&store);
        let mut scene =
            Self { store, holds: BTreeMap::new(), forgotten: BTreeSet::new(), next_version: 0, changes: 0 };
        for operation in [Operation::Full, Operation::Incremental] {
            scene.run(operation, &scene.store.clone()).expect("nothing fails");
        }
        scene.skip();
        scene.back_up(("two", VERSIONS), Reading::Changes, &scene.store.clone()).expect("nothing fails");
        scene.run(Operation::Prune, &scene.store.clone()).expect("nothing fails");
        scene
    }

    /// An independent copy.
    pub fn copied(&self) -> Self {
        Self { store: self.store.copied(), ..self.clone() }
    }

    /// The same with another content of the store.
    pub fn with(&self, store: MemoryStore) -> Self {
        Self { store, ..self.clone() }
    }

    /// What tells two scenes apart of which the stores are equal.
    pub fn told(&self) -> String {
        format!("{:?} {:?} {}", self.holds, self.forgotten, self.next_version)
    }

    fn time(&self) -> u64 {
        NOW + self.changes * DAY
    }

    /// Runs an operation as a process of its own.
    pub fn run(&mut self, operation: Operation, store: &dyn BlobStore) -> Result<(), EngineError> {
        if operation != Operation::Verify {
            self.changes += 1;
        }
        self.store.set_time(self.time());
        match operation {
            Operation::Full => self.back_up_next(Reading::Everything, store),
            Operation::Incremental => self.back_up_next(Reading::Changes, store),
            Operation::Forget => self.forget_oldest(store),
            Operation::Prune => self.prune(Unused::Unlimited, store),
            Operation::Repack => self.prune(Unused::Percent(0), store),
            Operation::Verify => verified(store, self.time()).map(drop),
        }
    }

    /// Lets a day pass: what runs then is another process.
    pub fn skip(&mut self) {
        self.changes += 1;
    }

    /// Randomness that is another one for each process.
    fn entropy(&self) -> Entropy {
        Entropy::new(*blake3::hash(&self.changes.to_le_bytes()).as_bytes())
    }

    fn back_up_next(&mut self, reading: Reading, store: &dyn BlobStore) -> Result<(), EngineError> {
        self.back_up(("one", self.next_version), reading, store)?;
        self.next_version += 1;
        Ok(())
    }

    fn back_up(
        &mut self,
        (vm, version): (&str, usize),
        reading: Reading,
        store: &dyn BlobStore,
    ) -> Result<(), EngineError> {
        let repository = Repository::open(store, PASSWORD)?;
        let mut index = crate::lab::memory_index(&repository);
        sync(&mut index, store, repository.keys(), &Preference::default(), &Quiet)?;
        let sources = disks().sources(version);
        let job = BackupJob {
            vm,
            writer: &WriterId::new("host-a").expect("a writer's name"),
            disks: sources.iter().map(|source| JobDisk::new(source.key, source)).collect(),
            reading,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: vec![format!("v{version}")],
            properties: Vec::new(),
            time: self.time(),
            program: "test",
            entropy: self.entropy(),
            unfinished: Unfinished::Ended,
            checkpoint_due: &|| false,
        };
        let report = backup(&repository, &mut index, &job, &Quiet)?;
        self.holds.insert(report.snapshot, version);
        Ok(())
    }

    /// The oldest snapshot that is known of, of the VM that is backed up again and again.
    pub fn oldest(&self) -> Option<SessionId> {
        let of_one = self.holds.iter().filter(|(_, version)| **version < VERSIONS);
        of_one.min_by_key(|(_, version)| **version).map(|(session, _)| *session)
    }

    /// From now on the oldest snapshot may be forgotten or not.
    pub fn let_go(&mut self) {
        if let Some(oldest) = self.oldest() {
            self.holds.remove(&oldest);
        }
    }

    /// Forgets the oldest snapshot of the VM that is known of.
    fn forget_oldest(&mut self, store: &dyn BlobStore) -> Result<(), EngineError> {
        let repository = Repository::open(store, PASSWORD)?;
        let key = retention_key(&repository);
        let Some(oldest) = self.oldest() else { return Ok(()) };
        // From here on it may be forgotten.
        self.holds.remove(&oldest);
        let job = ForgetJob {
            what: What::Named(&[Selector::Id(oldest.to_string())]),
            last_ones: LastOnes::MayGo,
            times: Times::Checked,
            time: self.time(),
            entropy: &self.entropy(),
        };
        forget(&repository, &key, &job, &Quiet)?;
        self.forgotten.insert(oldest);
        Ok(())
    }

    fn prune(&self, max_unused: Unused, store: &dyn BlobStore) -> Result<(), EngineError> {
        let repository = Repository::open(store, PASSWORD)?;
        let key = retention_key(&repository);
        let job = PruneJob {
            writer: &WriterId::new("pruner").expect("a writer's name"),
            time: self.time(),
            program: "test",
            entropy: &self.entropy(),
            patience: PATIENCE,
            abort: &[],
            unfinished: Unfinished::Ended,
            condemn_at_most: 100,
            repack: RepackPolicy { max_unused, max_repack: None, worth: &|_| true },
            end: PruneEnd::All,
        };
        prune(&repository, &key, &job, &Quiet).map(drop)
    }

    /// When every session is old enough to be ended: prunes until nothing is left to do.
    pub fn clean(&mut self) {
        self.changes += 2 * PATIENCE / DAY;
        for _ in 0..PRUNES_MAX {
            let before = self.store.names();
            self.run(Operation::Prune, &self.store.clone()).expect("a prune of a whole repository succeeds");
            if self.store.names() == before {
                return;
            }
        }
        panic!("prunes do not come to rest: {:?}", self.store.names());
    }

    /// Every acknowledged snapshot restores, and nothing is found.
    pub fn check(&self) {
        let repository = crate::lab::open(&self.store);
        let list = snapshots::list(&repository, None).expect("it lists");
        assert!(list.unreadable.is_empty(), "{:?}", list.unreadable);
        let listed: BTreeSet<SessionId> = list.snapshots.iter().map(snapshots::Snapshot::session).collect();
        let unseen: Vec<_> = self.holds.keys().filter(|session| !listed.contains(session)).collect();
        assert!(unseen.is_empty(), "acknowledged and not listed: {unseen:?}");
        assert!(listed.is_disjoint(&self.forgotten), "forgotten and listed");
        for snapshot in &list.snapshots {
            let tag = snapshot.commit.tags.first().and_then(|tag| tag.strip_prefix('v'));
            let version: usize = tag.and_then(|tag| tag.parse().ok()).expect("its version is its tag");
            let held = self.holds.get(&snapshot.session());
            assert!(held.is_none_or(|held| *held == version), "it is another version");
            for (key, bytes) in &disks().version(version).disks {
                let restored = crate::lab::restored(&repository, snapshot, key).expect("it restores");
                assert!(restored == **bytes, "disk {key} of {} differs", snapshot.session());
            }
        }
        let findings = verified(&self.store, self.time()).expect("it verifies");
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// What a verification with all data finds, but for hints and intents without a pack, which wait for the next prune that has
/// something to delete.
fn verified(store: &dyn BlobStore, time: u64) -> Result<Vec<String>, EngineError> {
    let repository = Repository::open(store, PASSWORD)?;
    let report = verify(&repository, &VerifyJob::everything(ReadData::Everything, time), &Quiet)?;
    let waits =
        |finding: &Finding| matches!(finding.kind, FindingKind::StaleIndex | FindingKind::UndecidedSession);
    let found = report.findings.iter().filter(|finding| !waits(finding));
    let mut findings: Vec<String> =
        found.map(|finding| format!("{:?} {}: {}", finding.kind, finding.blob, finding.detail)).collect();
    if report.unneeded_packs > 0 {
        findings.push(format!("{} packs that nothing needs", report.unneeded_packs));
    }
    Ok(findings)
}

fn make(store: &MemoryStore) {
    let geometry = Geometry {
        chunker: ChunkerParams { name: ChunkerName::FastCdc2020, min: 256, average: 1024, max: 4096 },
        region_len: 16 << 10,
        cell_len: 4 << 10,
        pack_len: 64 << 10,
    };
    let name = SlotName::new("first").expect("a slot's name");
    let slot = keepstone_engine::repository::NewSlot {
        name: &name,
        label: "test",
        password: PASSWORD,
        kdf: cheap_kdf(),
        time: NOW,
    };
    let retention = keepstone_engine::repository::NewSlot {
        name: &SlotName::new("retention").expect("a slot's name"),
        ..slot
    };
    Repository::create(store, geometry, &slot, &retention, &Entropy::new([1; 32]))
        .expect("an empty store takes one");
}
