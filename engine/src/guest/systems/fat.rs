//! FAT with 12, 16 and 32 bits. Names are without regard to case; times are local ones of the guest.

use super::{Content, FileSystem, Found, Kind, Metadata, Node, PIECE_LEN, Piece, Time, any_case};
use crate::guest::contents::System;
use crate::guest::device::{Cursor, Section};
use crate::guest::error::{Fault, GuestError};
use ::fat::{FatError, FatFs, FatVariant, FileId};
use std::collections::VecDeque;

/// The table is kept in memory, and so is the chain of the file that is read: 16 million clusters, which are 512 GiB where
/// they are as large as Windows makes them.
const TABLE_LEN_MAX: u64 = 64 << 20;
/// A directory has at most 65536 entries of 32 bytes.
const DIRECTORY_LEN_MAX: u64 = 2 << 20;
const READ_ONLY: u32 = 1;

/// An open file system.
pub(super) struct Fat {
    files: FatFs<Cursor>,
    section: Section,
}

impl Fat {
    pub(super) fn open(section: &Section) -> Result<Self, GuestError> {
        check(section)?;
        let files = FatFs::open(Cursor::new(section.clone())).map_err(failed)?;
        Ok(Self { files, section: section.clone() })
    }
}

/// Looks at what memory is taken by, before it is.
fn check(section: &Section) -> Result<(), GuestError> {
    let sector = section.bytes::<512>(0).ok().flatten().ok_or_else(|| Fault::CutOff.damaged(System::Fat))?;
    let geometry = ::fat::Geometry::parse(&sector).map_err(failed)?;
    let bits = match geometry.variant {
        FatVariant::Fat12 => 12,
        FatVariant::Fat16 => 16,
        _ => 32,
    };
    let clusters = u64::from(geometry.count_of_clusters) + 2;
    let table_len = u64::from(geometry.fat_size_sectors) * u64::from(geometry.bytes_per_sector);
    if table_len > TABLE_LEN_MAX {
        return Err(Fault::AllocationTable.unsupported(System::Fat));
    }
    // Else a chain could be longer than the table.
    if clusters * bits > table_len * 8 { Err(Fault::Geometry.damaged(System::Fat)) } else { Ok(()) }
}

fn failed(error: FatError) -> GuestError {
    GuestError::Damaged { system: System::Fat, source: error.into() }
}

fn damaged(fault: Fault) -> GuestError {
    fault.damaged(System::Fat)
}

fn id(node: &Node) -> FileId {
    match node {
        Node::Fat(None) => FileId::Root,
        Node::Fat(Some(entry)) => entry.id,
        _ => unreachable!("nodes come back to their file system"),
    }
}

impl FileSystem for Fat {
    fn directories_max(&self) -> Option<u64> {
        None
    }

    fn root(&self) -> Result<Node, GuestError> {
        Ok(Node::Fat(None))
    }

    fn entries(&self, directory: &Node) -> Result<Vec<Found>, GuestError> {
        let id = id(directory);
        let runs = self.files.runs(id).map_err(failed)?;
        if runs.iter().map(|(_, length)| *length).sum::<u64>() > DIRECTORY_LEN_MAX {
            return Err(damaged(Fault::Loop));
        }
        let listed = self.files.read_dir(id).map_err(failed)?;
        let is_there = |entry: &::fat::Node| {
            !entry.is_deleted && !entry.is_volume_label && entry.name != "." && entry.name != ".."
        };
        let found = listed.into_iter().filter(is_there).map(|entry| Found {
            name: entry.name.clone().into_bytes(),
            kind: if entry.is_dir { Kind::Directory } else { Kind::File },
            node: Node::Fat(Some(Box::new(entry))),
        });
        Ok(found.collect())
    }

    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<Found>, GuestError> {
        Ok(any_case(self.entries(directory)?, name))
    }

    fn metadata(&self, node: &Node) -> Result<Metadata, GuestError> {
        let Node::Fat(Some(entry)) = node else {
            let kind = Kind::Directory;
            return Ok(Metadata { kind, size: 0, mode: None, owner: None, modified: None });
        };
        let modified =
            entry.modified.map(|time| Time { seconds: time.unix_seconds, nanoseconds: time.subsec_nanos });
        let writable = if entry.attributes & READ_ONLY == 0 { 0o200 } else { 0 };
        let (kind, size, mode) =
            if entry.is_dir { (Kind::Directory, 0, 0o555) } else { (Kind::File, entry.size, 0o444) };
        Ok(Metadata { kind, size, mode: Some(mode | writable), owner: None, modified })
    }

    fn read_link(&self, _: &Node) -> Result<Vec<u8>, GuestError> {
        Err(damaged(Fault::NoTarget))
    }

    fn content<'f>(&'f self, file: &Node) -> Result<Box<dyn Content + 'f>, GuestError> {
        let Node::Fat(Some(entry)) = file else { return Err(damaged(Fault::NoIndex)) };
        let mut runs = VecDeque::new();
        if entry.size > 0 {
            // A file without a first cluster would be taken for the root directory.
            if entry.first_cluster < 2 {
                return Err(damaged(Fault::Short));
            }
            runs = self.files.runs(entry.id).map_err(failed)?.into();
            if runs.iter().map(|(_, length)| *length).sum::<u64>() != entry.size {
                return Err(damaged(Fault::Short));
            }
        }
        Ok(Box::new(FatContent { section: &self.section, runs }))
    }
}

struct FatContent<'f> {
    section: &'f Section,
    /// Where the rest is, and how long its parts are.
    runs: VecDeque<(u64, u64)>,
}

impl Content for FatContent<'_> {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError> {
        let Some((offset, rest)) = self.runs.front_mut() else { return Ok(Piece::End) };
        let len = PIECE_LEN.min(usize::try_from(*rest).unwrap_or(PIECE_LEN));
        buffer.resize(len, 0);
        self.section
            .read_at(*offset, buffer)
            .map_err(|failure| GuestError::Damaged { system: System::Fat, source: failure.into() })?;
        let read = u64::try_from(len).expect("a length in memory fits 64 bits");
        *offset += read;
        *rest -= read;
        if *rest == 0 {
            self.runs.pop_front();
        }
        Ok(Piece::Data)
    }
}
