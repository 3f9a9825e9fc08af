//! Audits of what a source says to be unchanged: lies are found and put right, truth costs nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "all lengths are those of bytes in memory")]

mod world;

use keepstone_engine::backup::{
    Audit, AuditReport, BackupJob, BackupReport, Compression, DiskReport, JobDisk, Reading, Unfinished,
    backup,
};
use keepstone_engine::contents::{ContentPiece, contents};
use keepstone_engine::extent::{normalized, total_length};
use keepstone_engine::observer::{Phase, Quiet};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::{ChangedAreas, MemoryDisk, Outside, ReadPart, Since, read_each};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{DiskSource, EngineError, Entropy, Event, Extent, Observer, Repository, extent};
use proptest::prelude::*;
use repo_format::{Condemned, WriterId};
use std::io;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use world::{
    NOW, create, latest, memory_index, mixed, noise, restored, retention_key, small_geometry, undamaged,
};

const REGION: u64 = 64 << 10;
const ALL: Audit = Audit::Share { ppm: 1_000_000, seed: None };

/// A share by a seed.
fn share(ppm: u32, seed: u64) -> Audit {
    Audit::Share { ppm, seed: Some(seed) }
}

/// One backup; `number` makes its randomness and time.
struct Run {
    number: u16,
    audit: Audit,
    reading: Reading,
}

impl Run {
    fn new(number: u16, audit: Audit) -> Self {
        Self { number, audit, reading: Reading::Changes }
    }

    fn of(&self, repository: &Repository<'_>, disks: &[(&str, &dyn DiskSource)]) -> BackupReport {
        self.observed(repository, disks, &Quiet).unwrap()
    }

    fn observed(
        &self,
        repository: &Repository<'_>,
        disks: &[(&str, &dyn DiskSource)],
        observer: &dyn Observer,
    ) -> Result<BackupReport, EngineError> {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&self.number.to_le_bytes());
        let job = BackupJob {
            vm: "vm",
            writer: &WriterId::new("host-a").unwrap(),
            disks: disks.iter().map(|(key, source)| JobDisk::new(key, *source)).collect(),
            reading: self.reading,
            audit: self.audit,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            time: NOW + u64::from(self.number),
            program: "test",
            entropy: Entropy::new(seed),
            unfinished: Unfinished::MayRun { ended: &[] },
            checkpoint_due: &|| false,
        };
        backup(repository, &mut memory_index(repository), &job, observer)
    }
}

/// A disk that tracks its changes and forgets some: what `write` changes is told, what `sneak` changes is not.
struct Tracked {
    disk: MemoryDisk,
    told: Vec<Extent>,
    day: u16,
}

impl Tracked {
    fn new(bytes: Vec<u8>) -> Self {
        let disk = MemoryDisk { change_id: Some("day 0".into()), ..MemoryDisk::new(bytes) };
        Self { disk, told: Vec::new(), day: 0 }
    }

    /// Of so many regions.
    fn of_regions(regions: u64) -> Self {
        Self::new(mixed(1, (regions * REGION) as usize))
    }

    fn sneak(&mut self, start: u64, bytes: &[u8]) {
        self.disk.bytes[start as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn write(&mut self, start: u64, bytes: &[u8]) {
        self.sneak(start, bytes);
        self.told.push(Extent { start, length: bytes.len() as u64 });
    }

    fn resize(&mut self, size: u64) {
        let before = self.disk.bytes.len() as u64;
        self.told.extend(Extent::between(before, size));
        self.disk.bytes.resize(size as usize, 0);
    }

    /// The disk as a source says it is, a day later.
    fn next_day(&mut self) -> &MemoryDisk {
        let size = self.disk.bytes.len() as u64;
        let told = std::mem::take(&mut self.told);
        let areas = normalized(told.into_iter().filter_map(|area| area.clip(0, size)).collect());
        self.disk.changes = Some((format!("day {}", self.day), areas));
        self.day += 1;
        self.disk.change_id = Some(format!("day {}", self.day));
        &self.disk
    }
}

/// A repository with a full backup of the disk.
fn backed_up<'s>(store: &'s MemoryStore, disk: &Tracked) -> Repository<'s> {
    let repository = create(store, small_geometry());
    Run::new(0, ALL).of(&repository, &[("disk0", &disk.disk)]);
    repository
}

