//! Bringing into order what arrives in any order.

use super::{TargetError, len_of};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can only be written from front to back.
pub(super) trait Sequential {
    /// Writes the next `length` bytes of the disk, given as `data`, which may be another form of them.
    fn write_data(&mut self, length: u64, data: &[u8]) -> io::Result<()>;
    /// Writes that the next `length` bytes of the disk are zeros.
    fn write_zeros(&mut self, length: u64) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
    fn finish(&mut self) -> io::Result<()>;
    /// The error for a call after a failure.
    fn not_written(&self, source: io::Error) -> io::Error;
}

/// Calls for ranges of a disk in any order, from several threads, become calls from front to back.
///
/// What comes too early is kept in memory, up to a limit; zeros cost none and may be of any length.
#[derive(Debug)]
pub(super) struct InOrder<S> {
    size: u64,
    kept_max: u64,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
struct State<S> {
    sequential: S,
    /// Bytes of the disk written; everything kept lies behind.
    position: u64,
    /// What came too early, by offset.
    kept: BTreeMap<u64, Piece>,
    /// How much of it is data.
    kept_bytes: u64,
    /// Set by the first failure, after which nobody knows what was written.
    failed: Option<io::ErrorKind>,
}

/// A part of the disk: nothing where it is zero.
#[derive(Debug)]
struct Piece {
    length: u64,
    data: Option<Vec<u8>>,
}

impl<S: Sequential> InOrder<S> {
    /// Brings a disk of `size` bytes into order, keeping at most `kept_max` bytes that come too early.
    pub(super) fn new(sequential: S, size: u64, kept_max: u64) -> Self {
        let state = State { sequential, position: 0, kept: BTreeMap::new(), kept_bytes: 0, failed: None };
        Self { size, kept_max, state: Mutex::new(state) }
    }

    /// Gives back what was written to.
    pub(super) fn into_inner(self) -> S {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).sequential
    }

    // The lock is held while something is written: that is what makes it one sequence, and a slow reader of a stream
    // must slow down the restore anyway.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        // A panic in another thread can only have been the writer's; then `failed` was set before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `length` bytes at `offset`, within the disk; `data` may be another form of them.
    pub(super) fn put(&self, offset: u64, length: u64, data: Cow<'_, [u8]>) -> io::Result<()> {
        let end = offset + length;
        let mut state = self.state();
        state.check()?;
        if length == 0 {
            return Ok(());
        }
        state.check_new(offset, end)?;
        if offset == state.position {
            return state.guarded(|state| {
                state.sequential.write_data(length, &data)?;
                state.position = end;
                state.write_kept()
            });
        }
        let bytes = len_of(&data);
        if state.kept_bytes + bytes > self.kept_max {
            let reason = "too much that comes before them is missing";
            return Err(TargetError::OutOfRange { offset, end, reason }.into());
        }
        state.kept_bytes += bytes;
        state.kept.insert(offset, Piece { length, data: Some(data.into_owned()) });
        Ok(())
    }

    /// Takes zeros, within the disk.
    pub(super) fn put_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        let mut state = self.state();
        state.check()?;
        if length == 0 {
            return Ok(());
        }
        state.check_new(offset, end)?;
        if offset == state.position {
            return state.guarded(|state| {
                state.sequential.write_zeros(length)?;
                state.position = end;
                state.write_kept()
            });
        }
        state.kept.insert(offset, Piece { length, data: None });
        Ok(())
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.guarded(|state| state.sequential.flush())
    }

    /// Ends it, if nothing of the disk is missing.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        if state.position != self.size {
            return Err(TargetError::Incomplete { written: state.position, disk_bytes: self.size }.into());
        }
        state.guarded(|state| state.sequential.finish())
    }
}

impl<S: Sequential> State<S> {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            None => Ok(()),
            Some(kind) => Err(self.sequential.not_written(kind.into())),
        }
    }

    /// Runs what writes; after a failure nothing is written any more.
    fn guarded(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.failed = Some(io::ErrorKind::Other);
        let result = write(self);
        // The kind stays: a reader that has seen enough (`BrokenPipe`) is told from a full disk by it.
        self.failed = result.as_ref().err().map(io::Error::kind);
        result
    }

    /// Writes what was kept and is next.
    fn write_kept(&mut self) -> io::Result<()> {
        while let Some(Piece { length, data }) = self.kept.remove(&self.position) {
            match data {
                Some(data) => {
                    self.kept_bytes -= len_of(&data);
                    self.sequential.write_data(length, &data)?;
                }
                None => self.sequential.write_zeros(length)?,
            }
            self.position += length;
        }
        Ok(())
    }

    /// Checks that a range was not there before; ranges are not empty.
    fn check_new(&self, offset: u64, end: u64) -> Result<(), TargetError> {
        let before = self.kept.range(..end).next_back();
        let kept_end = before.map_or(0, |(start, piece)| start + piece.length);
        if offset < self.position || offset < kept_end {
            return Err(TargetError::OutOfRange { offset, end, reason: "they were written before" });
        }
        Ok(())
    }
}
