//! Measures reading and writing a disk over NBD beside `nbdcopy`, which is what libnbd makes of the same servers.

use anyhow::{Context as _, ensure};
use clap::Parser;
use keepstone_benches::files::{say, temporary_directory};
use keepstone_benches::table::{float, median, mib, new_table};
use keepstone_engine::extent::total_length;
use keepstone_engine::nbd::{NbdPlace, NbdSettings};
use keepstone_engine::source::{NbdDisk, RawImage, ReadPart};
use keepstone_engine::target::{Existing, NbdTarget};
use keepstone_engine::{DiskSource, DiskTarget, Extent};
use keepstone_peers::nbd::{Listen, NbdServer, Program};
use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// What one call reads, as a backup's threads do.
const CALL_LEN: u64 = 16 << 20;
/// The longest part of a call.
const PART_LEN: u64 = 1 << 20;
/// A change that is told by a dirty bitmap.
const SCATTERED_LEN: u64 = SCATTERED_STEP as u64;
const SCATTERED_STEP: usize = 64 << 10;
/// What a restore writes at once, about: a chunk, by as many threads.
const CHUNK_LEN: u64 = 32 << 10;
const WRITING_THREADS: usize = 2;
/// One of so many blocks is changed.
const SCATTERED_EACH: usize = 100;

/// Reads a raw image over NBD, from qemu-nbd and from nbdkit, and writes it to a new one, beside nbdcopy.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read; it should fit the page cache
    image: PathBuf,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZero<u32>,

    /// Threads that read at one time, and connections that are written over
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4])]
    threads: Vec<usize>,
}

/// What is read of a disk.
struct Job<'a> {
    what: &'static str,
    areas: &'a [Extent],
    /// Where nbdcopy reads the same bytes.
    copied: &'a str,
    /// Where we do.
    uri: &'a str,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let image = &arguments.image;
    let areas = RawImage::open(image)?.changed_areas(None)?.areas;
    let scattered = scattered(&areas);
    let directory = temporary_directory("keepstone-nbd-", None, Some(image))?;
    let changed = directory.path().join("changed.raw");
    say("reading the image once, so that it is in the page cache")?;
    write_areas(image, &areas, &mut io::sink())?;
    write_areas(image, &scattered, &mut File::create(&changed)?)?;
    let mut table =
        new_table(&["server, what", "MiB", "threads", "nbdcopy s", "ours s", "ours MiB/s", "ratio"]);
    for (name, program) in [
        ("qemu-nbd", (|file| Program::qemu_nbd(file, "raw")) as fn(&Path) -> Program),
        ("nbdkit", |file| Program::nbdkit(&[Path::new("file"), file])),
    ] {
        let listen = Listen::UnixIn(directory.path());
        let whole = NbdServer::start(program(image), listen);
        let part = NbdServer::start(program(&changed), listen);
        let (whole_uri, part_uri) = (whole.uri(""), part.uri(""));
        for job in [
            Job { what: "everything", areas: &areas, copied: &whole_uri, uri: &whole_uri },
            Job { what: "1 % in 64 KiB", areas: &scattered, copied: &part_uri, uri: &whole_uri },
        ] {
            let rows = measure(&arguments, &job).with_context(|| format!("{name}, {}", job.what))?;
            for (threads, copy_seconds, seconds) in rows {
                let bytes = total_length(job.areas);
                table.add_row(vec![
                    format!("{name}, {}", job.what),
                    mib(bytes),
                    threads.to_string(),
                    format!("{copy_seconds:.3}"),
                    format!("{seconds:.3}"),
                    format!("{:.0}", float(bytes) / float(1 << 20) / seconds),
                    format!("{:.2}", copy_seconds / seconds),
                ]);
            }
        }
    }
    for (threads, copy_seconds, seconds) in measure_writing(&arguments, directory.path(), &areas)? {
        let bytes = total_length(&areas);
        table.add_row(vec![
            "qemu-nbd, written".to_owned(),
            mib(bytes),
            threads.to_string(),
            format!("{copy_seconds:.3}"),
            format!("{seconds:.3}"),
            format!("{:.0}", float(bytes) / float(1 << 20) / seconds),
            format!("{:.2}", copy_seconds / seconds),
        ]);
    }
    writeln!(io::stdout(), "{table}")?;
    Ok(())
}

/// Returns the same as [`measure`] of writing the image to a new raw one, flushed at the end.
fn measure_writing(
    arguments: &Arguments,
    directory: &Path,
    areas: &[Extent],
) -> anyhow::Result<Vec<(usize, f64, f64)>> {
    let (image, written) = (&arguments.image, directory.join("written.raw"));
    let size = RawImage::open(image)?.size();
    let fresh = || -> anyhow::Result<NbdServer> {
        File::create(&written)?.set_len(size)?;
        let program = Program::writable_qemu_nbd(&written, "raw", 8);
        Ok(NbdServer::start(program, Listen::UnixIn(directory)))
    };
    let mut by_nbdcopy = Vec::new();
    let mut ours = vec![Vec::new(); arguments.threads.len()];
    for _ in 0..arguments.rounds.get() {
        let server = fresh()?;
        by_nbdcopy.push(seconds(|| {
            let status = Command::new("nbdcopy").arg("--flush").arg(image).arg(server.uri("")).status()?;
            ensure!(status.success(), "nbdcopy failed");
            Ok(())
        })?);
        drop(server);
        for (connections, ours) in arguments.threads.iter().zip(&mut ours) {
            let server = fresh()?;
            ours.push(seconds(|| write(image, areas, &server.uri(""), *connections))?);
        }
    }
    let copy = median(by_nbdcopy);
    Ok(arguments.threads.iter().zip(ours).map(|(threads, ours)| (*threads, copy, median(ours))).collect())
}

