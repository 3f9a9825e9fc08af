//! A target that costs nothing.

use crate::DiskTarget;
use std::io;

/// A target that takes everything and keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl DiskTarget for Nothing {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}
