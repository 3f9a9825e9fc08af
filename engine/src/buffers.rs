//! Allocations that are used again: fresh memory costs a page fault for each 4 KiB, which is dearer than sealing them.

use crate::frames::lock;
use std::sync::Mutex;

/// Idle buffers of about one size. It holds as many as were ever in use at once.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// An empty buffer, with the capacity of an earlier one if one is idle.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut buffer = lock(&self.idle).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer back; one without an allocation is not worth keeping.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            lock(&self.idle).push(buffer);
        }
    }

    /// How many are idle.
    #[cfg(test)]
    pub(crate) fn idle_count(&self) -> usize {
        lock(&self.idle).len()
    }
}
