//! XFS. A log that was not emptied is read over what it changes.
//!
//! The reader tells neither owners nor times: these are taken from the inode as it is on the disk, if that has the same
//! mode and size, else they are not known.

use super::{Content, FileSystem, Found, Kind, Metadata, Node, PIECE_LEN, Piece, Time};
use crate::guest::contents::System;
use crate::guest::device::{ReadFailure, Section, len_of};
use crate::guest::error::{Fault, GuestError};
use crate::guest::fields::{be16, be32, be64};
use crate::guest::names::joined;
use lamxfs::{BlockRead, EntryKind, Error, Inode, Path, SuperblockReason, Xfs};
use std::cell::RefCell;
use std::rc::Rc;

/// No symbolic link of XFS is longer.
const LINK_LEN_MAX: u64 = 1024;

/// An open file system. Nodes are paths without links, and inodes.
pub(super) struct XfsVolume {
    files: RefCell<Xfs<Reader>>,
    section: Section,
    inodes: InodePlaces,
}

struct Reader(Section);

impl BlockRead for Reader {
    type Error = ReadFailure;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        self.0.read_at(offset_bytes, buf)
    }
}

impl XfsVolume {
    pub(super) fn open(section: &Section) -> Result<Self, GuestError> {
        let start =
            section.bytes::<256>(0).ok().flatten().ok_or_else(|| Fault::CutOff.damaged(System::Xfs))?;
        let inodes = InodePlaces::parse(&start).ok_or_else(|| Fault::Geometry.damaged(System::Xfs))?;
        let files = Xfs::open(Reader(section.clone()), section.len()).map_err(failed)?;
        Ok(Self { files: RefCell::new(files), section: section.clone(), inodes })
    }
}

fn failed(error: Error) -> GuestError {
    let is_unsupported = matches!(
        error,
        Error::UnsupportedFeature(_)
            | Error::BadSuperblock(
                SuperblockReason::UnsupportedVersion
                    | SuperblockReason::ExternalLog
                    | SuperblockReason::RealtimeDevice
                    | SuperblockReason::DirtyLog
            )
    );
    let (system, source) = (System::Xfs, error.into());
    if is_unsupported {
        GuestError::Unsupported { system, source }
    } else {
        GuestError::Damaged { system, source }
    }
}

fn parts(node: &Node) -> (Vec<u8>, Inode) {
    let Node::Xfs { directory, name, inode } = node else {
        unreachable!("nodes come back to their file system")
    };
    let path = if name.is_empty() { directory.to_vec() } else { joined(directory, name) };
    (path, Inode { ino: *inode })
}

impl XfsVolume {
    /// What an inode is: directory entries may not say it.
    fn kind(&self, said: EntryKind, ino: u64) -> Result<Kind, GuestError> {
        Ok(match said {
            EntryKind::Regular => Kind::File,
            EntryKind::Directory => Kind::Directory,
            EntryKind::Symlink => Kind::Symlink,
            EntryKind::Other => {
                let metadata = self.files.borrow_mut().metadata(&Inode { ino }).map_err(failed)?;
                Kind::of_mode(metadata.mode())
            }
        })
    }
}

impl FileSystem for XfsVolume {
    fn directories_max(&self) -> Option<u64> {
        None
    }

    fn root(&self) -> Result<Node, GuestError> {
        let root = self.files.borrow_mut().resolve(Path::new(b"/")).map_err(failed)?;
        Ok(Node::Xfs { directory: b"/".as_slice().into(), name: Vec::new(), inode: root.ino })
    }

    fn entries(&self, directory: &Node) -> Result<Vec<Found>, GuestError> {
        let directory: Rc<[u8]> = parts(directory).0.into();
        let listed = self.files.borrow_mut().read_dir(Path::new(&directory)).map_err(failed)?;
        let found = listed.into_iter().map(|entry| {
            let kind = self.kind(entry.kind, entry.inode_number)?;
            let (directory, name, inode) = (Rc::clone(&directory), entry.name.clone(), entry.inode_number);
            Ok(Found { name: entry.name, kind, node: Node::Xfs { directory, name, inode } })
        });
        found.collect()
    }

    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<Found>, GuestError> {
        let directory = parts(directory).0;
        let resolved = self.files.borrow_mut().resolve(Path::new(&joined(&directory, name)));
        let inode = match resolved {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = self.files.borrow_mut().metadata(&inode).map_err(failed)?;
        let kind = Kind::of_mode(metadata.mode());
        let node = Node::Xfs { directory: directory.into(), name: name.to_vec(), inode: inode.ino };
        Ok(Some(Found { name: name.to_vec(), kind, node }))
    }

    fn metadata(&self, node: &Node) -> Result<Metadata, GuestError> {
        let (_, inode) = parts(node);
        let metadata = self.files.borrow_mut().metadata(&inode).map_err(failed)?;
        let (mode, size) = (metadata.mode(), metadata.size());
        let further = self
            .inodes
            .read(&self.section, inode.ino)
            .map_err(|failure| GuestError::Damaged { system: System::Xfs, source: failure.into() })?;
        let further = further.filter(|further| (further.mode, further.size) == (mode, size));
        Ok(Metadata {
            kind: Kind::of_mode(mode),
            size,
            mode: Some(mode & 0o7777),
            owner: further.as_ref().map(|further| further.owner),
            modified: further.map(|further| further.modified),
        })
    }

    fn read_link(&self, link: &Node) -> Result<Vec<u8>, GuestError> {
        let (path, inode) = parts(link);
        let mut files = self.files.borrow_mut();
        if files.metadata(&inode).map_err(failed)?.size() > LINK_LEN_MAX {
            return Err(Fault::LongLink.damaged(System::Xfs));
        }
        files.read_link(Path::new(&path)).map_err(failed)
    }

    fn content<'f>(&'f self, file: &Node) -> Result<Box<dyn Content + 'f>, GuestError> {
        let (_, inode) = parts(file);
        let size = self.files.borrow_mut().metadata(&inode).map_err(failed)?.size();
        Ok(Box::new(XfsContent { volume: self, inode, position: 0, size }))
    }
}

