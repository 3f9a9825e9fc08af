//! What packing again does for restores: many small incremental backups leave many small packs, and what is next to each
//! other on a disk is in packs of different days.

use crate::job::{Action, Job, Keep, Outcome, Repack};
use crate::make::{Model, Size};
use crate::running::holdings;
use crate::{directory, report};
use keepstone_benches::files::cache_files;
use keepstone_benches::table::{float, median, mib, new_table};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,

    /// Where the repository is for the time of the run [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// Days of which a snapshot of every VM is kept
    #[arg(long, value_name = "N", default_value_t = 14)]
    keep_daily: u32,

    /// How often each restore is measured; the medians are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,

    /// What a read takes at least in the restores over a line, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    latency: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let directory = directory(arguments.repository.as_deref())?;
    let path = directory.path();
    let measure = |action| Job::new(path, action).measure();
    let size = arguments.size;
    measure(Action::Make { model: Model::Default, size })?;
    let keep = Keep { daily: arguments.keep_daily, weekly: 0, monthly: 0, time: size.end() };
    measure(Action::Forget(keep))?;
    measure(Action::Prune(Repack::Nothing))?;
    let before = holdings(path)?;
    let mut rows = restores("before", arguments, path)?;
    let pruned = measure(Action::Prune(Repack::Above(0)))?;
    let after = holdings(path)?;
    rows.extend(restores("after", arguments, path)?);
    let mut table = new_table(&[
        "restore of the newest snapshot",
        "wall s",
        "CPU s",
        "get",
        "MiB fetched",
        "MiB written",
    ]);
    for row in rows {
        table.add_row(row);
    }
    Ok(format!(
        "{table}\n\n{}\n{}\n{}\n",
        report::holdings(&[("before", before), ("after", after)]),
        report::laps(&[("prune", &pruned)]),
        pruned.report
    ))
}

/// Restores of the first and the last VM, near and far.
fn restores(when: &str, arguments: &Arguments, path: &std::path::Path) -> anyhow::Result<Vec<[String; 6]>> {
    cache_files(path)?;
    let mut rows = Vec::new();
    for vm in [0, arguments.size.vms - 1] {
        for latency_millis in [0, arguments.latency] {
            let job = Job::new(path, Action::Restore { vm, latency_millis });
            let outcomes: Vec<Outcome> =
                (0..arguments.rounds).map(|_| job.measure()).collect::<anyhow::Result<_>>()?;
            let of = |value: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(value).collect());
            rows.push([
                format!("{when}: VM {vm}, {latency_millis} ms a read"),
                format!("{:.2}", of(&|one| one.cost.wall_seconds)),
                format!("{:.2}", of(&|one| one.cost.cpu_seconds)),
                format!("{:.0}", of(&|one| float(one.all().get))),
                mib(outcomes[0].number("/fetchedBytes")),
                mib(outcomes[0].number("/writtenBytes")),
            ]);
        }
    }
    Ok(rows)
}