fn only(report: &BackupReport) -> &DiskReport {
    let [disk] = &report.disks[..] else { panic!("{report:?} is not of one disk") };
    disk
}

fn audit_of(report: &BackupReport) -> &AuditReport {
    only(report).audit.as_ref().expect("the disk was audited")
}

fn stored_contents(repository: &Repository<'_>) -> Vec<ContentPiece> {
    contents(repository, latest(repository, "vm").disk(None).unwrap()).unwrap()
}

/// What a full backup of the bytes into an empty repository with the same keys gives.
fn fresh_contents(bytes: &[u8]) -> Vec<ContentPiece> {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    Run::new(0, Audit::Off).of(&repository, &[("disk0", &MemoryDisk::new(bytes.to_vec()))]);
    stored_contents(&repository)
}

/// The newest snapshot is the truth about the disk, byte by byte and chunk by chunk.
fn assert_true(repository: &Repository<'_>, disk: &Tracked) {
    assert!(
        restored(repository, &latest(repository, "vm"), "disk0").unwrap() == disk.disk.bytes,
        "it differs"
    );
    assert_eq!(stored_contents(repository), fresh_contents(&disk.disk.bytes));
}

fn regions_of(ranges: &[Extent]) -> Vec<u64> {
    let mut regions: Vec<u64> =
        ranges.iter().flat_map(|range| range.start / REGION..=(range.end() - 1) / REGION).collect();
    regions.dedup();
    regions
}

#[test]
fn a_complete_audit_of_true_changes_stores_nothing() {
    let store = MemoryStore::new();
    let mut disk = Tracked::new(mixed(1, 30 * REGION as usize + 777));
    let repository = backed_up(&store, &disk);
    let before = latest(&repository, "vm");
    let packs = |store: &MemoryStore| {
        let names = store.names();
        names
            .iter()
            .filter(|name| ["d/", "m/", "i/"].iter().any(|kind| name.as_str().starts_with(kind)))
            .count()
    };
    let count = packs(&store);
    let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
    let size = 30 * REGION + 777;
    let found = audit_of(&report);
    assert_eq!((found.regions, found.of_regions, found.share_ppm), (31, 31, 1_000_000));
    assert_eq!((found.audited_bytes, &found.mismatches), (size, &Vec::new()));
    assert_eq!((only(&report).read_bytes, report.packs, report.stored_bytes), (0, 0, 0));
    assert_eq!(packs(&store), count);
    let after = latest(&repository, "vm");
    assert_ne!(after.session(), before.session());
    assert_eq!(after.commit.disks[0].map, before.commit.disks[0].map);
    assert_eq!(after.commit.properties, []);
}

#[test]
fn beside_changes_that_were_told_a_complete_audit_stores_what_a_backup_without_one_stores() {
    let reports = [Audit::Off, ALL].map(|audit| {
        let store = MemoryStore::new();
        let mut disk = Tracked::of_regions(20);
        let repository = backed_up(&store, &disk);
        for at in [70_000, 200_000, 900_001] {
            disk.write(at, &noise(at, 3000));
        }
        let report = Run::new(1, audit).of(&repository, &[("disk0", disk.next_day())]);
        assert_true(&repository, &disk);
        report
    });
    let [plain, audited] = &reports;
    assert_eq!(audit_of(audited).mismatches, []);
    assert_eq!((plain.new_chunks, plain.new_bytes), (audited.new_chunks, audited.new_bytes));
    assert_eq!((plain.stored_bytes, plain.packs), (audited.stored_bytes, audited.packs));
    assert_eq!(only(plain).changed_bytes, only(audited).changed_bytes);
}

