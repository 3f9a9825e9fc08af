//! Measures a disk that is served from a repository: when it is there, and how fast it is read, beside a restore.

use anyhow::{Context as _, ensure};
use clap::Parser;
use keepstone_benches::files::{Nothing, cache_files, say, temporary_directory};
use keepstone_benches::random::Random;
use keepstone_benches::repository::{self, Run};
use keepstone_benches::table::{float, median, mib, new_table};
use keepstone_engine::extent::total_length;
use keepstone_engine::nbd::server::{Listener, Served, ServerSettings, serve};
use keepstone_engine::nbd::{NbdPlace, NbdSettings};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{OnDamage, Onto, RestoreJob, WINDOW_LEN, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::source::{ChangedAreas, NbdDisk, Outside, RawImage, ReadPart, Since};
use keepstone_engine::store::LocalStore;
use keepstone_engine::view::{DiskView, ViewSettings};
use keepstone_engine::{DiskSource, Extent, Repository};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// The size of a disk with next to nothing on it: the largest that a VM has.
const HUGE: u64 = 62 << 40;
/// What a random read reads.
const BLOCK_LEN: u64 = 4096;
/// Random reads of a round.
const READS: usize = 4000;
const LEVEL: i32 = 1;

/// Backs up a raw image, serves it, and reads it in several ways.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read
    image: PathBuf,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZero<u32>,

    /// Threads that read at random at one time
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 8])]
    threads: Vec<usize>,
}

/// A disk of which only the end is there.
struct Huge;

impl DiskSource for Huge {
    fn size(&self) -> u64 {
        HUGE
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let areas = vec![Extent { start: HUGE - (1 << 20), length: 1 << 20 }];
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason: None }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        for part in parts {
            part.buffer.fill(7);
        }
        Ok(())
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let directory = temporary_directory("keepstone-serve-", None, Some(&arguments.image))?;
    let image = RawImage::open(&arguments.image)?;
    let areas = image.changed_areas(None)?.areas;
    let path = directory.path().join("repository");
    let store = LocalStore::create(&path)?;
    let repository = repository::create(&store)?;
    let mut index = repository::open_index(&repository, None)?;
    say("backing up the image")?;
    repository::back_up(
        &repository,
        &mut index,
        &Run { vm: "image", source: &image, level: LEVEL, number: 1 },
    )?;
    repository::back_up(
        &repository,
        &mut index,
        &Run { vm: "huge", source: &Huge, level: LEVEL, number: 1 },
    )?;
    cache_files(&path)?;
    let mut table = new_table(&["what", "s", "rate", "of restore"]);
    let mut row = |what: &str, seconds: f64, rate: String, ratio: String| {
        table.add_row(vec![what.to_owned(), format!("{seconds:.4}"), rate, ratio]);
    };
    for (vm, name) in [("image", "the image"), ("huge", "a disk of 62 TiB")] {
        let ready = rounds(&arguments, || first_byte(&path, directory.path(), vm))?;
        row(&format!("{name}: opened, served, last 4 KiB read"), ready, String::new(), String::new());
    }
    let bytes = total_length(&areas);
    let rate = |seconds: f64| format!("{} MiB/s", mib_rate(bytes, seconds));
    let restored = rounds(&arguments, || seconds(|| restored(&repository)))?;
    row("restore to nothing", restored, rate(restored), "1.00".to_owned());
    for (what, options) in [
        ("nbdcopy to nothing, 4 connections", &["--connections=4"][..]),
        ("nbdcopy to nothing, 1 connection", &["--connections=1"]),
    ] {
        let copied = rounds(&arguments, || {
            serving(&repository, directory.path(), |uri, _| seconds(|| nbdcopy(options, uri)))
        })?;
        row(what, copied, rate(copied), format!("{:.2}", restored / copied));
    }
    for threads in &arguments.threads {
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for round in 0..arguments.rounds.get() {
            let reads = random_reads(&areas, round.into());
            serving(&repository, directory.path(), |uri, _| {
                let disk = client(uri, *threads)?;
                cold.push(seconds(|| read_all(&disk, &reads, *threads))?);
                warm.push(seconds(|| read_all(&disk, &reads, *threads))?);
                Ok(())
            })?;
        }
        for (what, times) in [("cold", cold), ("warm", warm)] {
            let time = median(times);
            let count = format!("{:.0} reads/s", float(READS as u64) / time);
            row(&format!("4 KiB at random, {what}, {threads} at a time"), time, count, String::new());
        }
    }
    writeln!(io::stdout(), "{} MiB in use\n{table}", mib(bytes))?;
    Ok(())
}

