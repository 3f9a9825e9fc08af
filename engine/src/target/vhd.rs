//! Restoring as a fixed VHD: the bytes of the disk, and a footer (Microsoft's "Virtual Hard Disk Image Format
//! Specification").

use super::identity::ImageIdentity;
use super::{DiskTarget, TargetError, checked_end, len_of};
use std::io;

/// The largest disk in a VHD.
const SIZE_MAX: u64 = 2040 << 30;
/// Azure takes whole MiB only.
const UNIT: u64 = 1 << 20;
const FOOTER_LEN: usize = 512;
const SECTOR: u64 = 512;
/// Seconds from 1970 to 2000, from which a VHD counts.
const EPOCH: u64 = 946_684_800;

/// The end of a VHD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhdFooter {
    disk_bytes: u64,
    image_bytes: u64,
    bytes: [u8; FOOTER_LEN],
}

impl VhdFooter {
    /// The footer for a disk of `disk_bytes`, which the image fills up with zeros to whole MiB.
    ///
    /// # Errors
    /// [`TargetError::TooLarge`] for a disk of more than 2040 GiB.
    pub fn new(disk_bytes: u64, identity: &ImageIdentity) -> Result<Self, TargetError> {
        if disk_bytes > SIZE_MAX {
            return Err(TargetError::TooLarge { format: "VHD", bytes_max: SIZE_MAX, disk_bytes });
        }
        let image_bytes = disk_bytes.max(1).next_multiple_of(UNIT);
        Ok(Self { disk_bytes, image_bytes, bytes: encoded(image_bytes, identity) })
    }

    /// The length of the file: whole MiB and the footer.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.image_bytes + len_of(&self.bytes)
    }
}

fn encoded(image_bytes: u64, identity: &ImageIdentity) -> [u8; FOOTER_LEN] {
    let (cylinders, heads, sectors) = geometry(image_bytes / SECTOR);
    let seconds = (identity.time / 1000).saturating_sub(EPOCH);
    let mut bytes = Vec::with_capacity(FOOTER_LEN);
    bytes.extend(b"conectix");
    // A bit that is always set; the format's version, 1.0; no other header.
    bytes.extend(2u32.to_be_bytes());
    bytes.extend(0x0001_0000u32.to_be_bytes());
    bytes.extend(u64::MAX.to_be_bytes());
    bytes.extend(u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes());
    // The creator decides what readers take for the size: for Hyper-V's images it is what stands here, for others the
    // product of the geometry, which is less.
    bytes.extend(b"win ");
    bytes.extend(0x000a_0000u32.to_be_bytes());
    bytes.extend(b"Wi2k");
    // The size at first, and now.
    bytes.extend(image_bytes.to_be_bytes());
    bytes.extend(image_bytes.to_be_bytes());
    bytes.extend(cylinders.to_be_bytes());
    bytes.extend([heads, sectors]);
    // A fixed disk.
    bytes.extend(2u32.to_be_bytes());
    let checksum_at = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(identity.id);
    bytes.resize(FOOTER_LEN, 0);
    let sum: u32 = bytes.iter().copied().map(u32::from).sum();
    let mut footer = [0; FOOTER_LEN];
    footer.copy_from_slice(&bytes);
    footer[checksum_at..checksum_at + 4].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads and sectors, by the appendix "CHS Calculation" of the specification.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    const CYLINDERS_MAX: u64 = 65535;
    let sectors = sectors.min(CYLINDERS_MAX * 16 * 255);
    let (tracks, heads, of_track) = if sectors >= CYLINDERS_MAX * 16 * 63 {
        (sectors / 255, 16, 255)
    } else {
        let tracks = sectors / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if heads <= 16 && tracks < heads * 1024 {
            (tracks, heads, 17)
        } else if sectors / 31 < 16 * 1024 {
            (sectors / 31, 16, 31)
        } else {
            (sectors / 63, 16, 63)
        }
    };
    let narrow = |number: u64| u8::try_from(number).expect("there are at most 255");
    let cylinders = u16::try_from(tracks / heads).expect("there are at most 65535");
    (cylinders, narrow(heads), narrow(of_track))
}

/// A fixed VHD in a target that holds [`VhdFooter::file_len`] bytes: a file or a stream.
#[derive(Debug)]
pub struct VhdTarget<T> {
    file: T,
    footer: VhdFooter,
}

impl<T: DiskTarget> VhdTarget<T> {
    /// Writes the disk to `file`.
    pub fn new(file: T, footer: VhdFooter) -> Self {
        Self { file, footer }
    }
}

impl<T: DiskTarget> DiskTarget for VhdTarget<T> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.footer.disk_bytes)?;
        self.file.write_at(offset, data)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        checked_end(offset, length, self.footer.disk_bytes)?;
        self.file.zero_at(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }

    fn finish(&self) -> io::Result<()> {
        let VhdFooter { disk_bytes, image_bytes, bytes } = &self.footer;
        self.file.zero_at(*disk_bytes, image_bytes - disk_bytes)?;
        self.file.write_at(*image_bytes, bytes)?;
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: ImageIdentity = ImageIdentity { id: [0xab; 16], time: 1_774_980_000_000 };

    #[test]
    fn geometries_are_those_of_the_specification() {
        for (sectors, expected) in [
            (0, (0, 4, 17)),
            (2048, (30, 4, 17)),
            // The last with 17 sectors a track, and the next.
            (17 * 16 * 1024 - 1, (1023, 16, 17)),
            (17 * 16 * 1024, (561, 16, 31)),
            (31 * 16 * 1024 - 1, (1023, 16, 31)),
            (31 * 16 * 1024, (503, 16, 63)),
            (65535 * 16 * 63 - 1, (65534, 16, 63)),
            (65535 * 16 * 63, (16191, 16, 255)),
            (65535 * 16 * 255, (65535, 16, 255)),
            (u64::MAX, (65535, 16, 255)),
        ] {
            assert_eq!(geometry(sectors), expected, "{sectors} sectors");
        }
    }

    #[test]
    fn the_size_is_in_whole_mib_and_the_footer_behind_it() {
        for (disk_bytes, mib) in [(0, 1), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (SIZE_MAX, 2040 << 10)] {
            let footer = VhdFooter::new(disk_bytes, &IDENTITY).unwrap();
            assert_eq!(footer.file_len(), (mib << 20) + 512, "{disk_bytes}");
            assert_eq!(footer.bytes[40..48], (mib << 20).to_be_bytes(), "{disk_bytes}");
            assert_eq!(footer.bytes[48..56], (mib << 20).to_be_bytes(), "{disk_bytes}");
        }
    }

    #[test]
    fn the_footer_is_this() {
        let footer = VhdFooter::new(3 << 20, &IDENTITY).unwrap();
        let hex: Vec<String> = footer.bytes[..86].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "636f6e6563746978",
            "00000002",
            "00010000",
            "ffffffffffffffff",
            "315ec820",
            "77696e20",
            "000a0000",
            "5769326b",
            "0000000000300000",
            "0000000000300000",
            "005a0411",
            "00000002",
            "ffffe4da",
            "abababababababababababababababab",
            "0000",
        ];
        assert_eq!(hex.concat(), expected.concat());
        assert_eq!(footer.bytes[86..], [0; 426]);
    }

    #[test]
    fn a_disk_that_is_too_large_is_refused() {
        assert_eq!(
            VhdFooter::new(SIZE_MAX + 1, &IDENTITY).unwrap_err().to_string(),
            "a VHD image holds at most 2190433320960 bytes, the disk has 2190433320961"
        );
    }
}
