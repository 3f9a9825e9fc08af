//! Copying out of a guest: a file, or a directory with all that is below.
//!
//! What a guest calls its files, and what its links lead to, decides nothing outside of the target: see `place`. Of a tree,
//! what cannot be copied is listed and the rest goes on; a target that fails for more than one file ends a copy.

mod place;
mod walk;

use super::device::len_of;
use super::error::GuestError;
use super::names::shown;
use super::systems::{Kind, Metadata, PIECE_LEN, Piece};
use super::tree::{Entry, Tree};
use crate::error::{EngineError, chain};
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::target::Existing;
use place::{Directory, Partial};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use walk::Walk;

/// Problems that are listed; more are counted.
const PROBLEMS_MAX: usize = 1000;
/// Zeros of so many bytes, aligned, become a hole.
const HOLE_LEN: usize = 4096;

/// Whom the files belong to that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Whoever copies. What a file lets its owner do as another user or group is left out of its mode.
    Own,
    /// Who owned them in the guest, by number, where its file system says it. Only root can.
    Guest,
}

/// Whether a directory is copied with what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is refused.
    File,
    /// It is.
    Tree,
}

/// What is copied where.
#[derive(Clone, Copy, Debug)]
pub struct CopyJob<'j> {
    /// What is made: its directory is there already.
    pub target: &'j Path,
    /// Whether what is there is replaced; directories are filled then, and what is only there stays.
    pub existing: Existing,
    /// Whom it belongs to.
    pub owners: Owners,
    /// Whether directories are copied.
    pub depth: Depth,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyReport {
    /// Files.
    pub files: u64,
    /// Directories, with the one that was named.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// The lengths of the files together.
    pub bytes: u64,
    /// Of these, what was written and not left as a hole.
    pub written_bytes: u64,
    /// What was not copied, and why: the first thousand.
    pub problems: Vec<Problem>,
    /// How many there were.
    pub problem_count: u64,
    /// Whether some of them are damage of the repository.
    pub has_damage: bool,
}

/// Something that was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Its path in the guest, as text.
    pub path: String,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What it is.
    pub reason: String,
}

/// Why something was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// The repository has lost a part of it.
    Damaged,
    /// The guest's file system is damaged there, or has what is not read.
    Guest,
    /// It is a device, a pipe or a socket.
    Special,
    /// No file can have such a name.
    Name,
    /// The target does not take it.
    Target,
}

/// Copies an entry. What becomes of a tree that was not copied to its end stays.
///
/// # Errors
/// Any failure that is not of one file in a tree: a store or a target that fails, an observer that cancels. A single file
/// that cannot be copied is the error.
pub fn copy(
    tree: &Tree,
    entry: &Entry,
    job: &CopyJob<'_>,
    observer: &dyn Observer,
) -> Result<CopyReport, GuestError> {
    let parent = match job.target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = job.target.file_name();
    let mut copy = Copy { tree, job, observer, report: CopyReport::default(), buffer: Vec::new() };
    if entry.kind == Kind::Directory {
        if job.depth == Depth::File {
            return Err(GuestError::IsADirectory { path: shown(&entry.path()) });
        }
        copy.begin(0)?;
        // What has no name of its own, like `.` or `/`, is there.
        let directory = match name {
            Some(name) => Directory::open(parent)?.make(name.as_bytes(), job.existing)?,
            None => Directory::open(job.target)?,
        };
        Walk::new(&mut copy).run(entry, directory)?;
        return Ok(copy.report);
    }
    let parent = Directory::open(parent)?;
    let name = name.unwrap_or(OsStr::new(""));
    let metadata = tree.metadata(entry)?;
    copy.begin(metadata.size)?;
    copy.put(entry, &metadata, &parent, name.as_bytes())?;
    parent.sync()?;
    Ok(copy.report)
}

