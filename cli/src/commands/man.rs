//! `keepstone man`

use crate::arguments::Arguments as CommandLine;
use crate::exit::Exit;
use crate::settings::Settings;
use anyhow::Context as _;
use clap::CommandFactory;
use serde::Serialize;
use std::path::PathBuf;

/// The arguments of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory; it is made if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Serialize)]
struct Report {
    directory: PathBuf,
}

/// Writes a manual page for every command.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(CommandLine::command(), directory))
        .with_context(|| format!("could not write the manual pages into {}", directory.display()))?;
    let report = Report { directory: directory.clone() };
    settings
        .console
        .report(&report, |report| format!("the manual pages are in {}\n", report.directory.display()))?;
    Ok(Exit::Done)
}
