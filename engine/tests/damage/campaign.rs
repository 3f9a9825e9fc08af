//! Every byte of a repository of about 2 MiB flipped (one bit, and all bits), and every blob cut to every length.
//!
//! After each change the repository is opened, verified with its data, and restored with keeping going. Then either
//! everything is as before, or the change was found and its blob named; and no wrong byte came out.
//!
//! The repository consists of many small VMs that share nothing but the config, the key slots and what a pruner wrote.
//! A change is tried on a repository that holds the blobs of one VM only: that each blob concerns no other VM is shown
//! once for each, by restoring all others without it.
//!
//! The tests try a sample. `make campaign` tries everything, or a part: `PART=0/10` is every tenth case from the
//! first on.

use crate::lab::{OTHER_PASSWORD, add_other_slot, back_up};
use crate::matrix::is_of_content;
use crate::pruner::{End, Repack, condemn, forget, publish_result, seal_generation};
use crate::world::{NOW, PASSWORD, create, noise};
use keepstone_engine::backup::Reading;
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::restore::{OnDamage, RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::verify::{Finding, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, DiskSource, Extent, Repository};
use repo_format::{BlobKind, BlobName, ChunkerName, ChunkerParams, Geometry, PackKind, PackRef, SessionId};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const VMS: u8 = 34;
/// One VM in so many has a second, incremental snapshot.
const CHANGED_VMS: u8 = 4;
const DISK_LEN: usize = 60_000;
const CHANGED_LEN: usize = 8_000;
/// Blobs of each kind in a sample, and changes of each of them.
const SAMPLE: (usize, usize) = (3, 12);
/// Cases that a thread takes at a time.
const BATCH: usize = 256;

/// What is done to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    OneBit,
    AllBits,
    Cut,
}

const CHANGES: [Change; 3] = [Change::OneBit, Change::AllBits, Change::Cut];

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The repository does not open, and says why.
    NotOpened,
    /// `verify` names the blob, and nothing is lost.
    Found,
    /// `verify` names the blob, and so does what is lost.
    FoundAndLost,
    /// All is as before.
    Same,
}

/// How often what became of which change of which kind of blob.
type Counts = BTreeMap<(&'static str, Change, Outcome), u64>;

struct Kept {
    snapshot: Snapshot,
    bytes: Vec<u8>,
}

struct Campaign {
    store: MemoryStore,
    kept: Vec<Kept>,
    blobs: Vec<Blob>,
}

/// A blob, and what it is tried with.
struct Blob {
    name: BlobName,
    kind: &'static str,
    bytes: Vec<u8>,
    vm: String,
    /// The snapshots that cannot be restored whole without it.
    concerns: Vec<usize>,
}

fn geometry() -> Geometry {
    Geometry {
        chunker: ChunkerParams { name: ChunkerName::FastCdc2020, min: 1024, average: 4096, max: 16 << 10 },
        region_len: 64 << 10,
        cell_len: 16 << 10,
        pack_len: 64 << 10,
    }
}

fn kind(name: &BlobName) -> &'static str {
    match name.kind().unwrap() {
        BlobKind::Config => "config",
        BlobKind::KeySlot(_) => "key slot",
        BlobKind::Intent { .. } => "intent",
        BlobKind::Pack(pack) if pack.kind == PackKind::Data => "data pack",
        BlobKind::Pack(_) => "map pack",
        BlobKind::Index { .. } => "index",
        BlobKind::Decision(_) => "decision",
        BlobKind::Tombstone { .. } => "tombstone",
        BlobKind::Condemned(_) => "condemned list",
        BlobKind::Awaited(_) => "awaited sessions",
        BlobKind::GcResult(_) => "result",
        BlobKind::GenerationSeal(_) => "generation seal",
        BlobKind::Repack(_) => "repack record",
        BlobKind::Pin { .. } => "pin",
        BlobKind::ReplicaMarker => "mark of a replica",
        BlobKind::Lineage(_) => "lineage",
        BlobKind::Barrier { .. } => "fact about a replica",
        BlobKind::Canary => "canary",
    }
}