/// Writes the content of a file, zeros and all, and returns its length.
///
/// # Errors
/// As [`copy`]; a stream that cannot be written.
pub fn write_file(
    tree: &Tree,
    entry: &Entry,
    output: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<u64, GuestError> {
    let size = tree.metadata(entry)?.size;
    begin(observer, Phase::Copy, size)?;
    let mut reader = tree.reader(entry)?;
    let failed = |source| GuestError::Target { action: "write", path: "standard output".into(), source };
    let (mut buffer, mut written) = (Vec::new(), 0_u64);
    loop {
        let mut piece = reader.next(&mut buffer)?;
        // A hole may be longer than memory.
        while let Piece::Hole(length) = piece {
            buffer.clear();
            buffer.resize(PIECE_LEN.min(usize::try_from(length).unwrap_or(PIECE_LEN)), 0);
            let now = len_of(&buffer);
            output.write_all(&buffer).map_err(failed)?;
            written += now;
            tell(observer, Event::Progress(now))?;
            piece = if length > now { Piece::Hole(length - now) } else { Piece::Data };
            buffer.clear();
        }
        if piece == Piece::End {
            output.flush().map_err(failed)?;
            return Ok(written);
        }
        output.write_all(&buffer).map_err(failed)?;
        written += len_of(&buffer);
        tell(observer, Event::Progress(len_of(&buffer)))?;
    }
}

/// A copy while it is made.
struct Copy<'c> {
    tree: &'c Tree,
    job: &'c CopyJob<'c>,
    observer: &'c dyn Observer,
    report: CopyReport,
    buffer: Vec<u8>,
}

impl Copy<'_> {
    fn begin(&self, total: u64) -> Result<(), EngineError> {
        begin(self.observer, Phase::Copy, total)
    }

    /// Makes anything but a directory.
    fn put(
        &mut self,
        entry: &Entry,
        metadata: &Metadata,
        parent: &Directory,
        name: &[u8],
    ) -> Result<(), GuestError> {
        match metadata.kind {
            Kind::File => self.put_file(entry, metadata, parent, name),
            Kind::Symlink => {
                let target = self.tree.read_link(entry)?;
                parent.link(name, &target, metadata, self.job)?;
                self.report.links += 1;
                Ok(())
            }
            Kind::Directory => Err(GuestError::IsADirectory { path: shown(&entry.path()) }),
            _ => Err(GuestError::Special { path: shown(&entry.path()) }),
        }
    }

    fn put_file(
        &mut self,
        entry: &Entry,
        metadata: &Metadata,
        parent: &Directory,
        name: &[u8],
    ) -> Result<(), GuestError> {
        let mut reader = self.tree.reader(entry)?;
        let partial = parent.begin(name, self.job.existing)?;
        let (mut position, mut written) = (0, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let length = match reader.next(&mut buffer)? {
                Piece::End => break,
                Piece::Hole(length) => length,
                Piece::Data => {
                    written += write_sparse(&partial, position, &buffer)?;
                    len_of(&buffer)
                }
            };
            position += length;
            tell(self.observer, Event::Progress(length))?;
        }
        self.buffer = buffer;
        partial.finish(position, metadata, self.job)?;
        self.report.files += 1;
        self.report.bytes += position;
        self.report.written_bytes += written;
        Ok(())
    }

    /// Lists what was not copied, if the rest can go on.
    fn note(&mut self, entry: &Entry, error: GuestError) -> Result<(), GuestError> {
        let kind = match &error {
            GuestError::Disk(error) if error.is_damage() => ProblemKind::Damaged,
            GuestError::Special { .. } => ProblemKind::Special,
            GuestError::Target { source, .. } if place::is_of_one_file(source) => ProblemKind::Target,
            error if error.is_of_one_file() => ProblemKind::Guest,
            _ => return Err(error),
        };
        self.note_as(entry, kind, chain(&error));
        Ok(())
    }

    fn note_as(&mut self, entry: &Entry, kind: ProblemKind, reason: String) {
        self.report.problem_count += 1;
        self.report.has_damage |= kind == ProblemKind::Damaged;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem { path: shown(&entry.path()), kind, reason });
        }
    }
}

/// Writes what is not zero, and tells how much that is.
fn write_sparse(partial: &Partial<'_>, position: u64, data: &[u8]) -> Result<u64, GuestError> {
    let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut written = 0;
    let mut offset = position;
    for run in data.chunks(HOLE_LEN).collect::<Vec<_>>().chunk_by(|one, other| is_hole(one) == is_hole(other))
    {
        let length: usize = run.iter().map(|block| block.len()).sum();
        if !run.first().is_some_and(|block| is_hole(block)) {
            let start = usize::try_from(offset - position).expect("a place in a buffer");
            partial.write_at(offset, &data[start..start + length])?;
            written += len_of(&data[start..start + length]);
        }
        offset += u64::try_from(length).expect("a length in memory fits 64 bits");
    }
    Ok(written)
}
