//! Thousands of faults: whatever they are, a snapshot that was acknowledged restores bit for bit.

use crate::faults::{azurite, through};
use crate::service::{container, key, open, settings, settings_at};
use crate::world;
use keepstone_engine::Entropy;
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::azure::AzureStore;
use keepstone_peers::proxy::{Fault, Kind, Plan, Proxy, Request};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Faults that are to happen at least, if nothing else is asked for.
const FAULTS: u64 = 2000;
/// Kinds of faults: what a plan draws by itself, and what [`plan`] makes of some of it.
const KINDS: usize = 15 + 3;
/// Histories at one time.
const THREADS: u64 = 4;
/// Backups in one history.
const BACKUPS: u8 = 3;

/// `KEEPSTONE_FAULTS` asks for more.
fn wanted() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a campaign is longer than a test")]
    let asked = std::env::var("KEEPSTONE_FAULTS").ok();
    asked.map_or(FAULTS, |text| text.parse().expect("KEEPSTONE_FAULTS is a number"))
}

/// What befalls a request: nothing in a listing says that it is unchanged, so only a connection that is authenticated
/// keeps its bytes, and here is none. What is sent is only compared where it comes with a digest.
fn plan(seed: u64) -> Plan {
    let random = Plan::random(seed, 0.25);
    Plan::new(move |request: &Request| {
        let is_listing = request.query.as_deref().is_some_and(|query| query.contains("comp=list"));
        match random.draw(request) {
            Fault::AnswerFlipped { .. } if is_listing => Fault::AnswerLost,
            Fault::AnswerReset { after } if after % 8 == 0 => Fault::StuckInAnswer { after },
            Fault::AnswerTruncated { after } if after % 8 == 0 => Fault::Stuck,
            Fault::RequestCut { after } if sends_digests(seed) => Fault::RequestFlipped { at: after },
            fault => fault,
        }
    })
}

fn sends_digests(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

#[test]
fn every_acknowledged_snapshot_restores_bit_for_bit() {
    let wanted = wanted();
    let (seeds, snapshots) = (AtomicU64::new(0), AtomicU64::new(0));
    let faults: Mutex<BTreeMap<Kind, u64>> = Mutex::default();
    let happened = || faults.lock().expect("nobody panics with it").values().sum::<u64>();
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while happened() < wanted {
                    let (more, kept) = history(seeds.fetch_add(1, Ordering::Relaxed));
                    snapshots.fetch_add(kept, Ordering::Relaxed);
                    let mut faults = faults.lock().expect("nobody panics with it");
                    for (kind, count) in more {
                        *faults.entry(kind).or_default() += count;
                    }
                }
            });
        }
    });
    let (seeds, snapshots) = (seeds.into_inner(), snapshots.into_inner());
    let sum = happened();
    println!("{sum} faults in {seeds} histories, {snapshots} snapshots acknowledged: {faults:#?}");
    assert_eq!(
        snapshots,
        seeds * u64::from(BACKUPS),
        "a backup failed although each request was tried often"
    );
    let kinds = faults.into_inner().expect("nobody panicked with it").len();
    assert_eq!(kinds, KINDS, "not every kind of fault happened");
}

/// Backs up a disk that changes, restores each snapshot through the same faults, and in the end all without them.
/// Returns how many faults there were, and how many snapshots.
fn history(seed: u64) -> (BTreeMap<Kind, u64>, u64) {
    let container = container();
    let proxy = Proxy::start(azurite(), plan(seed));
    let mut harmed = settings_at(&through(&proxy), &container, key());
    harmed.entropy = Entropy::new(*blake3::hash(&seed.to_le_bytes()).as_bytes());
    harmed.content_md5 = sends_digests(seed);
    harmed.retry.tries = 40;
    harmed.retry.deadline = Duration::from_millis(300);
    harmed.retry.list_deadline = Duration::from_millis(300);
    let mut disk = world::mixed(seed, 200_000);
    let mut acknowledged = Vec::new();
    world::create(&open(harmed.clone()), world::small_geometry());
    for run in 0..BACKUPS {
        let at = usize::from(run) * 50_000;
        disk[at..at + 10_000].copy_from_slice(&world::noise(seed + 1000 * u64::from(run), 10_000));
        let store = open(harmed.clone());
        let repository = world::open(&store);
        let mut index = world::memory_index(&repository);
        let source = MemoryDisk::new(disk.clone());
        let report = world::back_up(&repository, &mut index, "vm", &[("disk", &source)], run + 1);
        let report = report.unwrap_or_else(|error| panic!("seed {seed}, backup {run}: {error:?}"));
        acknowledged.push((report.snapshot.to_string(), disk.clone()));
    }
    let unharmed = settings(&container, key());
    for (snapshot, disk) in &acknowledged {
        for settings in [&harmed, &unharmed] {
            let restored = restored(&open(settings.clone()), snapshot);
            assert!(restored == *disk, "seed {seed}: snapshot {snapshot} restores to other bytes");
        }
    }
    world::undamaged(&world::open(&open(unharmed)));
    (proxy.counts().faults, acknowledged.len() as u64)
}

fn restored(store: &AzureStore, snapshot: &str) -> Vec<u8> {
    let repository = world::open(store);
    let found = find(&repository, &Selector::Id(snapshot.to_owned())).expect("the snapshot is found");
    world::restored(&repository, &found, "disk").expect("the snapshot is restored")
}
