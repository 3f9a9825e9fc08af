//! Reading a part of the data in each run, and what is remembered of it.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_engine::entropy::Entropy;
use keepstone_engine::observer::{Event, Quiet};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{
    FindingKind, Memory, ReadData, Verified, VerifyJob, VerifyReport, Which, verify_remembering,
};
use keepstone_engine::{BlobStore, EngineError, Observer};
use repo_format::{BlobKind, BlobName, PackKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use world::watched::{Call, Watched};
use world::{NOW, back_up, create, create_from_seed, latest, memory_index, noise, open, small_geometry};

const DAY: u64 = 86_400_000;
const KEY: [u8; 32] = [7; 32];

/// A repository, and a memory in a directory.
struct World {
    store: MemoryStore,
    dir: TempDir,
    runs: u8,
}

impl World {
    /// One VM for each length of a disk: packs of all lengths up to that of full ones.
    fn new(disks: &[usize]) -> Self {
        let mut world = Self { store: MemoryStore::new(), dir: TempDir::new().unwrap(), runs: 0 };
        create(&world.store, small_geometry());
        for len in disks {
            world.add(*len);
        }
        world
    }

    fn add(&mut self, len: usize) {
        self.runs += 1;
        let repository = open(&self.store);
        let disk = MemoryDisk::new(noise(u64::from(self.runs), len));
        let vm = format!("vm{}", self.runs);
        back_up(&repository, &mut memory_index(&repository), &vm, &[("disk0", &disk)], self.runs).unwrap();
    }

    fn packs(&self) -> BTreeMap<BlobName, u64> {
        let packs =
            self.store.names().into_iter().filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_))));
        packs.map(|name| (name.clone(), self.store.get(&name, None).unwrap().len() as u64)).collect()
    }

    fn data_packs(&self) -> Vec<BlobName> {
        let is_data = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data);
        self.packs().into_keys().filter(is_data).collect()
    }

    fn bytes(&self) -> u64 {
        self.packs().values().sum()
    }

    fn memory(&self) -> Memory {
        Memory::open(self.dir.path(), open(&self.store).config().repository, KEY).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(open(&self.store).config().repository.to_string()).join("verified-1")
    }

    /// A run with what earlier ones remembered, on a day.
    fn run(&self, read_data: ReadData, day: u64) -> Run {
        self.run_with(&mut self.memory(), read_data, day)
    }

    fn run_with(&self, memory: &mut Memory, read_data: ReadData, day: u64) -> Run {
        let whole = Mutex::default();
        let watched = noting_whole_packs(&self.store, &whole);
        let repository = open(&watched);
        let job = VerifyJob::everything(read_data, NOW + day * DAY);
        let report = verify_remembering(&repository, &job, memory, &Quiet).unwrap();
        assert!(memory.take_failure().is_none());
        drop(repository);
        drop(watched);
        Run { report, whole: whole.into_inner().unwrap() }
    }

    fn damage(&self, name: &BlobName) {
        let mut bytes = self.store.get(name, None).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.store.overwrite(name, &bytes);
    }
}

struct Run {
    report: VerifyReport,
    /// The packs that were read whole.
    whole: BTreeSet<BlobName>,
}

impl Run {
    fn found(&self) -> Vec<(FindingKind, &str)> {
        self.report.findings.iter().map(|found| (found.kind, found.blob.as_str())).collect()
    }
}

/// Notes which packs are read whole.
fn noting_whole_packs<'a>(store: &'a MemoryStore, whole: &'a Mutex<BTreeSet<BlobName>>) -> Watched<'a> {
    Watched::new(store, |call| {
        if let Call::Get(name, None) = call
            && matches!(name.kind(), Some(BlobKind::Pack(_)))
        {
            whole.lock().unwrap().insert(name.clone());
        }
    })
}

/// Lengths of disks that give packs of very different lengths.
const UNEVEN: [usize; 6] = [1, 400_001, 900, 20_000, 130_000, 65_000];

