//! Re-chunking around changes gives what chunking the whole disk gives, and reads little.

use keepstone_engine::chunker::Chunker;
use keepstone_engine::extent::{Extent, normalized, total_length};
use keepstone_engine::rechunk::{Content, OldPiece, foreseen, rechunk, resize_areas};
use keepstone_engine::region::{RegionPool, SECTOR_LEN};
use keepstone_engine::source::{ChangedAreas, DiskSource, ReadPart, Since, read_each};
use proptest::prelude::*;
use repo_format::{ChunkerName, ChunkerParams};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// The chunk sequence of a disk, by regions: lengths, and ids of what is no hole.
type Sequence = Vec<Vec<(u32, Option<blake3::Hash>)>>;

/// A disk in memory. Reading a sector that `readable` does not touch is an error.
struct Disk<'a> {
    bytes: &'a [u8],
    readable: Option<&'a [Extent]>,
}

impl Disk<'_> {
    fn read_at(&self, start: u64, buffer: &mut [u8]) {
        let end = start + offset(buffer.len());
        for sector in (start..end).step_by(SECTOR_LEN as usize) {
            let sector_end = sector + u64::from(SECTOR_LEN);
            let touched = |areas: &[Extent]| {
                let next = areas.partition_point(|area| area.end() <= sector);
                areas.get(next).is_some_and(|area| area.start < sector_end)
            };
            assert!(self.readable.is_none_or(touched), "sector {sector} needs no reading");
        }
        buffer.copy_from_slice(&self.bytes[index(start)..index(end)]);
    }
}

impl DiskSource for Disk<'_> {
    fn size(&self) -> u64 {
        offset(self.bytes.len())
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| {
            self.read_at(offset, buffer);
            Ok(())
        })
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How disks are cut in a test.
struct Setup {
    params: ChunkerParams,
    seed: u64,
    region_len: u32,
}

/// What a backup starts from.
enum From<'a> {
    /// Nothing: what lies outside the areas is zero.
    Nothing,
    /// The sequence of the parent.
    Parent(&'a Sequence),
}

impl Setup {
    /// Chunks a disk with nothing but the chunking crates: what every other way must agree with.
    fn whole(&self, disk: &[u8]) -> Sequence {
        let chunk_region = |region: &[u8]| {
            let mut pieces: Vec<(u32, Option<blake3::Hash>)> = Vec::new();
            let mut start = 0;
            for end in self.cuts(region) {
                let bytes = &region[start..end];
                let length = u32::try_from(bytes.len()).expect("chunks are short");
                let id = bytes.iter().any(|&byte| byte != 0).then(|| blake3::hash(bytes));
                match pieces.last_mut() {
                    Some((last, None)) if id.is_none() => *last += length,
                    _ => pieces.push((length, id)),
                }
                start = end;
            }
            pieces
        };
        disk.chunks(self.region_len as usize).map(chunk_region).collect()
    }

    /// Where the chunks of a region end.
    fn cuts(&self, region: &[u8]) -> Vec<usize> {
        let ChunkerParams { name, .. } = self.params;
        let [min, average, max] =
            [self.params.min, self.params.average, self.params.max].map(|length| length as usize);
        match name {
            ChunkerName::FastCdc2020 => {
                let level = fastcdc::v2020::Normalization::Level1;
                let mut chunker =
                    fastcdc::v2020::FastCDC::with_level_and_seed(&[], min, average, max, level, self.seed);
                let chunks = chunker.rechunk(region);
                chunks.map(|chunk| chunk.offset + chunk.length).collect()
            }
            ChunkerName::MinCdcHash4 => {
                let (low, high) = (self.seed & u64::from(u32::MAX), self.seed >> 32);
                let [low, high] = [low, high].map(|half| u32::try_from(half).expect("half of 64 bits"));
                let hash = mincdc::MinCdcHash4::with_params(low | 1, high);
                let chunks = mincdc::SliceChunker::new(region, min, max, hash);
                chunks.map(|chunk| chunk.offset() + chunk.len()).collect()
            }
        }
    }

