//! The binary `keepstone`: backups, restores and checks of virtual machine disks.
//!
//! The only crate of the workspace with a clock, an environment, standard streams and signals. Everything it does to
//! a repository is the engine's.

mod arguments;
mod azure;
mod clock;
mod commands;
mod console;
mod credentials;
mod exit;
mod figures;
mod hint;
mod index;
mod interrupt;
mod location;
mod nbd;
mod numbers;
mod open;
mod other;
mod password;
mod prices;
mod profile;
mod progress;
mod retention_key;
mod running;
mod selector;
mod settings;
mod standing;
mod times;
mod unreadable;
mod unsupported;
mod vsphere;

use arguments::Arguments;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    let arguments = Arguments::parse();
    let outcome = commands::run(arguments);
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}