/// The session that a blob is of; nothing if it belongs to all.
fn session(name: &BlobName) -> Option<SessionId> {
    match name.kind()? {
        BlobKind::Intent { session, .. } | BlobKind::Index { session, .. } => Some(session),
        BlobKind::Pack(pack) => Some(pack.session),
        BlobKind::Decision(decision) => Some(decision.session),
        _ => None,
    }
}

impl Campaign {
    /// A campaign over all blobs, or over the first few of each kind. Packs that no snapshot needs are left out: they are
    /// not looked at.
    fn new(of_each_kind: usize) -> Self {
        let store = MemoryStore::new();
        let repository = create(&store, geometry());
        add_other_slot(&store);
        let mut kept = Vec::new();
        for vm in 0..VMS {
            let name = format!("vm-{vm}");
            let mut disk = MemoryDisk {
                change_id: Some("one".into()),
                ..MemoryDisk::new(noise(u64::from(vm), DISK_LEN))
            };
            let mut back_up_next = |disk: &MemoryDisk, run: u8| {
                let disks: [(&str, &dyn DiskSource); 1] = [("disk0", disk)];
                back_up(&repository, &name, &disks, run, Reading::Changes).unwrap();
                let snapshot = find(&repository, &Selector::Latest(name.clone())).unwrap();
                kept.push(Kept { snapshot, bytes: disk.bytes.clone() });
            };
            back_up_next(&disk, 2 * vm);
            if vm % CHANGED_VMS != 0 {
                continue;
            }
            let area = Extent { start: 20_000, length: CHANGED_LEN as u64 };
            disk.bytes[20_000..][..CHANGED_LEN].copy_from_slice(&noise(1000 + u64::from(vm), CHANGED_LEN));
            disk.changes = Some(("one".into(), vec![area]));
            back_up_next(&disk, 2 * vm + 1);
        }
        prune(&repository, &kept[0].snapshot);
        drop(repository);
        let mut campaign = Self { store, kept, blobs: Vec::new() };
        let mut taken: BTreeMap<&'static str, usize> = BTreeMap::new();
        for name in campaign.store.names() {
            let is_needed =
                !matches!(name.kind(), Some(BlobKind::Pack(_))) || campaign.kept_of(&name).is_some();
            let taken = taken.entry(kind(&name)).or_default();
            if is_needed && *taken < of_each_kind {
                *taken += 1;
                let blob = campaign.blob(name);
                campaign.blobs.push(blob);
            }
        }
        campaign
    }

    /// The snapshot of the session that a blob is of.
    fn kept_of(&self, name: &BlobName) -> Option<&Kept> {
        self.kept.iter().find(|kept| Some(kept.snapshot.session()) == session(name))
    }

    /// The VM that a blob is of; the first one has what belongs to none.
    fn vm_of(&self, name: &BlobName) -> &str {
        self.kept_of(name).map_or("vm-0", |kept| kept.snapshot.commit.vm.as_str())
    }

    /// A blob of a session concerns the snapshots of its VM from that session on; all others restore without it.
    fn blob(&self, name: BlobName) -> Blob {
        let vm = self.vm_of(&name);
        let without = self.store.copied();
        without.delete(&name).unwrap();
        let mut concerns = Vec::new();
        match Repository::open(&without, PASSWORD).or_else(|_| Repository::open(&without, OTHER_PASSWORD)) {
            Ok(repository) => {
                for (position, kept) in self.kept.iter().enumerate() {
                    if !restores_whole(&repository, kept) {
                        assert_eq!(kept.snapshot.commit.vm, vm, "{name} concerns another VM");
                        concerns.push(position);
                    }
                }
            }
            Err(_) => assert_eq!(name, BlobName::config()),
        }
        let bytes = self.store.get(&name, None).unwrap();
        Blob { kind: kind(&name), bytes, vm: vm.to_owned(), concerns, name }
    }