    /// The places within three bytes of a boundary or of the end of what decided about one.
    fn edges(&self, sequence: &Sequence, size: usize) -> BTreeSet<usize> {
        let chunker = Chunker::new(&self.params, self.seed);
        let mut edges = BTreeSet::new();
        for (number, region) in sequence.iter().enumerate() {
            let region_start = number * self.region_len as usize;
            let region_len = region.iter().map(|&(length, _)| length as usize).sum();
            let mut start = 0;
            for &(length, _) in region {
                let end = start + length as usize;
                for edge in [end, chunker.decided_by(start, end, region_len)] {
                    edges.extend((region_start + edge - 3..region_start + edge + 3).filter(|&at| at < size));
                }
                start = end;
            }
        }
        edges
    }

    /// Checks what becomes of a disk that began with `zeros` zeros when they end at `end` instead.
    fn check_edge_of_zeros(
        &self,
        parent: &Sequence,
        before: &[u8],
        (zeros, end): (usize, usize),
        label: u64,
    ) {
        let mut after = before.to_vec();
        let (start, filled) =
            if end > zeros { (zeros, vec![0; end - zeros]) } else { (end, random_bytes(7, zeros - end)) };
        after[start..start + filled.len()].copy_from_slice(&filled);
        let areas: Vec<Extent> =
            Extent::between(offset(start), offset(start + filled.len())).into_iter().collect();
        let source = Disk { bytes: &after, readable: None };
        let (sequence, _) = self.incremental(&source, &From::Parent(parent), &areas);
        assert_eq!(
            sequence,
            self.whole(&after),
            "{:?}, disk {label}, zeros up to {end} instead of {zeros}",
            self.params
        );
    }

    /// The sequence by re-chunking, and the bytes read for it.
    fn incremental(&self, disk: &Disk<'_>, from: &From<'_>, areas: &[Extent]) -> (Sequence, u64) {
        let chunker = Chunker::new(&self.params, self.seed);
        let pool = RegionPool::new(self.region_len);
        let mut sequence = Sequence::new();
        let mut read_bytes = 0;
        for (number, region) in disk.bytes.chunks(self.region_len as usize).enumerate() {
            let start = offset(number) * u64::from(self.region_len);
            let mut buffer = pool.region(disk, Extent { start, length: offset(region.len()) });
            let nothing = vec![(buffer.len(), None)];
            let parent: &[_] = match from {
                From::Nothing => &nothing,
                From::Parent(parent) => parent.get(number).map_or(&[], Vec::as_slice),
            };
            let old = old_pieces(parent);
            // What is read before makes no difference.
            if number % 2 == 1 {
                let ranges = foreseen(&chunker, (start, buffer.len()), &old, areas);
                buffer.load_first(&ranges).expect("the disk can be read");
            }
            let pieces = rechunk(&chunker, &mut buffer, &old, areas, blake3::hash);
            let mut end = 0;
            let pieces = pieces.expect("the disk can be read").into_iter().map(|piece| {
                assert_eq!(piece.start, end);
                end += piece.len;
                let id = match piece.content {
                    Content::Kept(index) => parent[index].1,
                    Content::Hole => None,
                    Content::Fresh(id) => Some(id),
                };
                (piece.len, id)
            });
            sequence.push(pieces.collect());
            read_bytes += buffer.read_bytes();
        }
        (sequence, read_bytes)
    }
}

fn fastcdc((min, average, max): (u32, u32, u32)) -> ChunkerParams {
    ChunkerParams { name: ChunkerName::FastCdc2020, min, average, max }
}

fn mincdc((min, max): (u32, u32)) -> ChunkerParams {
    ChunkerParams { name: ChunkerName::MinCdcHash4, min, average: min.midpoint(max), max }
}

/// One of each chunker, for small disks.
fn small_params() -> [ChunkerParams; 2] {
    [fastcdc((64, 256, 1024)), mincdc((128, 512))]
}

/// One of each chunker, with the lengths that repositories are made with.
fn default_params() -> [ChunkerParams; 2] {
    [ChunkerName::FastCdc2020, ChunkerName::MinCdcHash4].map(ChunkerParams::of)
}

fn default_setups() -> [Setup; 2] {
    default_params().map(|params| Setup { params, seed: 7, region_len: 16 << 20 })
}

fn old_pieces(sequence: &[(u32, Option<blake3::Hash>)]) -> Vec<OldPiece> {
    let mut start = 0;
    let piece = |&(len, id): &(u32, Option<blake3::Hash>)| {
        let piece = OldPiece { start, len, hole: id.is_none() };
        start += len;
        piece
    };
    sequence.iter().map(piece).collect()
}