fn runs_of(ppm: u32) -> usize {
    1_000_000_usize.div_ceil(ppm as usize)
}

/// Asserts that a run read at least one pack and at least its share.
fn expect_share(world: &World, run: &Run, ppm: u32) {
    let packs = world.packs();
    let bytes: u64 = run.whole.iter().map(|name| packs[name]).sum();
    assert!(!run.whole.is_empty() && bytes * 1_000_000 >= world.bytes() * u64::from(ppm), "{bytes} at {ppm}");
    assert_eq!(run.report.read_bytes, bytes);
}

#[test]
fn so_many_runs_as_parts_make_the_whole_read_everything_again_and_again() {
    for disks in [&UNEVEN[..], &[300_000; 4], &[10]] {
        let world = World::new(disks);
        let all: BTreeSet<BlobName> = world.packs().into_keys().collect();
        for ppm in [1_000_000, 999_999, 500_000, 333_334, 333_333, 300_000, 100_000, 40_000, 1, 0] {
            let mut memory = Memory::passing(open(&world.store).config().repository, &Entropy::new([3; 32]));
            let runs = runs_of(ppm.max(1)).min(all.len());
            for round in 0..2 {
                let mut read = BTreeSet::new();
                for number in 0..runs {
                    let day = (round * runs + number) as u64;
                    let run = world.run_with(&mut memory, ReadData::Part { ppm }, day);
                    expect_share(&world, &run, ppm);
                    assert!(run.report.findings.is_empty());
                    read.extend(run.whole);
                }
                assert_eq!(read, all, "round {round} of {runs} runs");
            }
        }
    }
}

#[test]
fn what_is_added_meanwhile_is_read_as_soon() {
    for ppm in [500_000, 250_000, 90_000] {
        let mut world = World::new(&UNEVEN);
        let runs = runs_of(ppm);
        // The packs that are not read yet, with the run that saw them first.
        let mut waiting: BTreeMap<BlobName, usize> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for number in 0..2 * runs {
            let new: Vec<BlobName> =
                world.packs().into_keys().filter(|name| known.insert(name.clone())).collect();
            waiting.extend(new.into_iter().map(|name| (name, number)));
            let run = world.run(ReadData::Part { ppm }, number as u64);
            expect_share(&world, &run, ppm);
            waiting.retain(|name, _| !run.whole.contains(name));
            let late: Vec<_> = waiting.iter().filter(|(_, first)| number + 1 - **first >= runs).collect();
            assert!(late.is_empty(), "run {number} of {runs}: {late:?}");
            world.add(UNEVEN[number % UNEVEN.len()]);
        }
    }
}

#[test]
fn what_was_never_read_comes_first_and_then_what_was_read_longest_ago() {
    let mut world = World::new(&[300_000]);
    let one = ReadData::Part { ppm: 1 };
    let order: Vec<BTreeSet<BlobName>> =
        (0..world.packs().len()).map(|day| world.run(one, day as u64).whole).collect();
    assert!(order.iter().all(|whole| whole.len() == 1));
    let old: BTreeSet<BlobName> = world.packs().into_keys().collect();
    assert_eq!(order.iter().flatten().cloned().collect::<BTreeSet<_>>(), old);
    world.add(10);
    let new: BTreeSet<BlobName> = world.packs().into_keys().filter(|name| !old.contains(name)).collect();
    let first: BTreeSet<BlobName> =
        (0..new.len()).flat_map(|day| world.run(one, 50 + day as u64).whole).collect();
    assert_eq!(first, new);
    for (day, expected) in (100..).zip(order) {
        assert_eq!(world.run(one, day).whole, expected);
    }
}

