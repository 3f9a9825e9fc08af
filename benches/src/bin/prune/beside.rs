//! Backups while prunes run, one after the other without a pause, beside backups alone.

use crate::job::{Action, Job, Keep, Outcome, Repack};
use crate::make::{Model, Size};
use crate::{directory, running};
use anyhow::{Context as _, ensure};
use keepstone_benches::files::say;
use keepstone_benches::table::{float, median, mib, new_table};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,

    /// Where the repository is for the time of the run: some GB [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// How often backups are measured, alone and beside prunes in turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u64,

    /// First backups that are made each time, of disks of 256 MiB
    #[arg(long, value_name = "N", default_value_t = 12)]
    backups: u64,
}

/// The same backups, alone and beside prunes.
struct Round {
    alone: Outcome,
    beside: Outcome,
    prunes: Outcome,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let directory = directory(arguments.repository.as_deref())?;
    let path = directory.path();
    let size = arguments.size;
    Job::new(path, Action::Make { model: Model::Default, size }).measure()?;
    let keep = Keep { daily: 42, weekly: 14, monthly: 12, time: size.end() };
    Job::new(path, Action::Forget(keep)).measure()?;
    let mut rounds = Vec::new();
    let mut first_vm = size.vms;
    let mut next = || {
        first_vm += arguments.backups;
        Action::Backup { first_vm: first_vm - arguments.backups, vms: arguments.backups }
    };
    for number in 0..arguments.rounds {
        say(&format!("round {} of {}", number + 1, arguments.rounds))?;
        let (first, second) = (next(), next());
        let round = if number % 2 == 0 {
            let alone = alone(path, &first)?;
            let (beside, prunes) = beside(path, &second)?;
            Round { alone, beside, prunes }
        } else {
            let (beside, prunes) = beside(path, &first)?;
            Round { alone: alone(path, &second)?, beside, prunes }
        };
        rounds.push(round);
    }
    Ok(text(&rounds))
}

/// Backs up, and forgets it all: the next prune deletes it.
fn alone(directory: &Path, action: &Action) -> anyhow::Result<Outcome> {
    let outcome = Job::new(directory, action.clone()).measure()?;
    forget(directory, action)?;
    Ok(outcome)
}

fn beside(directory: &Path, action: &Action) -> anyhow::Result<(Outcome, Outcome)> {
    let stop = running::stop_file(directory);
    let job = Job::new(directory, Action::PruneUntilStopped(Repack::Above(5)));
    let prunes = job.command()?.stdout(Stdio::piped()).spawn()?;
    let outcome = Job::new(directory, action.clone()).measure();
    fs::write(&stop, b"")?;
    let output = prunes.wait_with_output()?;
    fs::remove_file(&stop)?;
    ensure!(output.status.success(), "a prune failed");
    forget(directory, action)?;
    Ok((outcome?, serde_json::from_slice(&output.stdout).context("a prune did not report")?))
}

fn forget(directory: &Path, action: &Action) -> anyhow::Result<()> {
    let Action::Backup { first_vm, vms } = *action else { return Ok(()) };
    Job::new(directory, Action::ForgetVms { first_vm, vms }).measure()?;
    Ok(())
}

fn text(rounds: &[Round]) -> String {
    let mut table = new_table(&[
        "round",
        "alone MiB/s",
        "CPU s",
        "requests",
        "beside MiB/s",
        "CPU s",
        "requests",
        "ratio",
        "of CPU",
        "prunes",
        "ended",
        "dry runs",
        "CPU s",
        "MiB deleted",
    ]);
    let speed = |one: &Outcome| {
        float(one.number("/readBytes")) / float(1 << 20) / one.report["seconds"].as_f64().unwrap_or(0.0)
    };
    let requests = |one: &Outcome| {
        let all = one.all();
        (all.put + all.get + all.list).to_string()
    };
    let ratio = |round: &Round| speed(&round.beside) / speed(&round.alone);
    let cpu_ratio = |round: &Round| round.beside.cost.cpu_seconds / round.alone.cost.cpu_seconds;
    for (number, round) in rounds.iter().enumerate() {
        let Round { alone, beside, prunes } = round;
        table.add_row([
            (number + 1).to_string(),
            format!("{:.0}", speed(alone)),
            format!("{:.2}", alone.cost.cpu_seconds),
            requests(alone),
            format!("{:.0}", speed(beside)),
            format!("{:.2}", beside.cost.cpu_seconds),
            requests(beside),
            format!("{:.3}", ratio(round)),
            format!("{:.3}", cpu_ratio(round)),
            prunes.number("/prunes").to_string(),
            prunes.number("/ended").to_string(),
            prunes.number("/dryRuns").to_string(),
            format!("{:.2}", prunes.cost.cpu_seconds),
            mib(prunes.number("/deletedBytes")),
        ]);
    }
    let of = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    format!(
        "{table}\n\nmedians: {:.0} MiB/s alone, {:.0} MiB/s beside prunes, ratio {:.3}; {:.3} times the processor time\n",
        of(&|round| speed(&round.alone)),
        of(&|round| speed(&round.beside)),
        of(&ratio),
        of(&cpu_ratio),
    )
}
