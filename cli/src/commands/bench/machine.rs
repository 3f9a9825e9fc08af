//! The machine, as the kernel tells of it, and room for what a run writes.

use super::result::Machine;
use crate::exit::Usage;
use crate::numbers::size;
use anyhow::Context as _;
use rustix::fs::{Advice, StatFs, fadvise, statfs, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where scratch directories are made if nothing is said and the environment names no place: on a disk, unlike what
/// `/tmp` may be, and made for larger files (the Filesystem Hierarchy Standard).
const SCRATCH: &str = "/var/tmp";

/// Looks at the machine.
pub(super) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Machine {
        processor: processor(&read("/proc/cpuinfo")),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory(&read("/proc/meminfo")).unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
    }
}

fn processor(cpuinfo: &str) -> String {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The directory that scratch directories are made in.
pub(super) fn scratch_parent(flag: Option<&Path>) -> PathBuf {
    let named = || std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    flag.map(Path::to_owned).or_else(named).unwrap_or_else(|| PathBuf::from(SCRATCH))
}

/// Refuses a place that has no room.
///
/// # Errors
/// Less than `needed` bytes are free, or that cannot be found out.
pub(super) fn room(directory: &Path, needed: u64) -> anyhow::Result<()> {
    let free = statvfs(directory)
        .with_context(|| format!("could not find the free space of {}", directory.display()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < needed {
        let (free, needed) = (size(free), size(needed));
        let what = format!("{} has {free} free, and up to {needed} would be written", directory.display());
        let hint = "name another directory with --scratch, or measure less with --size or --quick";
        return Err(Usage::new(what).hint(hint).into());
    }
    Ok(())
}

/// The kind of file system that a directory is on, by the numbers of `statfs(2)`.
pub(super) fn file_system(directory: &Path) -> String {
    let Ok(StatFs { f_type, .. }) = statfs(directory) else { return "unknown".to_owned() };
    let name = match u64::from_ne_bytes(f_type.to_ne_bytes()) {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => "overlay",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

/// Has the system forget what it has of a file in memory; whether it could be asked. What was not written yet stays.
pub(super) fn forget(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| fadvise(&file, 0, None, Advice::DontNeed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_what_the_kernel_tells() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: Some CPU @ 3 GHz\n";
        assert_eq!(processor(cpuinfo), "Some CPU @ 3 GHz");
        assert_eq!(processor(""), std::env::consts::ARCH);
        assert_eq!(memory("MemTotal:       1024 kB\nMemFree:  1 kB\n"), Some(1 << 20));
        assert_eq!(memory("MemFree:  1 kB\n"), None);
        let machine = machine();
        assert!(machine.processors > 0 && machine.memory_bytes > 0, "{machine:?}");
    }

    #[test]
    fn a_place_without_room_is_refused() {
        let directory = std::env::temp_dir();
        room(&directory, 1).unwrap();
        let refused = room(&directory, u64::MAX).unwrap_err();
        assert!(refused.to_string().contains("would be written"), "{refused}");
    }
}
