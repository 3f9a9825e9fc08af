//! The bytes of a table: sizes, the preamble, and the keyed checksums.
//!
//! ```text
//! preamble    176 bytes, with a checksum of its own
//! meta        covered index blobs, sessions, packs (meta.rs)
//! fence       for each value of the top `fence_bits` bits of an id: the first entry not below it, u32
//! tags        for each entry, sorted by id: the 16 bits of the id below those of the fence, u16
//! blocks      4 KiB each: a 16-byte check, then 83 records of 49 bytes
//! ```
//! Fence and tags are all that a lookup needs to know that a chunk is not there, and take 2.1 bytes an entry: they are
//! mapped and stay in memory, while blocks are read from the file. One miss in some thousand reads a block in vain.
//!
//! The meta is checked when a table is opened, and a block whenever one of its records is used. Fence and tags are
//! not: damage there makes misses, never a wrong record, and each merge makes them anew from records.

use blake3::Hasher;
use repo_format::{Codec, RepositoryId};

/// The first bytes of a table.
const MAGIC: [u8; 8] = *b"KEEPTABL";
/// The version of this layout; part of the files' names too, so that versions do not see each other's files.
pub(super) const VERSION: u32 = 2;
/// Bytes of the preamble.
pub(super) const PREAMBLE_LEN: usize = 176;
/// Bytes of the preamble before its checksum.
const PREAMBLE_BODY_LEN: usize = 144;
/// Bytes of a tag: among the entries of one fence entry, few enough that a miss almost never reads a block.
pub(super) const TAG_LEN: usize = 2;
/// Bytes of a fence entry.
pub(super) const FENCE_ENTRY_LEN: usize = 4;
/// Bytes of a block: one page, so that a hit costs one page of records.
pub(super) const BLOCK_LEN: usize = 4096;
/// Bytes of a block's check.
pub(super) const BLOCK_CHECK_LEN: usize = 16;
/// Bytes of a record: the id, then pack number, offset, stored length, plain length, codec.
pub(super) const RECORD_LEN: usize = 49;
/// Records in a full block.
pub(super) const RECORDS_PER_BLOCK: usize = (BLOCK_LEN - BLOCK_CHECK_LEN) / RECORD_LEN;
/// Entries for each fence entry, at least; nearly always fewer than twice as many: two cache lines of tags.
const ENTRIES_PER_FENCE: u64 = 32;
/// The most bits of a fence: 512 MiB of it, for 4 billion entries.
const FENCE_BITS_MAX: u32 = 27;

/// A keyed checksum of everything that a table says.
pub(crate) type Check = [u8; 32];

/// Makes the checksums of one repository's cache.
#[derive(Clone)]
pub(crate) struct Checks {
    key: [u8; 32],
    repository: RepositoryId,
}

impl Checks {
    pub(crate) fn new(key: [u8; 32], repository: RepositoryId) -> Self {
        Self { key, repository }
    }

    pub(super) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The checksum of `parts` in the role `label`; all parts but the last have a fixed length in each role.
    pub(crate) fn check(&self, label: [u8; 8], parts: &[&[u8]]) -> Check {
        let mut hasher = Hasher::new_keyed(&self.key);
        hasher.update(&label).update(&self.repository.0);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// The checks of the blocks of the table whose meta has the checksum `binding`.
    pub(super) fn of_blocks(&self, binding: &Check) -> BlockChecks {
        BlockChecks { key: self.check(*b"idxblock", &[binding]) }
    }
}

/// Makes the checks of one table's blocks.
pub(super) struct BlockChecks {
    key: Check,
}

impl BlockChecks {
    /// The check of block `number`. The first [`BLOCK_CHECK_LEN`] bytes of `block`, where it belongs, are overwritten:
    /// what is hashed is four whole chunks of BLAKE3, side by side.
    pub(super) fn check(&self, number: u64, block: &mut [u8; BLOCK_LEN]) -> [u8; BLOCK_CHECK_LEN] {
        block[..BLOCK_CHECK_LEN].fill(0);
        block[..8].copy_from_slice(&number.to_le_bytes());
        array(blake3::keyed_hash(&self.key, block).as_bytes(), 0)
    }
}

/// Where the parts of a table are and how many entries it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) fence_bits: u32,
    /// Higher in newer tables; a merged table has the highest of those it was made from.
    pub(super) sequence: u64,
    pub(super) entries: u64,
    pub(super) meta_len: u64,
    pub(super) tags_offset: u64,
    pub(super) blocks_offset: u64,
    pub(super) file_len: u64,
    /// The checksum of the meta; binds blocks to the packs that their records name by number.
    pub(super) binding: Check,
    /// A hash of the blocks' checks: makes the file's name depend on all of its content.
    pub(super) content: Check,
}

