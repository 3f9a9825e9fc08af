//! A new file that is written in whole blocks past the page cache.
//!
//! Chunks end anywhere, and come in nearly any order. They are put together to blocks of 1 MiB; those that are complete
//! are written directly by threads of their own, which wait for the disk while others decode. The page cache would take a
//! copy of each byte in fresh memory, and lets one thread at a time write a file. What does not become complete while
//! [`BLOCKS_MAX`] others begin, or until everything is to be durable, goes through the page cache, and so does everything
//! where the file system has no direct writes.
//!
//! # Memory
//! `(BLOCKS_MAX + WRITERS + BLOCKS_QUEUED) x BLOCK_LEN`: 38 MiB.

mod assembly;

use crate::direct::AlignedPool;
use crate::frames::lock;
use assembly::{Assembly, BLOCK_LEN, Block};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[cfg(doc)]
use assembly::BLOCKS_MAX;

/// Threads that write: while one has the next block copied to the kernel's queue, the other waits for the disk.
const WRITERS: usize = 2;
/// Complete blocks that wait for a writer: so that none of these waits for a block.
const BLOCKS_QUEUED: usize = 4;

/// Writes pieces of a new file of known length in any order. The first failure of writing is the error of each call
/// after it.
#[derive(Debug)]
pub(super) struct BlockWriter {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    /// The same file, opened for direct writes.
    direct: Option<File>,
    direct_works: AtomicBool,
    size: u64,
    pool: AlignedPool,
    assembly: Mutex<Assembly>,
    queue: Mutex<Queue>,
    /// The queue, or what is being written, became shorter or longer.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    complete: Vec<Block>,
    being_written: usize,
    ended: bool,
    failure: Option<Failure>,
}

/// An error that can be told more than once.
#[derive(Clone, Copy, Debug)]
struct Failure {
    errno: Option<i32>,
    kind: io::ErrorKind,
}

impl Failure {
    fn error(self) -> io::Error {
        self.errno.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error(), kind: error.kind() }
    }
}

impl BlockWriter {
    /// Begins with a file of `size` bytes of which all is a hole. `direct` is the same file, opened for direct writes, if
    /// that can be done.
    pub(super) fn new(file: File, direct: Option<File>, size: u64) -> Self {
        let shared = Arc::new(Shared {
            file,
            direct_works: AtomicBool::new(direct.is_some()),
            direct,
            size,
            pool: AlignedPool::default(),
            assembly: Mutex::new(Assembly::new(size)),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let writers = (0..WRITERS).map(|_| {
            let shared = Arc::clone(&shared);
            #[expect(
                clippy::disallowed_methods,
                reason = "it writes while other calls come, and is joined when the target is dropped"
            )]
            std::thread::spawn(move || shared.write_blocks())
        });
        Self { writers: writers.collect(), shared }
    }

    /// Writes data within the file, sooner or later.
    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(left_in_block(offset)));
            let (complete, overdue) = {
                let mut assembly = lock(&self.shared.assembly);
                (assembly.data(offset, piece, &self.shared.pool)?, assembly.overdue())
            };
            if let Some(block) = overdue {
                self.shared.write_data(block)?;
            }
            self.shared.enqueue(complete)?;
            (offset, data) = (offset + piece.len() as u64, rest);
        }
        Ok(())
    }

    /// Says that a range within the file stays a hole.
    pub(super) fn leave_hole(&self, offset: u64, end: u64) -> io::Result<()> {
        let edges = [offset..end.min(block_end(offset)), (end - end % BLOCK_LEN as u64).max(offset)..end];
        let [first, last] = edges;
        self.leave(first.start, first.end)?;
        // Blocks between the first and the last are holes whole.
        if last.start > offset { self.leave(last.start, last.end) } else { Ok(()) }
    }

    fn leave(&self, start: u64, end: u64) -> io::Result<()> {
        let len = usize::try_from(end - start).expect("it is within a block");
        let complete = if len == 0 { None } else { lock(&self.shared.assembly).hole(start, len) };
        self.shared.enqueue(complete)
    }

    /// Writes everything that waits. It is not durable yet.
    pub(super) fn write_out(&self) -> io::Result<()> {
        let rest = lock(&self.shared.assembly).take_all();
        rest.into_iter().try_for_each(|block| self.shared.write_data(block))?;
        let idle = self.shared.wait(|queue| queue.complete.is_empty() && queue.being_written == 0);
        idle.failure.map_or(Ok(()), |failure| Err(failure.error()))
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        lock(&self.shared.queue).ended = true;
        self.shared.changed.notify_all();
        for writer in self.writers.drain(..) {
            // What became of it is known: a panic has failed the calls that waited for it.
            let _panicked = writer.join();
        }
    }
}

