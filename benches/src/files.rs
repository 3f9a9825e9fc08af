//! What benchmarks write to, and whether it is what it should be.

use anyhow::Context as _;
use keepstone_engine::DiskSource;
pub use keepstone_engine::bench::Nothing;
use keepstone_engine::source::RawImage;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const COMPARE_LEN: usize = 1 << 20;

/// Makes a directory that is removed at the end: below `parent`, else beside the image.
///
/// # Errors
/// A place that cannot be written to.
pub fn temporary_directory(
    prefix: &str,
    parent: Option<&Path>,
    image: Option<&Path>,
) -> anyhow::Result<TempDir> {
    let beside_image = || match image?.parent()? {
        parent if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => Some(parent.to_owned()),
    };
    let parent = parent.map(Path::to_owned).or_else(beside_image).unwrap_or_else(std::env::temp_dir);
    TempDir::with_prefix_in(prefix, &parent)
        .with_context(|| format!("could not make a directory in {}", parent.display()))
}

/// Tells whether two images hold the same.
///
/// # Errors
/// One that cannot be read.
///
/// # Panics
/// Never.
pub fn is_same(a: &RawImage, b: &RawImage) -> io::Result<bool> {
    if a.size() != b.size() {
        return Ok(false);
    }
    let (mut of_a, mut of_b) = (vec![0; COMPARE_LEN], vec![0; COMPARE_LEN]);
    for start in (0..a.size()).step_by(COMPARE_LEN) {
        let len = usize::try_from(a.size() - start).map_or(COMPARE_LEN, |left| left.min(COMPARE_LEN));
        a.read_at(start, &mut of_a[..len])?;
        b.read_at(start, &mut of_b[..len])?;
        if of_a[..len] != of_b[..len] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads all files below a directory, so that they are in the page cache: what a local repository stores is not.
///
/// # Errors
/// A file or directory that cannot be read.
pub fn cache_files(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            cache_files(&entry.path())?;
        } else {
            io::copy(&mut std::fs::File::open(entry.path())?, &mut io::sink())?;
        }
    }
    Ok(())
}

/// Tells the user what is being done.
///
/// # Errors
/// Standard error that cannot be written to.
pub fn say(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}
