//! A new file that is written in whole blocks past the page cache.
//!
//! Chunks end anywhere, and come in nearly any order. They are put together to blocks of 1 MiB; those that are complete
//! are written directly by threads of their own, which wait for the disk while others decode. The page cache would take a
//! copy of each byte in fresh memory, and lets one thread at a time write a file. What does not become complete while
//! [`BLOCKS_MAX`] others begin, or until everything is to be durable, goes through the page cache, and so does everything
//! where the file system has no direct writes.
//!
//! # Memory
//! `(BLOCKS_MAX + BLOCKS_QUEUED + 2 + WRITERS) x BLOCK_LEN`, 40 MiB: the last two of those queued come with one piece.

mod assembly;

use crate::direct::AlignedPool;
use crate::frames::lock;
use assembly::{Assembly, BLOCK_LEN, Block};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
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
/// Blocks that wait for a writer when more data is taken: so that no writer waits for a block.
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
    /// A block is in one of its parts at any time, from its first piece until it is written: so nobody who waits for what
    /// came before misses one.
    state: Mutex<State>,
    /// There is more to write, or less, or nothing more will come.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    assembly: Assembly,
    /// What is to be written, the oldest first, with numbers that rise.
    queue: VecDeque<(u64, Block, Known)>,
    /// The numbers of what is being written.
    being_written: BTreeSet<u64>,
    /// The number of the next block.
    next: u64,
    ended: bool,
    failure: Option<Failure>,
}

/// How much is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    All,
    Part,
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

impl State {
    fn new(size: u64) -> Self {
        Self {
            assembly: Assembly::new(size),
            queue: VecDeque::new(),
            being_written: BTreeSet::new(),
            next: 0,
            ended: false,
            failure: None,
        }
    }

    fn push(&mut self, block: Block, known: Known) {
        self.queue.push_back((self.next, block, known));
        self.next += 1;
    }

    /// Whether all blocks with lower numbers are written.
    fn is_written_up_to(&self, number: u64) -> bool {
        let first = self.queue.front().map(|(first, ..)| *first);
        first.into_iter().chain(self.being_written.first().copied()).all(|first| first >= number)
    }

    fn result(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure.error()))
    }
}

impl BlockWriter {
    /// Begins with a file of `size` bytes of which all is a hole. `direct` is the same file, opened for direct writes, if
    /// that can be done.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn new(file: File, direct: Option<File>, size: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            file,
            direct_works: AtomicBool::new(direct.is_some()),
            direct,
            size,
            pool: AlignedPool::default(),
            state: Mutex::new(State::new(size)),
            changed: Condvar::new(),
        });
        // From here on dropping it ends the threads that there are.
        let mut writer = Self { writers: Vec::new(), shared };
        for _ in 0..WRITERS {
            let shared = Arc::clone(&writer.shared);
            // It writes while other calls come, and is joined when the target is dropped.
            let thread = std::thread::Builder::new().spawn(move || shared.write_blocks())?;
            writer.writers.push(thread);
        }
        Ok(writer)
    }

    /// Writes data within the file, sooner or later.
    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(left_in_block(offset)));
            let mut state = self.shared.wait(|state| state.queue.len() < BLOCKS_QUEUED);
            state.result()?;
            if let Some(block) = state.assembly.data(offset, piece, &self.shared.pool)? {
                state.push(block, Known::All);
            }
            if let Some(block) = state.assembly.overdue() {
                state.push(block, Known::Part);
            }
            drop(state);
            self.shared.changed.notify_all();
            (offset, data) = (offset + piece.len() as u64, rest);
        }
        Ok(())
    }

    /// Says that a range within the file stays a hole.
    pub(super) fn leave_hole(&self, offset: u64, end: u64) -> io::Result<()> {
        self.leave(offset, end.min(block_end(offset)))?;
        // Blocks between the first and the last are holes whole.
        let last = end - end % BLOCK_LEN as u64;
        if last > offset { self.leave(last, end) } else { Ok(()) }
    }

    /// Leaves a hole within one block.
    fn leave(&self, start: u64, end: u64) -> io::Result<()> {
        let len = usize::try_from(end - start).expect("it is within a block");
        let mut state = self.shared.wait(|state| state.queue.len() < BLOCKS_QUEUED);
        state.result()?;
        if len > 0
            && let Some(block) = state.assembly.hole(start, len)
        {
            state.push(block, Known::All);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Writes everything that was given before. It is not durable yet.
    pub(super) fn write_out(&self) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        for block in state.assembly.take_all() {
            state.push(block, Known::Part);
        }
        let number = state.next;
        drop(state);
        self.shared.changed.notify_all();
        self.shared.wait(|state| state.is_written_up_to(number)).result()
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        lock(&self.shared.state).ended = true;
        self.shared.changed.notify_all();
        for writer in self.writers.drain(..) {
            // What became of it is known: a panic has failed the calls that waited for it.
            let _panicked = writer.join();
        }
    }
}

