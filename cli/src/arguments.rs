//! What can be said on the command line.

use crate::commands::Command;
use clap::{ArgAction, Args, Parser};
use repo_format::WriterId;
use std::path::PathBuf;

const ENVIRONMENT: &str = "\
Password:
  It is taken from the first of --password-file, --password-command, the environment variable \
KEEPSTONE_PASSWORD, the profile, and a question at the terminal.

Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    damage was found
  4    done, but something needs attention
  130  interrupted";

/// Incremental-forever, deduplicating, encrypted backups of virtual machine disks
#[derive(Debug, Parser)]
#[command(name = "keepstone", version, after_long_help = ENVIRONMENT, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArguments {
    /// The repository: a directory
    #[arg(
        short,
        long,
        global = true,
        value_name = "REPO",
        env = "KEEPSTONE_REPOSITORY",
        hide_env_values = true
    )]
    pub(crate) repository: Option<String>,

    /// Read the password from a file; a line end at its end does not count
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub(crate) password_file: Option<PathBuf>,

    /// Take the password from what a shell command prints
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) password_command: Option<String>,

    /// Read settings from a TOML file; flags and the environment come before it
    ///
    /// It may hold repository, password-file, password-command, writer, cache-dir, index-budget and compression.
    /// Relative paths in it count from its directory.
    #[arg(long, global = true, value_name = "FILE", env = "KEEPSTONE_PROFILE", hide_env_values = true)]
    pub(crate) profile: Option<PathBuf>,

    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print no progress and no messages but warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Show no progress bars
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,

    /// Keep the index cache here; it is safe to delete [default: keepstone in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "KEEPSTONE_CACHE_DIR", hide_env_values = true)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// The name that this host writes as: 1 to 63 of a-z, 0-9 and - [default: default]
    #[arg(long, global = true, value_name = "ID", env = "KEEPSTONE_WRITER", hide_env_values = true)]
    pub(crate) writer: Option<WriterId>,

    /// Compute on so many threads [default: one for each processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Tell on standard error what is being done; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}
