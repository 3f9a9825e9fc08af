//! Measures restores of an image and of the last state of a long chain of incremental backups, beside the bare speed of
//! what they are made of, on the same chunks, in the same run.

mod bare;
mod chain;
mod phases;

use anyhow::{Context as _, ensure};
use bare::Bare;
use chain::Chain;
use clap::{Parser, ValueEnum};
use keepstone_benches::files::{cache_files, say, temporary_directory};
use keepstone_benches::repository::{Run, back_up, create, open_index};
use keepstone_benches::table::{float, median, mib, new_table};
use keepstone_engine::DiskSource as _;
use keepstone_engine::source::RawImage;
use keepstone_engine::store::LocalStore;
use phases::{Phase, To, VM, Which};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The bar for restores.
const BAR: f64 = 0.85;

/// Measures restores of a raw image, and of the last of many incremental backups of it.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read; it should fit the page cache, with the repository beside it
    image: PathBuf,

    /// Where the repository and restored images are for the time of the run [default: beside the image]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// How many incremental backups follow the first one
    #[arg(long, value_name = "N", default_value = "200")]
    incrementals: NonZero<u8>,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZero<u32>,

    /// Run one restore from the repository in the directory of --scratch: how this program calls itself
    #[arg(long, hide = true, value_enum, requires_all = ["to", "scratch"])]
    which: Option<Which>,

    /// Where that one goes
    #[arg(long, hide = true, value_enum)]
    to: Option<To>,
}

/// A restore's figures with those of the bare parts of its round.
struct Measured {
    which: Which,
    to: To,
    phase: Phase,
    bare: Bare,
    /// Of writing alone; nothing where nothing is written.
    write_seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let image = RawImage::open(&arguments.image)?;
    let chain = Chain::new(&image, arguments.incrementals.get())?;
    if let (Some(which), Some(to), Some(directory)) = (arguments.which, arguments.to, &arguments.scratch) {
        let phase = phases::run(directory, which, to, &state(&chain, which))?;
        return Ok(serde_json::to_writer(io::stdout(), &phase)?);
    }
    let directory =
        temporary_directory("keepstone-restores-", arguments.scratch.as_deref(), Some(&arguments.image))?;
    make_repository(directory.path(), &chain, arguments.incrementals.get())?;
    cache_files(directory.path())?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds.get() {
        say(&format!("round {number} of {}", arguments.rounds))?;
        rounds.push(measure(&arguments, directory.path(), &chain)?);
    }
    writeln!(io::stdout(), "{}", text(&rounds))?;
    Ok(())
}

fn state<'a>(chain: &'a Chain<'a>, which: Which) -> chain::State<'a> {
    match which {
        Which::First => chain.state(0),
        Which::Last => chain.last(),
    }
}

fn make_repository(directory: &Path, chain: &Chain<'_>, incrementals: u8) -> anyhow::Result<()> {
    let store = LocalStore::create(&directory.join("repository"))?;
    let repository = create(&store)?;
    let mut index = open_index(&repository, None)?;
    for number in 0..=incrementals {
        if number % 20 == 0 {
            say(&format!("backup {number} of {incrementals}"))?;
        }
        let source = chain.state(usize::from(number));
        let report = back_up(&repository, &mut index, &Run { vm: VM, source: &source, level: 1, number })?;
        let read_bytes = report.disks[0].read_bytes;
        ensure!(number == 0 || read_bytes < source.size() / 10, "backup {number} read {read_bytes} bytes");
    }
    Ok(())
}

