//! One run: what is measured in which order, and what it takes at most.

use super::Stop;
use super::machine;
use super::rates::{self, Rates, thread_counts};
use super::requests::{self, Answers};
use super::result::{BenchResult, Disk, KIND, Mix, Setting, VERSION, number};
use super::site::Site;
use super::whole::{self, Runs};
use crate::clock;
use crate::console::warn;
use crate::exit::Usage;
use anyhow::Context as _;
use keepstone_engine::backup::{Compression, puts_at_once};
use keepstone_engine::bench::SampledDisk;
use keepstone_engine::bench::stages::{Sample, SampleSize};
use keepstone_engine::bench::synthetic::{RUNS, SyntheticDisk, ZERO_BLOCK_ONE_IN};
use keepstone_engine::extent::total_length;
use keepstone_engine::observer::{Event, Phase};
use keepstone_engine::source::{ChangedAreas, RawImage, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, EngineError, Extent, Observer as _};
use repo_format::Geometry;
use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the stages work on at most, held in memory three times over.
const SAMPLE_BYTES: u64 = 128 << 20;
const SAMPLE_BYTES_QUICK: u64 = 48 << 20;
/// Regions of a backup that are read or wait, beside those of its threads.
const REGIONS_AHEAD: u64 = 3;
/// Packs that a backup fills, or that became full, beside those on their way to the store.
const PACKS_OPEN: u64 = 3;
/// Indexes, maps and other small things of a backup.
const SMALL_BYTES: u64 = 60 << 20;
/// What is read at a time into the system's cache.
const WARM_PIECE_BYTES: usize = 1 << 20;
/// What is written at a time of a synthetic disk.
const PIECE_BYTES: u64 = 16 << 20;
/// Tasks that ran beside, for each processor, from which on figures mean little.
const BUSY: f64 = 0.3;

/// What is to be measured.
pub(super) struct Plan {
    pub(super) image: Option<PathBuf>,
    pub(super) seed: u64,
    pub(super) size: u64,
    pub(super) quick: bool,
    pub(super) rounds: usize,
    /// How long each stage is measured with each number of threads, and each kind of request, in a round.
    pub(super) time: Duration,
    /// In order, with that of whole runs.
    pub(super) levels: Vec<i32>,
    /// The level of whole runs, or the one that they begin with.
    pub(super) level: i32,
    pub(super) compression: Compression,
    /// In parts per million, in order.
    pub(super) change_rates: Vec<u32>,
    pub(super) limit_upload: Option<u64>,
    pub(super) geometry: Geometry,
    /// Whether it is stored in a repository that was named, instead of the scratch directory.
    pub(super) in_repository: bool,
    pub(super) store: String,
    pub(super) place: String,
}

/// The disk that is measured with.
pub(super) struct Given {
    /// The image, or the file that the synthetic disk is written to.
    path: PathBuf,
    /// The image; a synthetic disk is not there yet.
    image: Option<(RawImage, Vec<Extent>)>,
    size: u64,
}

/// What a run takes at most, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Below the scratch directory.
    pub(super) scratch_bytes: u64,
    /// Sent to the store.
    pub(super) put_bytes: u64,
    /// In the store at one time.
    pub(super) most_stored: u64,
    pub(super) memory_bytes: u64,
}

impl Plan {
    /// Opens the image, or chooses a place for the synthetic disk.
    ///
    /// # Errors
    /// An image that cannot be read, or holds nothing.
    pub(super) fn open(&self, scratch: &Path) -> anyhow::Result<Given> {
        let Some(path) = &self.image else {
            return Ok(Given { path: scratch.join("disk.raw"), image: None, size: self.size });
        };
        let image = RawImage::open(path)?;
        let size = image.size();
        if size == 0 {
            return Err(Usage::new(format!("{} is empty", path.display())).into());
        }
        let allocated = image.changed_areas(None)?.areas;
        if allocated.is_empty() {
            return Err(
                Usage::new(format!("{} is all hole: there is nothing to measure", path.display())).into()
            );
        }
        Ok(Given { path: path.clone(), image: Some((image, allocated)), size })
    }

