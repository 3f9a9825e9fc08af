//! A target in memory, for tests and benchmarks.

use super::DiskTarget;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A disk that is restored into memory. Bytes that nobody wrote are not zero.
#[derive(Debug)]
pub struct MemoryTarget {
    bytes: Mutex<Vec<u8>>,
}

/// What a byte is before it is written.
const UNWRITTEN: u8 = 0xA5;

impl MemoryTarget {
    /// A target of so many bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { bytes: Mutex::new(vec![UNWRITTEN; len]) }
    }

    /// What was restored.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let part = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..len));
        change(part.ok_or(io::ErrorKind::WriteZero)?);
        Ok(())
    }
}

impl DiskTarget for MemoryTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(offset, data.len(), |part| part.copy_from_slice(data))
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let len = usize::try_from(length).map_err(io::Error::other)?;
        self.change(offset, len, |part| part.fill(0))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}
