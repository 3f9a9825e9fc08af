//! Whole backups and restores with all threads, over a store and a disk in memory.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use keepstone_benches::changes::ChangedBlocks;
use keepstone_benches::repository::{DISK, Run, back_up, create, open, open_index};
use keepstone_benches::synthetic;
use keepstone_benches::tracked::TrackedDisk;
use keepstone_engine::extent::total_length;
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::{DiskSource, Extent};
use std::time::Duration;

const DISK_LEN: usize = 256 << 20;
const VM: &str = "vm";
const LEVEL: i32 = 1;

criterion_group! {
    name = pipelines;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    targets = first_backup, later_backups, restoring
}
criterion_main!(pipelines);

fn disk() -> MemoryDisk {
    MemoryDisk::new(synthetic::disk(1, DISK_LEN))
}

/// Backs up into a store with a repository, with an index that knows nothing: a chunk that the parent has at the
/// same place needs none.
fn run(store: &MemoryStore, source: &dyn DiskSource, number: u8) {
    let repository = open(store).expect("a repository was created");
    let mut index = open_index(&repository, None).expect("memory is always there");
    let run = Run { vm: VM, source, level: LEVEL, number };
    back_up(&repository, &mut index, &run).expect("nothing fails in memory");
}

fn empty_repository() -> MemoryStore {
    let store = MemoryStore::new();
    create(&store).expect("an empty store takes a repository");
    store
}

fn backed_up(disk: &MemoryDisk) -> MemoryStore {
    let store = empty_repository();
    run(&store, &TrackedDisk::untracked(disk, "0"), 0);
    store
}

fn first_backup(criterion: &mut Criterion) {
    let disk = disk();
    let mut group = criterion.benchmark_group("backup");
    group.throughput(Throughput::Bytes(disk.size()));
    group.bench_function("first", |bencher| {
        let routine = |store: MemoryStore| {
            run(&store, &TrackedDisk::untracked(&disk, "0"), 0);
            store
        };
        bencher.iter_batched(empty_repository, routine, BatchSize::PerIteration);
    });
}

fn later_backups(criterion: &mut Criterion) {
    let disk = disk();
    let store = backed_up(&disk);
    let allocated = [Extent { start: 0, length: disk.size() }];
    let changes = ChangedBlocks::choose(&allocated, disk.size() / 100, 1);
    let cases = [
        ("again, changes not known", TrackedDisk::untracked(&disk, "1"), disk.size()),
        ("nothing changed, by disk size", TrackedDisk::unchanged(&disk, "0", "1"), disk.size()),
        (
            "1 % changed, by changed bytes",
            TrackedDisk::changed(&disk, &changes, "0", "1"),
            total_length(&changes.areas()),
        ),
    ];
    let mut group = criterion.benchmark_group("backup");
    for (name, source, bytes) in &cases {
        group.throughput(Throughput::Bytes(*bytes));
        group.bench_function(*name, |bencher| {
            let routine = |store: MemoryStore| {
                run(&store, source, 1);
                store
            };
            bencher.iter_batched(|| store.copied(), routine, BatchSize::PerIteration);
        });
    }
}

fn restoring(criterion: &mut Criterion) {
    let disk = disk();
    let store = backed_up(&disk);
    let repository = open(&store).expect("a repository was created");
    let snapshot = find(&repository, &Selector::Latest(VM.to_owned())).expect("there is one");
    let target = MemoryTarget::new(DISK_LEN);
    let job =
        RestoreJob::new(snapshot.session(), snapshot.disk(Some(DISK)).expect("it has this disk"), &target);
    let mut group = criterion.benchmark_group("restore");
    group.throughput(Throughput::Bytes(disk.size()));
    group.bench_function("whole disk", |bencher| {
        bencher.iter(|| restore(&repository, &job, &Quiet).expect("nothing fails in memory"));
    });
    assert!(target.into_bytes() == disk.bytes, "what is restored is what was backed up");
}