    /// What a run takes at most.
    pub(super) fn bounds(&self, given: &Given) -> Bounds {
        let measured = self.size.min(given.size);
        let (puts, most_put) = requests::put_bytes(&self.kinds(), self.put_max());
        let stored = whole::stored_bytes(measured, &self.change_rates);
        let most_stored = stored.max(most_put);
        let synthetic = if given.image.is_none() { measured } else { 0 };
        // A restored disk; and what is stored, if it is stored here.
        let here = if self.in_repository { 0 } else { most_stored };
        Bounds {
            scratch_bytes: synthetic + measured + here,
            put_bytes: (stored + puts) * self.rounds as u64,
            most_stored,
            memory_bytes: pipeline_bytes(
                &self.geometry,
                rayon::current_num_threads() as u64,
                puts_at_once() as u64,
            )
            .max(3 * self.sample_bytes()),
        }
    }

    fn kinds(&self) -> Vec<requests::Kind> {
        // A short disk has no longer packs.
        requests::kinds(u64::from(self.geometry.pack_len).min(self.size), puts_at_once())
    }

    fn put_max(&self) -> u64 {
        if self.quick { requests::PUT_BYTES_MAX_QUICK } else { requests::PUT_BYTES_MAX }
    }

    fn sample_bytes(&self) -> u64 {
        self.size.min(if self.quick { SAMPLE_BYTES_QUICK } else { SAMPLE_BYTES })
    }

    /// Measures everything, in all rounds.
    ///
    /// # Errors
    /// Whatever fails first, or an interruption.
    pub(super) fn measure(
        &self,
        given: &Given,
        site: &Site<'_>,
        scratch: &Path,
        stop: &Stop<'_>,
    ) -> anyhow::Result<BenchResult> {
        let time = clock::now_millis();
        let machine = machine::machine();
        if machine.load > BUSY * number(machine.processors as u64) {
            warn(&format!(
                "the machine is busy: {} tasks ran at one time in the last minute; figures will be lower than it can do",
                machine.load
            ));
        }
        let synthetic;
        let (image, allocated) = if let Some((image, allocated)) = &given.image {
            (image, allocated.clone())
        } else {
            self.write_disk(&given.path, stop)?;
            synthetic = RawImage::open(&given.path)?;
            let areas = Extent::between(0, given.size).into_iter().collect();
            (&synthetic, areas)
        };
        let piece_len = u64::from(self.geometry.region_len);
        let source = SampledDisk::choose(image, &allocated, piece_len, self.size);
        let run = Run { plan: self, given, allocated: &allocated, source: &source, site, scratch, stop };
        let mut all = All::default();
        for number in 0..self.rounds {
            run.round(number, &mut all)?;
        }
        let All { stages, sampled, answers, runs } = all;
        Ok(BenchResult {
            kind: KIND.to_owned(),
            version: VERSION,
            program: crate::commands::backup::PROGRAM.to_owned(),
            time,
            machine,
            setting: self.setting(scratch),
            disk: Disk {
                image: self.image.as_ref().map(|path| path.display().to_string()),
                seed: self.image.is_none().then_some(self.seed),
                mix: self.image.is_none().then(mix),
                source_bytes: given.size,
                allocated_bytes: total_length(&allocated),
                measured_bytes: source.size(),
                measured_allocated_bytes: total_length(source.allocated()),
                sample_bytes: sampled.bytes,
                sample_data_bytes: sampled.data_bytes,
                sample_chunks: sampled.chunks,
            },
            stages: stages.figures(),
            requests: answers.figures(),
            runs: runs.figures(),
        })
    }

