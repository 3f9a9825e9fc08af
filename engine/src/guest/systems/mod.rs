//! The file systems that are read, each by its reader.

mod ext;
mod fat;
mod ntfs;
mod xfs;

use super::contents::System;
use super::device::Section;
use super::error::GuestError;
use serde::Serialize;
use std::rc::Rc;

pub(super) use ntfs::label as ntfs_label;

/// The most that is read of a file at a time.
pub(super) const PIECE_LEN: usize = 1 << 20;

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; a junction of Windows too.
    Symlink,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device of characters.
    CharacterDevice,
    /// A device of blocks.
    BlockDevice,
    /// Something else that is no file.
    Other,
}

impl Kind {
    /// What the upper bits of a mode say.
    pub(super) fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Pipe,
            0o140_000 => Self::Socket,
            0o020_000 => Self::CharacterDevice,
            0o060_000 => Self::BlockDevice,
            _ => Self::Other,
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970 began, in UTC; before, if negative. FAT has local times, which are taken for UTC.
    pub seconds: i64,
    /// Nanoseconds since then, below a thousand million.
    pub nanoseconds: u32,
}

/// What is known of an entry besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The length of a file, in bytes.
    pub size: u64,
    /// Its permissions, twelve bits, where the file system has them.
    pub mode: Option<u32>,
    /// The numbers of its owner and its group, where the file system has them.
    pub owner: Option<(u32, u32)>,
    /// When its content was changed last, where that is known.
    pub modified: Option<Time>,
}

/// What a file system calls a file by.
#[derive(Clone)]
pub(super) enum Node {
    /// The path of its directory, and its name; the root has none.
    Ext { directory: Rc<[u8]>, name: Vec<u8> },
    /// The same, and its inode.
    Xfs { directory: Rc<[u8]>, name: Vec<u8>, inode: u64 },
    /// The number of its record.
    Ntfs(u64),
    /// Its entry; the root has none.
    Fat(Option<Box<::fat::Node>>),
}

/// What tells one directory from another; where nothing does, there is [`FileSystem::directories_max`].
pub(super) fn identity(node: &Node) -> Option<u64> {
    match node {
        Node::Ext { .. } => None,
        Node::Xfs { inode, .. } => Some(*inode),
        Node::Ntfs(record) => Some(*record),
        Node::Fat(entry) => Some(entry.as_ref().map_or(0, |entry| u64::from(entry.first_cluster))),
    }
}

/// What a directory has.
pub(super) struct Found {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) node: Node,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes, in the buffer.
    Data,
    /// So many zeros.
    Hole(u64),
    /// Nothing more.
    End,
}

/// A file system. Nodes are its own.
pub(super) trait FileSystem {
    /// How many directories there can be, where nodes have no [`identity`].
    fn directories_max(&self) -> Option<u64>;
    fn root(&self) -> Result<Node, GuestError>;
    /// What is in a directory, without `.` and `..`, in any order.
    fn entries(&self, directory: &Node) -> Result<Vec<Found>, GuestError>;
    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<Found>, GuestError>;
    fn metadata(&self, node: &Node) -> Result<Metadata, GuestError>;
    fn read_link(&self, link: &Node) -> Result<Vec<u8>, GuestError>;
    /// Begins to read a file.
    fn content<'f>(&'f self, file: &Node) -> Result<Box<dyn Content + 'f>, GuestError>;
}

/// The content of a file, from front to back.
pub(super) trait Content {
    /// What comes next, at most [`PIECE_LEN`] of data.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError>;
}

pub(super) fn open(section: &Section, system: System) -> Result<Box<dyn FileSystem>, GuestError> {
    Ok(match system {
        System::Ext2 | System::Ext3 | System::Ext4 => Box::new(ext::Ext::open(section, system)?),
        System::Xfs => Box::new(xfs::XfsVolume::open(section)?),
        System::Ntfs => Box::new(ntfs::Ntfs::open(section)?),
        System::Fat => Box::new(fat::Fat::open(section)?),
        system => return Err(GuestError::NotRead { volume: 0, system }),
    })
}

/// An entry that a name means where upper and lower case are one: the one of just that name, else the first other.
pub(super) fn any_case(found: Vec<Found>, name: &[u8]) -> Option<Found> {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let wanted = lower(name);
    let mut other = None;
    for entry in found {
        if entry.name == name {
            return Some(entry);
        }
        if other.is_none() && lower(&entry.name) == wanted {
            other = Some(entry);
        }
    }
    other
}
