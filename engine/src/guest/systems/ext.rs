//! ext2, ext3 and ext4. A journal that was not emptied is read over what it changes.

use super::{Content, FileSystem, Found, Kind, Metadata, Node, PIECE_LEN, Piece, Time};
use crate::guest::ENTRIES_MAX;
use crate::guest::contents::System;
use crate::guest::device::Section;
use crate::guest::error::{Fault, GuestError};
use crate::guest::fields::le32;
use crate::guest::names::joined;
use ext4_view::{Ext4, Ext4Error, Ext4Read, File, FileType, Path};
use std::error::Error;
use std::rc::Rc;

/// Block groups are read when a file system is opened, and kept: with 4 KiB blocks these are 128 TiB.
const GROUPS_MAX: u64 = 1 << 20;
/// Linux makes no longer symbolic link.
const LINK_LEN_MAX: u64 = 4096;
/// No block is shorter.
const BLOCK_LEN_MIN: u64 = 1024;

/// An open file system. Nodes are paths without links.
pub(super) struct Ext {
    files: Ext4,
    system: System,
    directories_max: u64,
}

struct Reader(Section);

impl Ext4Read for Reader {
    fn read(&mut self, start_byte: u64, dst: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.0.read_at(start_byte, dst)?)
    }
}

impl Ext {
    pub(super) fn open(section: &Section, system: System) -> Result<Self, GuestError> {
        let directories_max = check(section).map_err(|fault| fault.damaged(system))?;
        let files = Ext4::load(Box::new(Reader(section.clone())));
        Ok(Self { files: files.map_err(|error| failed(error, system))?, system, directories_max })
    }

    fn failed(&self, error: Ext4Error) -> GuestError {
        failed(error, self.system)
    }
}

/// Looks at what memory is taken by, before it is. Returns how many directories there can be: each has an inode and a
/// block of its own.
fn check(section: &Section) -> Result<u64, Fault> {
    // A disk that failed is told of by whoever asked.
    let superblock = section.bytes::<1024>(1024).ok().flatten().ok_or(Fault::CutOff)?;
    let field = |at| le32(&superblock, at).map(u64::from).ok_or(Fault::CutOff);
    let blocks = field(4)? | field(0x150)? << 32;
    let in_group = field(32)?;
    if in_group == 0 {
        return Err(Fault::Geometry);
    }
    if blocks / in_group >= GROUPS_MAX {
        return Err(Fault::Groups);
    }
    Ok(field(0)?.min(section.len() / BLOCK_LEN_MIN))
}

fn failed(error: Ext4Error, system: System) -> GuestError {
    match error {
        Ext4Error::Encrypted => Fault::Encrypted.unsupported(system),
        Ext4Error::Incompatible(feature) => {
            GuestError::Unsupported { system, source: Ext4Error::Incompatible(feature).into() }
        }
        error if is_large_hole(&error) => Fault::LargeHole.unsupported(system),
        error => GuestError::Damaged { system, source: error.into() },
    }
}

/// The reader looks for blocks of a file's map where there are none because of a hole: in block 0.
fn is_large_hole(error: &Ext4Error) -> bool {
    matches!(error, Ext4Error::Corrupt(_)) && format!("{error:?}").contains("original_block_index: 0,")
}

fn path(node: &Node) -> Vec<u8> {
    let Node::Ext { directory, name } = node else { unreachable!("nodes come back to their file system") };
    if name.is_empty() { directory.to_vec() } else { joined(directory, name) }
}

/// A path as the reader takes it.
fn given(path: &[u8]) -> Result<Path<'_>, Ext4Error> {
    Path::try_from(path).map_err(|_| Ext4Error::MalformedPath)
}

fn kind(kind: FileType) -> Kind {
    match kind {
        FileType::Regular => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Pipe,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
    }
}

impl Ext {
    fn metadata_of(&self, path: &[u8]) -> Result<ext4_view::Metadata, Ext4Error> {
        self.files.symlink_metadata(given(path)?)
    }