    /// The repository with the blobs of one VM.
    fn of_vm(&self, vm: &str) -> MemoryStore {
        let store = MemoryStore::new();
        for name in self.store.names() {
            let is_shared = matches!(name.kind(), Some(BlobKind::Config | BlobKind::KeySlot(_)));
            if is_shared || self.vm_of(&name) == vm {
                store.overwrite(&name, &self.store.get(&name, None).unwrap());
            }
        }
        store
    }

    /// The same, and what is told of it as it was.
    fn with_notes(&self, vm: &str) -> (MemoryStore, Vec<Finding>) {
        let store = self.of_vm(vm);
        let notes = findings(&Repository::open(&store, PASSWORD).unwrap()).unwrap();
        assert!(notes.iter().all(|finding| !is_of_content(finding.kind)), "{notes:?}");
        (store, notes)
    }

    /// Tries a change, and puts things back.
    fn check(
        &self,
        (store, notes): &(MemoryStore, Vec<Finding>),
        blob: &Blob,
        change: Change,
        at: usize,
    ) -> Result<Outcome, String> {
        let mut bytes = blob.bytes.clone();
        match change {
            Change::OneBit => bytes[at] ^= 1 << (at % 8),
            Change::AllBits => bytes[at] ^= 0xff,
            Change::Cut => bytes.truncate(at),
        }
        store.overwrite(&blob.name, &bytes);
        let outcome = self.outcome(store, notes, blob);
        store.overwrite(&blob.name, &blob.bytes);
        outcome
    }

    fn outcome(&self, store: &MemoryStore, notes: &[Finding], blob: &Blob) -> Result<Outcome, String> {
        let is_other = blob.name.as_str() == "keys/other";
        let password = if is_other { OTHER_PASSWORD } else { PASSWORD };
        let repository = match Repository::open(store, password) {
            Ok(repository) => repository,
            Err(error) if matches!(blob.kind, "config" | "key slot") => {
                // What it says is compared in the matrix; here, that it is told at all.
                return if error.to_string().is_empty() {
                    Err("nothing is said".to_owned())
                } else {
                    Ok(Outcome::NotOpened)
                };
            }
            Err(error) => return Err(format!("it does not open: {error}")),
        };
        if blob.name.as_str() == "keys/retention" && unlock_retention(&repository, PASSWORD).is_err() {
            return Ok(Outcome::NotOpened);
        }
        let findings = findings(&repository)?;
        let of_content = |finding: &&Finding| is_of_content(finding.kind);
        if let Some(other) = findings.iter().filter(of_content).find(|found| found.blob != blob.name.as_str())
        {
            return Err(format!("another blob is blamed: {other:?}"));
        }
        let is_found = findings.iter().any(|finding| !notes.contains(finding));
        let mut lost = false;
        for kept in blob.concerns.iter().filter_map(|position| self.kept.get(*position)) {
            lost |= loses(&repository, kept, blob)?;
        }
        match (!is_found, lost) {
            (true, true) => Err("something is lost and not found".to_owned()),
            (true, false) => Ok(Outcome::Same),
            (false, true) => Ok(Outcome::FoundAndLost),
            (false, false) => Ok(Outcome::Found),
        }
    }
}

