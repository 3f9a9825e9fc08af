//! Restoring as a streamOptimized VMDK, which is what an OVF or OVA package has in it.
//!
//! Grains of 64 KiB are put together and compressed by the threads that write their last piece; what is zero is left
//! out. Importers want grains in ascending order, so those that come too early wait.
//!
//! # Memory
//! The data of the windows that are under way, compressed or as it is; 4 bytes for each 32 MiB of the disk; a
//! compressor and a grain (together under 1 MiB) for each thread.

mod assembly;
mod layout;
mod sequence;

use super::identity::ImageIdentity;
use super::order::InOrder;
use super::output::{Output, Stream};
use super::partial::{Existing, PartialFile};
use super::{DiskTarget, TargetError, checked_end, len_of};
use crate::frames::lock;
use assembly::{Assembly, Pieces};
use flate2::{Compress, Compression, FlushCompress, Status};
use layout::{GRAIN, GRAIN_MARKER_LEN, SECTOR};
use sequence::Sequence;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

/// The largest disk that vSphere has.
const SIZE_MAX: u64 = 62 << 40;
/// A grain that cannot be compressed becomes longer by some bytes, and markers are kept with grains.
const GROWTH_MAX: u64 = 16;

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct VmdkSettings {
    /// The disk's size, in bytes.
    pub disk_bytes: u64,
    /// How many bytes that come too early may be kept: what a restore has in the windows that it writes at a time.
    pub kept_max: u64,
    /// What is in the header.
    pub identity: ImageIdentity,
}

/// A streamOptimized VMDK, in a file that gets its name when it is complete or in a stream. The image is as large as the
/// disk, with zeros up to a multiple of 64 KiB.
pub struct VmdkTarget {
    disk_bytes: u64,
    assembly: Assembly,
    compressors: Mutex<Vec<Compressor>>,
    grains: InOrder<Sequence>,
}

impl VmdkTarget {
    /// Begins a file, as [`FileTarget::create`](super::FileTarget::create) does.
    ///
    /// # Errors
    /// Those of a file, and [`TargetError::TooLarge`] for a disk of more than 62 TiB.
    pub fn create(path: &Path, existing: Existing, settings: &VmdkSettings) -> io::Result<Self> {
        check_size(settings)?;
        Self::begin(Box::new(PartialFile::open(path, existing)?.appending()?), settings)
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// If the stream cannot be written, and [`TargetError::TooLarge`] for a disk of more than 62 TiB.
    pub fn to_writer(writer: impl Write + Send + 'static, settings: &VmdkSettings) -> io::Result<Self> {
        check_size(settings)?;
        Self::begin(Box::new(Stream(writer)), settings)
    }

    fn begin(output: Box<dyn Output>, settings: &VmdkSettings) -> io::Result<Self> {
        let VmdkSettings { disk_bytes, kept_max, identity } = *settings;
        let image_bytes = disk_bytes.max(1).next_multiple_of(GRAIN);
        let sequence = Sequence::begin(output, image_bytes, &identity)?;
        let grains = InOrder::new(sequence, image_bytes, kept_max + kept_max / GROWTH_MAX);
        if disk_bytes == 0 {
            grains.put_zeros(0, GRAIN)?;
        }
        Ok(Self { disk_bytes, assembly: Assembly::default(), compressors: Mutex::default(), grains })
    }

    /// Takes a range of the disk, zeros unless there is data, and cuts it at the edges of grains.
    fn put(&self, offset: u64, length: u64, data: Option<&[u8]>) -> io::Result<()> {
        let end = checked_end(offset, length, self.disk_bytes)?;
        let mut start = offset;
        while start < end {
            let grain = start / GRAIN;
            let grain_len = GRAIN.min(self.disk_bytes - grain * GRAIN);
            let in_grain = start % GRAIN;
            let part = (end - start).min(grain_len - in_grain);
            match data {
                // All at once, however long it is.
                None if in_grain == 0 && part == grain_len => {
                    let next =
                        if end == self.disk_bytes { end.next_multiple_of(GRAIN) } else { end - end % GRAIN };
                    self.grains.put_zeros(start, next - start)?;
                    start = next;
                    continue;
                }
                _ => {
                    let data = data.map(|data| &data[in_memory(start - offset)..][..in_memory(part)]);
                    if let Some(pieces) = self.assembly.add(grain, grain_len, (in_grain, part), data) {
                        self.put_grain(grain, &pieces)?;
                    }
                }
            }
            start += part;
        }
        Ok(())
    }

    fn put_grain(&self, grain: u64, pieces: &Pieces) -> io::Result<()> {
        let offset = grain * GRAIN;
        let mut compressor = lock(&self.compressors).pop().unwrap_or_else(Compressor::new);
        let result = match compressor.compressed(grain, pieces) {
            Some(record) => self.grains.put(offset, GRAIN, Cow::Borrowed(record)),
            None => self.grains.put_zeros(offset, GRAIN),
        };
        lock(&self.compressors).push(compressor);
        result
    }
}

fn check_size(settings: &VmdkSettings) -> Result<(), TargetError> {
    let disk_bytes = settings.disk_bytes;
    if disk_bytes > SIZE_MAX {
        return Err(TargetError::TooLarge { format: "VMDK", bytes_max: SIZE_MAX, disk_bytes });
    }
    Ok(())
}

fn in_memory(length: u64) -> usize {
    usize::try_from(length).expect("data is in memory")
}

/// What one thread at a time compresses grains with.
struct Compressor {
    deflate: Compress,
    grain: Vec<u8>,
    record: Vec<u8>,
}

impl Compressor {
    /// What costs about as much processor time as reading the repository does.
    const LEVEL: u32 = 3;

    fn new() -> Self {
        Self {
            deflate: Compress::new(Compression::new(Self::LEVEL), true),
            grain: vec![0; in_memory(GRAIN)],
            record: Vec::with_capacity(in_memory(2 * GRAIN)),
        }
    }

    /// A grain with its marker in whole sectors. Nothing if it is zero.
    fn compressed(&mut self, grain: u64, pieces: &Pieces) -> Option<&[u8]> {
        if !pieces.joined(&mut self.grain) || self.grain.iter().all(|byte| *byte == 0) {
            return None;
        }
        self.record.clear();
        self.record.extend((grain * (GRAIN / SECTOR)).to_le_bytes());
        self.record.extend([0; 4]);
        self.deflate.reset();
        let status = self.deflate.compress_vec(&self.grain, &mut self.record, FlushCompress::Finish);
        assert!(matches!(status, Ok(Status::StreamEnd)), "there is room for twice a grain");
        let len = u32::try_from(self.record.len() - GRAIN_MARKER_LEN).expect("it is shorter than two grains");
        self.record[GRAIN_MARKER_LEN - 4..GRAIN_MARKER_LEN].copy_from_slice(&len.to_le_bytes());
        self.record.resize(self.record.len().next_multiple_of(in_memory(SECTOR)), 0);
        Some(&self.record)
    }
}

impl DiskTarget for VmdkTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(offset, len_of(data), Some(data))
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        self.put(offset, length, None)
    }

    fn flush(&self) -> io::Result<()> {
        self.grains.flush()
    }

    fn finish(&self) -> io::Result<()> {
        self.grains.finish()
    }
}
