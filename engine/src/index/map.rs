//! Read-only memory mappings of the cache's own files: the only unsafe code of the index.
#![expect(unsafe_code, reason = "a memory mapping is what keeps a large index out of resident memory")]

use memmap2::{Advice, Mmap};
use std::fs::File;
use std::io;

/// A whole file in memory, its pages reclaimable by the kernel.
pub(super) struct Mapping(Mmap);

impl Mapping {
    /// Maps a table file that was written completely.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: a mapping is sound while nobody changes or shortens the file. Table files lie in a directory
        // that only their owner can enter; they are written under a temporary name, mapped or renamed when they
        // are complete, and afterwards only unlinked, which leaves existing mappings as they are. Nothing is
        // trusted on the strength of this: readers copy what they use and check the copy.
        let map = unsafe { Mmap::map(file) }?;
        let mapping = Self(map);
        mapping.expect_random();
        Ok(mapping)
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Announces single reads at random places, so that a cold lookup costs one page and not a read-ahead window.
    pub(super) fn expect_random(&self) {
        // Advice is an optimisation: a system that does not take it works the same.
        let _ = self.0.advise(Advice::Random);
    }

    /// Announces one pass from the beginning to the end.
    pub(super) fn expect_sequential(&self) {
        let _ = self.0.advise(Advice::Sequential);
    }
}
