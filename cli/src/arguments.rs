//! What can be said on the command line.

use crate::commands::Command;
use crate::credentials::AuthKind;
use crate::numbers::parse_rate;
use clap::{ArgAction, Args, Parser};
use repo_format::WriterId;
use std::num::NonZeroU64;
use std::path::PathBuf;

const ENVIRONMENT: &str = "\
Password:
  It is taken from the first of --password-file, --password-command, the environment variable \
KEEPSTONE_PASSWORD, the profile, and a question at the terminal.
  What forgets or prunes takes the retention password likewise: --retention-password-file, \
--retention-password-command, KEEPSTONE_RETENTION_PASSWORD, the profile. Without one it tries the repository's password.

Credentials for Azure:
  Secrets are never on the command line. If exactly one of these is in the environment, or else in the profile, it is \
taken; if there are several, --auth chooses. managed-identity and azure-cli must be chosen.
  sas                  AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_SAS_TOKEN_FILE (read again when due)
  connection-string    AZURE_STORAGE_CONNECTION_STRING
  key                  AZURE_STORAGE_KEY
  client-secret        AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET
  client-certificate   AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_CERTIFICATE_PATH (PEM)
  workload-identity    AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE
  managed-identity     AZURE_CLIENT_ID for a user-assigned one
  azure-cli            AZURE_TENANT_ID for another tenant than that of the login

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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct GlobalArguments {
    /// The repository: a directory, or `azblob://ACCOUNT/CONTAINER/PREFIX` in Azure, perhaps with `?endpoint=URL`
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

    /// Read the retention password, which forgetting and pruning takes, from a file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "retention_password_command",
        hide_short_help = true
    )]
    pub(crate) retention_password_file: Option<PathBuf>,

    /// Take the retention password from what a shell command prints
    #[arg(long, global = true, value_name = "COMMAND", hide_short_help = true)]
    pub(crate) retention_password_command: Option<String>,

    /// Take the repository for a replica, a copy that is filled from elsewhere, although it does not say so itself: only
    /// what is whole is offered, and nothing is written to it
    #[arg(long, global = true, env = "KEEPSTONE_REPLICA", hide_env_values = true, hide_short_help = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) replica: bool,

    /// Read settings from a TOML file; flags and the environment come before it
    ///
    /// It may hold repository, password-file, password-command, retention-password-file, retention-password-command, writer, replica, cache-dir, index-budget and compression; for
    /// Azure auth, sas-token-file, key-file, connection-string-file, tenant-id, client-id, client-secret-file,
    /// client-certificate, federated-token-file, authority-host, tier, content-md5, limit-upload, limit-download and a
    /// table of prices; for vSphere vsphere-user, vsphere-password-file, vsphere-password-command, vsphere-ca,
    /// vsphere-thumbprint, transport, proxy-vm, vddk-dir, nbdkit and task-timeout. Relative paths in it count from its directory.
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

    /// How to prove who asks, for a repository in Azure [default: the only credential that is there]
    #[arg(long, global = true, value_name = "KIND", value_enum)]
    pub(crate) auth: Option<AuthKind>,

    /// Send at most so many bytes a second to Azure, as in 50MiB
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit_upload: Option<NonZeroU64>,

    /// Receive at most so many bytes a second from Azure
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit_download: Option<NonZeroU64>,

    /// Tell on standard error what is being done; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}
