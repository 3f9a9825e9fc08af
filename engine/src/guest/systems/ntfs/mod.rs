//! NTFS. What lies in records, attributes and indexes is read by a crate; the way through them is here, since it has to
//! stay within limits, and to know what a snapshot of a running system shows: indexes and attributes that are spread over
//! several records, blocks of an index that are not used any more, and data beyond what was ever written.
//!
//! Only what is in a file's main stream is read. The log is not replayed: Windows writes the structures that are read
//! here so that they are whole without it, as it says when it makes a snapshot; a volume that was cut off while it was
//! written may miss its last changes.

mod records;
mod streams;

use super::{Content, FileSystem, Found, Kind, Metadata, Node, Time, any_case};
use crate::guest::ENTRIES_MAX;
use crate::guest::contents::System;
use crate::guest::device::{ReadFailure, Section};
use crate::guest::error::{Fault, GuestError};
use crate::guest::fields::{le16, le32, utf16};
use ntfs_core::{
    BootSector, FileName, IndexEntry, IndexRoot, NtfsError, StandardInformation, parse_index_buffer,
};
use records::{FileRecords, Table};
use std::collections::BTreeSet;
use streams::{Place, Stream};

/// The types of attributes.
const STANDARD_INFORMATION: u32 = 0x10;
const ATTRIBUTE_LIST: u32 = 0x20;
const VOLUME_NAME: u32 = 0x60;
const DATA: u32 = 0x80;
const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xA0;
const REPARSE_POINT: u32 = 0xC0;
/// The name of what a directory has.
const DIRECTORY_INDEX: &str = "$I30";

/// The records of the volume itself and of its root, and the first that is not for the file system's own use.
const VOLUME_RECORD: u64 = 3;
const ROOT_RECORD: u64 = 5;
const FIRST_RECORD: u64 = 24;

/// Records and index blocks are checked in so many bytes, whatever the sector.
const FIXUP_LEN: usize = 512;
/// They are of 1 or 4 KiB in practice; larger ones are not read.
const RECORD_LEN_MAX: u64 = 64 << 10;
/// `FILE_ATTRIBUTE_READONLY`, `_REPARSE_POINT`, and what an index says of directories.
const READ_ONLY: u32 = 0x1;
const REPARSE: u32 = 0x400;
const IS_DIRECTORY: u32 = 0x1000_0000;
/// The namespace of a second, short name.
const DOS: u8 = 2;

/// An open file system. Nodes are numbers of records.
pub(super) struct Ntfs {
    table: Table,
}

fn damaged(fault: Fault) -> GuestError {
    fault.damaged(System::Ntfs)
}

fn unsupported(fault: Fault) -> GuestError {
    fault.unsupported(System::Ntfs)
}

fn failed(error: NtfsError) -> GuestError {
    GuestError::Damaged { system: System::Ntfs, source: error.into() }
}

fn unread(failure: ReadFailure) -> GuestError {
    GuestError::Damaged { system: System::Ntfs, source: failure.into() }
}

/// The label of a volume, if it can be read.
pub(in crate::guest) fn label(section: &Section) -> Option<String> {
    let volume = Ntfs::open(section).ok()?;
    let records = volume.table.file(VOLUME_RECORD).ok()?;
    let label = utf16(records.resident(VOLUME_NAME, None)?);
    (!label.is_empty()).then_some(label)
}

impl Ntfs {
    pub(super) fn open(section: &Section) -> Result<Self, GuestError> {
        let sector = section.bytes::<512>(0).map_err(unread)?.ok_or_else(|| damaged(Fault::CutOff))?;
        let boot = BootSector::parse(&sector).map_err(failed)?;
        if boot.mft_record_size.max(boot.index_record_size) > RECORD_LEN_MAX {
            return Err(unsupported(Fault::RecordLen));
        }
        Ok(Self { table: Table::open(section.clone(), boot)? })
    }

    fn index(&self, records: &FileRecords) -> Result<Vec<(u64, FileName)>, GuestError> {
        let root =
            records.resident(INDEX_ROOT, Some(DIRECTORY_INDEX)).ok_or_else(|| damaged(Fault::NoIndex))?;
        let root = IndexRoot::parse(root).map_err(failed)?;
        let mut found = Vec::new();
        let mut blocks = Vec::new();
        collect(root.entries, &mut found, &mut blocks)?;
        if blocks.is_empty() {
            return Ok(found);
        }
        let mut block_reader = IndexBlocks::new(self, records)?;
        while let Some(block) = blocks.pop() {
            collect(block_reader.read(block)?, &mut found, &mut blocks)?;
        }
        Ok(found)
    }