    /// Writes the synthetic disk, durably, so that nothing is left to write while something else is measured.
    fn write_disk(&self, path: &Path, stop: &Stop<'_>) -> anyhow::Result<()> {
        let failed = || format!("could not write {}", path.display());
        let disk = SyntheticDisk::new(self.seed, self.size);
        let mut file = File::create_new(path).with_context(failed)?;
        let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(self.size)).expect("a piece is in memory")];
        begin(stop, "nothing yet: making the disk", self.size.div_ceil(PIECE_BYTES))?;
        for start in (0..self.size).step_by(piece.len()) {
            let left = usize::try_from(self.size - start).unwrap_or(usize::MAX).min(piece.len());
            disk.read_at(start, &mut piece[..left])?;
            file.write_all(&piece[..left]).with_context(failed)?;
            stop.step()?;
        }
        file.sync_all().with_context(failed)
    }

    fn setting(&self, scratch: &Path) -> Setting {
        Setting {
            quick: self.quick,
            rounds: self.rounds,
            threads: rayon::current_num_threads(),
            compression: match self.compression {
                Compression::Level(level) => level.to_string(),
                Compression::Auto { .. } => "auto".to_owned(),
            },
            level: self.level,
            store: self.store.clone(),
            place: self.place.clone(),
            scratch_file_system: machine::file_system(scratch),
            chunker: self.geometry.chunker.name.as_str().to_owned(),
            pack_bytes: u64::from(self.geometry.pack_len),
            puts_at_once: puts_at_once(),
            limit_upload: self.limit_upload,
        }
    }
}

/// What all rounds found.
#[derive(Default)]
struct All {
    stages: Rates,
    sampled: SampleSize,
    answers: Answers,
    runs: Runs,
}

/// A run with everything that it needs.
struct Run<'a> {
    plan: &'a Plan,
    given: &'a Given,
    /// Of the image.
    allocated: &'a [Extent],
    source: &'a SampledDisk<'a>,
    site: &'a Site<'a>,
    scratch: &'a Path,
    stop: &'a Stop<'a>,
}

impl Run<'_> {
    /// Measures everything once: what varies with time shows between rounds.
    fn round(&self, number: usize, all: &mut All) -> anyhow::Result<()> {
        self.stages(all)?;
        let kinds = self.plan.kinds();
        begin(self.stop, "requests", kinds.len() as u64)?;
        all.answers.round(&requests::Round {
            place: &self.site.part(&format!("requests-{number}")),
            kinds: &kinds,
            time: self.plan.time,
            put_max: self.plan.put_max(),
            stop: self.stop,
        })?;
        // The requests may have pushed out what the stages left there.
        self.warm()?;
        begin(self.stop, "backups and restores", whole::measurements(self.plan.change_rates.len()))?;
        all.runs.round(&whole::Round {
            source: self.source,
            allocated: self.source.allocated(),
            geometry: &self.plan.geometry,
            compression: &self.plan.compression,
            change_rates: &self.plan.change_rates,
            place: &self.site.part(&format!("round-{number}")),
            target: &self.scratch.join("restored.raw"),
            number: number as u64,
            stop: self.stop,
        })
    }

    /// Has the system take what is measured into memory, if there is room: otherwise the image is read past it.
    fn warm(&self) -> anyhow::Result<()> {
        let piece_len = u64::from(self.plan.geometry.region_len);
        warm(&self.given.path, self.allocated, piece_len, self.plan.size, &|| self.stop.check()).map(|_| ())
    }

    /// The sample is only there meanwhile: a backup needs the memory.
    fn stages(&self, all: &mut All) -> anyhow::Result<()> {
        let Self { plan, source, .. } = self;
        let sample = Sample::take(*source, &plan.geometry, plan.sample_bytes(), plan.level)?;
        all.sampled = sample.size();
        let threads = thread_counts(rayon::current_num_threads());
        begin(self.stop, "stages", rates::measurements(threads.len(), plan.levels.len()))?;
        all.stages.round(&rates::Round {
            sample: &sample,
            threads: &threads,
            levels: &plan.levels,
            time: plan.time,
            forget_source: &|| machine::forget(&self.given.path),
            warm_source: &|| self.warm(),
            stop: self.stop,
        })
    }
}