fn offset(index: usize) -> u64 {
    u64::try_from(index).expect("a length fits in 64 bits")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("test disks are small")
}

/// Pseudo-random bytes, the same for ever for one label.
fn random_bytes(label: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&label.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What is written in one place of a disk.
#[derive(Clone, Copy, Debug)]
struct Write {
    anchor: Anchor,
    /// Added to the anchor.
    nudge: i8,
    length: u16,
    fill: Fill,
    /// The reported area is widened to multiples of so many bytes.
    report_align: u16,
}

#[derive(Clone, Copy, Debug)]
enum Anchor {
    /// A place anywhere.
    Any(u32),
    /// Where some piece of the sequence before starts.
    Boundary(u32),
    /// Where some region starts.
    RegionEdge(u32),
    DiskEnd,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Random(u64),
    Zero,
    Byte(u8),
    /// Inverts one bit of the first byte.
    Flip,
    /// The area is reported although nothing in it changed.
    Nothing,
}

/// One backup of a series.
#[derive(Clone, Debug)]
struct Generation {
    size: Option<u32>,
    writes: Vec<Write>,
}

/// A disk and what happens to it.
#[derive(Clone, Debug)]
struct History {
    params: ChunkerParams,
    seed: u64,
    region_len: u32,
    size: u32,
    generations: Vec<Generation>,
}

impl Write {
    /// Changes the disk and returns the area to report.
    fn apply(self, disk: &mut [u8], region_len: u32, before: &Sequence) -> Option<Extent> {
        let size = offset(disk.len());
        let anchor = match self.anchor {
            Anchor::Any(place) => u64::from(place) % size,
            Anchor::Boundary(nth) => {
                let lengths: Vec<u32> = before.iter().flatten().map(|&(length, _)| length).collect();
                lengths.iter().take(nth as usize % lengths.len()).map(|&length| u64::from(length)).sum()
            }
            Anchor::RegionEdge(nth) => u64::from(nth) * u64::from(region_len) % size,
            Anchor::DiskEnd => size,
        };
        let start = anchor.saturating_add_signed(i64::from(self.nudge));
        let area = Extent { start, length: u64::from(self.length) }.clip(0, size)?;
        let bytes = &mut disk[index(area.start)..index(area.end())];
        match self.fill {
            Fill::Random(label) => bytes.copy_from_slice(&random_bytes(label, bytes.len())),
            Fill::Zero => bytes.fill(0),
            Fill::Byte(byte) => bytes.fill(byte),
            Fill::Flip => bytes[0] ^= 1,
            Fill::Nothing => {}
        }
        let align = u64::from(self.report_align);
        Extent::between(area.start / align * align, area.end().next_multiple_of(align).min(size))
    }
}

impl History {
    /// Lives through the history, backing up each generation in four ways.
    fn check(&self) {
        let setup = Setup { params: self.params, seed: self.seed, region_len: self.region_len };
        let mut disk = vec![0; self.size as usize];
        let mut chain = setup.whole(&disk);
        for generation in &self.generations {
            let mut areas = Vec::new();
            if let Some(size) = generation.size {
                areas = resize_areas(offset(disk.len()), u64::from(size), self.region_len);
                // What a disk gains may be anything.
                let gained = random_bytes(u64::from(size), (size as usize).saturating_sub(disk.len()));
                disk.truncate(size as usize);
                disk.extend(gained);
            }
            let writes = generation.writes.iter();
            areas.extend(writes.filter_map(|write| write.apply(&mut disk, self.region_len, &chain)));
            let areas = normalized(areas);

            let expected = setup.whole(&disk);
            let source = Disk { bytes: &disk, readable: None };
            let (next, _) = setup.incremental(&source, &From::Parent(&chain), &areas);
            assert_eq!(next, expected, "incremental");
            let everything = [Extent { start: 0, length: offset(disk.len()) }];
            let (full, read_bytes) = setup.incremental(&source, &From::Nothing, &everything);
            assert_eq!(full, expected, "full");
            assert_eq!(read_bytes, offset(disk.len()), "a full read reads each byte once");
            for shortest in [1, 700] {
                let allocated = allocated(&disk, shortest);
                let source = Disk { bytes: &disk, readable: Some(&allocated) };
                let (sparse, _) = setup.incremental(&source, &From::Nothing, &allocated);
                assert_eq!(sparse, expected, "full, with runs of {shortest} zeros unallocated");
            }
            chain = next;
        }
    }
}

/// What remains of a disk if runs of zeros of at least `shortest` are unallocated.
fn allocated(disk: &[u8], shortest: usize) -> Vec<Extent> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in disk.iter().enumerate().filter(|&(_, &byte)| byte != 0) {
        match runs.last_mut() {
            Some(run) if at - run.end < shortest => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs.into_iter().map(|run| Extent { start: offset(run.start), length: offset(run.len()) }).collect()
}

fn write() -> impl Strategy<Value = Write> {
    let anchor = prop_oneof![
        3 => any::<u32>().prop_map(Anchor::Any),
        4 => any::<u32>().prop_map(Anchor::Boundary),
        1 => (0..9_u32).prop_map(Anchor::RegionEdge),
        1 => Just(Anchor::DiskEnd),
    ];
    let length = prop_oneof![3 => Just(1), 2 => 1..300_u16, 2 => 1..5000_u16, 1 => 1..40_000_u16];
    let fill = prop_oneof![
        4 => any::<u64>().prop_map(Fill::Random),
        4 => Just(Fill::Zero),
        1 => any::<u8>().prop_map(Fill::Byte),
        1 => Just(Fill::Flip),
        1 => Just(Fill::Nothing),
    ];
    let report_align = prop_oneof![4 => Just(1), 1 => Just(64), 1 => Just(512), 1 => Just(4096)];
    (anchor, -2..3_i8, length, fill, report_align).prop_map(|(anchor, nudge, length, fill, report_align)| {
        Write { anchor, nudge, length, fill, report_align }
    })
}

fn history() -> impl Strategy<Value = History> {
    let fastcdc = [(64, 256, 1024), (64, 300, 1026), (256, 256, 1024), (64, 1024, 1024)].map(fastcdc);
    let mincdc = [(64, 1024), (256, 767), (500, 501), (1024, 1024)].map(mincdc);
    let generation = (prop::option::weighted(0.2, 1..70_000_u32), prop::collection::vec(write(), 0..8))
        .prop_map(|(size, writes)| Generation { size, writes });
    let region_len = prop::sample::select(&[4096, 5001, 16_384, 65_536][..]);
    let generations = prop::collection::vec(generation, 1..5);
    let params = prop::sample::select([fastcdc, mincdc].concat());
    (params, any::<u64>(), region_len, 1..70_000_u32, generations).prop_map(
        |(params, seed, region_len, size, generations)| History {
            params,
            seed,
            region_len,
            size,
            generations,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_history_gives_what_chunking_the_whole_disk_gives(history in history()) {
        history.check();
    }
}

/// One change at a time, at every place around every boundary of small disks that have all kinds of them, and at every
/// place around the end of what decided about each.
#[test]
fn a_change_around_any_boundary_gives_what_chunking_the_whole_disk_gives() {
    for params in small_params() {
        for label in 0..40 {
            let seed = label * 0x0123_4567_89ab_cdef;
            let setup = Setup { params, seed, region_len: 4096 };
            let mut disk = random_bytes(label, 7000 + index(label % 2));
            disk[1500..3100].fill(0);
            disk[4096 + 2000..].fill(0);
            let before = setup.whole(&disk);
            for at in setup.edges(&before, disk.len()) {
                let original = disk[at];
                for byte in [original, 0, !original] {
                    disk[at] = byte;
                    let areas = [Extent { start: offset(at), length: 1 }];
                    let source = Disk { bytes: &disk, readable: None };
                    let (after, _) = setup.incremental(&source, &From::Parent(&before), &areas);
                    assert_eq!(after, setup.whole(&disk), "{params:?}, disk {label}, byte {at} is {byte}");
                }
                disk[at] = original;
            }
        }
    }
}

/// The last byte that a chunk's end depends on is changed so that it makes a difference, for the last chunk that lies
/// before the change. Few bytes do, so they are looked for.
#[test]
fn a_change_of_the_last_byte_that_decides_gives_what_chunking_the_whole_disk_gives() {
    for params in small_params() {
        let mut tried = 0;
        for label in 0..60 {
            let setup = Setup { params, seed: label * 0x0123_4567_89ab_cdef, region_len: 8192 };
            let chunker = Chunker::new(&params, setup.seed);
            let mut disk = random_bytes(label, 8192);
            let before = setup.whole(&disk);
            let mut start = 0;
            for &(length, _) in &before[0] {
                let end = start + length as usize;
                let at = chunker.decided_by(start, end, disk.len()) - 1;
                let original = disk[at];
                let cuts_elsewhere = |byte: &u8| {
                    disk[at] = *byte;
                    at >= end && setup.cuts(&disk[start..])[0] != length as usize
                };
                let found = (0..=255).find(cuts_elsewhere);
                if let Some(byte) = found {
                    tried += 1;
                    disk[at] = byte;
                    let areas = [Extent { start: offset(at), length: 1 }];
                    let source = Disk { bytes: &disk, readable: None };
                    let (after, _) = setup.incremental(&source, &From::Parent(&before), &areas);
                    assert_eq!(after, setup.whole(&disk), "{params:?}, disk {label}, byte {at} is {byte}");
                }
                disk[at] = original;
                start = end;
            }
        }
        assert!(tried > 100, "{params:?}: only {tried} such bytes were found");
    }
}

/// The last chunk of a hole is shorter than the others if the byte behind it cuts, which few do, and no chunker but
/// FastCDC. Whatever the hole then becomes, the chunks that it is taken apart into must be those that it was made of.
#[test]
fn a_hole_that_ends_with_a_short_chunk_gives_what_chunking_the_whole_disk_gives() {
    let params = fastcdc((64, 256, 1024));
    let mut tried = 0;
    for label in 0..60 {
        let setup = Setup { params, seed: label * 0x0123_4567_89ab_cdef, region_len: 8192 };
        let chunker = Chunker::new(&params, setup.seed);
        let zeros = 2 * chunker.zero_cut(8192) + 200;
        let mut before = random_bytes(label, 5000);
        before[..zeros].fill(0);
        let cuts = |byte: &u8| {
            before[zeros] = *byte;
            chunker.next_cut(&before[zeros - 200..]) == 200
        };
        if (1..=255).find(cuts).is_none() {
            continue;
        }
        tried += 1;
        let parent = setup.whole(&before);
        assert_eq!(parent[0][0], (u32::try_from(zeros).expect("the disk is small"), None));
        for end in zeros.saturating_sub(1100)..zeros + 1100 {
            setup.check_edge_of_zeros(&parent, &before, (zeros, end), label);
        }
    }
    assert!(tried > 3, "only {tried} disks have such a hole");
}

/// Zeros become longer and shorter, by each length.
#[test]
fn zeros_whose_end_moves_give_what_chunking_the_whole_disk_gives() {
    for params in small_params() {
        for label in 0..8 {
            let setup = Setup { params, seed: label * 0x0123_4567_89ab_cdef, region_len: 8192 };
            let zeros = 2000 + 37 * index(label);
            let mut before = random_bytes(label, 5000);
            before[..zeros].fill(0);
            let parent = setup.whole(&before);
            assert_eq!(parent[0][0].1, None, "it begins with a hole");
            for end in zeros - 1100..zeros + 1100 {
                setup.check_edge_of_zeros(&parent, &before, (zeros, end), label);
            }
        }
    }
}

#[test]
fn scattered_changes_read_less_than_three_times_their_bytes() {
    for params in default_params() {
        let mut disk = random_bytes(1, 96 << 20);
        let setup = Setup { params, seed: 0x0123_4567_89ab_cdef, region_len: 16 << 20 };
        let before = setup.whole(&disk);
        // One 64 KiB block somewhere in each MiB.
        let blocks = random_bytes(2, 96)
            .into_iter()
            .enumerate()
            .map(|(mib, block)| mib * 16 + usize::from(block % 16));
        let areas =
            normalized(blocks.map(|block| Extent { start: offset(block << 16), length: 1 << 16 }).collect());
        for area in &areas {
            disk[index(area.start)..index(area.end())]
                .copy_from_slice(&random_bytes(area.start, index(area.length)));
        }
        let source = Disk { bytes: &disk, readable: None };
        let (after, read_bytes) = setup.incremental(&source, &From::Parent(&before), &areas);
        assert_eq!(after, setup.whole(&disk));
        let changed_bytes = total_length(&areas);
        assert!(
            read_bytes < 3 * changed_bytes,
            "{params:?}: {read_bytes} bytes were read for {changed_bytes} changed ones"
        );
    }
}

#[test]
fn a_change_in_a_hole_that_a_decision_reaches_over_is_foreseen() {
    let chunker = Chunker::new(&mincdc((128, 512)), 1);
    let piece = |start, len, hole| OldPiece { start, len, hole };
    let old = [piece(0, 200, false), piece(200, 256, true), piece(456, 1000, false)];
    let areas = [Extent { start: 10, length: 10 }, Extent { start: 300, length: 50 }];
    assert_eq!(foreseen(&chunker, (0, 1456), &old, &areas), [0..200, 300..350, 456..512]);
}

#[test]
fn a_change_within_a_hole_reads_nothing_but_the_change() {
    let mut disk = vec![0; 40 << 20];
    for setup in default_setups() {
        disk.fill(0);
        let before = setup.whole(&disk);
        let area = Extent { start: (20 << 20) + 65_536, length: 65_536 };
        disk[index(area.start)..index(area.end())].fill(0xff);
        let source = Disk { bytes: &disk, readable: Some(&[area]) };
        let incremental = setup.incremental(&source, &From::Parent(&before), &[area]);
        assert_eq!(incremental, (setup.whole(&disk), area.length));
    }
}

#[test]
fn zeros_written_into_a_hole_do_not_make_the_data_behind_it_be_read() {
    let mut disk = vec![0; 4 << 20];
    disk.extend(random_bytes(4, 4 << 20));
    for setup in default_setups() {
        let parent = setup.whole(&disk);
        let area = Extent { start: 1 << 20, length: 65_536 };
        let source = Disk { bytes: &disk, readable: Some(&[area]) };
        let incremental = setup.incremental(&source, &From::Parent(&parent), &[area]);
        assert_eq!(incremental, (parent.clone(), area.length));
    }
}

#[test]
fn what_did_not_change_is_not_read() {
    let disk = random_bytes(3, 20 << 20);
    for setup in default_setups() {
        let before = setup.whole(&disk);
        let source = Disk { bytes: &disk, readable: Some(&[]) };
        assert_eq!(setup.incremental(&source, &From::Parent(&before), &[]), (before.clone(), 0));
    }
}

#[test]
fn a_resize_re_chunks_regions_whose_end_moved_and_what_was_gained() {
    let extent = |start, length| Extent { start, length };
    assert_eq!(resize_areas(250, 250, 100), []);
    assert_eq!(resize_areas(250, 470, 100), [extent(200, 270)]);
    assert_eq!(resize_areas(200, 470, 100), [extent(200, 270)]);
    assert_eq!(resize_areas(470, 250, 100), [extent(200, 50)]);
    assert_eq!(resize_areas(470, 200, 100), []);
    assert_eq!(resize_areas(270, 250, 100), [extent(200, 50)]);
}

/// If another version of a chunking crate cut elsewhere, nothing new would be found among what is stored.
#[test]
fn the_cut_points_of_a_fixed_buffer_stay_as_they_are() {
    let data = random_bytes(0, 1 << 20);
    let cuts = default_params().map(|params| {
        let chunker = Chunker::new(&params, 0x0123_4567_89ab_cdef);
        let mut cuts: Vec<usize> = Vec::new();
        while *cuts.last().unwrap_or(&0) < data.len() {
            let start = *cuts.last().unwrap_or(&0);
            cuts.push(start + chunker.next_cut(&data[start..]));
        }
        cuts
    });
    let fastcdc = vec![
        44_621, 61_947, 94_998, 136_187, 190_034, 230_593, 285_341, 349_974, 411_354, 430_230, 473_164,
        531_518, 548_747, 572_952, 615_765, 658_786, 675_948, 757_116, 805_062, 866_516, 917_660, 969_083,
        1_024_896, 1_048_576,
    ];
    let mincdc = vec![
        47_559, 111_536, 140_085, 166_877, 217_117, 276_884, 306_491, 367_203, 388_983, 444_285, 475_967,
        513_309, 575_668, 636_228, 669_864, 730_290, 780_272, 806_987, 845_074, 885_214, 907_396, 952_260,
        1_011_410, 1_043_749, 1_048_576,
    ];
    assert_eq!(cuts, [fastcdc, mincdc]);
}