    /// What a file is, whose records these are.
    fn kind(records: &FileRecords) -> Kind {
        if let Some(reparse) = records.resident(REPARSE_POINT, None).and_then(Reparse::parse) {
            return match reparse {
                Reparse::Link(_) => Kind::Symlink,
                Reparse::Special(kind) => kind,
                Reparse::Elsewhere | Reparse::Other if records.is_directory() => Kind::Directory,
                Reparse::Elsewhere | Reparse::Other => Kind::File,
            };
        }
        if records.is_directory() { Kind::Directory } else { Kind::File }
    }
}

/// Takes the files out of the entries of an index, and the blocks below.
fn collect(
    entries: Vec<IndexEntry>,
    found: &mut Vec<(u64, FileName)>,
    blocks: &mut Vec<u64>,
) -> Result<(), GuestError> {
    for entry in entries {
        blocks.extend(entry.child_vcn);
        let number = entry.file_reference.record_number;
        if let Some(name) = entry.file_name
            && name.namespace != DOS
            && number >= FIRST_RECORD
        {
            found.push((number, name));
        }
    }
    if found.len().max(blocks.len()) > ENTRIES_MAX {
        return Err(unsupported(Fault::Entries));
    }
    Ok(())
}

/// The blocks of a directory's index, each of which is read once.
struct IndexBlocks {
    stream: Stream,
    section: Section,
    /// What the numbers of blocks count.
    unit: u64,
    block_len: usize,
    read: BTreeSet<u64>,
}

impl IndexBlocks {
    fn new(volume: &Ntfs, records: &FileRecords) -> Result<Self, GuestError> {
        let boot = &volume.table.boot;
        let stream = records.stream(INDEX_ALLOCATION, Some(DIRECTORY_INDEX), boot.cluster_size())?;
        let stream = stream.ok_or_else(|| damaged(Fault::NoIndex))?;
        let unit = if boot.index_record_size < boot.cluster_size() { 512 } else { boot.cluster_size() };
        Ok(Self {
            stream,
            section: volume.table.section.clone(),
            unit,
            block_len: usize::try_from(boot.index_record_size).expect("it was checked to be short"),
            read: BTreeSet::new(),
        })
    }

    fn read(&mut self, block: u64) -> Result<Vec<IndexEntry>, GuestError> {
        if !self.read.insert(block) {
            return Err(damaged(Fault::Loop));
        }
        let place = block.checked_mul(self.unit).ok_or_else(|| damaged(Fault::Gap))?;
        let mut bytes = vec![0; self.block_len];
        self.stream.read_at(&self.section, place, &mut bytes)?;
        parse_index_buffer(&mut bytes, self.block_len, FIXUP_LEN).map_err(failed)
    }
}

fn record(node: &Node) -> u64 {
    if let Node::Ntfs(record) = node { *record } else { unreachable!("nodes come back to their file system") }
}

impl FileSystem for Ntfs {
    fn directories_max(&self) -> Option<u64> {
        None
    }

    fn root(&self) -> Result<Node, GuestError> {
        Ok(Node::Ntfs(ROOT_RECORD))
    }

    fn entries(&self, directory: &Node) -> Result<Vec<Found>, GuestError> {
        let records = self.table.file(record(directory))?;
        let found = self.index(&records)?.into_iter().map(|(number, name)| {
            let kind = if name.flags & REPARSE != 0 {
                // The index does not say which.
                self.table.file(number).map_or(Kind::Other, |records| Self::kind(&records))
            } else if name.flags & IS_DIRECTORY != 0 {
                Kind::Directory
            } else {
                Kind::File
            };
            Found { name: name.name.into_bytes(), kind, node: Node::Ntfs(number) }
        });
        Ok(found.collect())
    }

    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<Found>, GuestError> {
        Ok(any_case(self.entries(directory)?, name))
    }