fn begin(stop: &Stop<'_>, what: &'static str, total: u64) -> Result<(), keepstone_engine::EngineError> {
    match stop.progress.observe(Event::Phase { phase: Phase::Measure { what }, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(keepstone_engine::EngineError::Cancelled),
    }
}

/// What a backup takes at most, by the formula of the engine's module `backup`.
fn pipeline_bytes(geometry: &Geometry, threads: u64, packs_in_flight: u64) -> u64 {
    // A region's bytes and their encoded form.
    let regions = (threads + REGIONS_AHEAD) * 2 * u64::from(geometry.region_len);
    regions + (packs_in_flight + PACKS_OPEN) * u64::from(geometry.pack_len) + SMALL_BYTES
}

/// Reads what is measured of an image by the plain way through the system's cache, and tells how many bytes that were.
fn warm(
    path: &Path,
    allocated: &[Extent],
    piece_len: u64,
    bytes_max: u64,
    check: &dyn Fn() -> Result<(), EngineError>,
) -> anyhow::Result<u64> {
    let could_not = || format!("could not read {}", path.display());
    let image = RawImage::open(path)?;
    let plain = Plain { file: File::open(path).with_context(could_not)?, size: image.size() };
    let sampled = SampledDisk::choose(&plain, allocated, piece_len, bytes_max);
    let mut piece = vec![0; WARM_PIECE_BYTES];
    let mut read = 0;
    for area in sampled.allocated() {
        for start in (area.start..area.end()).step_by(WARM_PIECE_BYTES) {
            let len = usize::try_from(area.end() - start).unwrap_or(usize::MAX).min(WARM_PIECE_BYTES);
            sampled
                .read(&mut [ReadPart { offset: start, buffer: &mut piece[..len] }])
                .with_context(could_not)?;
            read += len as u64;
            check()?;
        }
    }
    Ok(read)
}

/// A file that is read through the system's cache, whatever is in it.
struct Plain {
    file: File,
    size: u64,
}

impl DiskSource for Plain {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.file.read_exact_at(buffer, offset))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The mix that the synthetic disk declares.
fn mix() -> Mix {
    let all = number(RUNS.zeros + RUNS.text + RUNS.records + RUNS.noise);
    let zero_blocks = 1.0 / number(ZERO_BLOCK_ONE_IN);
    let share = |runs: u64| (1.0 - zero_blocks) * number(runs) / all;
    Mix {
        zero: zero_blocks + share(RUNS.zeros),
        text: share(RUNS.text),
        binary: share(RUNS.records),
        incompressible: share(RUNS.noise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declared_mix_is_all_of_the_disk() {
        let declared =
            Mix { zero: 0.289_062_5, text: 0.328_125, binary: 0.273_437_5, incompressible: 0.109_375 };
        assert_eq!(mix(), declared);
    }

    #[test]
    fn memory_is_bounded_as_the_engine_bounds_it() {
        let geometry = Geometry::default();
        assert_eq!((geometry.region_len, geometry.pack_len), (16 << 20, 32 << 20));
        assert_eq!(pipeline_bytes(&geometry, 2, 4), (384 + 60) << 20);
        assert_eq!(pipeline_bytes(&geometry, 32, 8), (35 * 32 + 11 * 32 + 60) << 20);
    }

    #[test]
    fn what_is_taken_into_memory_is_read_as_it_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let bytes: Vec<u8> = (0u32..50_000).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        let plain = Plain { file: File::open(&path).unwrap(), size: 200_000 };
        let mut read = vec![0; 150_000];
        plain.read(&mut [ReadPart { offset: 50_000, buffer: &mut read }]).unwrap();
        assert!(read == bytes[50_000..]);
        assert!(plain.read(&mut [ReadPart { offset: 50_001, buffer: &mut read }]).is_err(), "behind the end");
    }

    #[test]
    fn only_what_is_measured_of_an_image_is_taken_into_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        File::create_new(&path).unwrap().set_len(10 << 20).unwrap();
        let allocated = [Extent::between(0, 3 << 20), Extent::between(6 << 20, 10 << 20)].map(Option::unwrap);
        let warmed = |bytes_max| warm(&path, &allocated, 1 << 20, bytes_max, &|| Ok(())).unwrap();
        assert_eq!([warmed(2 << 20), warmed(1 << 30)], [2 << 20, 7 << 20]);
        let stopped = warm(&path, &allocated, 1 << 20, 1 << 30, &|| Err(EngineError::Cancelled));
        assert!(stopped.is_err());
    }
}
