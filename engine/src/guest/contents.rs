//! What is in a volume, by its first bytes.

use super::device::{ReadFailure, Section};
use super::fields::{label, le16, le32, le64, uuid};
use serde::Serialize;
use std::fmt;

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum System {
    /// The second extended file system.
    Ext2,
    /// The third, which has a journal.
    Ext3,
    /// The fourth.
    Ext4,
    /// The file system of Red Hat's systems.
    Xfs,
    /// The file system of Windows.
    Ntfs,
    /// FAT with 12, 16 or 32 bits.
    Fat,
    /// A file system that is not read.
    ExFat,
    /// A file system that is not read.
    ReFs,
    /// A file system that is not read.
    Btrfs,
    /// A file system that is not read.
    Zfs,
    /// A file system that is not read.
    F2fs,
    /// A file system that is not read.
    Iso9660,
    /// A file system that is not read.
    Squashfs,
    /// A file system that is not read.
    Vmfs,
    /// Encrypted by Windows.
    BitLocker,
    /// Encrypted by Linux.
    Luks,
    /// A part of logical volumes.
    Lvm,
    /// A part of a RAID.
    MdRaid,
    /// A part of volumes of Windows.
    DynamicDisk,
    /// A part of volumes of Windows.
    StorageSpaces,
    /// Swapped memory.
    Swap,
    /// Only zeros where a file system would begin.
    Empty,
    /// Nothing that is known.
    Unknown,
}

impl System {
    /// Whether files in it can be read.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4 | Self::Xfs | Self::Ntfs | Self::Fat)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
            Self::Ntfs => "NTFS",
            Self::Fat => "FAT",
            Self::ExFat => "exFAT",
            Self::ReFs => "ReFS",
            Self::Btrfs => "Btrfs",
            Self::Zfs => "ZFS",
            Self::F2fs => "F2FS",
            Self::Iso9660 => "ISO 9660",
            Self::Squashfs => "SquashFS",
            Self::Vmfs => "VMFS",
            Self::BitLocker => "BitLocker",
            Self::Luks => "LUKS",
            Self::Lvm => "LVM",
            Self::MdRaid => "Linux RAID",
            Self::DynamicDisk => "Windows dynamic disk",
            Self::StorageSpaces => "Storage Spaces",
            Self::Swap => "swap",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a volume holds, and what that calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// What it is.
    pub system: System,
    /// Its label.
    pub label: Option<String>,
    /// Its UUID, or the number that it has instead, in hex.
    pub uuid: Option<String>,
}

impl Contents {
    pub(super) fn of(system: System) -> Self {
        Self { system, label: None, uuid: None }
    }
}

/// What is looked at first.
const START_LEN: usize = 4096;
/// Where the superblock of Btrfs is.
const BTRFS_AT: u64 = 64 << 10;

/// Says what a volume holds.
pub(super) fn probe(volume: &Section) -> Result<Contents, ReadFailure> {
    let len = usize::try_from(volume.len()).unwrap_or(START_LEN).min(START_LEN);
    let mut start = vec![0; len];
    volume.read_at(0, &mut start)?;
    let known = container(&start)
        .or_else(|| boot_sector(&start))
        .or_else(|| xfs(&start))
        .or_else(|| ext(&start))
        .or_else(|| squashfs_or_f2fs(&start));
    if let Some(contents) = known {
        return Ok(contents);
    }
    if let Some(contents) = further_on(volume)? {
        return Ok(contents);
    }
    let is_empty = start.iter().all(|byte| *byte == 0);
    Ok(Contents::of(if is_empty { System::Empty } else { System::Unknown }))
}

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

/// What others lie in.
fn container(start: &[u8]) -> Option<Contents> {
    if has(start, 0, b"LUKS\xba\xbe") {
        let uuid = start.get(168..208).and_then(label);
        return Some(Contents { uuid, ..Contents::of(System::Luks) });
    }
    let lvm = (0..4).map(|sector| sector * 512);
    if lvm.into_iter().any(|at| has(start, at, b"LABELONE") && has(start, at + 24, b"LVM2 001")) {
        return Some(Contents::of(System::Lvm));
    }
    if le32(start, 0) == Some(MD_MAGIC) {
        return Some(Contents::of(System::MdRaid));
    }
    has(start, 3, b"-FVE-FS-").then(|| Contents::of(System::BitLocker))
}

const MD_MAGIC: u32 = 0xA92B_4EFC;