    fn metadata(&self, node: &Node) -> Result<Metadata, GuestError> {
        let records = self.table.file(record(node))?;
        let kind = Self::kind(&records);
        let information = records.resident(STANDARD_INFORMATION, None).map(StandardInformation::parse);
        let information = information.transpose().map_err(failed)?;
        let size = match kind {
            Kind::File => records.size(DATA, None),
            _ => 0,
        };
        let is_read_only = information.as_ref().is_some_and(|known| known.file_attributes & READ_ONLY != 0);
        let base = if kind == Kind::Directory { 0o555 } else { 0o444 };
        // In a directory, the attribute means something else.
        let writable = if is_read_only && kind == Kind::File { 0 } else { 0o200 };
        let modified = information.map(|known| time(known.modified.to_unix_nanos()));
        Ok(Metadata { kind, size, mode: Some(base | writable), owner: None, modified })
    }

    fn read_link(&self, link: &Node) -> Result<Vec<u8>, GuestError> {
        let records = self.table.file(record(link))?;
        match records.resident(REPARSE_POINT, None).and_then(Reparse::parse) {
            Some(Reparse::Link(target)) => Ok(target),
            _ => Err(damaged(Fault::NoTarget)),
        }
    }

    fn content<'f>(&'f self, file: &Node) -> Result<Box<dyn Content + 'f>, GuestError> {
        let records = self.table.file(record(file))?;
        if let Some(Reparse::Elsewhere | Reparse::Other) =
            records.resident(REPARSE_POINT, None).and_then(Reparse::parse)
        {
            return Err(unsupported(Fault::Elsewhere));
        }
        let stream = records.stream(DATA, None, self.table.boot.cluster_size())?;
        let stream = stream.ok_or_else(|| damaged(Fault::Gap))?;
        Ok(Box::new(Place::new(stream, self.table.section.clone())))
    }
}

fn time(nanoseconds: i128) -> Time {
    let second = 1_000_000_000;
    Time {
        seconds: i64::try_from(nanoseconds.div_euclid(second)).expect("64 bits of 100 ns are fewer seconds"),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(second))
            .expect("a remainder is less than a second"),
    }
}

/// What stands in the place of a file's content.
enum Reparse {
    /// A link, and where it leads to.
    Link(Vec<u8>),
    /// Something of the Linux in Windows.
    Special(Kind),
    /// The content is somewhere else, or in another form.
    Elsewhere,
    /// Something that only its program knows.
    Other,
}

impl Reparse {
    fn parse(bytes: &[u8]) -> Option<Self> {
        const MOUNT_POINT: u32 = 0xA000_0003;
        const SYMLINK: u32 = 0xA000_000C;
        const LINUX_SYMLINK: u32 = 0xA000_001D;
        const LINUX_SOCKET: u32 = 0x8000_0023;
        const LINUX_PIPE: u32 = 0x8000_0024;
        const LINUX_CHARACTERS: u32 = 0x8000_0025;
        const LINUX_BLOCKS: u32 = 0x8000_0026;
        const COMPACT: u32 = 0x8000_0017;
        const DEDUPLICATED: u32 = 0x8000_0013;
        let data = bytes.get(8..)?;
        Some(match le32(bytes, 0)? {
            MOUNT_POINT => Self::Link(link_target(data, 8)?),
            SYMLINK => Self::Link(link_target(data, 12)?),
            LINUX_SYMLINK => Self::Link(data.get(4..)?.to_vec()),
            LINUX_SOCKET => Self::Special(Kind::Socket),
            LINUX_PIPE => Self::Special(Kind::Pipe),
            LINUX_CHARACTERS => Self::Special(Kind::CharacterDevice),
            LINUX_BLOCKS => Self::Special(Kind::BlockDevice),
            COMPACT | DEDUPLICATED => Self::Elsewhere,
            _ => Self::Other,
        })
    }
}

/// Where a link of Windows leads to: the name that it shows, or else the one that it uses.
fn link_target(data: &[u8], names_at: usize) -> Option<Vec<u8>> {
    let name = |place: usize| {
        let start = names_at.checked_add(usize::from(le16(data, place)?))?;
        let end = start.checked_add(usize::from(le16(data, place + 2)?))?;
        Some(utf16(data.get(start..end)?))
    };
    let shown = name(4).filter(|name| !name.is_empty());
    let target = shown.or_else(|| name(0))?;
    Some(target.trim_start_matches("\\??\\").as_bytes().to_vec())
}