#[test]
fn the_order_of_what_was_never_read_is_by_the_seed_without_a_file() {
    let world = World::new(&[600_000]);
    let order = |seed: u8| -> Vec<BTreeSet<BlobName>> {
        let mut memory = Memory::passing(open(&world.store).config().repository, &Entropy::new([seed; 32]));
        (0..6).map(|day| world.run_with(&mut memory, ReadData::Part { ppm: 1 }, day).whole).collect()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn a_run_for_a_snapshot_chooses_among_what_it_needs() {
    let world = World::new(&[300_000, 200_000]);
    let of = |vm: &str| -> BTreeSet<BlobName> {
        let session = latest(&open(&world.store), vm).session();
        let of_session =
            |name: &BlobName| matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.session == session);
        world.packs().into_keys().filter(of_session).collect()
    };
    let whole = Mutex::default();
    let watched = noting_whole_packs(&world.store, &whole);
    let repository = open(&watched);
    for day in 0..2 {
        let job = VerifyJob {
            which: Which::These(vec![latest(&repository, "vm2")]),
            read_data: ReadData::Part { ppm: 500_000 },
            time: NOW + day * DAY,
        };
        verify_remembering(&repository, &job, &mut world.memory(), &Quiet).unwrap();
    }
    assert_eq!(*whole.lock().unwrap(), of("vm2"));
    // Runs for everything go on with the rest.
    let share = of("vm1").iter().map(|name| world.packs()[name]).sum::<u64>() * 1_000_000 / world.bytes();
    let run = world.run(ReadData::Part { ppm: u32::try_from(share).unwrap() }, 2);
    assert_eq!(run.whole, of("vm1"));
}

#[test]
fn damage_is_found_again_by_every_run_and_keeps_nothing_else_from_being_read() {
    let world = World::new(&UNEVEN);
    let names = world.data_packs();
    let sound: Vec<Vec<u8>> = names.iter().map(|name| world.store.get(name, None).unwrap()).collect();
    let damaged = &names[..3];
    for name in damaged {
        world.damage(name);
    }
    let expected: Vec<_> = damaged.iter().map(|name| (FindingKind::DamagedPack, name.as_str())).collect();
    assert_eq!(world.run(ReadData::Everything, 0).found(), expected);
    let ppm = 200_000;
    let mut read = BTreeSet::new();
    for day in 1..=5 {
        let run = world.run(ReadData::Part { ppm }, day);
        assert_eq!(run.found(), expected, "day {day}");
        read.extend(run.whole);
    }
    assert_eq!(read, world.packs().into_keys().collect());
    let run = world.run(ReadData::Nothing, 6);
    assert_eq!((run.found(), &run.whole), (expected, &damaged.iter().cloned().collect()));
    let damaged_bytes = damaged.iter().map(|name| world.packs()[name]).sum();
    let verified = Verified {
        bytes: world.bytes() - damaged_bytes,
        never_bytes: 0,
        damaged_bytes,
        oldest: run.report.verified.oldest,
    };
    assert_eq!(run.report.verified, verified);
    assert!(verified.oldest >= Some(NOW + DAY), "all was read again since the first day");
    for (name, bytes) in names.iter().zip(sound) {
        world.store.overwrite(name, &bytes);
    }
    assert!(world.run(ReadData::Nothing, 7).found().is_empty());
    let run = world.run(ReadData::Nothing, 8);
    assert_eq!((run.report.read_bytes, run.report.verified.damaged_bytes), (0, 0));
}

#[test]
fn a_clock_that_went_back_hides_no_damage_and_no_pack() {
    let world = World::new(&[300_000]);
    let name = world.data_packs()[0].clone();
    world.run(ReadData::Everything, 0);
    world.damage(&name);
    let earlier = |read_data, time| {
        let mut memory = world.memory();
        let job = VerifyJob::everything(read_data, time);
        verify_remembering(&open(&world.store), &job, &mut memory, &Quiet).unwrap()
    };
    assert!(earlier(ReadData::Everything, NOW - DAY / 2).has_damage());
    assert!(earlier(ReadData::Nothing, NOW - DAY / 2).has_damage());
    // What was read in a far future counts as never read, but for damage.
    let report = earlier(ReadData::Nothing, NOW - 9 * DAY);
    let damaged_bytes = world.packs()[&name];
    let never_bytes = world.bytes() - damaged_bytes;
    assert_eq!(report.verified, Verified { bytes: 0, never_bytes, damaged_bytes, oldest: None });
}

#[test]
fn a_damaged_record_is_forgotten_and_no_other_one() {
    let world = World::new(&[300_000, 5000]);
    world.run(ReadData::Everything, 0);
    let lens: Vec<u64> = world.packs().into_values().collect();
    let intact = fs::read(world.file()).unwrap();
    assert_eq!(intact.len(), lens.len() * 41);
    for at in 0..intact.len() {
        let mut bytes = intact.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(world.file(), bytes).unwrap();
        if at % 7 == 0 {
            let verified = world.run(ReadData::Nothing, 1).report.verified;
            assert!(lens.contains(&verified.never_bytes), "byte {at}: {verified:?}");
            assert_eq!(verified.bytes, world.bytes() - verified.never_bytes);
        }
    }
    for len in [0, 1, 40, 41, intact.len() - 1] {
        fs::write(world.file(), &intact[..len]).unwrap();
        let verified = world.run(ReadData::Nothing, 1).report.verified;
        assert_eq!(verified.bytes > 0, len >= 41, "cut to {len}");
        assert_eq!(verified.bytes + verified.never_bytes, world.bytes());
    }
}

#[test]
fn another_repository_s_file_or_another_key_s_says_nothing() {
    let world = World::new(&[300_000]);
    world.run(ReadData::Everything, 0);
    let never = Verified { never_bytes: world.bytes(), ..Verified::default() };
    let id = open(&world.store).config().repository;
    let mut other_key = Memory::open(world.dir.path(), id, [8; 32]).unwrap();
    assert_eq!(world.run_with(&mut other_key, ReadData::Nothing, 1).report.verified, never);

    let other = World { store: MemoryStore::new(), dir: TempDir::new().unwrap(), runs: 0 };
    create_from_seed(&other.store, small_geometry(), [9; 32]).unwrap();
    let repository = open(&other.store);
    back_up(
        &repository,
        &mut memory_index(&repository),
        "vm1",
        &[("disk0", &MemoryDisk::new(noise(1, 300_000)))],
        1,
    )
    .unwrap();
    other.run(ReadData::Everything, 0);
    fs::copy(other.file(), world.file()).unwrap();
    assert_eq!(world.run(ReadData::Nothing, 1).report.verified, never);
}

#[test]
fn a_pack_of_the_same_name_and_another_length_was_not_read() {
    let first = World::new(&[200_000]);
    let mut second = World::new(&[200_100]);
    let [ours, theirs] = [&first, &second].map(World::packs);
    let same: u64 =
        theirs.iter().filter(|(name, len)| ours.get(*name) == Some(*len)).map(|(_, len)| len).sum();
    assert!(theirs.keys().any(|name| ours.contains_key(name) && ours[name] != theirs[name]));
    first.run(ReadData::Everything, 0);
    second.dir = first.dir;
    let verified = second.run(ReadData::Nothing, 1).report.verified;
    assert_eq!((verified.bytes, verified.never_bytes), (same, second.bytes() - same));
}

#[test]
fn packs_that_are_gone_are_forgotten() {
    let world = World::new(&[300_000, 200_000]);
    world.run(ReadData::Everything, 0);
    let gone = world.data_packs()[0].clone();
    world.store.delete(&gone).unwrap();
    assert_eq!(world.run(ReadData::Nothing, 1).found()[0], (FindingKind::MissingPack, gone.as_str()));
    assert_eq!(fs::read(world.file()).unwrap().len(), world.packs().len() * 41);
}

#[test]
fn runs_at_the_same_time_keep_what_the_others_learned() {
    let world = World::new(&[300_000, 200_000, 100_000, 50_000]);
    let repository = open(&world.store);
    let read = |memory: &mut Memory, vm: &str, time: u64| {
        let which = Which::These(vec![latest(&repository, vm)]);
        let job = VerifyJob { which, read_data: ReadData::Everything, time };
        verify_remembering(&repository, &job, memory, &Quiet).unwrap();
        assert!(memory.take_failure().is_none());
    };
    std::thread::scope(|threads| {
        for number in 1..=4 {
            let mut memory = world.memory();
            threads.spawn(move || read(&mut memory, &format!("vm{number}"), NOW + number));
        }
    });
    let known = Verified { bytes: world.bytes(), oldest: Some(NOW + 1), ..Verified::default() };
    assert_eq!(world.run(ReadData::Nothing, 1).report.verified, known);

    // Of two readings the newer one counts, whichever is saved last.
    let name = world.data_packs()[0].clone();
    let [mut before, mut after] = [world.memory(), world.memory()];
    world.damage(&name);
    assert!(!world.run_with(&mut after, ReadData::Everything, 3).found().is_empty());
    world.damage(&name);
    assert!(world.run_with(&mut before, ReadData::Everything, 2).found().is_empty());
    assert_eq!(world.run(ReadData::Nothing, 4).report.verified.oldest, Some(NOW + 3 * DAY));
    assert_eq!(world.run(ReadData::Nothing, 4).report.read_bytes, 0, "it was read again and is sound");
}

/// Cancels when so many bytes have been read whole.
struct CancelAfter(AtomicU64);

impl Observer for CancelAfter {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Transferred(_) if self.0.fetch_sub(1, Ordering::Relaxed) == 1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn a_run_that_is_cancelled_keeps_what_it_did() {
    let world = World::new(&[2_000_000]);
    let repository = open(&world.store);
    let mut known = 0;
    let mut cancelled = 0;
    // Each run goes on where the one before was cancelled, until there is nothing left that was never read.
    for day in 0..100 {
        let mut memory = world.memory();
        let job = VerifyJob::everything(ReadData::Part { ppm: 999_999 }, NOW + day * DAY);
        let result = verify_remembering(&repository, &job, &mut memory, &CancelAfter(AtomicU64::new(6)));
        assert!(matches!(result, Err(EngineError::Cancelled)));
        cancelled += 1;
        drop(memory);
        let verified = world.run(ReadData::Nothing, day).report.verified;
        assert!(verified.bytes > known || verified.never_bytes == 0, "{verified:?}");
        known = verified.bytes;
        if verified.never_bytes == 0 {
            break;
        }
    }
    assert_eq!((known, cancelled > 3), (world.bytes(), true));
}

#[test]
fn a_memory_that_cannot_be_saved_is_told_and_stops_nothing() {
    let world = World::new(&[300_000]);
    let mut memory = world.memory();
    let directory = world.file().parent().unwrap().to_owned();
    fs::remove_dir_all(&directory).unwrap();
    // A directory that was deleted is made again.
    let report = verify_into(&world, &mut memory);
    assert!(memory.take_failure().is_none() && world.file().exists());
    assert_eq!(report.verified.bytes, world.bytes());
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, b"in the way").unwrap();
    let report = verify_into(&world, &mut memory);
    assert!(memory.take_failure().is_some());
    assert_eq!(report.verified.bytes, world.bytes());
    let id = open(&world.store).config().repository;
    assert!(Memory::open(world.dir.path(), id, KEY).is_err());
}

fn verify_into(world: &World, memory: &mut Memory) -> VerifyReport {
    let job = VerifyJob::everything(ReadData::Everything, NOW);
    verify_remembering(&open(&world.store), &job, memory, &Quiet).unwrap()
}
