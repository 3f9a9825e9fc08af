//! `keepstone completions`

use crate::arguments::Arguments as CommandLine;
use crate::exit::Exit;
use crate::settings::Settings;
use anyhow::Context as _;
use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

#[derive(Serialize)]
struct Report {
    shell: String,
    script: String,
}

/// Prints what a shell needs to complete the command line.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "keepstone", &mut script);
    let script = String::from_utf8(script).context("the completions are no text")?;
    let report = Report { shell: arguments.shell.to_string(), script };
    settings.console.report(&report, |report| report.script.clone())?;
    Ok(Exit::Done)
}
