//! Pruning a repository of a thousand snapshots and ten million chunks.

use crate::job::{Action, Job, Keep, Repack};
use crate::make::{Model, Size};
use crate::running::holdings;
use crate::{directory, report};
use keepstone_benches::table::float;
use std::path::PathBuf;

/// The bar for memory.
const MEMORY_MAX: u64 = 512 << 20;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,

    /// Where the repository is for the time of the run: some 12 GB with the defaults [default: the directory for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// Days of which a snapshot of every VM is kept
    #[arg(long, value_name = "N", default_value_t = 42)]
    keep_daily: u32,

    /// Weeks, likewise
    #[arg(long, value_name = "N", default_value_t = 14)]
    keep_weekly: u32,

    /// Months, likewise
    #[arg(long, value_name = "N", default_value_t = 12)]
    keep_monthly: u32,

    /// How much may be stored that nothing needs, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    max_unused: u8,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let directory = directory(arguments.repository.as_deref())?;
    let path = directory.path();
    let measure = |action| Job::new(path, action).measure();
    let size = arguments.size;
    let made = measure(Action::Make { model: Model::Scaled, size })?;
    let keep = Keep {
        daily: arguments.keep_daily,
        weekly: arguments.keep_weekly,
        monthly: arguments.keep_monthly,
        time: size.end(),
    };
    let forgotten = measure(Action::Forget(keep))?;
    let repack = Repack::Above(arguments.max_unused);
    let before = holdings(path)?;
    let whole = measure(Action::Plan(Repack::Nothing))?;
    let planned = measure(Action::Plan(repack))?;
    let pruned = measure(Action::Prune(repack))?;
    let after = holdings(path)?;
    let again = measure(Action::Prune(repack))?;
    let at_the_end = holdings(path)?;
    let outcomes = [
        ("forget", &forgotten),
        ("dry run, no repack", &whole),
        ("dry run", &planned),
        ("prune", &pruned),
        ("prune again", &again),
    ];
    let peak = pruned.cost.peak_rss_bytes.max(again.cost.peak_rss_bytes);
    Ok(format!(
        "{} snapshots, {} chunks ({} in the first backups), {:.0} bytes each on average; {} forgotten, {} kept\n\n{}\n{}\n\
         Requests of the prune\n{}\nDry run: {}\nPrune: {}\nPrune again: {}\npeak memory: {} MiB, at most 512: {}\n",
        made.number("/snapshots"),
        made.number("/chunks"),
        made.number("/firstChunks"),
        float(made.number("/chunkBytes")) / float(made.number("/chunks").max(1)),
        forgotten.number("/forgotten"),
        forgotten.number("/kept"),
        report::holdings(&[("before", before), ("after", after), ("after another prune", at_the_end)]),
        report::laps(&outcomes),
        report::kinds(&pruned),
        planned.report,
        pruned.report,
        again.report,
        peak >> 20,
        if peak <= MEMORY_MAX { "met" } else { "MISSED" },
    ))
}