fn boot_sector(start: &[u8]) -> Option<Contents> {
    if has(start, 3, b"NTFS    ") {
        let uuid = le64(start, 72).map(|serial| format!("{serial:016x}"));
        return Some(Contents { uuid, ..Contents::of(System::Ntfs) });
    }
    if has(start, 3, b"EXFAT   ") {
        let uuid = le32(start, 100).map(|serial| format!("{serial:08x}"));
        return Some(Contents { uuid, ..Contents::of(System::ExFat) });
    }
    if has(start, 3, b"ReFS\0\0\0\0") {
        return Some(Contents::of(System::ReFs));
    }
    // A program that starts a system is no file system, though it ends alike.
    let is_jump = matches!(start.first(), Some(0xEB | 0xE9));
    let geometry = fat::Geometry::parse(start.get(..512)?).ok()?;
    let extended = if geometry.variant == fat::FatVariant::Fat32 { 64 } else { 36 };
    if !is_jump {
        return None;
    }
    let signature = *start.get(extended + 2)?;
    let label = (signature == 0x29).then(|| start.get(extended + 7..extended + 18).and_then(label)).flatten();
    let uuid = matches!(signature, 0x28 | 0x29).then(|| le32(start, extended + 3)).flatten();
    Some(Contents {
        system: System::Fat,
        label: label.filter(|label| label != "NO NAME"),
        uuid: uuid.map(|serial| format!("{serial:08x}")),
    })
}

fn xfs(start: &[u8]) -> Option<Contents> {
    if !has(start, 0, b"XFSB") {
        return None;
    }
    let label = start.get(108..120).and_then(label);
    Some(Contents { system: System::Xfs, label, uuid: uuid_at(start, 32) })
}

fn ext(start: &[u8]) -> Option<Contents> {
    /// Which of the features came with the third and fourth.
    const JOURNAL: u32 = 0x4;
    const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x8 | 0x10;
    const EXT3_READ_ONLY: u32 = 0x1 | 0x2 | 0x4;
    let superblock = start.get(1024..2048)?;
    if le16(superblock, 56)? != 0xEF53 {
        return None;
    }
    let is_fourth =
        le32(superblock, 96)? & !EXT3_INCOMPATIBLE != 0 || le32(superblock, 100)? & !EXT3_READ_ONLY != 0;
    let system = if is_fourth {
        System::Ext4
    } else if le32(superblock, 92)? & JOURNAL != 0 {
        System::Ext3
    } else {
        System::Ext2
    };
    Some(Contents { system, label: superblock.get(120..136).and_then(label), uuid: uuid_at(superblock, 104) })
}

fn squashfs_or_f2fs(start: &[u8]) -> Option<Contents> {
    if has(start, 0, b"hsqs") {
        return Some(Contents::of(System::Squashfs));
    }
    (le32(start, 1024) == Some(0xF2F5_2010)).then(|| Contents::of(System::F2fs))
}

/// What does not show at the start.
fn further_on(volume: &Section) -> Result<Option<Contents>, ReadFailure> {
    if let Some(superblock) = volume.bytes::<1024>(BTRFS_AT)?
        && has(&superblock, 64, b"_BHRfS_M")
    {
        let label = superblock.get(0x12B..0x12B + 256).and_then(label);
        return Ok(Some(Contents { system: System::Btrfs, label, uuid: uuid_at(&superblock, 32) }));
    }
    // Pages of 4, 16 and 64 KiB.
    for page_len in [4096, 16 << 10, 64 << 10] {
        if volume.bytes::<10>(page_len - 10)? == Some(*b"SWAPSPACE2") {
            return Ok(Some(Contents::of(System::Swap)));
        }
    }
    if volume.bytes::<5>(32_769)? == Some(*b"CD001") {
        let label = volume.bytes::<32>(32_808)?.and_then(|bytes| label(&bytes));
        return Ok(Some(Contents { label, ..Contents::of(System::Iso9660) }));
    }
    if volume.bytes::<4>(1 << 20)? == Some([0x0D, 0xD0, 0x01, 0xC0]) {
        return Ok(Some(Contents::of(System::Vmfs)));
    }
    // The newest form has its superblock here; older ones at the end, where nothing else would show what it is.
    let ends = [4096, (volume.len() / 512).saturating_sub(16) / 8 * 4096, old_md_place(volume.len())];
    for place in ends {
        if volume.bytes::<4>(place)? == Some(MD_MAGIC.to_le_bytes()) {
            return Ok(Some(Contents::of(System::MdRaid)));
        }
    }
    Ok(None)
}

fn old_md_place(len: u64) -> u64 {
    (len & !0xFFFF).saturating_sub(64 << 10)
}

fn uuid_at(bytes: &[u8], at: usize) -> Option<String> {
    let bytes: [u8; 16] = super::fields::array(bytes, at)?;
    (bytes != [0; 16]).then(|| uuid(bytes))
}
