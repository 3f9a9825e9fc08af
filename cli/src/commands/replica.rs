//! `keepstone replica`

mod barrier;
mod points;
mod promote;
mod source;
mod status;
mod told;

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
    /// Tell what is whole in a replica, which -r names, and what is missing
    Status(status::Arguments),
    /// Register a replica of this repository: prune waits until what it packed again is confirmed there
    Add(barrier::Add),
    /// Remove a replica: prune waits for it no more
    Remove(barrier::Remove),
    /// List the replicas that prune waits for
    List,
    /// Make this replica a repository that is written to: the one that it is copied from is lost
    ///
    /// What is not whole here is set aside, and nothing is deleted before --other-side-gone. Takes the retention password.
    Promote(promote::Arguments),
}

/// Does what is to be done with a replica.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::Status(arguments) => status::run(settings, arguments),
        Action::Add(arguments) => barrier::add(settings, arguments),
        Action::Remove(arguments) => barrier::remove(settings, arguments),
        Action::List => barrier::list(settings),
        Action::Promote(arguments) => promote::run(settings, arguments),
    }
}