impl Shared {
    /// Hands a complete block to the writers, as soon as there is room.
    fn enqueue(&self, block: Option<Block>) -> io::Result<()> {
        let Some(block) = block else { return Ok(()) };
        let mut queue = self.wait(|queue| queue.complete.len() < BLOCKS_QUEUED);
        if let Some(failure) = queue.failure {
            return Err(failure.error());
        }
        queue.complete.push(block);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until something holds of the queue, or writing has failed.
    fn wait(&self, holds: impl Fn(&Queue) -> bool) -> MutexGuard<'_, Queue> {
        let until = |queue: &mut Queue| !holds(queue) && queue.failure.is_none();
        self.changed.wait_while(lock(&self.queue), until).unwrap_or_else(PoisonError::into_inner)
    }

    fn write_blocks(&self) {
        loop {
            let mut queue = self.wait(|queue| !queue.complete.is_empty() || queue.ended);
            if queue.failure.is_some() {
                return;
            }
            let Some(block) = queue.complete.pop() else { return };
            queue.being_written += 1;
            drop(queue);
            let mut writing = Writing { shared: self, result: None };
            writing.result = Some(self.write_complete(block));
        }
    }

    /// Writes a block of which all is known.
    fn write_complete(&self, mut block: Block) -> io::Result<()> {
        let whole = block.offset() + BLOCK_LEN as u64 <= self.size;
        let direct = self.direct.as_ref().filter(|_| whole && self.direct_works.load(Relaxed));
        if let Some(direct) = direct {
            let written = block.pages().try_for_each(|(offset, bytes)| direct.write_all_at(bytes, offset));
            match written {
                // The file system does not take it after all, or wants longer blocks.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.direct_works.store(false, Relaxed);
                }
                result => {
                    self.pool.give_back(block);
                    return result;
                }
            }
        }
        self.write_data(block)
    }

    /// Writes the data of a block through the page cache.
    fn write_data(&self, block: Block) -> io::Result<()> {
        let result = block.data().try_for_each(|(offset, bytes)| self.file.write_all_at(bytes, offset));
        self.pool.give_back(block);
        result
    }
}

impl AlignedPool {
    fn give_back(&self, block: Block) {
        if let Some(memory) = block.memory {
            self.give(memory);
        }
    }
}

/// A block that is being written; a panic meanwhile is a failure, so that nobody waits for what will not come.
struct Writing<'a> {
    shared: &'a Shared,
    result: Option<io::Result<()>>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.being_written -= 1;
        match self.result.take() {
            Some(Ok(())) => {}
            Some(Err(error)) => drop(queue.failure.get_or_insert(error.into())),
            None => drop(queue.failure.get_or_insert(io::Error::from(io::ErrorKind::Other).into())),
        }
        self.shared.changed.notify_all();
    }
}

fn block_end(offset: u64) -> u64 {
    offset - offset % BLOCK_LEN as u64 + BLOCK_LEN as u64
}

fn left_in_block(offset: u64) -> usize {
    usize::try_from(block_end(offset) - offset).expect("a block fits memory")
}
