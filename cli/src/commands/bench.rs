//! `keepstone bench`

mod analysis;
mod below;
mod compare;
mod fleet;
mod machine;
mod measure;
mod page;
mod rates;
mod requests;
mod result;
mod site;
mod text;
mod whole;

pub(crate) use site::CannotDelete;

use crate::clock::Stopwatch;
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::interrupt::Interrupt;
use crate::location::{Location, must_be_outside_of_repository};
use crate::numbers::{Ppm, parse_duration, parse_percent, parse_size, size};
use crate::progress::Progress;
use crate::settings::{Compression, Settings};
use anyhow::Context as _;
use fleet::Fleet;
use keepstone_engine::backup;
use keepstone_engine::observer::Event;
use keepstone_engine::{EngineError, Observer};
use measure::Plan;
use result::{BenchResult, Report};
use site::Container;
use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What is measured if nothing is said: a minute's work on two processors.
const SIZE: u64 = 512 << 20;
const SIZE_QUICK: u64 = 96 << 20;
const ROUNDS: u8 = 3;
/// Shorter disks have too few chunks to say anything.
const SIZE_MIN: u64 = 4 << 20;
const SEED: u64 = 1;
/// What changes in a night of what is in use: that of servers that do little else than they did the day before.
const CHANGE_RATE: Ppm = Ppm(20_000);
const WINDOW: Duration = Duration::from_hours(8);
const WHOLE: u32 = 1_000_000;
const MILLIS: u64 = 200;
const MILLIS_QUICK: u64 = 100;
const LEVELS: [i32; 4] = [1, 3, 6, 9];
const LEVELS_QUICK: [i32; 2] = [1, 3];
/// 0, 0.1, 1 and 5 %.
const CHANGE_RATES: [u32; 4] = [0, 1_000, 10_000, 50_000];
/// 0 and 1 %.
const CHANGE_RATES_QUICK: [u32; 2] = [0, 10_000];

/// The arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A disk is made up from a seed, the same bytes on every machine: zeros, text-like, binary-like and incompressible data. With \
--image, pieces from all over an image are taken instead; the image is only read.

Without a repository everything is stored in the scratch directory. With one (-r, KEEPSTONE_REPOSITORY or the profile) it \
is stored there, below bench/WRITER/, in a repository of its own with a random password, and removed at the end, also \
after a failure or Ctrl-C; nothing else there is touched, and no password is needed. Credentials that may not delete are \
refused before anything is written. In Azure, what is deleted is still charged for where soft delete or versions are on.

Rates are medians of the rounds, with their lowest and highest; compare runs only of machines that do nothing else.")]
pub(crate) struct Arguments {
    /// Measure with this raw image or block device, which is only read, instead of a synthetic disk
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// How long the disk is, or how much of an image is taken, as in 2GiB [default: 512MiB, or 96MiB with --quick]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,

    /// Measure less, in one round: a first look
    #[arg(long)]
    quick: bool,

    /// Measure everything so often [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: Option<u8>,

    /// How long each stage and each kind of request is measured in a round, in milliseconds [default: 200, or 100 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    millis: Option<u64>,

    /// What the synthetic disk is made from [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "image")]
    seed: Option<u64>,

    /// zstd's levels that are measured [default: 1,3,6,9, or 1,3 with --quick]
    #[arg(long, value_name = "LEVELS", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(1..=19))]
    levels: Vec<i32>,

    /// zstd's level of whole backups, 1 to 19, or auto: what fits the store and the processors [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<Compression>,

    /// How much changes before each incremental backup, in per cent [default: 0,0.1,1,5, or 0,1 with --quick]
    #[arg(long, value_name = "PERCENTS", value_delimiter = ',', value_parser = parse_percent)]
    change_rates: Vec<Ppm>,

    /// Predict the backups of so many disks of a size, as in 40x200GiB; may be repeated
    #[arg(long, value_name = "DISKSxSIZE", value_parser = fleet::parse)]
    fleet: Vec<Fleet>,

    /// How much of the fleet's data changes from one backup to the next, in per cent [default: 2]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, requires = "fleet")]
    change_rate: Option<Ppm>,

    /// How much of the fleet's disks is in use, in per cent [default: as much as of the image, else 100]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, requires = "fleet")]
    used: Option<Ppm>,

    /// How long the incremental backups of a night may take, as in 6h [default: 8h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "fleet")]
    window: Option<Duration>,

    /// How many hosts like this one share the fleet [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000), requires = "fleet")]
    hosts: Option<u64>,

