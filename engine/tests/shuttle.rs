//! The pipeline's hand-over and shutdown under a scheduler that tries one order of its threads after another: there is
//! no deadlock in any, the same is stored in all, and what fails first is what is reported.
//!
//! `KEEPSTONE_SCHEDULES` says how many orders each test tries, half of them random, half by priorities (PCT);
//! `make shuttle` tries many.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "how long a test explores is the environment's to say, not the engine's"
)]

mod world;

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::observer::{Event, Quiet};
use keepstone_engine::source::{ChangedAreas, MemoryDisk, ReadPart, Since, read_each};
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use keepstone_engine::{
    BlobStore, DiskSource, EngineError, Entropy, Extent, Observer, Repository, snapshots,
};
use repo_format::{BlobKind, BlobName};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::sleep;
use shuttle::{Config, Runner};
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use world::{NOW, create, latest, memory_index, mixed, noise, restored, small_geometry, writer};

/// How many orders a test tries if nothing else is said.
const SCHEDULES: usize = 200;
const SEED: u64 = 0x006b_6565_7073_746f;
/// Changes of priority in one PCT schedule: how deep a defect may hide.
const DEPTH: usize = 4;
/// A task's stack; the compressor and the cipher put tables there.
const STACK_LEN: usize = 1 << 20;

/// Runs `body` in many orders, and gives it the number of the run.
fn explore(body: impl Fn(u64) + Send + Sync + 'static) {
    let schedules = std::env::var("KEEPSTONE_SCHEDULES").map_or(SCHEDULES, |text| text.parse().unwrap());
    let body = Arc::new(body);
    let mut config = Config::new();
    config.stack_size = STACK_LEN;
    config.silence_warnings = true;
    let numbered = || {
        let (body, number) = (Arc::clone(&body), AtomicU64::new(0));
        move || body(number.fetch_add(1, SeqCst))
    };
    let half = schedules / 2;
    Runner::new(RandomScheduler::new_from_seed(SEED, half), config.clone()).run(numbered());
    Runner::new(PctScheduler::new_from_seed(SEED, DEPTH, half), config).run(numbered());
}

/// A store whose creates take a while, so that other threads go on before and after each; it keeps a log of them, and
/// some may fail.
#[derive(Default)]
struct SlowStore {
    inner: MemoryStore,
    created: Mutex<Vec<BlobName>>,
    trouble: Trouble,
}

/// What happens to creates, counted from 0 without those that the retry of a failed one makes.
#[derive(Clone, Copy, Default)]
enum Trouble {
    #[default]
    None,
    Fails(u64),
    /// This one and all later ones.
    FailsFrom(u64),
    Panics(u64),
}

fn injected() -> io::Error {
    io::Error::other("injected fault")
}

impl SlowStore {
    fn new(inner: &MemoryStore, trouble: Trouble) -> Self {
        Self { inner: inner.clone(), trouble, ..Self::default() }
    }

    fn log(&self) -> Vec<BlobName> {
        self.created.lock().unwrap().clone()
    }

    /// The number of a create: that of the first one of the same name.
    fn number(&self, name: &BlobName) -> u64 {
        let mut created = self.created.lock().unwrap();
        let number = created.iter().position(|known| known == name).unwrap_or_else(|| {
            created.push(name.clone());
            created.len() - 1
        });
        number as u64
    }
}

impl BlobStore for SlowStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let number = self.number(name);
        sleep(Duration::ZERO);
        match self.trouble {
            Trouble::Fails(n) if n == number => {}
            Trouble::FailsFrom(n) if n <= number => {}
            // Without the hook, which would print each of the thousand panics.
            Trouble::Panics(n) if n == number => resume_unwind(Box::new("injected panic")),
            _ => {
                let put = self.inner.put_new(name, bytes);
                sleep(Duration::ZERO);
                return put;
            }
        }
        Err(StoreError::Io { action: "create", object: name.to_string(), source: injected() })
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// A disk of which one read goes wrong.
struct BadDisk {
    disk: MemoryDisk,
    at: u64,
    reads: AtomicU64,
    panics: bool,
}

impl BadDisk {
    fn new(disk: &MemoryDisk, at: u64, panics: bool) -> Self {
        Self { disk: disk.clone(), at, reads: AtomicU64::new(0), panics }
    }
}

