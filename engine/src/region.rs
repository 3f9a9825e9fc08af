//! The bytes of one region, read when they are needed.

use crate::source::ReadPart;
use crate::{DiskSource, Extent};
use memmap2::MmapMut;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

/// The longest single request to a source: long enough for full throughput on any storage, short enough that its
/// bytes are still in the cache when they are chunked.
pub const REQUEST_LEN: u32 = 1 << 20;

/// Requests start and end at multiples of this (from the region's start; at the region's end they end with it), so
/// that sources which can read whole sectors only need no copy.
pub const SECTOR_LEN: u32 = 512;

const HELD: &str = "it is held until it is dropped";

/// Allocations of one region's length, used again and again.
///
/// It holds as many as were ever in use at once.
#[derive(Debug)]
pub struct RegionPool {
    region_len: u32,
    idle: Mutex<Vec<MmapMut>>,
}

impl RegionPool {
    /// A pool without allocations yet.
    #[must_use]
    pub fn new(region_len: u32) -> Self {
        Self { region_len, idle: Mutex::new(Vec::new()) }
    }

    /// An empty buffer for one region of a disk, whose allocation returns to the pool when it is dropped.
    ///
    /// # Panics
    /// When the region is longer than the pool's regions.
    #[must_use]
    pub fn region<'a>(&'a self, source: &'a dyn DiskSource, region: Extent) -> RegionBuffer<'a> {
        let len = u32::try_from(region.length).expect("a region is shorter than 4 GiB");
        assert!(len <= self.region_len, "a region of {len} bytes is longer than {}", self.region_len);
        let allocation = self.idle().pop();
        let allocation = allocation.unwrap_or_else(|| {
            MmapMut::map_anon(self.region_len as usize).expect("there is memory for a region")
        });
        RegionBuffer {
            pool: self,
            source,
            start: region.start,
            len,
            allocation: Some(allocation),
            present: Vec::new(),
            zeros: Vec::new(),
            read_bytes: 0,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<MmapMut>> {
        // A panic elsewhere cannot leave a list of buffers half changed.
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The bytes of one region of a disk; places in it count from the region's start.
pub struct RegionBuffer<'a> {
    pool: &'a RegionPool,
    source: &'a dyn DiskSource,
    start: u64,
    len: u32,
    /// It begins with a page, as the region does: so sources can read past the page cache. It goes back when this is
    /// dropped.
    allocation: Option<MmapMut>,
    /// What has been loaded: sorted, with gaps between.
    present: Vec<Range<u32>>,
    /// What needs no reading because it is known to be zero: whole sectors, sorted, disjoint.
    zeros: Vec<Range<u32>>,
    read_bytes: u64,
}

impl RegionBuffer<'_> {
    /// The offset of the region on the disk.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The region's length.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The bytes read from the source so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Tells that `zeros` (sorted, disjoint) are zero, so that they are filled in instead of read. Sectors that lie
    /// there in part only are read all the same.
    pub fn assume_zero(&mut self, zeros: &[Range<u32>]) {
        let whole_sectors = zeros.iter().map(|zeros| {
            let end = if zeros.end == self.len { self.len } else { zeros.end / SECTOR_LEN * SECTOR_LEN };
            zeros.start.next_multiple_of(SECTOR_LEN)..end
        });
        self.zeros = whole_sectors.filter(|zeros| !zeros.is_empty()).collect();
    }

    /// Makes the bytes from `start` to `end` present; reads what is neither present nor known to be zero.
    ///
    /// # Errors
    /// When the source cannot be read.
    ///
    /// # Panics
    /// When `end` is behind the region's end.
    pub fn load(&mut self, start: u32, end: u32) -> io::Result<()> {
        assert!(end <= self.len, "{end} is behind the region's end {}", self.len);
        let mut at = start / SECTOR_LEN * SECTOR_LEN;
        let end = self.len.min(end.next_multiple_of(SECTOR_LEN));
        while at < end {
            let next = self.present.partition_point(|range| range.end <= at);
            let gap_end = match self.present.get(next) {
                Some(range) if range.start <= at => {
                    at = range.end;
                    continue;
                }
                Some(range) => end.min(range.start),
                None => end,
            };
            let done = self.fill(at, gap_end)?;
            self.insert_present(next, at..done);
            at = done;
        }
        Ok(())
    }

    /// Makes some ranges (ascending, disjoint) present, with one request for all of them, before anything else is.
    ///
    /// # Errors
    /// When the source cannot be read.
    ///
    /// # Panics
    /// When something is present already, or a range is not within the region.
    pub fn load_first(&mut self, ranges: &[Range<u32>]) -> io::Result<()> {
        assert!(self.present.is_empty(), "this comes before anything else is loaded");
        let mut present: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let start = range.start / SECTOR_LEN * SECTOR_LEN;
            let end = self.len.min(range.end.next_multiple_of(SECTOR_LEN));
            match present.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => present.push(start..end),
            }
        }
        let mut parts = Vec::with_capacity(present.len());
        let allocation = self.allocation.as_mut().expect(HELD);
        let (mut rest, mut at) = (&mut allocation[..self.len as usize], 0);
        for range in &present {
            let (_, behind) = rest.split_at_mut((range.start - at) as usize);
            let (buffer, behind) = behind.split_at_mut(range.len());
            parts.push(ReadPart { offset: self.start + u64::from(range.start), buffer });
            (rest, at) = (behind, range.end);
        }
        self.source.read(&mut parts)?;
        self.read_bytes += present.iter().map(|range| u64::from(range.end - range.start)).sum::<u64>();
        self.present = present;
        Ok(())
    }