#[test]
fn a_lie_is_found_told_and_put_right() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(20);
    let repository = backed_up(&store, &disk);
    disk.write(100_000, &noise(5, 5000));
    disk.sneak(700_000, &noise(6, 10));
    let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
    let found = audit_of(&report);
    let [range] = &found.mismatches[..] else { panic!("{found:?}") };
    assert!(range.start <= 700_000 && range.end() >= 700_010 && range.length <= 8192, "{range:?}");
    assert_eq!(only(&report).changed_bytes, 5000, "what the source said is reported as it said it");
    assert_true(&repository, &disk);
    let properties = latest(&repository, "vm").commit.properties;
    let text = format!("{} bytes in 1 ranges differed", range.length);
    assert_eq!(properties, [("audit.disk0".to_owned(), text)]);
    // Once it is stored, it is what the next audit compares with.
    let report = Run::new(2, ALL).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!(audit_of(&report).mismatches, []);
    undamaged(&repository);
}

#[test]
fn without_an_audit_a_lie_is_believed() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(20);
    let repository = backed_up(&store, &disk);
    let before = disk.disk.bytes.clone();
    disk.sneak(700_000, &noise(6, 10));
    for off in [Audit::Off, share(0, 1)] {
        let report = Run::new(disk.day + 1, off).of(&repository, &[("disk0", disk.next_day())]);
        assert_eq!(only(&report).audit, None);
        assert!(restored(&repository, &latest(&repository, "vm"), "disk0").unwrap() == before);
    }
}

#[test]
fn holes_that_became_data_and_data_that_became_holes_are_found() {
    let store = MemoryStore::new();
    let mut bytes = noise(1, 12 * REGION as usize);
    bytes[2 * REGION as usize..6 * REGION as usize].fill(0);
    let mut disk = Tracked::new(bytes);
    let repository = backed_up(&store, &disk);
    // In the middle of a hole, and at its last byte; a told change stands in the same hole.
    disk.sneak(3 * REGION + 5, &[1]);
    disk.sneak(6 * REGION - 1, &[1]);
    disk.write(4 * REGION + 1000, &noise(3, 100));
    disk.sneak(4 * REGION + 40_000, &[1]);
    // A region, and a part of one, become zero.
    disk.sneak(8 * REGION, &vec![0; REGION as usize]);
    disk.sneak(10 * REGION + 100, &vec![0; 20_000]);
    let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!(regions_of(&audit_of(&report).mismatches), [3, 4, 5, 8, 10]);
    assert_true(&repository, &disk);
}

#[test]
fn beside_what_was_told_of_a_chunk_nothing_of_it_is_believed() {
    let store = MemoryStore::new();
    let mut disk = Tracked::new(noise(1, 12 * REGION as usize));
    let repository = backed_up(&store, &disk);
    // The first byte of a chunk takes part in where the chunk before it ends; its last byte is told.
    for chunk in stored_contents(&repository).iter().skip(3).step_by(9).filter(|chunk| chunk.len > 1) {
        let last = chunk.start + chunk.len - 1;
        disk.sneak(chunk.start, &[disk.disk.bytes[chunk.start as usize] ^ 0x55]);
        disk.write(last, &[disk.disk.bytes[last as usize] ^ 0x55]);
    }
    let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!(audit_of(&report).mismatches, []);
    assert_true(&repository, &disk);
}

#[test]
fn the_short_last_region_and_resized_disks_are_audited() {
    for (before, after) in [
        (10 * REGION + 1, 10 * REGION + 1),
        (10 * REGION + 1, 12 * REGION + 5),
        (10 * REGION, 12 * REGION + 5),
        (12 * REGION + 5, 10 * REGION + 1),
        (12 * REGION + 5, 10 * REGION),
    ] {
        let store = MemoryStore::new();
        let mut disk = Tracked::new(noise(1, before as usize));
        let repository = backed_up(&store, &disk);
        disk.resize(after);
        let wrong = if before == after { 10 } else { 9 };
        disk.sneak(wrong * REGION, &[disk.disk.bytes[(wrong * REGION) as usize] ^ 1]);
        let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
        let found = audit_of(&report);
        assert_eq!(regions_of(&found.mismatches), [wrong], "from {before} to {after}");
        // A last region whose length changed is read in any case.
        assert_eq!(found.of_regions, if before == after { 11 } else { 10 }, "from {before} to {after}");
        assert_true(&repository, &disk);
    }
}

