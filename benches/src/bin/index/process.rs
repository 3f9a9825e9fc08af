//! What the kernel tells about this process and about files.

use anyhow::Context as _;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// The process's own.
    pub(crate) own: u64,
    /// Pages of mapped files.
    pub(crate) mapped: u64,
    /// The most of both together, since the peak was reset.
    pub(crate) peak: u64,
}

/// What this process has made devices read, and written to files, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoBytes {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

pub(crate) fn resident() -> anyhow::Result<Resident> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bytes = |key| Ok::<_, anyhow::Error>(number(&status, key)? << 10);
    Ok(Resident { own: bytes("RssAnon:")?, mapped: bytes("RssFile:")?, peak: bytes("VmHWM:")? })
}

/// Lets the peak begin anew.
pub(crate) fn reset_peak() -> anyhow::Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("could not reset the peak of resident memory")
}

pub(crate) fn io_bytes() -> anyhow::Result<IoBytes> {
    let io = fs::read_to_string("/proc/self/io")?;
    Ok(IoBytes { read: number(&io, "read_bytes:")?, written: number(&io, "wchar:")? })
}

fn number(text: &str, key: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.with_context(|| format!("the kernel does not tell {key}"))
}

/// Removes a file, which nobody has mapped, from the page cache.
pub(crate) fn evict(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// The files of a cache, which may come and go meanwhile, and their bytes.
pub(crate) fn files(directory: &Path) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let repositories = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        repositories => repositories?,
    };
    for repository in repositories {
        for file in fs::read_dir(repository?.path())? {
            let path = file?.path();
            match fs::metadata(&path) {
                Ok(metadata) => found.insert(path, metadata.len()),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
        }
    }
    Ok(found)
}