impl Shared {
    /// Waits until something holds, or writing has failed.
    fn wait(&self, holds: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let until = |state: &mut State| !holds(state) && state.failure.is_none();
        self.changed.wait_while(lock(&self.state), until).unwrap_or_else(PoisonError::into_inner)
    }

    fn write_blocks(&self) {
        loop {
            let mut state = self.wait(|state| !state.queue.is_empty() || state.ended);
            if state.failure.is_some() {
                return;
            }
            let Some((number, block, known)) = state.queue.pop_front() else { return };
            state.being_written.insert(number);
            drop(state);
            // There is room in the queue.
            self.changed.notify_all();
            let mut writing = Writing { shared: self, number, result: None };
            writing.result = Some(self.write(block, known));
        }
    }

    fn write(&self, mut block: Block, known: Known) -> io::Result<()> {
        let result = match self.write_directly(&mut block, known) {
            Some(result) => result,
            None => block.data().try_for_each(|(offset, bytes)| self.file.write_all_at(bytes, offset)),
        };
        if let Some(memory) = block.memory {
            self.pool.give(memory);
        }
        result
    }

    /// Writes the pages of a block of which all is known, if that can be done.
    fn write_directly(&self, block: &mut Block, known: Known) -> Option<io::Result<()>> {
        let whole = known == Known::All && block.offset() + BLOCK_LEN as u64 <= self.size;
        let direct = self.direct.as_ref().filter(|_| whole && self.direct_works.load(Relaxed))?;
        let written = block.pages().try_for_each(|(offset, bytes)| direct.write_all_at(bytes, offset));
        match written {
            // The file system does not take it after all, or wants longer blocks.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.direct_works.store(false, Relaxed);
                None
            }
            result => Some(result),
        }
    }
}

/// A block that is being written; a panic meanwhile is a failure, so that nobody waits for what will not come.
struct Writing<'a> {
    shared: &'a Shared,
    number: u64,
    result: Option<io::Result<()>>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.being_written.remove(&self.number);
        let result = self.result.take().unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
        if let Err(error) = result {
            state.failure.get_or_insert(error.into());
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

fn block_end(offset: u64) -> u64 {
    offset - offset % BLOCK_LEN as u64 + BLOCK_LEN as u64
}

fn left_in_block(offset: u64) -> usize {
    usize::try_from(block_end(offset) - offset).expect("a block fits memory")
}

#[cfg(test)]
mod tests {
    use super::assembly::BLOCKS_MAX;
    use super::*;
    use crate::direct::open_again;
    use std::fs::{self, OpenOptions};

    const LEN: u64 = BLOCK_LEN as u64;

    fn new_file(size: u64) -> (tempfile::TempDir, File, Option<File>) {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        let direct = open_again(&path, &file, OpenOptions::new().write(true));
        (dir, file, direct)
    }

    #[test]
    fn a_failure_of_writing_is_the_error_of_all_calls_after_it() {
        let (dir, _, direct) = new_file(1 << 40);
        // It can be read only: whatever is written through the page cache fails.
        let file = File::open(dir.path().join("disk")).unwrap();
        let writer = BlockWriter::new(file, direct, 1 << 40).unwrap();
        for number in 0..=BLOCKS_MAX as u64 {
            writer.write_at(number * LEN, b"part of a block").unwrap();
        }
        for _ in 0..2 {
            assert_eq!(writer.write_out().unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
            assert!(writer.write_at(77 * LEN, b"more").is_err());
            assert!(writer.leave_hole(77 * LEN, 80 * LEN).is_err());
        }
    }

    #[test]
    fn whole_blocks_go_past_the_page_cache_and_others_do_not() {
        let (dir, file, direct) = new_file(3 * LEN + 100);
        assert!(direct.is_some(), "the checkout is on a file system without direct writes");
        let read_only = File::open(dir.path().join("disk")).unwrap();
        let writer = BlockWriter::new(read_only, direct, 3 * LEN + 100).unwrap();
        writer.write_at(LEN, &vec![7; BLOCK_LEN]).unwrap();
        writer.leave_hole(5, LEN).unwrap();
        writer.write_at(0, b"begin").unwrap();
        writer.write_out().unwrap();
        drop(writer);
        let writer = BlockWriter::new(file, None, 3 * LEN + 100).unwrap();
        writer.write_at(2 * LEN + 10, &vec![8; BLOCK_LEN - 10 + 100]).unwrap();
        writer.write_out().unwrap();
        let mut expected = vec![0; 3 * BLOCK_LEN + 100];
        expected[..5].copy_from_slice(b"begin");
        expected[BLOCK_LEN..2 * BLOCK_LEN].fill(7);
        expected[2 * BLOCK_LEN + 10..].fill(8);
        assert!(fs::read(dir.path().join("disk")).unwrap() == expected);
    }
}
