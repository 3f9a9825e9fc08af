//! What a target is known again by, so that what a journal says of one is not believed of another.

use super::place::Place;
use keepstone_engine::target::partial_path;
use rustix::fs::{major, minor};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// What the target of a restore is known by, if it can be told from one that was made in its place.
pub(super) fn identity(place: &Place, in_place: bool) -> Option<String> {
    match place {
        Place::File(path) if in_place => file(path),
        Place::File(path) => file(&partial_path(path)?),
        Place::Device(path) => device(path),
        Place::Nbd(_) | Place::Output(_) | Place::Machine(_) => None,
    }
}

/// A file by its inode and when that was made, and by its length.
fn file(path: &Path) -> Option<String> {
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
    // Numbers of inodes are used again.
    let made = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("file {}:{} of {}, {}", metadata.dev(), metadata.ino(), made.as_nanos(), metadata.len()))
}

/// A block device by the number that the kernel gave it, which no other one gets until the machine starts anew.
fn device(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let device = metadata.rdev();
    let directory = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let told = |file: &str| fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    let size = told(&format!("{directory}/size"))?;
    let sequence =
        told(&format!("{directory}/diskseq")).or_else(|| told(&format!("{directory}/../diskseq")))?;
    let boot = told("/proc/sys/kernel/random/boot_id")?;
    Some(format!("device {device:#x}, {sequence} since {boot}, {size} sectors"))
}