#[test]
fn the_neighbours_of_what_is_wrong_are_audited_until_one_is_right() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(400);
    let repository = backed_up(&store, &disk);
    // 40 of 400 regions lie side by side: a hundredth of them hits one sooner or later.
    let (first, last) = (100, 139);
    let mut hits = 0;
    for seed in 0..12 {
        for region in first..=last {
            disk.sneak(region * REGION + 999, &noise(1000 * seed + region, 8));
        }
        let report =
            Run::new(disk.day + 1, share(10_000, seed)).of(&repository, &[("disk0", disk.next_day())]);
        let found = audit_of(&report);
        if found.mismatches.is_empty() {
            assert_eq!(found.regions, 4);
            continue;
        }
        hits += 1;
        let all: Vec<u64> = (first..=last).collect();
        assert_eq!(regions_of(&found.mismatches), all, "seed {seed}");
        // The run and its two neighbours, what was drawn at first, and as many again in each round.
        assert!((42 + 4..400).contains(&found.regions), "{}", found.regions);
        assert_true(&repository, &disk);
    }
    assert!((1..12).contains(&hits), "{hits}");
}

/// A disk that notes what is read of it, and fails where it is told to.
struct Watched<'d> {
    disk: &'d MemoryDisk,
    reads: Mutex<Vec<Extent>>,
    fails_at: Option<u64>,
}

impl<'d> Watched<'d> {
    fn new(disk: &'d MemoryDisk) -> Self {
        Self { disk, reads: Mutex::default(), fails_at: None }
    }

    fn reads(&self) -> Vec<Extent> {
        let mut reads = self.reads.lock().unwrap().clone();
        reads.sort_unstable();
        reads
    }
}

impl Watched<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let read = Extent { start: offset, length: buffer.len() as u64 };
        self.reads.lock().unwrap().push(read);
        if self.fails_at.is_some_and(|at| read.clip(at, at + 1).is_some()) {
            return Err(io::Error::other("a bad sector"));
        }
        self.disk.read_at(offset, buffer)
    }
}

impl DiskSource for Watched<'_> {
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

#[test]
fn each_byte_of_a_region_is_read_once_in_long_requests() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(16);
    let repository = backed_up(&store, &disk);
    let watched = Watched::new(disk.next_day());
    Run::new(1, ALL).of(&repository, &[("disk0", &watched)]);
    let expected: Vec<Extent> = (0..16).map(|n| Extent { start: n * REGION, length: REGION }).collect();
    assert_eq!(watched.reads(), expected);
}

#[test]
fn what_the_pipeline_reads_anyway_is_not_read_for_the_audit() {
    let store = MemoryStore::new();
    let mut disk = Tracked::new(noise(1, 16 * REGION as usize));
    let repository = backed_up(&store, &disk);
    disk.write(3 * REGION, &noise(2, 4 * REGION as usize));
    disk.write(10 * REGION + 20_000, &noise(2, 100));
    let watched = Watched::new(disk.next_day());
    let report = Run::new(1, ALL).of(&repository, &[("disk0", &watched)]);
    let found = audit_of(&report);
    assert_eq!((found.regions, found.of_regions), (12, 12));
    // All but one or two chunks of the region with the small change.
    let missing = 12 * REGION - found.audited_bytes;
    assert!((100..=8192).contains(&missing), "{missing}");
    let read = total_length(&watched.reads());
    assert!(read < 16 * REGION + 20_000, "{read}");
}

