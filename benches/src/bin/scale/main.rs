//! Measures what should not depend on size: backups of a huge disk of which little changed, and what is asked of a
//! repository of very many snapshots.

mod disk;
mod fleet;
mod huge;
mod replica;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;

/// Measures backups of huge disks, or a repository of very many snapshots.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Back up, restore, verify and compare a sparse disk of which little changed, in several sizes
    Disk(disk::Arguments),
    /// Ask a repository with a snapshot of every VM and day, made without data
    Fleet(fleet::Arguments),
    /// Tell which restore points of a replica with very many of them are whole
    Replica(replica::Arguments),
}

fn main() -> anyhow::Result<()> {
    let text = match Arguments::parse().what {
        What::Disk(arguments) => disk::run(&arguments)?,
        What::Fleet(arguments) => fleet::run(&arguments)?,
        What::Replica(arguments) => replica::run(&arguments)?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Runs this program once more with other arguments, and returns what it printed: so that its memory is its own.
fn again(arguments: &[String]) -> anyhow::Result<Vec<u8>> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "{:?} failed", arguments.join(" "));
    Ok(output.stdout)
}

/// The directory that everything is written to.
fn directory(parent: Option<&PathBuf>) -> anyhow::Result<tempfile::TempDir> {
    let parent = parent.cloned().unwrap_or_else(std::env::temp_dir);
    tempfile::TempDir::with_prefix_in("keepstone-scale-", &parent)
        .with_context(|| format!("could not make a directory in {}", parent.display()))
}
