//! What an image is written to from front to back.

use super::partial::Appending;
use super::stream::not_written;
use std::io::{self, Write};

/// A file or a stream.
pub(super) trait Output: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was appended, as far as that can be.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes it complete and durable.
    fn finish(&mut self) -> io::Result<()>;
    /// The error for a failure to append.
    fn not_written(&self, source: io::Error) -> io::Error;
}

/// A stream, of any writer.
pub(super) struct Stream<W>(pub(super) W);

impl<W: Write + Send> Output for Stream<W> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).map_err(not_written)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.flush().map_err(not_written)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn not_written(&self, source: io::Error) -> io::Error {
        not_written(source)
    }
}

impl Output for Appending {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        Ok(Appending::append(self, bytes)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(self.flush()?)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(Appending::finish(self)?)
    }

    fn not_written(&self, source: io::Error) -> io::Error {
        self.failed(source).into()
    }
}
