//! Ctrl-C: the first one stops cleanly, the second one at once.

use crate::exit::Exit;
use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the program was asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM ask for a clean stop, and kill when it was asked for before.
    ///
    /// Only for commands that look: all others are ended by the first signal.
    ///
    /// # Errors
    /// A system that refuses signal handlers.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order, so that the first signal does not see its own mark.
            flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&self.0))
                .and_then(|_| flag::register(signal, Arc::clone(&self.0)))
                .context("could not prepare for being interrupted")?;
        }
        Ok(())
    }

    /// What is raised by the first signal; never, unless the handlers are installed.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether a clean stop was asked for.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
