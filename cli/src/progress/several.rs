//! The progress of backups of several VMs, in one bar.

use super::{Screen, styled, words};
use crate::console::{Console, say, warn};
use crate::interrupt::Interrupt;
use crate::numbers::size;
use crate::settings::Settings;
use indicatif::ProgressBar;
use keepstone_engine::Observer;
use keepstone_engine::observer::{Event, Phase};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const SEVERAL: &str = "{prefix} {wide_bar} {done}/{total}  {rate}{msg}";

/// An observer of several backups at a time. The total is that of the VMs that have begun, and grows.
pub(crate) struct Several {
    console: Console,
    interrupt: Interrupt,
    screen: Screen,
    machines: usize,
    running: AtomicUsize,
    ended: AtomicUsize,
    transferred: AtomicU64,
    stop_told: AtomicBool,
}

impl Several {
    /// Begins to draw the progress of so many VMs.
    pub(crate) fn new(settings: &Settings, machines: usize) -> Self {
        let several = Self {
            console: settings.console,
            interrupt: settings.interrupt.clone(),
            screen: settings.screen.clone(),
            machines,
            running: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            transferred: AtomicU64::new(0),
            stop_told: AtomicBool::new(false),
        };
        if several.console.draws_progress() {
            *several.screen.bar() = styled(several.prefix(), SEVERAL, 0);
        }
        several
    }

    /// Whether nothing new is to be begun.
    pub(crate) fn is_stopped(&self) -> bool {
        self.interrupt.is_raised()
    }

    /// Notes that a VM has begun.
    pub(crate) fn one_begins(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.bar().set_prefix(self.prefix());
    }

    /// Notes that a VM has ended.
    pub(crate) fn one_ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.bar().set_prefix(self.prefix());
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar().finish_and_clear();
    }

    fn prefix(&self) -> String {
        let (ended, running) = (self.ended.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed));
        format!("{ended} of {} VMs, {running} running", self.machines)
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, ProgressBar> {
        self.screen.bar()
    }

    fn transferred(&self, phase_bytes: u64) {
        let bytes = self.transferred.fetch_add(phase_bytes, Ordering::Relaxed) + phase_bytes;
        let bar = self.bar();
        if !bar.is_hidden() {
            bar.set_message(format!("  {} moved", size(bytes)));
        }
    }
}

impl Observer for Several {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match &event {
            Event::Phase { phase, total } => {
                tracing::info!(?phase, total, "a phase begins");
                if matches!(phase, Phase::Backup { .. } | Phase::Audit { .. }) {
                    self.bar().inc_length(*total);
                }
            }
            Event::Progress(amount) => self.bar().inc(*amount),
            Event::Transferred(bytes) => self.transferred(*bytes),
            Event::Notice(notice) => warn(&words(notice)),
            other => tracing::debug!(?other, "an event"),
        }
        if !self.is_stopped() {
            return ControlFlow::Continue(());
        }
        if !self.stop_told.swap(true, Ordering::Relaxed) {
            say("all backups are being stopped; interrupt again to stop at once");
        }
        ControlFlow::Break(())
    }
}