#[test]
fn a_seed_repeats_a_choice_and_another_makes_another() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(100);
    let repository = backed_up(&store, &disk);
    let mut choice = |audit| {
        let watched = Watched::new(disk.next_day());
        let report = Run::new(watched.disk.change_id.as_ref().unwrap()[4..].parse().unwrap(), audit)
            .of(&repository, &[("disk0", &watched)]);
        (audit_of(&report).clone(), watched.reads())
    };
    let (drawn, regions) = choice(Audit::Share { ppm: 71_000, seed: None });
    assert_eq!((drawn.regions, drawn.of_regions, drawn.audited_bytes), (8, 100, 8 * REGION));
    assert!(drawn.seed < 1 << 53, "a reader of JSON would round {}", drawn.seed);
    let (again, same) = choice(share(71_000, drawn.seed));
    assert_eq!((&again, &same), (&drawn, &regions));
    let (other, others) = choice(Audit::Share { ppm: 71_000, seed: None });
    assert_ne!((other.seed, others), (drawn.seed, regions));
    // A share that is larger looks at the same and more.
    let (_, more) = choice(share(200_000, drawn.seed));
    assert!(same.iter().all(|region| more.contains(region)) && more.len() == 20);
}

#[test]
fn the_default_share_grows_with_the_changes_and_can_be_repeated() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(500);
    let repository = backed_up(&store, &disk);
    let report = Run::new(1, Audit::Default { seed: None }).of(&repository, &[("disk0", disk.next_day())]);
    let quiet = audit_of(&report);
    assert_eq!((quiet.regions, quiet.of_regions, quiet.share_ppm), (1, 500, 2000));
    disk.write(0, &noise(9, 33 * REGION as usize));
    let report = Run::new(2, Audit::Default { seed: Some(5) }).of(&repository, &[("disk0", disk.next_day())]);
    let busy = audit_of(&report);
    assert_eq!((busy.regions, busy.of_regions, busy.seed, busy.share_ppm), (3, 467, 5, 6423));
    disk.write(0, &noise(10, 33 * REGION as usize));
    let repeated = Run::new(3, share(6423, 5)).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!(audit_of(&repeated), busy);
    // A hundredth is the most, and a disk all of which changed has nothing to audit.
    disk.write(0, &noise(11, 300 * REGION as usize));
    let report = Run::new(4, Audit::Default { seed: None }).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!((audit_of(&report).regions, audit_of(&report).of_regions), (2, 200));
    disk.write(0, &noise(12, 500 * REGION as usize));
    let report = Run::new(5, Audit::Default { seed: None }).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!((audit_of(&report).regions, audit_of(&report).of_regions), (0, 0));
}

/// `1 - C(n - m, k) / C(n, k)`.
fn detection(n: u32, m: u32, k: u32) -> f64 {
    1.0 - (0..k).map(|drawn| f64::from(n - m - drawn) / f64::from(n - drawn)).product::<f64>()
}

#[test]
fn lies_are_found_as_often_as_the_formula_says() {
    const RUNS: u16 = 400;
    let store = MemoryStore::new();
    let mut disk = Tracked::new(noise(1, 40 * REGION as usize));
    let repository = backed_up(&store, &disk);
    let mut found = 0;
    for run in 1..=RUNS {
        // Three regions lie, each of them anew, and two of the forty are looked at.
        for region in [4, 20, 33] {
            disk.sneak(region * REGION + 7, &noise(u64::from(run), 8));
        }
        let audit = share(50_000, u64::from(run));
        let report = Run::new(run, audit).of(&repository, &[("disk0", disk.next_day())]);
        found += u32::from(!audit_of(&report).mismatches.is_empty());
    }
    let probability = detection(40, 3, 2);
    assert!((probability - 0.1462).abs() < 0.0001, "{probability}");
    let expected = f64::from(RUNS) * probability;
    let deviation = (expected * (1.0 - probability)).sqrt();
    assert!((f64::from(found) - expected).abs() < 3.0 * deviation, "{found} found, {expected} expected");
}