    /// Write the report as one page of HTML with charts, which needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Put the figures beside those of an earlier run, whose report is in this file as --json printed it
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,

    /// Make the scratch directory in this one [default: TMPDIR, or /var/tmp]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Store in the scratch directory, whatever repository the environment or the profile names
    #[arg(long)]
    no_repository: bool,

    /// Remove from the repository what benchmarks of this writer left that were killed; none may be running
    #[arg(long, conflicts_with = "no_repository")]
    remove_leftovers: bool,
}

/// How an operation learns that it is to stop, and tells that it goes on.
pub(crate) struct Stop<'a> {
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

impl Stop<'_> {
    /// Whether to go on.
    fn check(&self) -> Result<(), EngineError> {
        if self.interrupt.is_raised() { self.tell(0) } else { Ok(()) }
    }

    /// One measurement is done.
    fn step(&self) -> anyhow::Result<()> {
        Ok(self.tell(1)?)
    }

    fn tell(&self, measurements: u64) -> Result<(), EngineError> {
        match self.progress.observe(Event::Progress(measurements)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EngineError::Cancelled),
        }
    }
}

impl Observer for Stop<'_> {
    /// Of a backup or restore that is measured only notices are told.
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Notice(_) => self.progress.observe(event),
            _ if self.interrupt.is_raised() => self.progress.observe(Event::Progress(0)),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Measures.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let earlier = arguments.compare.as_deref().map(compare::read).transpose()?;
    if let Some(html) = &arguments.html {
        check_place(settings, html)?;
    }
    settings.interrupt.install()?;
    let in_repository = settings.names_repository() && !arguments.no_repository;
    let mut is_clean = true;
    let parent = machine::scratch_parent(arguments.scratch.as_deref());
    let scratch = TempDir::with_prefix_in("keepstone-bench-", &parent).map_err(|error| {
        // The error itself names the directory that would have been made.
        Usage::new(format!("could not make a directory in {}: {}", parent.display(), error.kind()))
            .hint("name a directory on a local disk with --scratch")
    })?;
    let container = if in_repository {
        let container = Container::repository(settings)?;
        is_clean = container.leftovers(settings, arguments.remove_leftovers)?;
        container
    } else {
        site::refuse_without_repository(arguments.remove_leftovers)?;
        Container::scratch(&scratch.path().join("repository"))?
    };
    let plan = plan(settings, arguments, &container, in_repository)?;
    let disk = plan.open(scratch.path())?;
    let bounds = plan.bounds(&disk);
    machine::room(scratch.path(), bounds.scratch_bytes)?;
    settings.console.message(&announcement(&bounds, scratch.path(), &container, in_repository));

    let progress = Progress::new(settings);
    let stop = Stop { progress: &progress, interrupt: &settings.interrupt };
    let (measured, is_removed) = {
        let site = container.begin()?;
        let measured = plan.measure(&disk, &site, scratch.path(), &stop);
        progress.finish();
        (measured, site.end())
    };
    let result = measured?;
    let figures = Figures::take(stopwatch, container.store());
    scratch
        .close()
        .map_err(|error| anyhow::Error::new(error).context("could not remove the scratch directory"))?;
    let analysis = analysis::analyse(&result);
    let fleet = question(arguments, &result)
        .and_then(|question| fleet::predict(&result, &question, &settings.azure.profile.prices));
    let comparison = earlier.map(|earlier| compare::compare(&earlier, &result));
    let report = Report {
        result: &result,
        analysis: &analysis,
        fleet: fleet.as_ref(),
        comparison: comparison.as_ref(),
        figures: &figures,
    };
    if let Some(html) = &arguments.html {
        std::fs::write(html, page::page(&report))
            .with_context(|| format!("could not write the page {}", html.display()))?;
    }
    settings.console.report(&report, text::text)?;
    Ok(if is_removed && is_clean { Exit::Done } else { Exit::Attention })
}

