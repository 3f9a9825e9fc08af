//! Waiting for what a vCenter does on its own.

use super::client::VCenter;
use super::error::VSphereError;
use super::fault::Fault;
use super::model::MoRef;
use super::tasks::{Task, TaskState};
use std::ops::ControlFlow;
use std::time::Duration;

/// The first pause between two looks at a task: most of them are done by then.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why what was begun on a vCenter is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The user wants to stop.
    #[error("interrupted while waiting to {what}")]
    Interrupted {
        /// What was to be done.
        what: &'static str,
    },
    /// It takes too long; it may still be done.
    #[error("it takes vCenter more than {} s to {what}", after.as_secs())]
    Late {
        /// What was to be done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It failed.
    #[error("vCenter could not {what}: {} ({})", fault.message, fault.kind.name())]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// Why.
        fault: Fault,
    },
    /// The server could not be asked.
    #[error("could not {what}")]
    Asking {
        /// What was to be done.
        what: &'static str,
        /// Why.
        source: VSphereError,
    },
}

/// Waits in pauses that somebody with a clock makes.
#[derive(Clone, Copy)]
pub struct Waiter<'a> {
    /// Where the tasks are.
    pub vcenter: &'a VCenter,
    /// Waits for so long; breaks when nobody wants to wait any more.
    pub pause: &'a (dyn Fn(Duration) -> ControlFlow<()> + Sync),
    /// How long one thing may take.
    pub patience: Duration,
}

impl Waiter<'_> {
    /// Waits until a task has ended, and returns what it made. `what` completes "could not ...".
    ///
    /// # Errors
    /// Any [`WaitError`]; the task may go on unless it is [`WaitError::Failed`].
    pub fn task(
        &self,
        what: &'static str,
        started: Result<Task, VSphereError>,
    ) -> Result<Option<MoRef>, WaitError> {
        let asking = |source| WaitError::Asking { what, source };
        let task = started.map_err(asking)?;
        let mut result = None;
        self.until(what, || match self.vcenter.task(&task).map_err(asking)? {
            TaskState::Queued | TaskState::Running { .. } => Ok(false),
            TaskState::Success { result: made } => {
                result = made;
                Ok(true)
            }
            TaskState::Error(fault) => Err(WaitError::Failed { what, fault }),
        })?;
        Ok(result)
    }

    /// Waits until something is so. `what` completes "could not ...".
    ///
    /// # Errors
    /// [`WaitError::Interrupted`], [`WaitError::Late`], and those of `is_done`.
    pub fn until(
        &self,
        what: &'static str,
        mut is_done: impl FnMut() -> Result<bool, WaitError>,
    ) -> Result<(), WaitError> {
        let (mut waited, mut pause) = (Duration::ZERO, PAUSE_MIN);
        while !is_done()? {
            if waited >= self.patience {
                return Err(WaitError::Late { what, after: waited });
            }
            if (self.pause)(pause).is_break() {
                return Err(WaitError::Interrupted { what });
            }
            waited += pause;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }
}