#[test]
fn each_disk_is_audited_and_reported_by_itself() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut honest = Tracked::of_regions(10);
    let mut lying = Tracked::new(noise(2, 12 * REGION as usize));
    let untracked = MemoryDisk::new(noise(3, 3 * REGION as usize));
    Run::new(0, ALL)
        .of(&repository, &[("honest", &honest.disk), ("lying", &lying.disk), ("untracked", &untracked)]);
    lying.sneak(5 * REGION, &[lying.disk.bytes[5 * REGION as usize] ^ 1]);
    honest.write(REGION, &noise(9, 10));
    let report = Run::new(1, ALL).of(
        &repository,
        &[("lying", lying.next_day()), ("untracked", &untracked), ("honest", honest.next_day())],
    );
    let audits: Vec<_> = report.disks.iter().map(|disk| disk.audit.clone()).collect();
    let [Some(of_lying), None, Some(of_honest)] = &audits[..] else { panic!("{audits:?}") };
    assert_eq!((regions_of(&of_lying.mismatches), &of_honest.mismatches), (vec![5], &Vec::new()));
    assert_eq!(of_lying.seed, of_honest.seed);
    let snapshot = latest(&repository, "vm");
    let keys: Vec<_> = snapshot.commit.properties.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["audit.lying"]);
    for (key, disk) in [("lying", &lying.disk), ("honest", &honest.disk), ("untracked", &untracked)] {
        assert!(restored(&repository, &snapshot, key).unwrap() == disk.bytes, "{key} differs");
    }
}

/// A disk of which something doubtful says what is allocated.
struct SaidAllocated {
    disk: MemoryDisk,
    allocated: Vec<Extent>,
}