impl BadDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        sleep(Duration::ZERO);
        match self.reads.fetch_add(1, SeqCst) == self.at {
            true if self.panics => resume_unwind(Box::new("injected panic")),
            true => Err(injected()),
            false => self.disk.read_at(offset, buffer),
        }
    }
}

impl DiskSource for BadDisk {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        self.disk.changed_areas(since)
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Breaks at one event.
struct StopsAt(u64, AtomicU64);

impl Observer for StopsAt {
    fn observe(&self, _: Event) -> ControlFlow<()> {
        if self.1.fetch_add(1, SeqCst) == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Two disks, and a change of both a day later.
fn days() -> &'static [[MemoryDisk; 2]; 2] {
    static DAYS: OnceLock<[[MemoryDisk; 2]; 2]> = OnceLock::new();
    DAYS.get_or_init(|| {
        let disk =
            |seed, len| MemoryDisk { change_id: Some("1".into()), ..MemoryDisk::new(mixed(seed, len)) };
        let first = [disk(1, 450_000), disk(50, 130_000)];
        let second = first.clone().map(|mut disk| {
            let areas = [Extent { start: 20_000, length: 9000 }, Extent { start: 100_000, length: 30_000 }];
            for area in &areas {
                let start = usize::try_from(area.start).unwrap();
                let end = usize::try_from(area.end()).unwrap();
                disk.bytes[start..end].copy_from_slice(&noise(area.start, end - start));
            }
            disk.changes = Some(("1".into(), areas.to_vec()));
            disk.change_id = Some("2".into());
            disk
        });
        [first, second]
    })
}

fn back_up(
    repository: &Repository<'_>,
    disks: [&dyn DiskSource; 2],
    run: u8,
    observer: &dyn Observer,
) -> Result<BackupReport, EngineError> {
    let job = BackupJob {
        vm: "vm",
        writer: &writer(),
        disks: vec![JobDisk::new("a", disks[0]), JobDisk::new("b", disks[1])],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: Vec::new(),
        properties: Vec::new(),
        time: NOW + u64::from(run),
        program: "test",
        entropy: Entropy::new([run; 32]),
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(repository, &mut memory_index(repository), &job, observer)
}

fn first_day(repository: &Repository<'_>, observer: &dyn Observer) -> Result<BackupReport, EngineError> {
    let [disks, _] = days();
    back_up(repository, [&disks[0], &disks[1]], 1, observer)
}

/// A new repository, the same in every run.
fn new_repository() -> MemoryStore {
    static EMPTY: OnceLock<MemoryStore> = OnceLock::new();
    EMPTY
        .get_or_init(|| {
            let store = MemoryStore::new();
            create(&store, small_geometry());
            store
        })
        .copied()
}

/// A create that was begun after the decision, or a second decision, would be one that nobody waited for.
fn decided_at_last(log: &[BlobName]) {
    let decisions: Vec<usize> =
        (0..).zip(log).filter(|(_, name)| is_decision(name)).map(|(n, _)| n).collect();
    assert_eq!(decisions, [log.len() - 1], "{log:?}");
}

fn is_decision(name: &BlobName) -> bool {
    matches!(name.kind(), Some(BlobKind::Decision(_)))
}

fn has_no_snapshot(store: &MemoryStore) {
    let list = snapshots::list(&world::open(store), None).unwrap();
    assert!(list.snapshots.is_empty() && list.unreadable.is_empty(), "{:?}", list.snapshots);
}

/// How many creates the first day's backup makes.
const CREATES: u64 = 8;

#[test]
fn every_order_stores_the_same_blobs() {
    static BLOBS: OnceLock<BTreeMap<BlobName, Vec<u8>>> = OnceLock::new();
    explore(|number| {
        let blobs = new_repository();
        let store = SlowStore::new(&blobs, Trouble::None);
        let repository = world::open(&store);
        first_day(&repository, &Quiet).unwrap();
        decided_at_last(&store.log()[..]);
        let on_first_day = store.log().len();
        assert_eq!(on_first_day as u64, CREATES);
        let [_, disks] = days();
        back_up(&repository, [&disks[0], &disks[1]], 2, &Quiet).unwrap();
        decided_at_last(&store.log()[on_first_day..]);

        let contents = |name: &BlobName| (name.clone(), blobs.get(name, None).unwrap());
        let found: BTreeMap<BlobName, Vec<u8>> = blobs.names().iter().map(contents).collect();
        assert!(found == *BLOBS.get_or_init(|| found.clone()), "other blobs: {:?}", found.keys());
        if number == 0 {
            for (key, disk) in ["a", "b"].iter().zip(disks) {
                assert!(restored(&repository, &latest(&repository, "vm"), key).unwrap() == disk.bytes);
            }
        }
    });
}

#[test]
fn a_create_that_fails_ends_the_backup_with_its_error() {
    explore(|number| {
        let blobs = new_repository();
        // The intent is the first create: no thread has begun before it.
        let failing = 1 + number % (CREATES - 1);
        let store = SlowStore::new(&blobs, Trouble::Fails(failing));
        let error = first_day(&world::open(&store), &Quiet).unwrap_err();
        let log = store.log();
        let failed = log[usize::try_from(failing).unwrap()].as_str();
        assert!(
            matches!(&error, EngineError::Store(StoreError::Io { object, .. }) if object == failed),
            "{failed} failed, {error:?} was reported"
        );
        decided_at_last(&log);
        has_no_snapshot(&blobs);
    });
}

#[test]
fn of_many_failures_one_is_reported_and_none_that_follows_from_it() {
    explore(|number| {
        let blobs = new_repository();
        let first = 1 + number % (CREATES - 1);
        let store = SlowStore::new(&blobs, Trouble::FailsFrom(first));
        let error = first_day(&world::open(&store), &Quiet).unwrap_err();
        let log = store.log();
        let failed = &log[usize::try_from(first).unwrap()..];
        let EngineError::Store(StoreError::Io { object, .. }) = &error else { panic!("{error:?}") };
        let reported = failed.iter().position(|name| name.as_str() == object);
        // At most one of the threads that put was as far as the first one.
        assert!(reported.is_some_and(|place| place < 4), "{object} was reported, of {failed:?}");
        decided_at_last(&log);
        has_no_snapshot(&blobs);
    });
}

#[test]
fn a_source_that_fails_ends_the_backup_with_its_error() {
    explore(|number| {
        let blobs = new_repository();
        let store = SlowStore::new(&blobs, Trouble::None);
        let [disks, _] = days();
        let bad = BadDisk::new(&disks[0], number % 4, false);
        let error = back_up(&world::open(&store), [&bad, &disks[1]], 1, &Quiet).unwrap_err();
        assert!(matches!(&error, EngineError::Source { disk, .. } if disk == "a"), "{error:?}");
        decided_at_last(&store.log());
        has_no_snapshot(&blobs);
    });
}

#[test]
fn a_backup_can_be_cancelled_at_any_event() {
    static CANCELLED: AtomicU64 = AtomicU64::new(0);
    explore(|number| {
        let blobs = new_repository();
        let store = SlowStore::new(&blobs, Trouble::None);
        // The first event is that the session begins: then no thread has begun either.
        let stops = StopsAt(1 + number % 16, AtomicU64::new(0));
        match first_day(&world::open(&store), &stops) {
            Ok(_) => assert!(stops.1.load(SeqCst) <= stops.0, "an event was passed over"),
            Err(error) => {
                CANCELLED.fetch_add(1, SeqCst);
                assert!(matches!(error, EngineError::Cancelled), "{error:?}");
                has_no_snapshot(&blobs);
            }
        }
        decided_at_last(&store.log());
    });
    assert!(CANCELLED.load(SeqCst) > 0);
}

/// A panic is no result: it reaches the caller, after all threads have ended.
fn panics(run: impl FnOnce() -> Result<BackupReport, EngineError>) {
    let panic: Box<dyn Any + Send> = catch_unwind(AssertUnwindSafe(run)).expect_err("the panic is passed on");
    assert_eq!(panic.downcast_ref(), Some(&"injected panic"));
}

#[test]
fn a_panic_in_a_task_reaches_the_caller() {
    explore(|number| {
        let blobs = new_repository();
        let store = SlowStore::new(&blobs, Trouble::None);
        let [disks, _] = days();
        let bad = BadDisk::new(&disks[0], number % 4, true);
        panics(|| back_up(&world::open(&store), [&bad, &disks[1]], 1, &Quiet));
        has_no_snapshot(&blobs);
    });
}

#[test]
fn a_panic_in_a_thread_that_puts_reaches_the_caller() {
    explore(|number| {
        let blobs = new_repository();
        // The first create and the last one are the owner's own.
        let store = SlowStore::new(&blobs, Trouble::Panics(1 + number % (CREATES - 2)));
        panics(|| first_day(&world::open(&store), &Quiet));
        has_no_snapshot(&blobs);
    });
}
