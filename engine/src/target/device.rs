//! Restoring onto a block device.

use super::{DiskTarget, TargetError, checked_end, failed, len_of, shown};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What devices can make zero by themselves is made of blocks of at most this length.
const BLOCK_LEN: u64 = 4096;

/// Zeros are written in pieces of this length.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A block device that nothing else uses. What it holds behind the disk's end stays as it is.
#[derive(Debug)]
pub struct DeviceTarget {
    path: PathBuf,
    file: File,
    size: u64,
}

impl DeviceTarget {
    /// Opens a device for a disk of `size` bytes. Nothing is written yet.
    ///
    /// # Errors
    /// [`TargetError::WrongKind`] for anything but a block device, [`TargetError::Mounted`] and
    /// [`TargetError::InUse`], [`TargetError::TooSmall`], [`TargetError::Io`].
    pub fn open(path: &Path, size: u64) -> io::Result<Self> {
        let open_failed = |source| failed("open", path, source);
        let metadata = path.metadata().map_err(open_failed)?;
        if !metadata.file_type().is_block_device() {
            return Err(TargetError::WrongKind { path: shown(path), wanted: "block device" }.into());
        }
        // The exclusive open below finds every mount; this only tells where.
        let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if let Some(mounted_at) = mount_point(&mounts, device) {
            return Err(TargetError::Mounted { path: shown(path), mounted_at }.into());
        }
        let flags = OFlags::EXCL.bits().cast_signed();
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(TargetError::InUse { path: shown(path) }.into());
            }
            result => result.map_err(open_failed)?,
        };
        // The path may have come to mean something else since.
        let opened = file.metadata().map_err(open_failed)?;
        if !opened.file_type().is_block_device() {
            return Err(TargetError::WrongKind { path: shown(path), wanted: "block device" }.into());
        }
        Self::of(path, file, size)
    }

    /// Opens a file that stands for a device, where there are no devices.
    ///
    /// # Errors
    /// [`TargetError::TooSmall`], [`TargetError::Io`].
    pub(crate) fn open_stand_in(path: &Path, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self::of(path, file.map_err(|source| failed("open", path, source))?, size)
    }

    fn of(path: &Path, file: File, size: u64) -> io::Result<Self> {
        let device_bytes =
            rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|error| failed("open", path, error.into()))?;
        if device_bytes < size {
            return Err(TargetError::TooSmall { path: shown(path), device_bytes, disk_bytes: size }.into());
        }
        Ok(Self { path: path.to_owned(), file, size })
    }
}

/// Where a device is mounted, by the text of `/proc/self/mountinfo` (proc(5)).
fn mount_point(mounts: &str, (major, minor): (u32, u32)) -> Option<String> {
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        // Mount id, parent id, device, root of the mount, mount point.
        (fields.nth(2)? == device).then_some(())?;
        fields.nth(1).map(unescaped)
    })
}

/// Space, tab, newline and backslash are escaped in `/proc/self/mountinfo`.
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Makes a range of a file or device zero, by the device itself if it can.
pub(super) fn zero_range(file: &File, offset: u64, end: u64) -> io::Result<()> {
    let first = offset.next_multiple_of(BLOCK_LEN).min(end);
    let last = (end - end % BLOCK_LEN).max(first);
    write_zeros(file, offset, first)?;
    if first < last && !zero_blocks(file, first, last - first)? {
        write_zeros(file, first, last)?;
    }
    write_zeros(file, last, end)
}

/// Has whole blocks made zero; false if that is not supported.
fn zero_blocks(file: &File, offset: u64, length: u64) -> io::Result<bool> {
    // Punching frees the space where that is certain to read as zeros, and else is not supported.
    for how in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
        match rustix::fs::fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) => return Ok(true),
            // INVAL: blocks larger than ours.
            Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn write_zeros(file: &File, offset: u64, end: u64) -> io::Result<()> {
    let mut offset = offset;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
        file.write_all_at(zeros, offset)?;
        offset += len_of(zeros);
    }
    Ok(())
}

impl DiskTarget for DeviceTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.size)?;
        Ok(self.file.write_all_at(data, offset).map_err(|source| failed("write", &self.path, source))?)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        Ok(zero_range(&self.file, offset, end).map_err(|source| failed("zero", &self.path, source))?)
    }

    fn flush(&self) -> io::Result<()> {
        self.finish()
    }

    fn finish(&self) -> io::Result<()> {
        Ok(self.file.sync_all().map_err(|source| failed("sync", &self.path, source))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 8:17 / /mnt/my\\040disk rw,noatime - xfs /dev/sdb1 rw
37 22 0:5 / /proc rw - proc proc rw
";

    #[test]
    fn the_mount_point_of_a_device_is_found() {
        assert_eq!(mount_point(MOUNTS, (8, 1)), Some("/".to_owned()));
        assert_eq!(mount_point(MOUNTS, (8, 17)), Some("/mnt/my disk".to_owned()));
        assert_eq!(mount_point(MOUNTS, (8, 16)), None);
        assert_eq!(mount_point("nonsense", (8, 16)), None);
    }

    #[test]
    fn files_and_character_devices_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/dev/null")] {
            let error = DeviceTarget::open(path, 0).unwrap_err();
            assert_eq!(error.to_string(), format!("{} is not a block device", path.display()));
        }
    }

    #[test]
    fn exactly_the_range_becomes_zero() {
        for (offset, end) in
            [(0, 20000), (1, 2), (4096, 8192), (4095, 8193), (5000, 6000), (100, 100), (1, 19999)]
        {
            let file = tempfile::tempfile().unwrap();
            let mut expected = vec![1; 20000];
            file.write_all_at(&expected, 0).unwrap();
            zero_range(&file, offset, end).unwrap();
            expected[usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()].fill(0);
            let mut bytes = vec![2; 20000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == expected, "{offset} to {end}");
            assert_eq!(file.metadata().unwrap().len(), 20000);
        }
    }

    #[test]
    fn zeros_are_written_where_nothing_else_works() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 3 << 20], 0).unwrap();
        write_zeros(&file, 1, (3 << 20) - 1).unwrap();
        let mut bytes = vec![2; 3 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut expected = vec![0; 3 << 20];
        (expected[0], expected[(3 << 20) - 1]) = (1, 1);
        assert!(bytes == expected);
    }
}