    /// The path of a node that is what its entry says: an entry may lie, and the reader would follow a link then. It
    /// allocates by the length that a link is said to have.
    fn path_of(&self, node: &Node, wanted: FileType) -> Result<Vec<u8>, GuestError> {
        let path = path(node);
        let metadata = self.metadata_of(&path).map_err(|error| self.failed(error))?;
        if metadata.file_type() != wanted {
            return Err(Fault::OtherKind.damaged(self.system));
        }
        if metadata.is_symlink() && metadata.len() > LINK_LEN_MAX {
            return Err(Fault::LongLink.damaged(self.system));
        }
        Ok(path)
    }
}

impl FileSystem for Ext {
    fn directories_max(&self) -> Option<u64> {
        Some(self.directories_max)
    }

    fn root(&self) -> Result<Node, GuestError> {
        Ok(Node::Ext { directory: b"/".as_slice().into(), name: Vec::new() })
    }

    fn entries(&self, directory: &Node) -> Result<Vec<Found>, GuestError> {
        let directory: Rc<[u8]> = self.path_of(directory, FileType::Directory)?.into();
        let listed = given(&directory).and_then(|path| self.files.read_dir(path));
        let listed = listed.map_err(|error| self.failed(error))?;
        let mut found = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|error| self.failed(error))?;
            let name = entry.file_name().as_ref().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if found.len() == ENTRIES_MAX {
                return Err(Fault::Entries.unsupported(self.system));
            }
            let kind = kind(entry.file_type().map_err(|error| self.failed(error))?);
            let node = Node::Ext { directory: Rc::clone(&directory), name: name.clone() };
            found.push(Found { name, kind, node });
        }
        Ok(found)
    }

    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<Found>, GuestError> {
        let directory = self.path_of(directory, FileType::Directory)?;
        match self.metadata_of(&joined(&directory, name)) {
            Ok(metadata) => {
                let node = Node::Ext { directory: directory.into(), name: name.to_vec() };
                Ok(Some(Found { name: name.to_vec(), kind: kind(metadata.file_type()), node }))
            }
            Err(Ext4Error::NotFound | Ext4Error::MalformedPath | Ext4Error::PathTooLong) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn metadata(&self, node: &Node) -> Result<Metadata, GuestError> {
        let metadata = self.metadata_of(&path(node)).map_err(|error| self.failed(error))?;
        let modified = metadata.modified();
        Ok(Metadata {
            kind: kind(metadata.file_type()),
            size: metadata.len(),
            mode: Some(u32::from(metadata.mode())),
            owner: Some((metadata.uid(), metadata.gid())),
            modified: Some(Time { seconds: modified.seconds(), nanoseconds: modified.nanoseconds() }),
        })
    }

    fn read_link(&self, link: &Node) -> Result<Vec<u8>, GuestError> {
        let link = self.path_of(link, FileType::Symlink)?;
        let target = given(&link).and_then(|link| self.files.read_link(link));
        let target = target.map_err(|error| self.failed(error))?;
        Ok(target.as_ref().to_vec())
    }

    fn content<'f>(&'f self, file: &Node) -> Result<Box<dyn Content + 'f>, GuestError> {
        let file = self.path_of(file, FileType::Regular)?;
        let file = given(&file).and_then(|file| self.files.open(file));
        let file = file.map_err(|error| self.failed(error))?;
        Ok(Box::new(ExtContent { file, system: self.system }))
    }
}

struct ExtContent {
    file: File,
    system: System,
}

impl Content for ExtContent {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError> {
        buffer.resize(PIECE_LEN, 0);
        let mut filled = 0;
        // Each call reads one block at most.
        while filled < buffer.len() {
            let read = self.file.read_bytes(&mut buffer[filled..]);
            match read.map_err(|error| failed(error, self.system))? {
                0 => break,
                read => filled += read,
            }
        }
        buffer.truncate(filled);
        Ok(if filled == 0 { Piece::End } else { Piece::Data })
    }
}
