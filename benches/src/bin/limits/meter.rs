//! Clocks, and how much memory the process uses.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Work that was done by all threads together, and how long they were busy with it, one added to the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) bytes: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Work {
    /// Does something to so many bytes on this thread.
    pub(crate) fn measure<T>(&mut self, bytes: u64, action: impl FnOnce() -> T) -> T {
        let wall = Instant::now();
        let cpu = cpu_time(ClockId::ThreadCPUTime);
        let result = action();
        self.cpu += cpu_time(ClockId::ThreadCPUTime).saturating_sub(cpu);
        self.wall += wall.elapsed();
        self.bytes += bytes;
        result
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// What an operation of the whole process cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    pub(crate) wall_seconds: f64,
    /// Of all threads, user and system.
    pub(crate) cpu_seconds: f64,
    /// The system's part, in ticks of mostly 10 ms: copies from the page cache, page faults, writing.
    pub(crate) system_seconds: f64,
    /// The most memory that was resident since the process began.
    pub(crate) peak_rss_bytes: u64,
}

/// Measures an operation of the whole process. What was written before is on disk when it begins.
pub(crate) fn measure<T, E: From<io::Error>>(
    directory: &Path,
    action: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Cost), E> {
    rustix::fs::syncfs(File::open(directory)?).map_err(io::Error::from)?;
    let wall = Instant::now();
    let cpu = cpu_time(ClockId::ProcessCPUTime);
    let system = system_time()?;
    let result = action()?;
    let cost = Cost {
        wall_seconds: wall.elapsed().as_secs_f64(),
        cpu_seconds: cpu_time(ClockId::ProcessCPUTime).saturating_sub(cpu).as_secs_f64(),
        system_seconds: system_time()?.saturating_sub(system).as_secs_f64(),
        peak_rss_bytes: memory_status("VmHWM:")?,
    };
    Ok((result, cost))
}

fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("CPU time is not negative")
}

/// The system time of all threads, also of those that have ended.
fn system_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The program's name is in brackets and may hold anything; the system time is the thirteenth field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: Option<u64> = fields.split_whitespace().nth(12).and_then(|field| field.parse().ok());
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/self/stat has no system time"))?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// A line of the kernel's report about this process, in bytes.
fn memory_status(key: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib << 10).ok_or_else(|| io::Error::other(format!("/proc/self/status has no {key}")))
}
