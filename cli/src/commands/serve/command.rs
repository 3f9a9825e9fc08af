//! A command that runs while a disk is served.

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};

/// The command while it runs.
pub(super) struct Running {
    state: Mutex<State>,
    name: String,
}

struct State {
    child: Child,
    status: Option<ExitStatus>,
    was_told: bool,
}

/// The command did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended with {status}")]
pub(super) struct CommandFailed {
    name: String,
    status: ExitStatus,
}

impl Running {
    /// Starts a command, if there is one.
    pub(super) fn start(command: &[OsString], uri: &str) -> anyhow::Result<Option<Self>> {
        let [program, arguments @ ..] = command else { return Ok(None) };
        let name = program.display().to_string();
        let child = Command::new(program).args(arguments).env("NBD_URI", uri).spawn();
        let child = child.with_context(|| format!("could not start {name}"))?;
        let state = Mutex::new(State { child, status: None, was_told: false });
        Ok(Some(Self { state, name }))
    }

    /// Whether it has ended. It is told to once, if it should.
    pub(super) fn has_ended(&self, should_end: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be looked at has ended.
        state.status = match state.child.try_wait() {
            Ok(status) => status,
            Err(_) => return true,
        };
        if should_end && state.status.is_none() && !state.was_told {
            state.was_told = true;
            let pid = i32::try_from(state.child.id()).ok().and_then(Pid::from_raw);
            // It may end just now.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        state.status.is_some()
    }

    /// How it ended.
    pub(super) fn outcome(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let status = state.child.wait().with_context(|| format!("could not wait for {}", self.name))?;
        if status.success() { Ok(()) } else { Err(CommandFailed { name: self.name.clone(), status }.into()) }
    }
}

impl Drop for Running {
    /// Ends it, if it still runs: there is nothing left that it could read.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It has ended already, unless serving failed.
        drop(state.child.kill().and_then(|()| state.child.wait()));
    }
}
