//! The commands: one file each, with its arguments and what it does.

mod backup;
mod bench;
mod completions;
mod cp;
mod diff;
mod forget;
mod guest;
mod import;
mod init;
mod key;
mod ls;
mod man;
mod pin;
mod prune;
mod repair;
mod replica;
mod replicate;
mod restore;
mod serve;
mod show;
mod snapshots;
mod stats;
mod verify;
mod vsphere;

pub(crate) use bench::CannotDelete;

use crate::arguments::Arguments;
use crate::exit::Exit;
use crate::settings::Settings;
use anyhow::Context as _;
use clap::Subcommand;
use keepstone_engine::EngineError;
use keepstone_engine::store::azure::ServiceError;
use keepstone_engine::vsphere::{DiskError, MachineError};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new, empty repository
    Init(init::Arguments),
    /// Back up the disks of a VM, or of several
    Backup(backup::Arguments),
    /// List the snapshots
    Snapshots(snapshots::Arguments),
    /// Show one snapshot
    Show(show::Arguments),
    /// Print where a disk differs between two snapshots
    Diff(diff::Arguments),
    /// Show what the repository holds
    Stats(stats::Arguments),
    /// Write a disk of a snapshot to a file, a block device or standard output
    Restore(restore::Arguments),
    /// List the volumes of a disk of a snapshot, or the files of its guest
    Ls(ls::Arguments),
    /// Copy files of a guest out of a snapshot
    Cp(cp::Arguments),
    /// Serve a disk of a snapshot to NBD clients, without restoring it
    Serve(serve::Arguments),
    /// Check that snapshots are whole
    Verify(verify::Arguments),
    /// Forget snapshots: those that a policy does not keep, or that are named
    Forget(forget::Arguments),
    /// Free what no snapshot needs any more
    Prune(prune::Arguments),
    /// Copy restore points to another place, which is whole at every moment
    Replicate(replicate::Arguments),
    /// Keep a snapshot whatever a policy says
    Pin(pin::Pin),
    /// Let policies decide about a snapshot again
    Unpin(pin::Unpin),
    /// Look after replicas of the repository: copies in another place
    Replica(replica::Arguments),
    /// Import restore points that another place of this repository has and this one has not
    Import(import::Arguments),
    /// Look at a VM in vSphere, and tell what stands against a backup of it
    Vsphere(vsphere::Arguments),
    /// Measure this machine, and predict how long the backups of a fleet take
    Bench(bench::Arguments),
    /// Make again what can be made from the rest of the repository
    Repair(repair::Arguments),
    /// List, add and remove the passwords of the repository
    Key(key::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Write the manual pages into a directory
    Man(man::Arguments),
}

/// The crates of this program.
const OWN_CRATES: [&str; 3] = ["keepstone", "keepstone_engine", "repo_format"];

/// Does what the command line says.
///
/// # Errors
/// Whatever fails first.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    log_to_stderr(arguments.global.verbose);
    if let Some(threads) = arguments.global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .context("could not start the threads")?;
    }
    let settings = Settings::resolve(arguments.global)?;
    let outcome = dispatch(&settings, arguments.command);
    outcome.map_err(|error| as_interruption(&settings, error))
}

/// The error, or that of an interruption if it comes of one.
fn as_interruption(settings: &Settings, error: anyhow::Error) -> anyhow::Error {
    let was_waiting = error.downcast_ref().is_some_and(MachineError::is_interruption)
        || error.downcast_ref().is_some_and(DiskError::is_interruption);
    if settings.interrupt.is_raised() && (was_waiting || gave_up_waiting(&error)) {
        anyhow::Error::new(EngineError::Cancelled)
    } else {
        error
    }
}

fn dispatch(settings: &Settings, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Init(arguments) => init::run(settings, &arguments),
        Command::Backup(arguments) => backup::run(settings, &arguments),
        Command::Snapshots(arguments) => snapshots::run(settings, &arguments),
        Command::Show(arguments) => show::run(settings, &arguments),
        Command::Diff(arguments) => diff::run(settings, &arguments),
        Command::Stats(arguments) => stats::run(settings, &arguments),
        Command::Restore(arguments) => restore::run(settings, &arguments),
        Command::Ls(arguments) => ls::run(settings, &arguments),
        Command::Cp(arguments) => cp::run(settings, &arguments),
        Command::Serve(arguments) => serve::run(settings, &arguments),
        Command::Verify(arguments) => verify::run(settings, &arguments),
        Command::Forget(arguments) => forget::run(settings, &arguments),
        Command::Prune(arguments) => prune::run(settings, &arguments),
        Command::Replicate(arguments) => replicate::run(settings, &arguments),
        Command::Pin(arguments) => pin::pin(settings, &arguments),
        Command::Unpin(arguments) => pin::unpin(settings, &arguments),
        Command::Replica(arguments) => replica::run(settings, &arguments),
        Command::Import(arguments) => import::run(settings, &arguments),
        Command::Vsphere(arguments) => vsphere::run(settings, &arguments),
        Command::Bench(arguments) => bench::run(settings, &arguments),
        Command::Repair(arguments) => repair::run(settings, &arguments),
        Command::Key(arguments) => key::run(settings, &arguments),
        Command::Completions(arguments) => completions::run(settings, &arguments),
        Command::Man(arguments) => man::run(settings, &arguments),
    }
}

/// Whether a service would have been asked again, had nobody asked to stop.
fn gave_up_waiting(error: &anyhow::Error) -> bool {
    matches!(
        error.chain().find_map(|cause| cause.downcast_ref()),
        Some(
            ServiceError::Busy { .. }
                | ServiceError::Connection { .. }
                | ServiceError::Late { .. }
                | ServiceError::Refused { .. }
        )
    )
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing::Level::INFO,
        _ => tracing::Level::TRACE,
    };
    // Libraries are not heard: some of them tell URLs and headers, which hold signatures and tokens.
    let own = OWN_CRATES.map(|name| (name, level));
    let lines = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(std::io::stderr);
    // Only `main` comes here, once, so no other subscriber can be there.
    lines.with_max_level(level).finish().with(Targets::new().with_targets(own)).init();
}