/// What is to be measured.
fn plan(
    settings: &Settings,
    arguments: &Arguments,
    container: &Container,
    in_repository: bool,
) -> anyhow::Result<Plan> {
    let quick = arguments.quick;
    let size = arguments.size.unwrap_or(if quick { SIZE_QUICK } else { SIZE });
    if size < SIZE_MIN {
        return Err(Usage::new(format!("a disk of {size} bytes is too small to measure anything"))
            .hint("give at least --size 4MiB")
            .into());
    }
    let or =
        |given: &[i32], default: &[i32]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
    let levels = or(&arguments.levels, if quick { &LEVELS_QUICK } else { &LEVELS });
    let rates: Vec<u32> = arguments.change_rates.iter().map(|Ppm(ppm)| *ppm).collect();
    let change_rates = match (rates.is_empty(), quick) {
        (false, _) => rates,
        (true, false) => CHANGE_RATES.to_vec(),
        (true, true) => CHANGE_RATES_QUICK.to_vec(),
    };
    // What a backup takes however little changed, which predictions count from.
    let of_nothing = (!arguments.fleet.is_empty()).then_some(0);
    let location = if in_repository { settings.location()? } else { Location::Directory(Path::new("")) };
    let compression = settings.compression(arguments.compression).of(&location);
    let level = match &compression {
        backup::Compression::Level(level) => *level,
        backup::Compression::Auto { first, .. } => *first,
    };
    Ok(Plan {
        image: arguments.image.clone(),
        seed: arguments.seed.unwrap_or(SEED),
        size,
        quick,
        rounds: usize::from(arguments.rounds.unwrap_or(if quick { 1 } else { ROUNDS })),
        time: Duration::from_millis(arguments.millis.unwrap_or(if quick { MILLIS_QUICK } else { MILLIS })),
        levels: sorted(levels.into_iter().chain([level]).collect()),
        level,
        compression,
        change_rates: sorted(change_rates.into_iter().chain(of_nothing).collect()),
        limit_upload: settings.azure.limit_upload.map(std::num::NonZeroU64::get),
        geometry: *container.geometry(),
        in_repository,
        store: container.kind().to_owned(),
        place: container.place().to_owned(),
    })
}

/// What the pages of earlier runs begin with.
const PAGE_BEGIN: &[u8] = b"<!DOCTYPE html>";

/// Looks at the page's place before a minute's work is done for it. Only an earlier page, or an empty file, is replaced.
fn check_place(settings: &Settings, html: &Path) -> anyhow::Result<()> {
    if settings.names_repository() {
        let hint = "write the page somewhere else";
        must_be_outside_of_repository(settings, html, hint)?;
    }
    let could_not = || format!("could not write the page {}", html.display());
    // Before it is opened: that waits at a FIFO, and a device has no length.
    if std::fs::metadata(html).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Usage::new(format!("{} exists and is no regular file", html.display()))
            .hint("name a file with --html")
            .into());
    }
    let mut begin = [0; PAGE_BEGIN.len()];
    match File::options().read(true).write(true).open(html) {
        Ok(mut file) => {
            let is_page = file.read_exact(&mut begin).is_ok() && begin == PAGE_BEGIN;
            if is_page || file.metadata().with_context(could_not)?.len() == 0 {
                return Ok(());
            }
            Err(Usage::new(format!("{} exists and is no page", html.display()))
                .hint("name another file with --html; only pages are replaced")
                .into())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            File::create_new(html).and_then(|_| std::fs::remove_file(html)).with_context(could_not)
        }
        Err(error) => Err(error).with_context(could_not),
    }
}

/// What is asked about a fleet, if anything is.
fn question(arguments: &Arguments, result: &BenchResult) -> Option<fleet::Question> {
    let disk = &result.disk;
    let measured =
        u128::from(disk.allocated_bytes) * u128::from(WHOLE) / u128::from(disk.source_bytes.max(1));
    let Ppm(used_ppm) = arguments.used.unwrap_or(Ppm(u32::try_from(measured).unwrap_or(WHOLE)));
    let Ppm(change_ppm) = arguments.change_rate.unwrap_or(CHANGE_RATE);
    (!arguments.fleet.is_empty()).then(|| fleet::Question {
        fleets: arguments.fleet.clone(),
        change_ppm,
        used_ppm,
        window: arguments.window.unwrap_or(WINDOW),
        hosts: arguments.hosts.unwrap_or(1),
    })
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

/// What is about to be written, for the operator who waits.
fn announcement(
    bounds: &measure::Bounds,
    scratch: &Path,
    container: &Container,
    in_repository: bool,
) -> String {
    let measure::Bounds { scratch_bytes, put_bytes, most_stored, memory_bytes } = *bounds;
    let scratch = format!(
        "writes up to {} below {}, takes up to {} of memory",
        size(scratch_bytes),
        scratch.display(),
        size(memory_bytes)
    );
    if in_repository {
        format!(
            "{scratch}, and sends up to {} to {}, of which up to {} are there at one time, below {}; all of it is removed \
             at the end",
            size(put_bytes),
            container.place(),
            size(most_stored),
            container.prefix()
        )
    } else {
        format!("{scratch}; all of it is removed at the end")
    }
}
