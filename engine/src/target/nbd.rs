//! Restoring onto an export of an NBD server.
//!
//! Pieces come in any order and of any length. They wait, up to a limit, until the cell of 256 KiB that they are in is
//! complete, and go as one request; a thread for each connection sends requests and receives replies in a window, so
//! that a far server is written at the speed of the way to it. Long holes go by without waiting. What the server said
//! to be a hole when it was opened stays one.
//!
//! A server that wants whole blocks gets whole blocks. Parts of blocks wait for what is beside them; where that does not
//! come, the first thread alone reads the block and writes it whole.
//!
//! Zeros are made by `WRITE_ZEROES`, with holes where the server can make them. Where there is no such request, there may be
//! `TRIM`: it leaves anything behind, so the server is asked which blocks read as zeros after it, and to all others, as
//! where there is neither, zeros are written.
//!
//! # Lost connections
//! A connection that is lost is made anew, and what was unanswered is written again. What was answered, and not yet
//! flushed, may be lost if the server itself has ended: before the next flush it is read again and compared with what
//! was written, and holes are made again. What is not there is [`NbdError::WritesLost`], and is never passed over.
//!
//! # Memory
//! Pieces that wait: 32 MiB, and a call's piece for each thread that restores. For each connection 16 requests of up to
//! 256 KiB in flight and as many in hand. Blocks in part: 8 MiB, in those 32. Records of what was written since the last
//! flush: 3 MiB. Areas that the server said to be no holes: 16 bytes each, 64 MiB at most.

mod held;
mod queue;
mod records;
mod worker;

use super::{DiskTarget, Existing, checked_end, len_of};
use crate::Extent;
use crate::frames::lock;
use crate::nbd::{Client, NbdError, NbdPlace, NbdSettings, Told, Use};
use held::{Blocks, CELL_LEN, Content, Piece, len};
use queue::Queue;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use worker::{Shared, Worker};

/// An export of an NBD server that a disk is written to. What it holds behind the disk's end stays as it is. Its errors
/// are [`NbdError`]s: the first of writing is the error of each call after it.
///
/// Others may read the export while it is written, over connections of their own. They see what was answered if the
/// server says that several connections see the same, and else what was there before or after.
#[derive(Debug)]
pub struct NbdTarget {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    size: u64,
}

impl NbdTarget {
    /// Connects, for a disk of `size` bytes. Nothing is written yet.
    ///
    /// `existing` tells what is done with an export of which the server does not say that all is a hole.
    ///
    /// # Errors
    /// [`NbdError::ReadOnly`], [`NbdError::TooSmall`], [`NbdError::NotEmpty`], and others of opening an export.
    pub fn open(
        place: &NbdPlace,
        settings: NbdSettings,
        size: u64,
        existing: Existing,
    ) -> Result<Self, NbdError> {
        Self::begin(Client::open(place, Use::Writing, settings)?, size, existing)
    }

    /// Does the same over a socket that is connected to a server already. There is no further connection, and none is
    /// made anew.
    ///
    /// # Errors
    /// Those of [`NbdTarget::open`].
    pub fn over(
        socket: UnixStream,
        export: &str,
        settings: NbdSettings,
        size: u64,
        existing: Existing,
    ) -> Result<Self, NbdError> {
        Self::begin(Client::over(socket, export, Use::Writing, settings)?, size, existing)
    }

    fn begin((client, told): (Client, Told), size: u64, existing: Existing) -> Result<Self, NbdError> {
        let (place, export_bytes) = (client.place(), client.size());
        if export_bytes < size {
            return Err(NbdError::TooSmall { place, export_bytes, disk_bytes: size });
        }
        let is_empty = told.data.first().is_none_or(|area| area.start >= size);
        if existing == Existing::Refuse && !is_empty {
            return Err(NbdError::NotEmpty { place });
        }
        let blocks = Blocks {
            minimum: client.block_len(),
            request_len_max: client.request_len_max().min(CELL_LEN),
            end: export_bytes,
        };
        let (count, can_flush) = (client.writers_max(), client.can_flush());
        let queue = Queue::new(blocks, size, can_flush, count);
        let shared =
            Arc::new(Shared { client, queue, allocated: told.data, zeroes_refused: AtomicBool::new(false) });
        let threads = (0..count).map(|number| {
            let worker = Worker::new(Arc::clone(&shared), number);
            #[expect(
                clippy::disallowed_methods,
                reason = "it writes while other calls come, and is joined when the target is dropped"
            )]
            std::thread::spawn(move || worker.run())
        });
        let threads = Mutex::new(threads.collect());
        Ok(Self { shared, threads, size })
    }

    /// Splits a range at the borders of cells.
    fn hold(&self, start: u64, end: u64, content: impl Fn(Extent) -> Content) -> io::Result<()> {
        let mut start = start;
        while let Some(part) = Extent::between(start, end.min(start - start % CELL_LEN + CELL_LEN)) {
            self.shared.queue.hold(Piece { offset: part.start, content: content(part) })??;
            start = part.end();
        }
        Ok(())
    }

    fn hold_zeros(&self, start: u64, end: u64) -> io::Result<()> {
        self.hold(start, end, |part| Content::Zeros(part.length))
    }
}

impl DiskTarget for NbdTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = checked_end(offset, len_of(data), self.size)?;
        self.hold(offset, end, |part| {
            Content::Data(data[len(part.start - offset)..len(part.end() - offset)].to_vec())
        })
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        let (first, last) = (offset.next_multiple_of(CELL_LEN), end - end % CELL_LEN);
        if first >= last {
            return self.hold_zeros(offset, end);
        }
        self.hold_zeros(offset, first)?;
        for request in self.shared.zeros(first, last) {
            self.shared.queue.request(request)?;
        }
        self.hold_zeros(last, end)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(self.shared.queue.flush()?)
    }

    fn finish(&self) -> io::Result<()> {
        self.flush()
    }
}

impl Drop for NbdTarget {
    fn drop(&mut self) {
        self.shared.queue.stop();
        for thread in lock(&self.threads).drain(..) {
            // What became of it is known: a panic, too, has failed the calls that waited for it.
            let _panicked = thread.join();
        }
    }
}
