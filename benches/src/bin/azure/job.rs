//! One thing that is measured, in a process of its own, so that its memory and its connections are its own.

use anyhow::{Context as _, ensure};
use keepstone_benches::meter::{Beside, Cost};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) image: PathBuf,
    /// Everything that is written goes here.
    pub(crate) directory: PathBuf,
    pub(crate) level: i32,
    pub(crate) place: Place,
    pub(crate) action: Action,
}

/// Where a repository is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In the job's directory.
    Local,
    /// In Azurite.
    Azure {
        /// The way there.
        endpoint: String,
        /// Azurite's process.
        server: u32,
    },
}

impl Place {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Azure { .. } => "azurite",
        }
    }

    pub(crate) fn server(&self) -> Option<u32> {
        match self {
            Self::Local => None,
            Self::Azure { server, .. } => Some(*server),
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    FirstBackup,
    /// A backup after another 1 % of the disk has changed, which it has so many times by then.
    Changed {
        times: u8,
    },
    /// Of the first backup.
    RestoreToNothing,
    /// Of the first backup.
    RestoreToFile,
    /// The packs of the local repository, put by a plain client.
    BarePut {
        threads: usize,
    },
    /// What the last restore from this place read, read again by a plain client.
    BareGet {
        threads: usize,
    },
}

impl Action {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FirstBackup => "first backup",
            Self::Changed { .. } => "1 % changed, 64 KiB areas",
            Self::RestoreToNothing => "restore to nothing",
            Self::RestoreToFile => "restore to a file",
            Self::BarePut { .. } => "the same packs put by a plain client",
            Self::BareGet { .. } => "the same ranges read by a plain client",
        }
    }
}

/// What it cost; sizes in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) cost: Cost,
    pub(crate) beside: Beside,
    pub(crate) requests: Counts,
    /// Opening the repository and finding the snapshots, which are not part of the above.
    pub(crate) opening: Opening,
}

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) get: u64,
    pub(crate) list: u64,
    pub(crate) retries: u64,
    pub(crate) out_bytes: u64,
    pub(crate) in_bytes: u64,
    pub(crate) most_in_flight: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
}

impl Job {
    /// Does it in another process of this program.
    pub(crate) fn start(&self) -> anyhow::Result<Outcome> {
        let output = Command::new(std::env::current_exe()?)
            .arg("--job")
            .arg(serde_json::to_string(self)?)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "\"{}\" failed", self.action.name());
        serde_json::from_slice(&output.stdout).context("a job did not report")
    }
}