impl Preamble {
    /// The layout of a table with at most `entries_max` entries; `entries` and what depends on it is still zero.
    pub(super) fn plan(sequence: u64, entries_max: u64, meta_len: u64, binding: Check) -> Self {
        let fence_bits = (entries_max / ENTRIES_PER_FENCE).max(2).ilog2().min(FENCE_BITS_MAX);
        let mut preamble = Self {
            fence_bits,
            sequence,
            entries: 0,
            meta_len,
            tags_offset: 0,
            blocks_offset: 0,
            file_len: 0,
            binding,
            content: [0; 32],
        };
        let block = len_u64(BLOCK_LEN);
        let fence_end = preamble.fence_offset() + preamble.fence_len();
        preamble.tags_offset = fence_end.next_multiple_of(block);
        preamble.blocks_offset =
            (preamble.tags_offset + entries_max * len_u64(TAG_LEN)).next_multiple_of(block);
        preamble
    }

    pub(super) fn fence_offset(&self) -> u64 {
        (len_u64(PREAMBLE_LEN) + self.meta_len).next_multiple_of(8)
    }

    pub(super) fn fence_len(&self) -> u64 {
        ((1_u64 << self.fence_bits) + 1) * len_u64(FENCE_ENTRY_LEN)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.entries.div_ceil(len_u64(RECORDS_PER_BLOCK))
    }

    pub(super) fn encode(&self, checks: &Checks) -> [u8; PREAMBLE_LEN] {
        let mut bytes = Vec::with_capacity(PREAMBLE_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.fence_bits.to_le_bytes());
        bytes.extend_from_slice(&checks.repository().0);
        for number in
            [self.sequence, self.entries, self.meta_len, self.tags_offset, self.blocks_offset, self.file_len]
        {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for check in [&self.binding, &self.content] {
            bytes.extend_from_slice(check);
        }
        let check = checks.check(*b"idxpream", &[&bytes]);
        bytes.extend_from_slice(&check);
        bytes.try_into().expect("the fields above add up to the preamble's length")
    }

    /// Reads and checks a preamble, and that it fits a file of `file_len` bytes.
    pub(super) fn parse(bytes: &[u8], file_len: u64, checks: &Checks) -> Result<Self, Damaged> {
        let preamble = bytes.get(..PREAMBLE_LEN).ok_or(Damaged)?;
        let (body, check) = preamble.split_at(PREAMBLE_BODY_LEN);
        let number = |at: usize| u64::from_le_bytes(array(body, at));
        let word = |at: usize| u32::from_le_bytes(array(body, at));
        let ours = body[..8] == MAGIC && word(8) == VERSION && array::<16>(body, 16) == checks.repository().0;
        if !ours || checks.check(*b"idxpream", &[body]) != check {
            return Err(Damaged);
        }
        let parsed = Self {
            fence_bits: word(12),
            sequence: number(32),
            entries: number(40),
            meta_len: number(48),
            tags_offset: number(56),
            blocks_offset: number(64),
            file_len: number(72),
            binding: array(body, 80),
            content: array(body, 112),
        };
        if parsed.file_len == file_len && parsed.is_consistent() { Ok(parsed) } else { Err(Damaged) }
    }

    /// Whether the parts follow each other within the file; the file's length is a real one, so nothing overflows
    /// once each field is below it.
    fn is_consistent(&self) -> bool {
        let fields = [self.meta_len, self.tags_offset, self.blocks_offset];
        (1..=FENCE_BITS_MAX).contains(&self.fence_bits)
            && self.file_len < 1 << 60
            && u32::try_from(self.entries).is_ok()
            && fields.iter().all(|&field| field <= self.file_len)
            && self.fence_offset() + self.fence_len() <= self.tags_offset
            && self.tags_offset + self.entries * len_u64(TAG_LEN) <= self.blocks_offset
            && self.blocks_offset + self.blocks() * len_u64(BLOCK_LEN) == self.file_len
    }
}

/// A table is not what was written; it is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// One entry of a table: a chunk and where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: [u8; 32],
    /// The number of the pack in the table's own list.
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) stored_len: u32,
    pub(super) plain_len: u32,
    pub(super) codec: Codec,
}

impl Record {
    pub(super) fn encode(&self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.id);
        for (at, number) in [(32, self.pack), (36, self.offset), (40, self.stored_len), (44, self.plain_len)]
        {
            out[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        out[48] = self.codec as u8;
    }

    /// The record of `RECORD_LEN` bytes; nothing if its codec is none.
    pub(super) fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let codec = Codec::from_number(bytes[48]).ok()?;
        let word = |at: usize| u32::from_le_bytes(array(bytes, at));
        let (pack, offset, stored_len, plain_len) = (word(32), word(36), word(40), word(44));
        Some(Self { id: array(bytes, 0), pack, offset, stored_len, plain_len, codec })
    }
}

/// Where an id belongs in a table: the number of its fence entry, and its tag.
pub(super) fn bucket_and_tag(id: &[u8; 32], fence_bits: u32) -> (usize, u16) {
    let prefix = u64::from_be_bytes(array(id, 0));
    let bucket = usize::try_from(prefix >> (64 - fence_bits)).expect("a fence has at most 2^27 buckets");
    let [high, low, ..] = (prefix << fence_bits).to_be_bytes();
    (bucket, u16::from_be_bytes([high, low]))
}

/// `N` bytes at `at`, which the caller knows to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

/// A length in memory as a length in a file.
pub(super) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("lengths in memory have at most 64 bits")
}