/// Whether a snapshot loses something; then it says so and names the blob, and nothing else is wrong.
fn loses(repository: &Repository<'_>, kept: &Kept, blob: &Blob) -> Result<bool, String> {
    let id = kept.snapshot.session().to_string();
    let snapshot = match find(repository, &Selector::Id(id)) {
        Ok(snapshot) => snapshot,
        Err(error) if error.to_string().contains(blob.name.as_str()) => return Ok(true),
        Err(error) => return Err(format!("the snapshot is not found: {error}")),
    };
    let target = MemoryTarget::new(kept.bytes.len());
    let job = RestoreJob {
        window_len: 1 << 20,
        on_damage: OnDamage::KeepGoing,
        ..RestoreJob::new(snapshot.session(), snapshot.disk(None).unwrap(), &target)
    };
    let report = restore(repository, &job, &Quiet).map_err(|error| error.to_string())?;
    let mut expected = kept.bytes.clone();
    for range in &report.lost {
        let start = usize::try_from(range.start).unwrap();
        expected[start..][..usize::try_from(range.length).unwrap()].fill(0);
        if range.blob != blob.name.as_str() {
            return Err(format!("another blob is blamed: {range:?}"));
        }
    }
    if target.into_bytes() == expected { Ok(!report.lost.is_empty()) } else { Err("wrong bytes".to_owned()) }
}

fn findings(repository: &Repository<'_>) -> Result<Vec<Finding>, String> {
    let job = VerifyJob::everything(ReadData::Everything, NOW);
    Ok(verify(repository, &job, &Quiet).map_err(|error| error.to_string())?.findings)
}

fn restores_whole(repository: &Repository<'_>, kept: &Kept) -> bool {
    let Ok(snapshot) = find(repository, &Selector::Id(kept.snapshot.session().to_string())) else {
        return false;
    };
    matches!(crate::world::restored(repository, &snapshot, "disk0"), Ok(bytes) if bytes == kept.bytes)
}

/// What a pruner and the retention write. What they move and forget is of a VM of its own.
fn prune(repository: &Repository<'_>, root: &Snapshot) {
    let disk = MemoryDisk::new(noise(7, 500));
    let report = back_up(repository, "forgotten", &[("disk0", &disk)], 0xcc, Reading::Changes).unwrap();
    let snapshot = find(repository, &Selector::Id(report.snapshot.to_string())).unwrap();
    let packs = repository.list(PackKind::Data.prefix()).unwrap();
    let of_snapshot = packs.into_iter().find_map(|info| match info.name.kind() {
        Some(BlobKind::Pack(name)) if name.session == snapshot.session() => {
            Some(PackRef { name, len: u32::try_from(info.len).unwrap() })
        }
        _ => None,
    });
    let pack = [of_snapshot.unwrap()];
    let applies_to = [root.session()];
    Repack { session: 0xa1, from: &pack, applies_to: &applies_to, one_in: 1, end: End::Commit }
        .run(repository);
    for generation in 0..2 {
        condemn(repository, generation, &pack);
    }
    publish_result(repository, 0, &pack);
    seal_generation(repository, 1);
    forget(repository, &snapshot.name);
}

/// A case: a blob by its place, and the number of a change of it.
type Case = (usize, usize);

impl Blob {
    fn cases(&self) -> usize {
        self.bytes.len() * CHANGES.len()
    }

    fn change(&self, case: usize) -> (Change, usize) {
        (CHANGES[case / self.bytes.len()], case % self.bytes.len())
    }
}

/// Tries cases on all cores; what came of them, and what went wrong.
fn run(campaign: &Campaign, batches: &(dyn Fn(usize) -> Option<Vec<Case>> + Sync)) -> (Counts, Vec<String>) {
    let next = AtomicUsize::new(0);
    let total: Mutex<(Counts, Vec<String>)> = Mutex::default();
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                let mut stores: BTreeMap<&str, (MemoryStore, Vec<Finding>)> = BTreeMap::new();
                while let Some(cases) = batches(next.fetch_add(1, Ordering::Relaxed)) {
                    let (mut counts, mut problems) = (Counts::new(), Vec::new());
                    for (place, case) in cases {
                        let blob = &campaign.blobs[place];
                        let (change, at) = blob.change(case);
                        let of_vm = stores.entry(&blob.vm).or_insert_with(|| campaign.with_notes(&blob.vm));
                        match campaign.check(of_vm, blob, change, at) {
                            Ok(outcome) => *counts.entry((blob.kind, change, outcome)).or_default() += 1,
                            Err(problem) => {
                                problems.push(format!("{} {change:?} {at}: {problem}", blob.name));
                            }
                        }
                    }
                    let mut total = total.lock().unwrap();
                    for (what, count) in counts {
                        *total.0.entry(what).or_default() += count;
                    }
                    total.1.extend(problems);
                }
            });
        }
    });
    total.into_inner().unwrap()
}

