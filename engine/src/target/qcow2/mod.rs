//! Restoring as a qcow2 file of QEMU.
//!
//! A cluster of the file is used when the first byte of it comes; what is zero gets none. Clusters are in the order in
//! which they came.
//!
//! # Memory
//! About 40 bytes for each 64 KiB with data in the windows that are under way, and in the tables (512 MiB of the disk) that
//! they begin and end in; 8 bytes for each 512 MiB of the disk. Not more for a large disk: tables are written when their
//! last byte is known.

mod layout;
mod mapping;

use super::partial::{Existing, PartialFile};
use super::{DiskTarget, TargetError, checked_end, len_of};
use crate::frames::lock;
use layout::{CLUSTER, SIZE_MAX, TABLE_CLUSTERS, Tables, entry, header};
use mapping::{CompleteTable, Mapping};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

/// QEMU counts the size of a disk in sectors.
const SECTOR: u64 = 512;
/// Entries of tables and refcounts that are made at a time.
const ENTRIES_AT_ONCE: usize = 128 << 10;

/// A qcow2 file of mode 0600 that gets its name, and its header, when it is complete. The image is as large as the disk,
/// with zeros up to a multiple of 512 bytes.
#[derive(Debug)]
pub struct Qcow2Target {
    partial: PartialFile,
    disk_bytes: u64,
    mapping: Mutex<Mapping>,
}

impl Qcow2Target {
    /// Begins a file for a disk of `disk_bytes`, as [`FileTarget::create`](super::FileTarget::create) does.
    ///
    /// # Errors
    /// Those of a file, and [`TargetError::TooLarge`] for a disk of more than 2 PiB.
    pub fn create(path: &Path, disk_bytes: u64, existing: Existing) -> io::Result<Self> {
        if disk_bytes > SIZE_MAX {
            return Err(TargetError::TooLarge { format: "qcow2", bytes_max: SIZE_MAX, disk_bytes }.into());
        }
        let partial = PartialFile::open(path, existing)?;
        partial.begin(0)?;
        Ok(Self { partial, disk_bytes, mapping: Mutex::new(Mapping::new(disk_bytes)) })
    }

    fn write_table(&self, (number, clusters): CompleteTable) -> Result<(), TargetError> {
        let place = lock(&self.mapping).place(number);
        let entries = (0..TABLE_CLUSTERS).map(|slot| entry(clusters.get(&slot).copied().unwrap_or(0)));
        self.write_numbers(place * CLUSTER, entries)
    }

    /// Writes numbers, some at a time, so that there may be any number of them.
    fn write_numbers<const N: usize>(
        &self,
        offset: u64,
        mut numbers: impl Iterator<Item = [u8; N]>,
    ) -> Result<(), TargetError> {
        let mut offset = offset;
        loop {
            let bytes: Vec<u8> = numbers.by_ref().take(ENTRIES_AT_ONCE).flatten().collect();
            if bytes.is_empty() {
                return Ok(());
            }
            self.partial.write_at(offset, &bytes)?;
            offset += len_of(&bytes);
        }
    }

    /// Writes everything behind the data, and then the header.
    fn write_tables(&self) -> Result<u64, TargetError> {
        let mapping = lock(&self.mapping);
        let (level1, clusters) = mapping.complete();
        let level1_len = u64::try_from(level1.len()).expect("a length in memory fits 64 bits");
        let tables = Tables::behind(clusters, level1_len);
        let blocks = tables.refcount_blocks..tables.end;
        self.write_numbers(tables.level1 * CLUSTER, level1.iter().copied().map(entry))?;
        let places = blocks.map(|block| (block * CLUSTER).to_be_bytes());
        self.write_numbers(tables.refcount_table * CLUSTER, places)?;
        // Every cluster of the file has one reference.
        let refcounts = (0..tables.end).map(|_| 1u16.to_be_bytes());
        self.write_numbers(tables.refcount_blocks * CLUSTER, refcounts)?;
        let image_bytes = self.disk_bytes.max(1).next_multiple_of(SECTOR);
        self.partial.flush()?;
        self.partial.write_at(0, &header(image_bytes, level1_len, &tables))?;
        Ok(tables.end * CLUSTER)
    }
}

/// Parts of data, and where each goes in the file.
type Placed = Vec<(u64, Range<usize>)>;

/// Places data at the clusters that it has; neighbours in the disk that are neighbours in the file are one part.
fn placed(mapping: &mut Mapping, offset: u64, data: &[u8]) -> Placed {
    let mut parts = Placed::new();
    let mut done = 0;
    while done < data.len() {
        let start = offset + len_of(&data[..done]);
        let left = usize::try_from(CLUSTER - start % CLUSTER).expect("64 KiB");
        let end = data.len().min(done + left);
        let place = mapping.cluster(start / CLUSTER) * CLUSTER + start % CLUSTER;
        match parts.last_mut() {
            Some((last, range)) if *last + len_of(&data[range.clone()]) == place => range.end = end,
            _ => parts.push((place, done..end)),
        }
        done = end;
    }
    parts
}

impl DiskTarget for Qcow2Target {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = checked_end(offset, len_of(data), self.disk_bytes)?;
        let (parts, complete) = {
            let mut mapping = lock(&self.mapping);
            (placed(&mut mapping, offset, data), mapping.note(offset, end))
        };
        for (place, range) in parts {
            self.partial.write_at(place, &data[range])?;
        }
        Ok(complete.into_iter().try_for_each(|table| self.write_table(table))?)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        // New clusters are holes in the file.
        let end = checked_end(offset, length, self.disk_bytes)?;
        let complete = lock(&self.mapping).note(offset, end);
        Ok(complete.into_iter().try_for_each(|table| self.write_table(table))?)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(self.partial.flush()?)
    }

    fn finish(&self) -> io::Result<()> {
        let written = lock(&self.mapping).known();
        if written != self.disk_bytes {
            return Err(TargetError::Incomplete { written, disk_bytes: self.disk_bytes }.into());
        }
        let len = self.write_tables()?;
        Ok(self.partial.finish(len)?)
    }
}