impl DiskSource for SaidAllocated {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let outside = Outside::SaidZero { full_reason: None };
        Ok(ChangedAreas { areas: self.allocated.clone(), outside, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.disk.read(parts)
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_was_wrongly_said_to_be_unallocated_is_found_and_stored() {
    let mut bytes = vec![0; (20 * REGION) as usize];
    bytes[..100_000].copy_from_slice(&noise(1, 100_000));
    let place = 12 * REGION as usize + 777;
    let allocated = vec![Extent { start: 0, length: 2 * REGION }];
    let report_of = |bytes: Vec<u8>, audit| {
        let store = MemoryStore::new();
        let repository = create(&store, small_geometry());
        let disk = SaidAllocated { disk: MemoryDisk::new(bytes.clone()), allocated: allocated.clone() };
        let report = Run::new(1, audit).of(&repository, &[("disk0", &disk)]);
        let found = restored(&repository, &latest(&repository, "vm"), "disk0").unwrap();
        (report, found == bytes)
    };
    let (honest, is_right) = report_of(bytes.clone(), ALL);
    assert_eq!((audit_of(&honest).mismatches.len(), audit_of(&honest).of_regions, is_right), (0, 18, true));
    bytes[place..place + 50].copy_from_slice(&noise(2, 50));
    let (found, is_right) = report_of(bytes.clone(), ALL);
    assert_eq!(regions_of(&audit_of(&found).mismatches), [12]);
    assert!(is_right, "what differs is stored");
    let (believed, is_right) = report_of(bytes, Audit::Off);
    assert_eq!((only(&believed).mode, &only(&believed).audit, is_right), ("full", &None, false));
}

#[test]
fn what_is_read_in_full_is_not_audited() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(10);
    let repository = backed_up(&store, &disk);
    disk.sneak(5 * REGION, &noise(1, 100));
    let full = Run { reading: Reading::Everything, ..Run::new(1, ALL) };
    let report = full.of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!((only(&report).mode, &only(&report).audit), ("full", &None));
    // Changes since another point than the last snapshot are of no use.
    disk.next_day();
    let report = Run::new(2, ALL).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!((only(&report).mode, &only(&report).audit), ("full", &None));
    assert_true(&repository, &disk);
}

#[test]
fn what_is_read_again_because_its_packs_are_condemned_is_audited_all_the_same() {
    let store = MemoryStore::new();
    let mut disk = Tracked::new(noise(1, 20 * REGION as usize));
    let repository = backed_up(&store, &disk);
    let packs = packs_of(&latest(&repository, "vm"), &repository);
    let (name, bytes) = Condemned { packs: packs.into_iter().step_by(2).collect() }.seal(
        repository.keys(),
        &retention_key(&repository),
        0,
        [7; 32],
    );
    repository.store().put_new(&name, &bytes).unwrap();
    let wrong = [1, 4, 5, 12, 19];
    for region in wrong {
        disk.sneak(region * REGION + 12_345, &noise(region, 10));
    }
    disk.write(7 * REGION, &noise(50, 70_000));
    let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
    assert_eq!(regions_of(&audit_of(&report).mismatches), wrong);
    assert_true(&repository, &disk);
    undamaged(&repository);
}

/// Data packs that the store has, in order.
fn packs_of(snapshot: &Snapshot, repository: &Repository<'_>) -> Vec<repo_format::PackRef> {
    let prefix =
        repo_format::packs_prefix(repo_format::PackKind::Data, &snapshot.name.writer, snapshot.session());
    let listed = repository.list(&prefix).unwrap();
    let refs = listed.into_iter().filter_map(|info| match info.name.kind() {
        Some(repo_format::BlobKind::Pack(name)) => {
            Some(repo_format::PackRef { name, len: u32::try_from(info.len).unwrap() })
        }
        _ => None,
    });
    refs.collect()
}

#[test]
fn a_source_that_fails_is_an_error_that_names_disk_and_offset() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(10);
    let repository = backed_up(&store, &disk);
    let at = 6 * REGION + 100;
    let broken = Watched { fails_at: Some(at), ..Watched::new(disk.next_day()) };
    let failed = Run::new(1, ALL).observed(&repository, &[("disk0", &broken)], &Quiet).unwrap_err();
    assert_eq!(failed.to_string(), format!("could not read disk disk0 at offset {}", 6 * REGION));
    assert!(matches!(failed, EngineError::SourceAt { offset, .. } if offset == 6 * REGION));
    // There is no snapshot of it, and the one before is what counts.
    assert_eq!(latest(&repository, "vm").commit.time, NOW);
}

/// Stops at the first progress of an audit, and notes what phases there were.
#[derive(Default)]
struct Watching {
    stops: bool,
    auditing: AtomicBool,
    phases: Mutex<Vec<(Phase, u64)>>,
    progress: Mutex<Vec<u64>>,
}

impl Observer for Watching {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Phase { phase, total } => {
                self.auditing.store(matches!(phase, Phase::Audit { .. }), Ordering::Relaxed);
                self.phases.lock().unwrap().push((phase, total));
                self.progress.lock().unwrap().push(0);
            }
            Event::Progress(amount) => {
                *self.progress.lock().unwrap().last_mut().unwrap() += amount;
                if self.stops && self.auditing.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn an_audit_can_be_interrupted() {
    let store = MemoryStore::new();
    let mut disk = Tracked::of_regions(200);
    let repository = backed_up(&store, &disk);
    let watched = Watched::new(disk.next_day());
    let stopping = Watching { stops: true, ..Watching::default() };
    let stopped = Run::new(1, ALL).observed(&repository, &[("disk0", &watched)], &stopping);
    assert!(matches!(stopped, Err(EngineError::Cancelled)));
    assert!(watched.reads().len() < 100, "{} regions were read after that", watched.reads().len());
    assert_eq!(latest(&repository, "vm").commit.time, NOW);
}

#[test]
fn the_progress_of_an_audit_reaches_its_total() {
    let store = MemoryStore::new();
    let mut disk = Tracked::new(noise(1, 10 * REGION as usize + 5));
    let repository = backed_up(&store, &disk);
    disk.write(3 * REGION, &noise(2, REGION as usize));
    disk.sneak(8 * REGION, &noise(3, 5));
    let watching = Watching::default();
    Run::new(1, ALL).observed(&repository, &[("disk0", disk.next_day())], &watching).unwrap();
    let audit = Phase::Audit { disk: "disk0".to_owned() };
    let phases = watching.phases.into_inner().unwrap();
    assert_eq!(phases[0], (audit, 9 * REGION + 5));
    assert_eq!(watching.progress.into_inner().unwrap()[0], 9 * REGION + 5);
}

#[test]
fn jobs_that_cannot_be_are_refused() {
    let store = MemoryStore::new();
    let disk = Tracked::of_regions(1);
    let repository = create(&store, small_geometry());
    let too_much = Run::new(0, share(1_000_001, 1)).observed(&repository, &[("disk0", &disk.disk)], &Quiet);
    assert_eq!(too_much.unwrap_err().to_string(), "an audit of more than 100 % cannot be");
}

/// What happens to a disk, whether it is told or not.
#[derive(Clone, Debug)]
enum Change {
    Noise(Extent),
    Zero(Extent),
    Resize(usize),
}

const SIZE_MAX: usize = 400_000;

fn extents() -> impl Strategy<Value = Extent> {
    let edge = (0..24u64).prop_map(|n| n * (16 << 10));
    let start = prop_oneof![0..SIZE_MAX as u64, edge.clone(), edge.prop_map(|at| at.saturating_sub(1))];
    let length = prop_oneof![1..3u64, 1..200u64, Just(4096u64), 1..60_000u64, Just(16 << 10), Just(64 << 10)];
    (start, length).prop_map(|(start, length)| Extent { start, length })
}

fn changes() -> impl Strategy<Value = Vec<(Change, bool)>> {
    let change = prop_oneof![
        5 => extents().prop_map(Change::Noise),
        3 => extents().prop_map(Change::Zero),
        1 => (1..SIZE_MAX).prop_map(Change::Resize),
    ];
    prop::collection::vec((change, any::<bool>()), 0..6)
}

fn apply(disk: &mut Tracked, changes: &[(Change, bool)], seed: u64) {
    for (number, (change, told)) in (seed..).zip(changes) {
        let (extent, is_zero) = match change {
            Change::Resize(size) => {
                disk.resize(*size as u64);
                continue;
            }
            Change::Noise(extent) => (extent, false),
            Change::Zero(extent) => (extent, true),
        };
        let Some(extent) = extent.clip(0, disk.disk.bytes.len() as u64) else { continue };
        let len = extent.length as usize;
        let bytes = if is_zero { vec![0; len] } else { noise(number, len) };
        if *told { disk.write(extent.start, &bytes) } else { disk.sneak(extent.start, &bytes) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn after_a_complete_audit_every_snapshot_is_what_a_full_backup_makes(
        seed in any::<u32>(),
        size in 1..SIZE_MAX,
        days in prop::collection::vec(changes(), 1..4),
    ) {
        let store = MemoryStore::new();
        let mut disk = Tracked::new(mixed(seed.into(), size));
        let repository = backed_up(&store, &disk);
        for (day, changes) in (1u16..).zip(&days) {
            let before = disk.disk.bytes.clone();
            apply(&mut disk, changes, u64::from(seed) + 1000 * u64::from(day));
            let areas = disk.told.clone();
            let report = Run::new(day, ALL).of(&repository, &[("disk0", disk.next_day())]);
            assert_true(&repository, &disk);
            // What is reported does differ, and was not told.
            for range in &audit_of(&report).mismatches {
                let bytes = |of: &[u8]| of[range.start as usize..range.end() as usize].to_vec();
                prop_assert!(bytes(&before) != bytes(&disk.disk.bytes), "{range:?} does not differ");
                let areas = extent::normalized(areas.clone());
                prop_assert!(areas.iter().all(|area| area.clip(range.start, range.end()).is_none()));
            }
        }
        undamaged(&repository);
    }

    #[test]
    fn true_changes_are_never_called_lies(
        seed in any::<u32>(),
        size in 1..SIZE_MAX,
        changes in changes(),
    ) {
        let store = MemoryStore::new();
        let mut disk = Tracked::new(mixed(seed.into(), size));
        let repository = backed_up(&store, &disk);
        let told: Vec<(Change, bool)> = changes.into_iter().map(|(change, _)| (change, true)).collect();
        apply(&mut disk, &told, seed.into());
        let report = Run::new(1, ALL).of(&repository, &[("disk0", disk.next_day())]);
        prop_assert_eq!(&audit_of(&report).mismatches, &Vec::new());
        assert_true(&repository, &disk);
    }
}
