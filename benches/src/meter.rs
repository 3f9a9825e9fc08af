//! Clocks, and how much memory the process uses.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Work that was done by all threads together, and how long they were busy with it, one added to the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Bytes that it was done to.
    pub bytes: u64,
    /// Time.
    pub wall: Duration,
    /// Time of the processor.
    pub cpu: Duration,
}

impl Work {
    /// Does something to so many bytes on this thread.
    pub fn measure<T>(&mut self, bytes: u64, action: impl FnOnce() -> T) -> T {
        let wall = Instant::now();
        let cpu = cpu_time(ClockId::ThreadCPUTime);
        let result = action();
        self.cpu += cpu_time(ClockId::ThreadCPUTime).saturating_sub(cpu);
        self.wall += wall.elapsed();
        self.bytes += bytes;
        result
    }

    /// Adds what another thread did.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// What an operation of the whole process cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Time.
    pub wall_seconds: f64,
    /// Of all threads, user and system.
    pub cpu_seconds: f64,
    /// Of the calling thread alone: a backup's does all that has to be done in order.
    pub caller_seconds: f64,
    /// The system's part, in ticks of mostly 10 ms: copies from the page cache, page faults, writing.
    pub system_seconds: f64,
    /// The most memory that was resident since the process began.
    pub peak_rss_bytes: u64,
}

/// Measures an operation of the whole process. What was written below `directory` before is on disk when it begins.
///
/// # Errors
/// Those of the operation, and a system that does not tell.
pub fn measure<T, E: From<io::Error>>(
    directory: &Path,
    action: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Cost), E> {
    rustix::fs::syncfs(File::open(directory)?).map_err(io::Error::from)?;
    let wall = Instant::now();
    let cpu = cpu_time(ClockId::ProcessCPUTime);
    let caller = cpu_time(ClockId::ThreadCPUTime);
    let system = system_time()?;
    let result = action()?;
    let cost = Cost {
        caller_seconds: cpu_time(ClockId::ThreadCPUTime).saturating_sub(caller).as_secs_f64(),
        wall_seconds: wall.elapsed().as_secs_f64(),
        cpu_seconds: cpu_time(ClockId::ProcessCPUTime).saturating_sub(cpu).as_secs_f64(),
        system_seconds: system_time()?.saturating_sub(system).as_secs_f64(),
        peak_rss_bytes: memory_status("VmHWM:")?,
    };
    Ok((result, cost))
}

/// The processor time of all threads so far, user and system.
#[must_use]
pub fn process_time() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

/// The most memory that was resident since the process began.
///
/// # Errors
/// A system that does not tell.
pub fn peak_rss_bytes() -> io::Result<u64> {
    memory_status("VmHWM:")
}

fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("CPU time is not negative")
}

/// The system time of all threads, also of those that have ended.
fn system_time() -> io::Result<Duration> {
    Ok(process_times("self")?.1)
}

/// The user and the system time of a process.
fn process_times(process: &str) -> io::Result<(Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name is in brackets and may hold anything; the times are the twelfth and thirteenth field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace().skip(11).map_while(|field| field.parse().ok());
    let mut time = || fields.next().map(ticks).ok_or_else(|| io::Error::other("a process has no times"));
    Ok((time()?, time()?))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// The time that all processors of the machine have been busy.
fn machine_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields = fields.ok_or_else(|| io::Error::other("/proc/stat has no times"))?;
    // User, nice, system, idle, waiting for a disk, interrupts; what guests use is in the first two.
    let times: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let busy = times.iter().enumerate().filter(|(place, _)| matches!(place, 0..=2 | 5 | 6));
    Ok(ticks(busy.map(|(_, time)| time).sum()))
}

/// The time that processors were busy with something else than this process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    /// With the server that this process talks to.
    pub server_seconds: f64,
    /// With anything else on the machine.
    pub others_seconds: f64,
}

/// As [`measure`]; and tells what else the machine did meanwhile, of which `server` is the process of a server.
///
/// # Errors
/// Those of the operation, and a system that does not tell.
pub fn measure_beside<T, E: From<io::Error>>(
    directory: &Path,
    server: Option<u32>,
    action: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Cost, Beside), E> {
    let server_time = || match server {
        Some(server) => process_times(&server.to_string()).map(|(user, system)| user + system),
        None => Ok(Duration::ZERO),
    };
    let (machine, of_server) = (machine_time()?, server_time()?);
    let (result, cost) = measure(directory, action)?;
    let server_seconds = server_time()?.saturating_sub(of_server).as_secs_f64();
    let all = machine_time()?.saturating_sub(machine).as_secs_f64();
    // Ticks are rough.
    let others_seconds = (all - server_seconds - cost.cpu_seconds).max(0.0);
    Ok((result, cost, Beside { server_seconds, others_seconds }))
}

/// A line of the kernel's report about this process, in bytes.
fn memory_status(key: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib << 10).ok_or_else(|| io::Error::other(format!("/proc/self/status has no {key}")))
}