/// Measures all restores once.
fn measure(arguments: &Arguments, directory: &Path, chain: &Chain<'_>) -> anyhow::Result<Vec<Measured>> {
    let threads = rayon::current_num_threads();
    let mut measured = Vec::new();
    for which in [Which::First, Which::Last] {
        let disk = state(chain, which);
        let opened = bare::open(&disk, &chain.allocated, threads)?;
        let seconds = opened.open.wall.as_secs_f64();
        let bare = Bare {
            distinct_bytes: opened.open.bytes,
            open_seconds: seconds / float(threads as u64),
            open_cpu_seconds: opened.open.cpu.as_secs_f64(),
            open_per_core: float(opened.open.bytes) / seconds,
        };
        for to in [To::Nothing, To::Tmpfs, To::File] {
            let write_seconds = match to {
                To::Nothing => 0.0,
                To::Tmpfs => {
                    let place = temporary_directory("keepstone-restore-", Some(Path::new("/dev/shm")), None)?;
                    bare::write(place.path(), disk.size(), &opened.data, threads)?
                }
                To::File => bare::write(directory, disk.size(), &opened.data, threads)?,
            };
            let phase = start(arguments, directory, which, to)?;
            measured.push(Measured { which, to, phase, bare, write_seconds });
        }
    }
    Ok(measured)
}

fn start(arguments: &Arguments, directory: &Path, which: Which, to: To) -> anyhow::Result<Phase> {
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().expect("no value is left out").get_name().to_owned()
    };
    let output = Command::new(std::env::current_exe()?)
        .arg(&arguments.image)
        .arg("--scratch")
        .arg(directory)
        .args(["--incrementals", &arguments.incrementals.to_string()])
        .args(["--which", &name(&|| which.to_possible_value())])
        .args(["--to", &name(&|| to.to_possible_value())])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "a restore failed");
    serde_json::from_slice(&output.stdout).context("a restore did not report")
}

fn text(rounds: &[Vec<Measured>]) -> String {
    let mut table = new_table(&[
        "restore",
        "wall",
        "CPU",
        "MiB",
        "MiB/s",
        "first byte",
        "fetched",
        "of needed",
        "get",
        "peak mem",
        "open CPU",
        "of CPU",
        "open alone",
        "write alone",
        "of the slower",
        "bar",
    ]);
    for place in 0..rounds[0].len() {
        let all: Vec<&Measured> = rounds.iter().map(|round| &round[place]).collect();
        let of = |value: &dyn Fn(&Measured) -> f64| median(all.iter().map(|one| value(one)).collect());
        let first = all[0];
        let snapshot = match first.which {
            Which::First => "first",
            Which::Last => "last of the chain",
        };
        // The larger of both is what two unlimited stages side by side would take.
        let ratio = of(&|one| one.bare.open_seconds.max(one.write_seconds) / one.phase.cost.wall_seconds);
        table.add_row(vec![
            format!("{snapshot}, to {}", format!("{:?}", first.to).to_lowercase()),
            format!("{:.2}", of(&|one| one.phase.cost.wall_seconds)),
            format!("{:.2}", of(&|one| one.phase.cost.cpu_seconds)),
            mib(first.phase.written_bytes),
            format!(
                "{:.0}",
                of(&|one| float(one.phase.written_bytes) / float(1 << 20) / one.phase.cost.wall_seconds)
            ),
            format!("{:.3}", of(&|one| one.phase.first_byte_seconds)),
            mib(first.phase.fetched_bytes),
            format!("{:.4}", float(first.phase.fetched_bytes) / float(first.phase.needed_bytes)),
            first.phase.requests.to_string(),
            format!(
                "{:.0}",
                all.iter().map(|one| float(one.phase.cost.peak_rss_bytes)).fold(0.0, f64::max)
                    / float(1 << 20)
            ),
            format!("{:.2}", of(&|one| one.bare.open_cpu_seconds)),
            format!("{:.3}", of(&|one| one.bare.open_cpu_seconds / one.phase.cost.cpu_seconds)),
            format!("{:.2}", of(&|one| one.bare.open_seconds)),
            format!("{:.2}", of(&|one| one.write_seconds)),
            format!("{ratio:.3}"),
            if ratio >= BAR { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    let bare = |place: usize| {
        let all = rounds.iter().map(|round| round[place].bare.open_per_core);
        let mibs = median(all.collect()) / float(1 << 20);
        format!("{mibs:.0} MiB/s a core on {} MiB", mib(rounds[0][place].bare.distinct_bytes))
    };
    format!(
        "{table}\n\nopen + decompress + hash alone: {} (first), {} (last)\nthe bar: {BAR} of the slower of that with all threads and of writing\n",
        bare(0),
        bare(rounds[0].len() / 2)
    )
}
