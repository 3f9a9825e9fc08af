//! Read-only memory mappings of the cache's own files: the only unsafe code of the index.
#![expect(unsafe_code, reason = "a memory mapping is what keeps a large index out of resident memory")]

use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;

/// The beginning of a file in memory, its pages reclaimable by the kernel.
pub(super) struct Mapping(Mmap);

impl Mapping {
    /// Maps the first `len` bytes of a table file that was written completely and is at least as long.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: a mapping is sound while nobody changes or shortens the file. Table files lie in a directory
        // that only their owner can enter; they are written under a temporary name, mapped or renamed when they
        // are complete, and afterwards only unlinked, which leaves existing mappings as they are. Nothing is
        // trusted on the strength of this: a checked copy is what is used, or damage makes a miss.
        Ok(Self(unsafe { MmapOptions::new().len(len).map(file) }?))
    }

    /// The mapped bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
