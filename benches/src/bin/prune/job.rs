//! What one process measures, and what came of it.

use crate::laps::Lap;
use crate::make::{Model, Size};
use crate::metered::Asked;
use anyhow::{Context as _, ensure};
use keepstone_benches::files::say;
use keepstone_benches::meter::Cost;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing that is done to a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    /// Where the repository is, and what else is kept of it.
    pub(crate) directory: PathBuf,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    Make {
        model: Model,
        size: Size,
    },
    Forget(Keep),
    /// What `--dry-run` does.
    Plan(Repack),
    Prune(Repack),
    /// The newest snapshot of a VM, to nothing. Reads take so long at least.
    Restore {
        vm: u64,
        latency_millis: u64,
    },
    /// First backups of so many VMs, one after the other, each with a local index of its own.
    Backup {
        first_vm: u64,
        vms: u64,
    },
    /// Forgets all that those made.
    ForgetVms {
        first_vm: u64,
        vms: u64,
    },
    /// One prune after the other, until there is a file that says stop. One that has to wait is followed by a dry run.
    PruneUntilStopped(Repack),
}

/// How many snapshots of each VM are kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Keep {
    pub(crate) daily: u32,
    pub(crate) weekly: u32,
    pub(crate) monthly: u32,
    /// Now, milliseconds since 1970.
    pub(crate) time: u64,
}

/// What is packed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Repack {
    Nothing,
    /// What has more than so many per cent that nothing needs.
    Above(u8),
}

/// What an action did and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) cost: Cost,
    pub(crate) laps: Vec<Lap>,
    pub(crate) asked: BTreeMap<String, Asked>,
    /// What it told itself.
    pub(crate) report: serde_json::Value,
}

impl Job {
    pub(crate) fn new(directory: &Path, action: Action) -> Self {
        Self { directory: directory.to_owned(), action }
    }

    /// Runs it in a process of its own.
    pub(crate) fn measure(&self) -> anyhow::Result<Outcome> {
        let output = self.command()?.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "a process failed: {:?}", self.action);
        let outcome: Outcome = serde_json::from_slice(&output.stdout).context("a process did not report")?;
        say(&format!("{:?}: {:.1} s", self.action, outcome.cost.wall_seconds))?;
        Ok(outcome)
    }

    /// The call of this program that runs it.
    pub(crate) fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("job").arg(serde_json::to_string(self)?);
        Ok(command)
    }
}

impl Outcome {
    /// A number of the report.
    pub(crate) fn number(&self, path: &str) -> u64 {
        self.report.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// All requests.
    pub(crate) fn all(&self) -> Asked {
        let mut all = Asked::default();
        self.asked.values().for_each(|asked| all += *asked);
        all
    }
}
