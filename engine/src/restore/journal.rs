//! What of a target is complete, kept in a file beside it, so that an interrupted restore can go on.
//!
//! Lines of JSON: what is restored, then ranges of the disk. A range is added when all of it is durable in the target, so
//! whatever happens, what the journal says is there. A line that was cut off by a crash is ignored.

use crate::Extent;
use crate::extent::normalized;
use repo_format::{RepositoryId, SessionId};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// The longest journal that is read: a range for each GiB of the largest disk takes a hundredth.
const LEN_MAX: u64 = 256 << 20;

/// What a restore brings where, as its journal remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalHead {
    /// The repository's id, in hex.
    pub repository: String,
    /// The snapshot's id, in hex.
    pub snapshot: String,
    /// The disk's key.
    pub disk: String,
    /// Its length in bytes.
    pub disk_bytes: u64,
    /// What it is restored to, as its user named it, and in which form.
    pub target: String,
}

impl JournalHead {
    /// Says what a restore brings where.
    #[must_use]
    pub fn new(
        repository: RepositoryId,
        snapshot: SessionId,
        disk: &repo_format::Disk,
        target: &str,
    ) -> Self {
        Self {
            repository: repository.to_string(),
            snapshot: snapshot.to_string(),
            disk: disk.key.clone(),
            disk_bytes: disk.size,
            target: target.to_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FirstLine {
    /// The version of the journal's form.
    journal: u32,
    restore: JournalHead,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DoneLine {
    done: Extent,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A file operation failed.
    #[error("could not {action} the journal {path}")]
    Io {
        /// "open", "read", "write", "remove".
        action: &'static str,
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file of its name is something else.
    #[error("{path} is not the journal of a restore")]
    NotAJournal {
        /// The path.
        path: String,
    },
    /// It belongs to another restore.
    #[error(
        "the journal {path} is of disk {} of snapshot {} to {}",
        found.disk, found.snapshot, found.target
    )]
    Other {
        /// The path.
        path: String,
        /// What it is of.
        found: Box<JournalHead>,
    },
}

/// The journal of one restore.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// What was complete when it was opened, sorted and apart.
    done: Vec<Extent>,
}

impl Journal {
    /// Begins a journal, in place of one of an earlier restore.
    ///
    /// # Errors
    /// A [`JournalError`]; a file that is no journal is left as it is.
    pub fn begin(path: &Path, head: &JournalHead) -> Result<Self, JournalError> {
        let file = open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        if !is_empty(path, &file)? {
            read(path, &file)?;
        }
        let journal = Self { path: path.to_owned(), file, done: Vec::new() };
        let first = FirstLine { journal: VERSION, restore: head.clone() };
        journal.file.set_len(0).map_err(|source| journal.failed("write", source))?;
        journal.write_line(&first)?;
        journal.sync()?;
        Ok(journal)
    }

    /// Opens the journal of an interrupted restore to go on with it; nothing if there is none.
    ///
    /// # Errors
    /// A [`JournalError`]: of another restore's journal, too.
    pub fn resume(path: &Path, head: &JournalHead) -> Result<Option<Self>, JournalError> {
        let file = match open(path, OpenOptions::new().read(true).write(true)) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            file => file?,
        };
        if is_empty(path, &file)? {
            // Its restore ended before it was begun.
            return Ok(None);
        }
        let (found, done, len) = read(path, &file)?;
        if found != *head {
            let path = shown(path);
            return Err(JournalError::Other { path, found: Box::new(found) });
        }
        let journal = Self { path: path.to_owned(), file, done: normalized(done) };
        // What is added does not continue a line that was cut off.
        journal.file.set_len(len).map_err(|source| journal.failed("write", source))?;
        Ok(Some(journal))
    }

    /// Reads of which restore a journal is; nothing if there is none.
    ///
    /// # Errors
    /// A [`JournalError`].
    pub fn head(path: &Path) -> Result<Option<JournalHead>, JournalError> {
        match open(path, OpenOptions::new().read(true)) {
            Ok(file) if is_empty(path, &file)? => Ok(None),
            Ok(file) => read(path, &file).map(|(head, _, _)| Some(head)),
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What was complete when it was opened, sorted and apart.
    #[must_use]
    pub fn done(&self) -> &[Extent] {
        &self.done
    }

    /// Remembers ranges that are complete and durable in the target.
    pub(super) fn add(&self, done: &[Extent]) -> Result<(), JournalError> {
        for done in done {
            self.write_line(&DoneLine { done: *done })?;
        }
        self.sync()
    }

    /// Removes it: the restore is complete, or nothing of it is kept.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(self) -> Result<(), JournalError> {
        std::fs::remove_file(&self.path).map_err(|source| self.failed("remove", source))
    }

    fn write_line(&self, line: &impl Serialize) -> Result<(), JournalError> {
        let mut text = serde_json::to_string(line).expect("numbers and texts are JSON");
        text.push('\n');
        (&self.file)
            .seek(SeekFrom::End(0))
            .and_then(|_| (&self.file).write_all(text.as_bytes()))
            .map_err(|source| self.failed("write", source))
    }

    fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_all().map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> JournalError {
        failed(action, &self.path, source)
    }
}

fn open(path: &Path, how: &mut OpenOptions) -> Result<File, JournalError> {
    // No link of somebody else's leads to another file, and no pipe is waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = how.mode(0o600).custom_flags(flags).open(path);
    let file = file.map_err(|source| failed("open", path, source))?;
    let metadata = file.metadata().map_err(|source| failed("open", path, source))?;
    if metadata.is_file() { Ok(file) } else { Err(JournalError::NotAJournal { path: shown(path) }) }
}

fn is_empty(path: &Path, file: &File) -> Result<bool, JournalError> {
    Ok(file.metadata().map_err(|source| failed("read", path, source))?.len() == 0)
}

/// What a journal says, and how long its whole lines are together.
fn read(path: &Path, file: &File) -> Result<(JournalHead, Vec<Extent>, u64), JournalError> {
    let not_one = || JournalError::NotAJournal { path: shown(path) };
    let mut lines = BufReader::new(file.take(LEN_MAX));
    let (mut line, mut len) = (Vec::new(), 0);
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        let read = lines.read_until(b'\n', line).map_err(|source| failed("read", path, source))?;
        len += if line.ends_with(b"\n") { read as u64 } else { 0 };
        Ok(line.ends_with(b"\n"))
    };
    if !next(&mut line)? {
        return Err(not_one());
    }
    let first: FirstLine = serde_json::from_slice(&line).map_err(|_| not_one())?;
    if first.journal != VERSION {
        return Err(not_one());
    }
    let mut done = Vec::new();
    while next(&mut line)? {
        let DoneLine { done: extent } = serde_json::from_slice(&line).map_err(|_| not_one())?;
        let end = extent.start.checked_add(extent.length);
        if extent.length == 0 || end.is_none_or(|end| end > first.restore.disk_bytes) {
            return Err(not_one());
        }
        done.push(extent);
    }
    Ok((first.restore, done, len))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { action, path: shown(path), source }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn head(snapshot: &str) -> JournalHead {
        JournalHead {
            repository: "00".to_owned(),
            snapshot: snapshot.to_owned(),
            disk: "disk0".to_owned(),
            disk_bytes: 1000,
            target: "disk.raw".to_owned(),
        }
    }

    fn extent(start: u64, length: u64) -> Extent {
        Extent { start, length }
    }

    #[test]
    fn what_was_added_is_there_after_a_crash_in_the_middle_of_a_line() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::begin(&path, &head("a")).unwrap();
        journal.add(&[extent(500, 100), extent(0, 10)]).unwrap();
        journal.add(&[extent(10, 10)]).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let lines = whole.split_inclusive(|byte| *byte == b'\n');
        let ends: Vec<usize> = lines
            .scan(0, |end, line| {
                *end += line.len();
                Some(*end)
            })
            .collect();
        for cut in ends[0]..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let journal = Journal::resume(&path, &head("a")).unwrap().unwrap();
            let all = [
                vec![],
                vec![extent(500, 100)],
                vec![extent(0, 10), extent(500, 100)],
                vec![extent(0, 20), extent(500, 100)],
            ];
            let whole_lines = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(journal.done(), all[whole_lines]);
            journal.add(&[extent(990, 10)]).unwrap();
            let again = Journal::resume(&path, &head("a")).unwrap().unwrap();
            assert_eq!(again.done().last(), Some(&extent(990, 10)));
        }
    }

    #[test]
    fn another_restore_does_not_go_on_with_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        assert!(Journal::resume(&path, &head("a")).unwrap().is_none());
        Journal::begin(&path, &head("a")).unwrap();
        let error = Journal::resume(&path, &head("b")).unwrap_err();
        let told = format!("the journal {} is of disk disk0 of snapshot a to disk.raw", path.display());
        assert_eq!(error.to_string(), told);
        Journal::begin(&path, &head("b")).unwrap().remove().unwrap();
        assert_eq!(Journal::head(&path).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_journal_is_left_as_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let line = serde_json::to_string(&FirstLine { journal: VERSION, restore: head("a") }).unwrap();
        let range = |range: &str| format!("{line}\n{{\"done\":{range}}}\n");
        for content in [
            "mine".to_owned(),
            "mine\n".to_owned(),
            line.clone(),
            line.replace(":1,", ":2,") + "\n",
            range("{\"start\":0,\"length\":0}"),
            range("{\"start\":1000,\"length\":1}"),
            range("{\"start\":18446744073709551615,\"length\":1}"),
        ] {
            fs::write(&path, &content).unwrap();
            for result in [Journal::begin(&path, &head("a")).err(), Journal::resume(&path, &head("a")).err()]
            {
                assert!(matches!(result, Some(JournalError::NotAJournal { .. })), "{content}: {result:?}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
