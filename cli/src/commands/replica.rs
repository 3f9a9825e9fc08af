//! `keepstone replica`

mod barrier;

use crate::exit::Exit;
use crate::settings::Settings;
use clap::Subcommand;

/// The arguments of `replica`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Register a replica of this repository: prune waits until what it packed again is confirmed there
    Add(barrier::Add),
    /// Remove a replica: prune waits for it no more
    Remove(barrier::Remove),
    /// List the replicas that prune waits for
    List,
}

/// Does what is to be done with a replica.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::Add(arguments) => barrier::add(settings, arguments),
        Action::Remove(arguments) => barrier::remove(settings, arguments),
        Action::List => barrier::list(settings),
    }
}