fn mib_rate(bytes: u64, seconds: f64) -> String {
    format!("{:.0}", float(bytes) / float(1 << 20) / seconds)
}

fn rounds(arguments: &Arguments, mut action: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let times = (0..arguments.rounds.get()).map(|_| action()).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(median(times))
}

fn seconds(action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    action()?;
    Ok(began.elapsed().as_secs_f64())
}

fn restored(repository: &Repository<'_>) -> anyhow::Result<()> {
    let snapshot = find(repository, &Selector::Latest("image".to_owned()))?;
    let job = RestoreJob {
        snapshot: snapshot.session(),
        disk: snapshot.disk(None)?,
        target: &Nothing,
        window_len: WINDOW_LEN,
        on_damage: OnDamage::Stop,
        onto: Onto::New,
        journal: None,
    };
    restore(repository, &job, &Quiet)?;
    Ok(())
}

/// Opens the repository and serves a disk of it; the seconds until the last block was read.
fn first_byte(repository: &Path, directory: &Path, vm: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let store = LocalStore::open(repository)?;
    let repository = repository::open(&store)?;
    serving_vm(&repository, directory, vm, |uri, size| {
        let disk = client(uri, 1)?;
        let mut buffer = [0; 4096];
        disk.read(&mut [ReadPart { offset: size - BLOCK_LEN, buffer: &mut buffer }])?;
        Ok(began.elapsed().as_secs_f64())
    })
}

fn serving<T>(
    repository: &Repository<'_>,
    directory: &Path,
    body: impl FnOnce(&str, u64) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    serving_vm(repository, directory, "image", body)
}

/// Serves a disk with nothing in memory while `body` runs, which gets its URI and its size.
fn serving_vm<T>(
    repository: &Repository<'_>,
    directory: &Path,
    vm: &str,
    body: impl FnOnce(&str, u64) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let snapshot = find(repository, &Selector::Latest(vm.to_owned()))?;
    let view = DiskView::open(repository, snapshot.disk(None)?, ViewSettings::default());
    let socket = directory.join("socket");
    let listener = Listener::unix(&socket)?;
    let is_over = AtomicBool::new(false);
    let settings = ServerSettings::new(repository::DISK, "benchmark");
    thread::scope(|threads| {
        let served = threads.spawn(|| {
            let is_over = || is_over.load(Ordering::Relaxed);
            serve(Served::ReadOnly(&view), &listener, &settings, &is_over, &|_| {})
        });
        let outcome = body(&format!("nbd+unix:///?socket={}", socket.display()), view.size());
        is_over.store(true, Ordering::Relaxed);
        let served = served.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
        ensure!(served?.failed == 0, "requests failed");
        outcome
    })
}

fn nbdcopy(options: &[&str], uri: &str) -> anyhow::Result<()> {
    let status = Command::new("nbdcopy").args(options).args([uri, "null:"]).status();
    ensure!(
        status.context("nbdcopy is not installed: apt-get install libnbd-bin")?.success(),
        "nbdcopy failed"
    );
    Ok(())
}

fn client(uri: &str, connections: usize) -> anyhow::Result<NbdDisk> {
    let place = NbdPlace::parse(uri).context("it is an NBD URI")??;
    // What is allocated is not asked for: it is not what is measured.
    let settings =
        NbdSettings { connections, holes: keepstone_engine::nbd::Holes::Read, ..NbdSettings::default() };
    Ok(NbdDisk::open(&place, settings)?)
}

/// Places of blocks that are in use, from a fixed seed.
fn random_reads(areas: &[Extent], seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let blocks: u64 = areas.iter().map(|area| area.length / BLOCK_LEN).sum();
    (0..READS)
        .filter_map(|_| {
            let mut block = random.below(blocks);
            for area in areas {
                let here = area.length / BLOCK_LEN;
                if block < here {
                    return Some(area.start + block * BLOCK_LEN);
                }
                block -= here;
            }
            None
        })
        .collect()
}

fn read_all(disk: &NbdDisk, reads: &[u64], threads: usize) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut buffer = [0; 4096];
        while let Some(offset) = reads.get(next.fetch_add(1, Ordering::Relaxed)) {
            disk.read(&mut [ReadPart { offset: *offset, buffer: &mut buffer }])?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(())
    })
}
