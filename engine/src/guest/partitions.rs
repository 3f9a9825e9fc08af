//! Partition tables: MBR with logical partitions, and GPT with its second copy.
//!
//! Numbers are those that Linux gives: the primary ones of an MBR are 1 to 4, the logical ones count from 5.

use super::device::{ReadFailure, Section, len_of};
use super::fields::{array, guid, le32, le64, utf16};
use serde::Serialize;
use std::ops::Range;

/// The usual length of a sector; partition tables of GPT may count in 4096 bytes.
const SECTOR_LEN: u64 = 512;
const SECTOR_LENS: [u64; 2] = [SECTOR_LEN, 4096];
/// Logical partitions that are looked at: more than Linux does, and a chain that leads back to itself ends.
const LOGICAL_MAX: u32 = 128;
/// A GPT has 128 entries of 128 bytes; a table that is longer than so many bytes is none.
const GPT_LEN_MAX: u64 = 1 << 20;
/// The checksum of GPT: that of Ethernet.
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Table {
    /// It is not.
    None,
    /// By a master boot record.
    Mbr,
    /// By a GUID partition table.
    Gpt,
    /// By the second copy of a GUID partition table, since the first is damaged.
    GptCopy,
    /// By a GUID partition table that is damaged, in both copies.
    GptDamaged,
}

/// A partition as its table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) number: u32,
    pub(super) range: Range<u64>,
    pub(super) kind: Kind,
    pub(super) name: Option<String>,
}

/// What a table says that a partition is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mbr(u8),
    Gpt(String),
}

/// Reads the table of a disk. What begins like a boot sector of a file system is no table.
pub(super) fn read(disk: &Section) -> Result<(Table, Vec<Partition>), ReadFailure> {
    let Some(sector) = disk.bytes::<512>(0)? else { return Ok((Table::None, Vec::new())) };
    for sector_len in SECTOR_LENS {
        if let Some(partitions) = gpt(disk, sector_len, 1)? {
            return Ok((Table::Gpt, partitions));
        }
    }
    let entries = mbr_entries(&sector, disk.len()).unwrap_or_default();
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        for sector_len in SECTOR_LENS {
            let last = (disk.len() / sector_len).saturating_sub(1);
            if let Some(partitions) = gpt(disk, sector_len, last)? {
                return Ok((Table::GptCopy, partitions));
            }
        }
        return Ok((Table::GptDamaged, Vec::new()));
    }
    let partitions = mbr(disk, &entries)?;
    Ok((if partitions.is_empty() { Table::None } else { Table::Mbr }, partitions))
}

/// The partition that stands in an MBR for all of a GPT.
const PROTECTIVE: u8 = 0xEE;

/// Four of these are in a boot record; numbers of sectors.
#[derive(Clone, Copy, Default)]
struct MbrEntry {
    kind: u8,
    start: u64,
    length: u64,
}

impl MbrEntry {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }

    fn is_empty(self) -> bool {
        self.kind == 0 || self.length == 0
    }

    fn range(self) -> Range<u64> {
        // Numbers of 32 bits, times 512.
        self.start * SECTOR_LEN..(self.start + self.length) * SECTOR_LEN
    }
}

/// The entries of a boot record, or nothing if it has none, or is something else.
fn mbr_entries(sector: &[u8; 512], disk_len: u64) -> Option<[MbrEntry; 4]> {
    if sector[510..] != [0x55, 0xAA] {
        return None;
    }
    let mut entries = [MbrEntry::default(); 4];
    for (position, entry) in entries.iter_mut().enumerate() {
        let bytes: [u8; 16] = array(sector, 446 + 16 * position)?;
        let fields = MbrEntry {
            kind: bytes[4],
            start: u64::from(le32(&bytes, 8)?),
            length: u64::from(le32(&bytes, 12)?),
        };
        // Code or text in the place of a table, as in the boot sector of a file system.
        let is_entry = matches!(bytes[0], 0 | 0x80) && fields.start * SECTOR_LEN < disk_len;
        if !is_entry {
            return None;
        }
        *entry = fields;
    }
    Some(entries)
}

fn mbr(disk: &Section, entries: &[MbrEntry]) -> Result<Vec<Partition>, ReadFailure> {
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        // What begins at zero would hold the table itself.
        if !entry.is_empty() && !entry.is_extended() && entry.start > 0 {
            partitions.push(partition(number, *entry));
        }
    }
    for extended in entries.iter().filter(|entry| entry.is_extended() && !entry.is_empty()) {
        logical(disk, extended, &mut partitions)?;
    }
    Ok(partitions)
}

