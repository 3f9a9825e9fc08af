//! Measures pruning: what it takes, what it does to backups that run meanwhile, and what it does for restores.
//!
//! Everything that is measured runs in a process of its own, so that its memory is its own.

mod beside;
mod daily;
mod job;
mod laps;
mod large;
mod make;
mod metered;
mod report;
mod restores;
mod running;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::io::{self, Write as _};
use std::path::Path;
use tempfile::TempDir;

/// Measures pruning.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prune a repository of many snapshots and ten million chunks, from which half of the snapshots were forgotten
    Large(large::Arguments),
    /// Restore before and after the packs of many small incremental backups are packed again
    Restores(restores::Arguments),
    /// Back up while prunes run, and while none does
    Beside(beside::Arguments),
    /// Run one job over files that are there: how this program calls itself
    #[command(hide = true)]
    Job {
        /// The job, as JSON
        job: String,
    },
}

fn main() -> anyhow::Result<()> {
    let text = match Arguments::parse().what {
        What::Large(arguments) => large::run(&arguments)?,
        What::Restores(arguments) => restores::run(&arguments)?,
        What::Beside(arguments) => beside::run(&arguments)?,
        What::Job { job } => serde_json::to_string(&running::run(&serde_json::from_str(&job)?)?)?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// The directory that everything is written to, and that is removed at the end.
fn directory(parent: Option<&Path>) -> anyhow::Result<TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    TempDir::with_prefix_in("keepstone-prune-", &parent)
        .with_context(|| format!("could not make a directory in {}", parent.display()))
}
