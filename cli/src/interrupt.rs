//! Ctrl-C, a request to end, or a terminal that goes away: the first one stops cleanly, the second one at once.

use crate::exit::Exit;
use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    /// From now on until [`Interrupt::install`], the first signal ends the program: it has done nothing that would have
    /// to be undone, and may wait for something that does not look.
    ///
    /// # Errors
    /// A system that refuses signal handlers.
    pub(crate) fn end_at_once(&self) -> anyhow::Result<()> {
        self.ends_at_once.store(true, Ordering::Relaxed);
        for signal in signals() {
            let flag = Arc::clone(&self.ends_at_once);
            flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, flag)
                .context("could not prepare for being interrupted")?;
        }
        Ok(())
    }

    /// From now on the first signal asks for a clean stop, and the next one kills.
    ///
    /// Only for commands that look: all others are ended by the first signal.
    ///
    /// # Errors
    /// A system that refuses signal handlers.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        for signal in signals() {
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

/// The signals that ask for a stop. A terminal's end is one, unless the program was started so that it outlives that, as
/// by nohup.
fn signals() -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    [SIGINT, SIGTERM].into_iter().chain((!is_ignored(&status, SIGHUP)).then_some(SIGHUP))
}

/// Whether the text of `/proc/self/status` (proc(5)) says that a signal is ignored, or does not say that it is not.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_ignored_if_its_bit_is_set() {
        let status = |mask: &str| {
            format!("Name:\tkeepstone\nSigBlk:\t0000000000000000\nSigIgn:\t{mask}\nSigCgt:\t0\n")
        };
        assert!(is_ignored(&status("0000000000000001"), SIGHUP));
        assert!(!is_ignored(&status("0000000000001000"), SIGHUP));
        assert!(is_ignored(&status("0000000000004000"), SIGTERM));
        assert!(is_ignored("", SIGHUP));
    }
}
