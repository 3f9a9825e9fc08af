//! Two VMs over some days, their sources, and what must hold of a repository whatever happened to it.

use crate::world::{NOW, PASSWORD, memory_index, mixed, noise, restored, small_geometry};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Extent, Repository, extent, snapshots};
use repo_format::{BlobKind, SessionId, WriterId};
use std::collections::BTreeSet;
use std::io;
use std::sync::OnceLock;

pub type Disk = (&'static str, Vec<u8>);

/// One backup: of whom, by whom, how, and the disks as they are then.
pub struct Step {
    pub vm: &'static str,
    pub writer: &'static str,
    pub reading: Reading,
    pub disks: Vec<Disk>,
}

/// The steps that are not interrupted any more.
pub const TAIL: usize = 2;

/// Full and incremental backups of two VMs by two writers; the VMs share content, and disks change their sizes.
pub fn steps() -> &'static [Step] {
    static STEPS: OnceLock<Vec<Step>> = OnceLock::new();
    STEPS.get_or_init(|| {
        let mut one = vec![("a", mixed(1, 150_000)), ("b", mixed(100, 70_000))];
        let mut two = vec![("c", mixed(1, 90_000))];
        let mut steps = Vec::new();
        let mut step = |vm, writer, reading, disks: &[Disk]| {
            steps.push(Step { vm, writer, reading, disks: disks.to_vec() });
        };
        step("one", "host-a", Reading::Changes, &one);
        step("two", "host-b", Reading::Changes, &two);
        change(&mut one[0].1, 60_000, 20_000, 1);
        change(&mut one[1].1, 1000, 900, 2);
        step("one", "host-a", Reading::Changes, &one);
        // What the other VM has already.
        let shared = one[0].1[64_000..80_000].to_vec();
        two[0].1[20_000..36_000].copy_from_slice(&shared);
        step("two", "host-b", Reading::Changes, &two);
        one[1].1[16_000..40_000].fill(0);
        step("one", "host-b", Reading::Changes, &one);
        one[0].1.resize(210_000, 0);
        change(&mut one[0].1, 180_000, 5000, 3);
        step("one", "host-a", Reading::Changes, &one);
        change(&mut one[1].1, 30_000, 9000, 4);
        step("one", "host-a", Reading::Everything, &one);
        two[0].1.truncate(70_000);
        step("two", "host-b", Reading::Changes, &two);
        change(&mut one[0].1, 0, 3000, 5);
        step("one", "host-a", Reading::Changes, &one);
        change(&mut two[0].1, 0, 3000, 6);
        step("two", "host-b", Reading::Changes, &two);
        steps
    })
}

fn change(bytes: &mut [u8], start: usize, len: usize, seed: u64) {
    bytes[start..start + len].copy_from_slice(&noise(seed, len));
}

/// A disk at one step, whose change tracking reaches back to all earlier ones.
struct Tracked {
    step: usize,
    disk: usize,
}

impl Tracked {
    fn bytes(&self) -> &'static [u8] {
        &steps()[self.step].disks[self.disk].1
    }

    /// The disk at the step that a change id stands for.
    fn before(&self, since: &str) -> Option<&'static [u8]> {
        let step = steps().get(since.parse::<usize>().ok()?)?;
        let (key, _) = steps()[self.step].disks[self.disk];
        let found = step.disks.iter().find(|(known, _)| step.vm == steps()[self.step].vm && *known == key);
        found.map(|(_, bytes)| bytes.as_slice())
    }
}

const SECTOR: usize = 512;

impl Tracked {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        buffer.copy_from_slice(&self.bytes()[start..start + buffer.len()]);
        Ok(())
    }
}

