//! How the program ends.

use crate::hint;
use keepstone_engine::EngineError;
use keepstone_engine::store::StoreError;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The program's exit codes: part of its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// It was called in a way that cannot be meant.
    Usage = 2,
    /// Stored data is damaged.
    Damage = 3,
    /// Everything was done, and something needs attention.
    Attention = 4,
    /// It was interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A call that cannot be meant; exit code 2.
#[derive(Debug)]
pub(crate) struct Usage {
    what: String,
    hint: Option<String>,
}

impl Usage {
    /// Says what is wrong with the call.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Says what to do instead.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do instead.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Usage {}

/// Tells a failure on standard error and returns the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    // Whoever read standard output has seen enough, as with `| head`; there is nothing to tell.
    if !is_closed_pipe(error) {
        // Nothing is left to report to when standard error is closed.
        let _ = io::stderr().write_all(describe(error).as_bytes());
    }
    code(error)
}

/// The text of a failure: what failed, why, and what to do next.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("keepstone: error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  caused by: {cause}\n"));
    }
    if let Some(hint) = hint::hint(error) {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    text
}

/// The exit code of a failure.
pub(crate) fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return Exit::Usage;
        }
        if let Some(error) = cause.downcast_ref::<EngineError>() {
            return engine_code(error, Place::Operation);
        }
    }
    Exit::Failed
}

/// Where an error of the engine stands: what is missing in the middle of a disk is damage.
#[derive(Clone, Copy)]
enum Place {
    Operation,
    Disk,
}

fn engine_code(error: &EngineError, place: Place) -> Exit {
    match error {
        EngineError::Cancelled => Exit::Interrupted,
        EngineError::BadName { .. } | EngineError::BadJob(_) => Exit::Usage,
        EngineError::Damaged { .. } | EngineError::Short { .. } => Exit::Damage,
        EngineError::Unrestorable { source, .. } | EngineError::MapUnreadable { source, .. } => {
            engine_code(source, Place::Disk)
        }
        EngineError::Store(StoreError::NotFound { .. }) => match place {
            Place::Operation => Exit::Failed,
            Place::Disk => Exit::Damage,
        },
        _ => Exit::Failed,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.map(io::Error::kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
}