/// Writes the areas to a disk that is empty, in chunks, as a restore does.
fn write(image: &Path, areas: &[Extent], uri: &str, connections: usize) -> anyhow::Result<()> {
    let source = RawImage::open(image)?;
    let place = NbdPlace::parse(uri).context("it is no NBD URI")??;
    let settings = NbdSettings { connections, ..NbdSettings::default() };
    let target = NbdTarget::open(&place, settings, source.size(), Existing::Refuse)?;
    let (calls, next) = (calls(areas), AtomicUsize::new(0));
    thread::scope(|scope| {
        let writing = || -> io::Result<()> {
            let mut buffer = vec![0; usize::try_from(CHUNK_LEN).expect("it fits in memory")];
            while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                for part in call {
                    let mut start = part.start;
                    while let Some(chunk) = part.clip(start, start + CHUNK_LEN) {
                        let buffer = &mut buffer[..usize::try_from(chunk.length).expect("it is short")];
                        source.read(&mut [ReadPart { offset: start, buffer: &mut *buffer }])?;
                        target.write_at(start, buffer)?;
                        start = chunk.end();
                    }
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..WRITING_THREADS).map(|_| scope.spawn(writing)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    Ok(target.finish()?)
}

/// Returns, for each number of threads, it and the medians of the seconds of nbdcopy and of ours.
fn measure(arguments: &Arguments, job: &Job<'_>) -> anyhow::Result<Vec<(usize, f64, f64)>> {
    let mut copies = Vec::new();
    let mut ours = vec![Vec::new(); arguments.threads.len()];
    for _ in 0..arguments.rounds.get() {
        copies.push(seconds(|| nbdcopy(job.copied))?);
        for (threads, ours) in arguments.threads.iter().zip(&mut ours) {
            ours.push(seconds(|| read(job, *threads))?);
        }
    }
    let copy = median(copies);
    Ok(arguments.threads.iter().zip(ours).map(|(threads, ours)| (*threads, copy, median(ours))).collect())
}

fn seconds(action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    action()?;
    Ok(began.elapsed().as_secs_f64())
}

fn nbdcopy(uri: &str) -> anyhow::Result<()> {
    let status =
        Command::new("nbdcopy").args([uri, "null:"]).status().context("cannot run nbdcopy of libnbd-bin")?;
    ensure!(status.success(), "nbdcopy failed");
    Ok(())
}

/// Opens the disk and reads the areas, with as many threads and connections.
fn read(job: &Job<'_>, threads: usize) -> anyhow::Result<()> {
    let place = NbdPlace::parse(job.uri).context("it is no NBD URI")??;
    let settings = NbdSettings { connections: threads, ..NbdSettings::default() };
    let disk = NbdDisk::open(&place, settings)?;
    let calls = calls(job.areas);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let reading: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| read_calls(&disk, &calls, &next))).collect();
        reading.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    Ok(())
}

fn read_calls(disk: &NbdDisk, calls: &[Vec<Extent>], next: &AtomicUsize) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(CALL_LEN).expect("it fits in memory")];
    while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut rest = &mut buffer[..];
        let mut parts = Vec::with_capacity(call.len());
        for part in call {
            let (buffer, behind) = rest.split_at_mut(usize::try_from(part.length).expect("a part is short"));
            parts.push(ReadPart { offset: part.start, buffer });
            rest = behind;
        }
        disk.read(&mut parts)?;
    }
    Ok(())
}

/// Divides areas into parts, and these into calls.
fn calls(areas: &[Extent]) -> Vec<Vec<Extent>> {
    let mut calls: Vec<Vec<Extent>> = vec![Vec::new()];
    let mut in_call = 0;
    for area in areas {
        let mut start = area.start;
        while let Some(part) = area.clip(start, start + PART_LEN.min(CALL_LEN - in_call)) {
            calls.last_mut().expect("there is one at least").push(part);
            in_call += part.length;
            start = part.end();
            if in_call == CALL_LEN {
                calls.push(Vec::new());
                in_call = 0;
            }
        }
    }
    calls
}

/// One of a hundred blocks of the areas.
fn scattered(areas: &[Extent]) -> Vec<Extent> {
    let blocks = areas.iter().flat_map(|area| {
        let starts = (area.start.next_multiple_of(SCATTERED_LEN)..).step_by(SCATTERED_STEP);
        starts
            .map(|start| Extent { start, length: SCATTERED_LEN })
            .take_while(|block| block.end() <= area.end())
    });
    blocks.step_by(SCATTERED_EACH).collect()
}

fn write_areas(image: &Path, areas: &[Extent], to: &mut dyn io::Write) -> anyhow::Result<()> {
    let source = RawImage::open(image)?;
    let mut buffer = vec![0; usize::try_from(PART_LEN).expect("it fits in memory")];
    for part in calls(areas).into_iter().flatten() {
        let buffer = &mut buffer[..usize::try_from(part.length).expect("a part is short")];
        source.read(&mut [ReadPart { offset: part.start, buffer }])?;
        to.write_all(buffer)?;
    }
    Ok(())
}
