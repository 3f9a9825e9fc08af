//! Ctrl-C: the first one stops cleanly, the second one at once.

use crate::exit::Exit;
use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the program was asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    /// A clean stop was asked for.
    raised: Arc<AtomicBool>,
    /// Nothing would have to be undone.
    ends_at_once: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on until [`Interrupt::install`], SIGINT and SIGTERM end the program: it has done nothing that would have
    /// to be undone, and may wait for something that does not look.
    ///
    /// # Errors
    /// A system that refuses signal handlers.
    pub(crate) fn end_at_once(&self) -> anyhow::Result<()> {
        self.ends_at_once.store(true, Ordering::Relaxed);
        for signal in [SIGINT, SIGTERM] {
            let flag = Arc::clone(&self.ends_at_once);
            flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, flag)
                .context("could not prepare for being interrupted")?;
        }
        Ok(())
    }

    /// From now on SIGINT and SIGTERM ask for a clean stop, and kill when it was asked for before.
    ///
    /// Only for commands that look: all others are ended by the first signal.
    ///
    /// # Errors
    /// A system that refuses signal handlers.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order, so that the first signal does not see its own mark.
            flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&self.raised))
                .and_then(|_| flag::register(signal, Arc::clone(&self.raised)))
                .context("could not prepare for being interrupted")?;
        }
        // Only now, so that no signal is without an effect.
        self.ends_at_once.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// What is raised by the first signal; never, unless the handlers are installed.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.raised)
    }

    /// Whether a clean stop was asked for.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }
}