/// Follows the chain of boot records in an extended partition, each of which has one partition and the next record.
fn logical(disk: &Section, extended: &MbrEntry, found: &mut Vec<Partition>) -> Result<(), ReadFailure> {
    let mut number = found.iter().map(|partition| partition.number + 1).max().unwrap_or_default().max(5);
    let mut record = extended.start;
    for _ in 0..LOGICAL_MAX {
        let Some(sector) = disk.bytes::<512>(record * SECTOR_LEN)? else { return Ok(()) };
        let Some(entries) = mbr_entries(&sector, disk.len()) else { return Ok(()) };
        let mut next = None;
        for entry in entries.into_iter().filter(|entry| !entry.is_empty()) {
            if entry.is_extended() {
                next = next.or(Some(extended.start + entry.start));
            } else {
                found.push(partition(number, MbrEntry { start: record + entry.start, ..entry }));
                number += 1;
            }
        }
        match next {
            Some(next) if next != record => record = next,
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn partition(number: u32, entry: MbrEntry) -> Partition {
    Partition { number, range: entry.range(), kind: Kind::Mbr(entry.kind), name: None }
}

/// A table whose header is in the sector `place`, if it is there and whole.
fn gpt(disk: &Section, sector_len: u64, place: u64) -> Result<Option<Vec<Partition>>, ReadFailure> {
    let Some(header) = disk.bytes::<512>(place.saturating_mul(sector_len))? else { return Ok(None) };
    let Some(header) = GptHeader::parse(&header, place) else { return Ok(None) };
    let Some(start) = header.entries_at.checked_mul(sector_len) else { return Ok(None) };
    let len = u64::from(header.entry_len) * u64::from(header.entries);
    if len > GPT_LEN_MAX {
        return Ok(None);
    }
    let mut table = vec![0; usize::try_from(len).expect("it was checked to be short")];
    match disk.read_at(start, &mut table) {
        Ok(()) => {}
        Err(ReadFailure::Beyond { .. }) => return Ok(None),
        Err(failure) => return Err(failure),
    }
    if CRC.checksum(&table) != header.checksum {
        return Ok(None);
    }
    let entry_len = usize::try_from(header.entry_len).expect("it was checked to be short");
    let entries = (1..).zip(table.chunks_exact(entry_len));
    Ok(Some(entries.filter_map(|(number, entry)| gpt_partition(number, entry, sector_len)).collect()))
}

struct GptHeader {
    entries_at: u64,
    entries: u32,
    entry_len: u32,
    checksum: u32,
}

impl GptHeader {
    fn parse(sector: &[u8; 512], place: u64) -> Option<Self> {
        let header_len = usize::try_from(le32(sector, 12)?).ok()?;
        let header = sector.get(..header_len).filter(|header| header.len() >= 92)?;
        let mut unsigned = header.to_vec();
        unsigned.get_mut(16..20)?.fill(0);
        let is_whole = header.starts_with(b"EFI PART")
            && le32(header, 16)? == CRC.checksum(&unsigned)
            && le64(header, 24)? == place;
        let entry_len = le32(header, 84)?;
        let header = Self {
            entries_at: le64(header, 72)?,
            entries: le32(header, 80)?,
            entry_len,
            checksum: le32(header, 88)?,
        };
        (is_whole && entry_len >= 128 && len_of(sector) >= u64::from(entry_len)).then_some(header)
    }
}

fn gpt_partition(number: u32, entry: &[u8], sector_len: u64) -> Option<Partition> {
    let kind: [u8; 16] = array(entry, 0)?;
    if kind == [0; 16] {
        return None;
    }
    let start = le64(entry, 32)?.checked_mul(sector_len)?;
    let end = le64(entry, 40)?.checked_add(1)?.checked_mul(sector_len)?;
    if end <= start {
        return None;
    }
    let name = Some(utf16(entry.get(56..128)?)).filter(|name| !name.is_empty());
    Some(Partition { number, range: start..end, kind: Kind::Gpt(guid(kind)), name })
}

impl Kind {
    /// What it is called, where it is one of those that are met.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Mbr(kind) => mbr_name(*kind).map_or_else(|| format!("0x{kind:02x}"), str::to_owned),
            Self::Gpt(kind) => gpt_name(kind).map_or_else(|| kind.clone(), str::to_owned),
        }
    }
}

fn mbr_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x01 | 0x04 | 0x06 | 0x0B | 0x0C | 0x0E => "FAT",
        0x07 => "NTFS or exFAT",
        0x27 => "Windows recovery",
        0x42 => "Windows dynamic disk",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8E => "Linux LVM",
        0xA5 => "FreeBSD",
        0xAF => "HFS+",
        0xEF => "EFI system",
        0xFB => "VMFS",
        0xFD => "Linux RAID",
        _ => return None,
    })
}

fn gpt_name(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => "EFI system",
        "21686148-6449-6e6f-744e-656564454649" => "BIOS boot",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => "Microsoft reserved",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "Windows data",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3" => "Windows dynamic disk metadata",
        "af9b60a0-1431-4f62-bc68-3311714a69ad" => "Windows dynamic disk",
        "e75caf8f-f680-4cee-afa3-b001e56efc2d" => "Windows storage spaces",
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" => "Linux root (x86-64)",
        "b921b045-1df0-41c3-af44-4c6f280d3fae" => "Linux root (ARM 64)",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux boot",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915" => "Linux home",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => "Linux RAID",
        "ca7d7ccb-63ed-4c53-861c-1742536059cc" => "LUKS",
        "6a898cc3-1dd2-11b2-99a6-080020736631" => "ZFS",
        "516e7cb4-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD boot",
        "516e7cb6-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD UFS",
        _ => return None,
    })
}

/// Whether a table says of a partition that it belongs to what lies over several disks.
pub(super) fn spans_disks(kind: &Kind) -> Option<super::System> {
    match kind {
        Kind::Mbr(0x42) => Some(super::System::DynamicDisk),
        Kind::Gpt(kind) => match kind.as_str() {
            "af9b60a0-1431-4f62-bc68-3311714a69ad" => Some(super::System::DynamicDisk),
            "e75caf8f-f680-4cee-afa3-b001e56efc2d" => Some(super::System::StorageSpaces),
            "6a898cc3-1dd2-11b2-99a6-080020736631" => Some(super::System::Zfs),
            _ => None,
        },
        Kind::Mbr(_) => None,
    }
}