    /// How far the bytes from `at` on are present without a gap; `at` itself if the one there is not.
    #[must_use]
    pub fn present_until(&self, at: u32) -> u32 {
        let next = self.present.partition_point(|range| range.end <= at);
        self.present.get(next).filter(|range| range.start <= at).map_or(at, |range| range.end)
    }

    /// The bytes from `start` to `end`.
    ///
    /// # Panics
    /// When they have not all been loaded: what the allocation held before is never shown.
    #[must_use]
    pub fn bytes(&self, start: u32, end: u32) -> &[u8] {
        assert!(start >= end || self.present_until(start) >= end, "bytes {start} to {end} are not loaded");
        &self.allocation.as_ref().expect(HELD)[start as usize..end as usize]
    }

    /// Fills in some bytes from `at` on, at most to `end`, and returns how far it came.
    fn fill(&mut self, at: u32, end: u32) -> io::Result<u32> {
        let allocation = self.allocation.as_mut().expect(HELD);
        let next = self.zeros.partition_point(|zeros| zeros.end <= at);
        let unknown_end = match self.zeros.get(next) {
            Some(zeros) if zeros.start <= at => {
                let end = end.min(zeros.end);
                allocation[at as usize..end as usize].fill(0);
                return Ok(end);
            }
            Some(zeros) => end.min(zeros.start),
            None => end,
        };
        let end = unknown_end.min(at + REQUEST_LEN);
        let buffer = &mut allocation[at as usize..end as usize];
        self.source.read(&mut [ReadPart { offset: self.start + u64::from(at), buffer }])?;
        self.read_bytes += u64::from(end - at);
        Ok(end)
    }

    /// Notes `added`, which lies in the gap before `present[next]`.
    fn insert_present(&mut self, next: usize, added: Range<u32>) {
        let joins_next = self.present.get(next).is_some_and(|range| range.start == added.end);
        let before = next.checked_sub(1).filter(|&before| self.present[before].end == added.start);
        match (before, joins_next) {
            (Some(before), true) => {
                self.present[before].end = self.present[next].end;
                self.present.remove(next);
            }
            (Some(before), false) => self.present[before].end = added.end,
            (None, true) => self.present[next].start = added.start,
            (None, false) => self.present.insert(next, added),
        }
    }
}