/// Nothing went wrong, and what changed nothing is a line end that JSON had and has not any more.
fn assert_explained(counts: &Counts, problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems, the first are {:#?}",
        problems.len(),
        &problems[..problems.len().min(9)]
    );
    for ((kind, change, outcome), count) in counts {
        let is_line_end = matches!(*kind, "config" | "key slot") && *change == Change::Cut && *count <= 2;
        assert!(*outcome != Outcome::Same || is_line_end, "{count} x {kind} {change:?} was not found");
    }
}

#[test]
fn a_change_of_any_byte_or_length_is_found_and_harms_nothing_else() {
    #[expect(clippy::disallowed_methods, reason = "how much is tried is said by whoever runs the tests")]
    match std::env::var("KEEPSTONE_CAMPAIGN") {
        Ok(part) => try_part(&part),
        Err(_) => try_sample(),
    }
}

fn try_sample() {
    let (blobs, changes) = SAMPLE;
    let campaign = Campaign::new(blobs);
    let draw = |place: usize, number: usize| {
        let seed = [place as u64, number as u64].map(u64::to_le_bytes).concat();
        let hash = blake3::hash(&seed);
        let mut drawn = [0; 8];
        drawn.copy_from_slice(&hash.as_bytes()[..8]);
        (place, (u64::from_le_bytes(drawn) % campaign.blobs[place].cases() as u64) as usize)
    };
    let batch = |place: usize| {
        (place < campaign.blobs.len()).then(|| (0..changes).map(|number| draw(place, number)).collect())
    };
    let (counts, problems) = run(&campaign, &batch);
    assert_explained(&counts, &problems);
    assert_eq!(counts.values().sum::<u64>(), (campaign.blobs.len() * changes) as u64);
    assert_eq!(campaign.blobs.len(), 25);
}

/// Tries everything, or the part of it that is named.
#[expect(clippy::print_stdout, reason = "whoever runs a campaign wants to see what came of it")]
fn try_part(part: &str) {
    let (first, step) = part.split_once('/').expect("a part is written as FIRST/STEP");
    let (first, step): (usize, usize) = (first.parse().unwrap(), step.parse().unwrap());
    let campaign = Campaign::new(usize::MAX);
    // Batches of neighbouring cases, so that a thread stays with a blob.
    let starts: Vec<Case> = campaign
        .blobs
        .iter()
        .enumerate()
        .flat_map(|(place, blob)| (0..blob.cases()).step_by(BATCH * step).map(move |start| (place, start)))
        .collect();
    let batch = |number: usize| {
        let &(place, start) = starts.get(number)?;
        let end = (start + BATCH * step).min(campaign.blobs[place].cases());
        Some((start + first..end).step_by(step).map(|case| (place, case)).collect())
    };
    let (counts, problems) = run(&campaign, &batch);
    let bytes: usize = campaign.blobs.iter().map(|blob| blob.bytes.len()).sum();
    println!("{} blobs of {bytes} bytes, {} cases", campaign.blobs.len(), counts.values().sum::<u64>());
    for ((kind, change, outcome), count) in &counts {
        println!("{count:>9} x {kind}, {change:?}: {outcome:?}");
    }
    problems.iter().take(99).for_each(|problem| println!("PROBLEM {problem}"));
    assert_explained(&counts, &problems);
}