impl DiskSource for Tracked {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(self.step.to_string());
        let Some(before) = since.and_then(|since| self.before(since.change_id?)) else {
            let areas = Extent::between(0, self.size()).into_iter().collect();
            let full_reason = since.map(|_| FullReason::NoChangeTracking);
            return Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id });
        };
        let sectors = self.bytes().chunks(SECTOR).enumerate().filter(|(number, sector)| {
            let start = number * SECTOR;
            before.get(start..start + sector.len()) != Some(*sector)
        });
        let areas = sectors
            .map(|(number, sector)| Extent { start: (number * SECTOR) as u64, length: sector.len() as u64 });
        Ok(ChangedAreas {
            areas: extent::normalized(areas.collect()),
            outside: Outside::Unchanged,
            change_id,
        })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How a step is run.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub step: usize,
    pub writer: &'a str,
    pub seed: u8,
    /// Whether every pack is followed by an index.
    pub checkpoints: bool,
}

impl Run<'static> {
    pub fn of(step: usize) -> Self {
        let seed = u8::try_from(step).unwrap();
        Self { step, writer: steps()[step].writer, seed, checkpoints: false }
    }
}

impl Run<'_> {
    /// A whole process: opens the repository, synchronises an index, backs up.
    pub fn run(self, store: &dyn BlobStore) -> Result<BackupReport, EngineError> {
        let step = &steps()[self.step];
        let repository = Repository::open(store, PASSWORD)?;
        let mut index = memory_index(&repository);
        sync(&mut index, store, repository.keys(), &Preference::default(), &Quiet)?;
        let sources: Vec<Tracked> =
            (0..step.disks.len()).map(|disk| Tracked { step: self.step, disk }).collect();
        let disks = step.disks.iter().zip(&sources).map(|((key, _), source)| JobDisk::new(key, source));
        let job = BackupJob {
            vm: step.vm,
            writer: &WriterId::new(self.writer).expect("a writer id"),
            disks: disks.collect(),
            reading: step.reading,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            // Tells which step a snapshot is of.
            time: NOW + self.step as u64,
            program: "test",
            entropy: Entropy::new([self.seed; 32]),
            unfinished: Unfinished::MayRun { ended: &[] },
            checkpoint_due: &|| self.checkpoints,
        };
        backup(&repository, &mut index, &job, &Quiet)
    }
}

/// A new repository. Its store dates everything long before any backup, so that no session seems to be running.
pub fn new_repository() -> MemoryStore {
    let store = MemoryStore::new();
    crate::world::create(&store, small_geometry());
    store
}

/// The committed snapshots and the sessions that are undecided.
pub struct State {
    pub committed: BTreeSet<SessionId>,
    pub undecided: BTreeSet<SessionId>,
}

/// Opens a repository again: all that is committed restores bit by bit, nothing is damaged, and what is undecided is
/// reported.
pub fn checked(store: &MemoryStore) -> State {
    let repository = crate::world::open(store);
    let list = snapshots::list(&repository, None).unwrap();
    assert!(list.unreadable.is_empty(), "{:?}", list.unreadable);
    for snapshot in &list.snapshots {
        let step = &steps()[usize::try_from(snapshot.commit.time - NOW).unwrap()];
        assert_eq!((snapshot.commit.vm.as_str(), snapshot.commit.disks.len()), (step.vm, step.disks.len()));
        for (key, bytes) in &step.disks {
            assert!(restored(&repository, snapshot, key).unwrap() == *bytes, "disk {key} differs");
        }
    }
    let job = VerifyJob::everything(ReadData::Everything, NOW);
    let report = verify(&repository, &job, &Quiet).unwrap();
    assert!(!report.has_damage(), "{:?}", report.findings);

    let names = store.names();
    let decided = names.iter().filter_map(|name| match name.kind() {
        Some(BlobKind::Decision(decision)) => Some(decision.session),
        _ => None,
    });
    let decided: BTreeSet<SessionId> = decided.collect();
    let mut undecided = BTreeSet::new();
    for name in &names {
        if let Some(BlobKind::Intent { session, .. }) = name.kind()
            && !decided.contains(&session)
        {
            let is_it = |finding: &keepstone_engine::verify::Finding| {
                finding.kind == FindingKind::UndecidedSession && finding.blob == name.as_str()
            };
            assert!(report.findings.iter().any(is_it), "{name} is undecided, and nobody says so");
            undecided.insert(session);
        }
    }
    State { committed: list.snapshots.iter().map(snapshots::Snapshot::session).collect(), undecided }
}