impl Drop for RegionBuffer<'_> {
    fn drop(&mut self) {
        self.pool.idle().extend(self.allocation.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ChangedAreas, Since};

    /// A disk of bytes 1 that notes what is read of it.
    struct Ones {
        size: u64,
        requests: Mutex<Vec<Range<u64>>>,
    }

    impl Ones {
        fn new(size: u64) -> Self {
            Self { size, requests: Mutex::new(Vec::new()) }
        }

        fn requests(&self) -> Vec<Range<u64>> {
            self.requests.lock().expect("no test panics while it reads").clone()
        }
    }

    impl DiskSource for Ones {
        fn size(&self) -> u64 {
            self.size
        }

        fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
            for ReadPart { offset, buffer } in parts {
                let end = *offset + u64::try_from(buffer.len()).expect("a length fits in 64 bits");
                assert!(end <= self.size);
                self.requests.lock().expect("no test panics while it reads").push(*offset..end);
                buffer.fill(1);
            }
            Ok(())
        }

        fn check_unchanged(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn extent(start: u64, length: u64) -> Extent {
        Extent { start, length }
    }

    #[test]
    fn what_is_present_is_not_read_again() {
        let disk = Ones::new(20_000);
        let pool = RegionPool::new(8192);
        let mut region = pool.region(&disk, extent(8192, 8192));
        for (start, end) in
            [(1000, 1001), (1000, 1024), (3000, 3100), (4096, 4096), (513, 4000), (8000, 8192)]
        {
            region.load(start, end).expect("the disk can be read");
        }
        assert_eq!(
            disk.requests(),
            [8704..9216, 10_752..11_776, 9216..10_752, 11_776..12_288, 15_872..16_384]
        );
        assert_eq!(region.read_bytes(), 512 + 1024 + 1536 + 512 + 512);
        assert_eq!((region.present_until(511), region.present_until(512)), (511, 4096));
        assert_eq!(region.bytes(512, 4096), [1; 3584]);
    }

    #[test]
    fn what_is_loaded_first_is_there_and_what_lies_between_is_not() {
        let disk = Ones::new(20_000);
        let pool = RegionPool::new(8192);
        let mut region = pool.region(&disk, extent(8192, 8192));
        region.load_first(&[0..1, 500..1500, 1600..1600, 8000..8192]).expect("the disk can be read");
        assert_eq!(disk.requests(), [8192..9728, 15_872..16_384]);
        assert_eq!((region.present_until(0), region.present_until(1536)), (1536, 1536));
        region.load(0, 8192).expect("the disk can be read");
        assert_eq!(disk.requests()[2..], vec![Range { start: 9728, end: 15_872 }]);
        assert_eq!((region.read_bytes(), region.bytes(0, 8192)), (8192, &[1; 8192][..]));
    }

    #[test]
    fn long_reads_are_divided() {
        let disk = Ones::new(3 << 20);
        let pool = RegionPool::new(4 << 20);
        let mut region = pool.region(&disk, extent(0, 3 << 20));
        region.load(1 << 19, 3 << 20).expect("the disk can be read");
        let half = 1 << 19;
        assert_eq!(disk.requests(), [half..3 * half, 3 * half..5 * half, 5 * half..6 * half]);
    }

    #[test]
    fn known_zeros_are_filled_in_even_over_what_the_allocation_held() {
        let disk = Ones::new(5001);
        let pool = RegionPool::new(5001);
        pool.region(&disk, extent(0, 5001)).load(0, 5001).expect("the disk can be read");
        let mut region = pool.region(&disk, extent(0, 5001));
        region.assume_zero(&[100..600, 700..2000, 4096..5001]);
        region.load(0, 5001).expect("the disk can be read");
        assert_eq!(disk.requests(), [0..5001, 0..1024, 1536..4096]);
        let expected: Vec<u8> =
            (0..5001).map(|at| u8::from(!(1024..1536).contains(&at) && at < 4096)).collect();
        assert_eq!(region.bytes(0, 5001), expected);
        drop(region);
        assert_eq!(pool.idle().len(), 1, "the allocation is used again");
    }

    #[test]
    #[should_panic(expected = "not loaded")]
    fn bytes_that_are_not_loaded_are_not_shown() {
        let disk = Ones::new(5000);
        let pool = RegionPool::new(5000);
        let mut region = pool.region(&disk, extent(0, 5000));
        region.load(0, 512).expect("the disk can be read");
        let _ = region.bytes(0, 513);
    }
}