struct XfsContent<'f> {
    volume: &'f XfsVolume,
    inode: Inode,
    position: u64,
    size: u64,
}

impl Content for XfsContent<'_> {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError> {
        let rest = self.size - self.position;
        if rest == 0 {
            return Ok(Piece::End);
        }
        buffer.resize(PIECE_LEN.min(usize::try_from(rest).unwrap_or(PIECE_LEN)), 0);
        let read = self.volume.files.borrow_mut().read_file_at(&self.inode, self.position, buffer);
        let read = read.map_err(failed)?;
        buffer.truncate(read);
        if buffer.is_empty() {
            return Err(Fault::Short.damaged(System::Xfs));
        }
        self.position += len_of(buffer);
        Ok(Piece::Data)
    }
}

/// Where inodes are, by their numbers.
struct InodePlaces {
    block_len: u64,
    group_blocks: u64,
    inode_len: u64,
    inodes_in_block_log: u32,
    group_blocks_log: u32,
}

/// What of an inode the reader does not tell.
struct Further {
    mode: u32,
    size: u64,
    owner: (u32, u32),
    modified: Time,
}

impl InodePlaces {
    fn parse(superblock: &[u8]) -> Option<Self> {
        let log = |at: usize| superblock.get(at).copied().map(u32::from);
        let places = Self {
            block_len: u64::from(be32(superblock, 4)?),
            group_blocks: u64::from(be32(superblock, 84)?),
            inode_len: u64::from(be16(superblock, 104)?),
            inodes_in_block_log: log(123)?,
            group_blocks_log: log(124)?,
        };
        (places.inodes_in_block_log < 32 && places.group_blocks_log < 32).then_some(places)
    }

    /// An inode number is the group, the block in it and the place in that, in bits.
    fn place(&self, inode: u64) -> Option<u64> {
        let bits = self.inodes_in_block_log + self.group_blocks_log;
        let group = inode >> bits;
        let block = inode >> self.inodes_in_block_log & ((1 << self.group_blocks_log) - 1);
        let within = inode & ((1 << self.inodes_in_block_log) - 1);
        let block = group.checked_mul(self.group_blocks)?.checked_add(block)?;
        block.checked_mul(self.block_len)?.checked_add(within.checked_mul(self.inode_len)?)
    }

    fn read(&self, section: &Section, inode: u64) -> Result<Option<Further>, ReadFailure> {
        let Some(place) = self.place(inode) else { return Ok(None) };
        Ok(section.bytes::<176>(place)?.and_then(|bytes| Further::parse(&bytes)))
    }
}

impl Further {
    fn parse(inode: &[u8]) -> Option<Self> {
        /// Times of inodes of version 3 may count nanoseconds from 2^31 seconds before 1970.
        const BIG_TIME: u64 = 1 << 3;
        const NANOSECONDS: u64 = 1_000_000_000;
        if be16(inode, 0)? != 0x494E {
            return None;
        }
        let has_big_time = *inode.get(4)? >= 3 && be64(inode, 120)? & BIG_TIME != 0;
        let modified = be64(inode, 40)?;
        let (seconds, nanoseconds) = if has_big_time {
            let seconds = i64::try_from(modified / NANOSECONDS).ok()?;
            (seconds - (1 << 31), modified % NANOSECONDS)
        } else {
            let seconds = i64::from(be32(inode, 40)?.cast_signed());
            (seconds, u64::from(be32(inode, 44)?).min(NANOSECONDS - 1))
        };
        Some(Self {
            mode: u32::from(be16(inode, 2)?),
            size: be64(inode, 56)?,
            owner: (be32(inode, 8)?, be32(inode, 12)?),
            modified: Time { seconds, nanoseconds: u32::try_from(nanoseconds).ok()? },
        })
    }
}
