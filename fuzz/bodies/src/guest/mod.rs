//! What a guest wrote on its disk: partition tables and file systems.
//!
//! The bytes are a disk with its zeros left out: its length in KiB, and pieces with their first sector and their length,
//! all little-endian. The seeds were made by sfdisk, mkfs and mkntfs, with a few files in each.

use keepstone_engine::EngineError;
use keepstone_engine::guest::{
    Entry, Follow, Guest, GuestDisk, GuestError, Kind, Tree, with_guest, write_file,
};
use keepstone_engine::observer::{Event, Observer};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest length that `mkfs.xfs` takes.
const SIZE_MAX: u64 = 300 << 20;
/// Entries that are looked at.
const ENTRIES_SEEN: usize = 200;
/// Bytes that are read of files, about: a sparse file may be of any length.
const BYTES_READ: u64 = 4 << 20;

struct Sparse<'d> {
    size: u64,
    pieces: Vec<(u64, &'d [u8])>,
}

impl<'d> Sparse<'d> {
    fn parse(data: &'d [u8]) -> Option<Self> {
        let (size, mut rest) = data.split_first_chunk()?;
        let size = (u64::from(u32::from_le_bytes(*size)) << 10).min(SIZE_MAX);
        let mut pieces = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<6>() {
            let [a, b, c, d, low, high] = *head;
            let len = usize::from(u16::from_le_bytes([low, high])).min(after.len());
            let (piece, after) = after.split_at(len);
            pieces.push((u64::from(u32::from_le_bytes([a, b, c, d])) * 512, piece));
            rest = after;
        }
        Some(Self { size, pieces })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset + buffer.len() as u64;
        assert!(end <= self.size, "nothing is read beyond the disk");
        for (place, piece) in &self.pieces {
            let (from, to) = (offset.max(*place), end.min(place + piece.len() as u64));
            if from < to {
                let part = &piece[index(from - place)..index(to - place)];
                buffer[index(from - offset)..index(to - offset)].copy_from_slice(part);
            }
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a place in memory")
}

/// Stops reading when it was enough.
#[derive(Default)]
struct Enough(AtomicU64);

impl Observer for Enough {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        let bytes = if let Event::Progress(bytes) = event { bytes } else { 0 };
        let read = self.0.fetch_add(bytes, Ordering::Relaxed);
        if read > BYTES_READ { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A disk of a guest, whose files are listed and read. Tells whether some root directory was.
pub fn guest_disk(data: &[u8]) -> bool {
    let Some(disk) = Sparse::parse(data) else { return false };
    let read_at = |offset, buffer: &mut [u8]| {
        buffer.fill(0);
        disk.read_at(offset, buffer);
        Ok::<_, EngineError>(())
    };
    with_guest(&GuestDisk { size: disk.size, read_at: &read_at }, |guest| explore(guest).unwrap_or(false))
}

fn explore(guest: &Guest) -> Result<bool, GuestError> {
    let volumes = guest.volumes()?;
    let mut taken = false;
    for volume in volumes.read().into_iter().take(4) {
        let Ok(tree) = guest.open(volume) else { continue };
        let Ok(root) = tree.resolve(b"/", Follow::Never) else { continue };
        taken |= explore_tree(&tree, root);
    }
    Ok(taken)
}

fn explore_tree(tree: &Tree, root: Entry) -> bool {
    let enough = Enough::default();
    let mut waiting = VecDeque::from([root]);
    let (mut seen, mut taken) = (0, false);
    while let Some(directory) = waiting.pop_front() {
        let Ok(entries) = tree.list(&directory) else { continue };
        taken = true;
        for entry in entries {
            seen += 1;
            if seen > ENTRIES_SEEN {
                return taken;
            }
            // Only that they come back is looked at: what they tell may be anything.
            drop(tree.metadata(&entry));
            match entry.kind {
                Kind::Directory => waiting.push_back(entry),
                Kind::Symlink => drop(tree.read_link(&entry)),
                Kind::File => drop(write_file(tree, &entry, &mut std::io::sink(), &enough)),
                _ => {}
            }
        }
    }
    taken
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let disks: [&[u8]; 4] = [
        include_bytes!("disk.disk"),
        include_bytes!("fat.disk"),
        include_bytes!("ntfs.disk"),
        include_bytes!("xfs.disk"),
    ];
    disks.map(<[u8]>::to_vec).to_vec()
}
