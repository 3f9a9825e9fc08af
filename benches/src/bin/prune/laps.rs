//! What each phase of an operation took, as far as it tells its observer when they begin.

use crate::metered::Asked;
use keepstone_benches::meter::{peak_rss_bytes, process_time};
use keepstone_engine::{Event, Observer};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a phase took.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lap {
    pub(crate) phase: String,
    pub(crate) wall_seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// The most memory that was resident until its end, since the process began.
    pub(crate) peak_rss_bytes: u64,
    pub(crate) asked: Asked,
}

/// An observer that ends a lap whenever another phase begins.
pub(crate) struct Laps<'a> {
    asked: &'a (dyn Fn() -> Asked + Sync),
    running: Mutex<Running>,
}

struct Running {
    phase: String,
    wall: Instant,
    cpu: Duration,
    asked: Asked,
    done: Vec<Lap>,
}

impl<'a> Laps<'a> {
    /// Begins the first lap, which lasts until something tells of a phase. `asked` tells the requests so far.
    pub(crate) fn begin(asked: &'a (dyn Fn() -> Asked + Sync)) -> Self {
        let running = Running {
            phase: "Begin".to_owned(),
            wall: Instant::now(),
            cpu: process_time(),
            asked: asked(),
            done: Vec::new(),
        };
        Self { asked, running: Mutex::new(running) }
    }

    /// Ends the last lap.
    pub(crate) fn end(self) -> io::Result<Vec<Lap>> {
        let mut running = self.running.into_inner().unwrap_or_else(PoisonError::into_inner);
        running.next(String::new(), (self.asked)())?;
        Ok(running.done)
    }
}

impl Running {
    fn next(&mut self, phase: String, asked: Asked) -> io::Result<()> {
        let (wall, cpu) = (Instant::now(), process_time());
        self.done.push(Lap {
            phase: std::mem::replace(&mut self.phase, phase),
            wall_seconds: wall.duration_since(self.wall).as_secs_f64(),
            cpu_seconds: cpu.saturating_sub(self.cpu).as_secs_f64(),
            peak_rss_bytes: peak_rss_bytes()?,
            asked: asked - self.asked,
        });
        (self.wall, self.cpu, self.asked) = (wall, cpu, asked);
        Ok(())
    }
}

impl Observer for Laps<'_> {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let Event::Phase { phase, .. } = event {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running
                .next(format!("{phase:?}"), (self.asked)())
                .expect("the system tells how much memory is used");
        }
        ControlFlow::Continue(())
    }
}
