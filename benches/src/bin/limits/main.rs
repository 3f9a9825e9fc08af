//! Measures whole backups and restores of one image beside the bare speed of their parts on the same data, in the
//! same run and interleaved, and prints the ratios that the design aims at.

mod phases;
mod primitives;
mod report;
mod summary;

use anyhow::ensure;
use clap::Parser;
use keepstone_benches::changes::ChangedBlocks;
use keepstone_benches::files::{say, temporary_directory};
use keepstone_benches::synthetic;
use keepstone_engine::extent::total_length;
use keepstone_engine::source::RawImage;
use keepstone_engine::{DiskSource, Extent};
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One in so many bytes of the image changes for the incremental backup.
const CHANGED_SHARE: u64 = 100;
/// The synthetic image is made and the image is read in pieces of this length.
const PIECE_LEN: usize = 16 << 20;

/// Measures backup and restore of a disk image beside the bare speed of their parts.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read; it should fit the page cache. Without it a synthetic one is made
    image: Option<PathBuf>,

    /// Where the repositories and the restored image are for the time of the run [default: beside the image]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZero<u32>,

    /// zstd's level
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,

    /// Threads for CPU work [default: one for each core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,

    /// The length of the synthetic image
    #[arg(long, value_name = "MIB", default_value = "1024", conflicts_with = "image")]
    synthetic: NonZero<u32>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,

    /// Run one phase over the files in the directory of --repository: how this program calls itself
    #[arg(long, value_enum, hide = true, requires_all = ["image", "repository"])]
    phase: Option<phases::Name>,
}

/// What every round works on.
struct Setting<'a> {
    path: &'a Path,
    image: &'a RawImage,
    /// The areas of the image that are read.
    allocated: Vec<Extent>,
    changes: ChangedBlocks,
    /// Everything that is written goes here.
    directory: &'a Path,
    level: i32,
    threads: usize,
}

impl<'a> Setting<'a> {
    fn new(
        arguments: &Arguments,
        path: &'a Path,
        image: &'a RawImage,
        directory: &'a Path,
    ) -> anyhow::Result<Self> {
        let allocated = image.changed_areas(None)?.areas;
        let allocated_bytes = total_length(&allocated);
        ensure!(allocated_bytes > 0, "{} has no data", path.display());
        let changes = ChangedBlocks::choose(&allocated, allocated_bytes / CHANGED_SHARE, 1);
        let (level, threads) = (arguments.level, rayon::current_num_threads());
        Ok(Self { path, image, allocated, changes, directory, level, threads })
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    if let (Some(name), Some(path), Some(directory)) =
        (arguments.phase, &arguments.image, &arguments.repository)
    {
        let image = RawImage::open(path)?;
        let phase = phases::run(&Setting::new(&arguments, path, &image, directory)?, name)?;
        return Ok(serde_json::to_writer(io::stdout(), &phase)?);
    }
    let directory = temporary_directory(
        "keepstone-limits-",
        arguments.repository.as_deref(),
        arguments.image.as_deref(),
    )?;
    let path = match &arguments.image {
        Some(path) => path.clone(),
        None => make_synthetic(directory.path(), arguments.synthetic)?,
    };
    let image = RawImage::open(&path)?;
    let setting = Setting::new(&arguments, &path, &image, directory.path())?;
    say("reading the image once, so that it is in the page cache")?;
    primitives::sequential_read(&setting)?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds.get() {
        say(&format!("round {number} of {}: the bare parts", arguments.rounds))?;
        let primitives = primitives::measure(&setting)?;
        say(&format!("round {number} of {}: backups and restores", arguments.rounds))?;
        rounds.push(report::Round { phases: phases::measure(&setting)?, primitives });
    }
    let report = report::Report {
        image: path.display().to_string(),
        disk_bytes: image.size(),
        allocated_bytes: total_length(&setting.allocated),
        threads: setting.threads,
        level: setting.level,
        rounds,
    };
    let text = if arguments.json { report.json()? } else { report.text() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn make_synthetic(directory: &Path, mib: NonZero<u32>) -> anyhow::Result<PathBuf> {
    say(&format!("making a synthetic image of {mib} MiB"))?;
    let path = directory.join("synthetic.img");
    let file = File::create_new(&path)?;
    let len = u64::from(mib.get()) << 20;
    let mut piece = vec![0; PIECE_LEN];
    let mut offset = 0;
    while offset < len {
        let part_len = usize::try_from(len - offset).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
        let part = &mut piece[..part_len];
        synthetic::fill(1, offset / synthetic::BLOCK_LEN as u64, part);
        file.write_all_at(part, offset)?;
        offset += part_len as u64;
    }
    file.sync_all()?;
    Ok(path)
}
