//! What of a target is complete, kept in a file beside it, so that an interrupted restore can go on.
//!
//! Lines of JSON: what is restored, then ranges of the disk. A range is added when all of it is durable in the target, so
//! whatever happens, what the journal says is there. A line that was cut off by a crash is ignored.
//!
//! A further line says that the disk has changes that nothing tells of: what was known of them is then not to be used until
//! all of it has been compared, however often that is interrupted.
//!
//! What is complete counts only for the target that it was begun for, which is known by its *identity*.
//!
//! A journal is locked while it is open for writing: it is of one restore at a time.

use crate::Extent;
use crate::extent::normalized;
use repo_format::{RepositoryId, SessionId};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
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
    /// What the target is known by; nothing if it cannot be told from another one.
    identity: Option<String>,
}

/// A line behind the first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// A range is complete.
    Done(Extent),
    /// Whether there are changes on the disk that nothing tells of.
    Untold(bool),
}

/// What an earlier restore has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it was to bring where; nothing if it was interrupted before it said so.
    pub head: Option<JournalHead>,
    /// There may be changes on the disk that nothing tells of.
    pub has_untold: bool,
}

/// What a journal says.
struct Content {
    head: JournalHead,
    identity: Option<String>,
    done: Vec<Extent>,
    has_untold: bool,
    /// The length of its whole lines.
    len: u64,
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
    /// Another restore to the same place has it.
    #[error("another restore keeps the journal {path}")]
    Busy {
        /// The path.
        path: String,
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
    /// Begins a journal, in place of one of an earlier restore. The `identity` of a target changes when it is made anew.
    ///
    /// # Errors
    /// A [`JournalError`]; a file that is no journal is left as it is.
    pub fn begin(path: &Path, head: &JournalHead, identity: Option<&str>) -> Result<Self, JournalError> {
        let file = open_locked(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        if !is_empty(path, &file)? {
            read(path, &file)?;
        }
        let journal = Self { path: path.to_owned(), file, done: Vec::new() };
        journal.begin_anew(head, identity)?;
        Ok(journal)
    }

    /// Forgets what is complete, if there is a journal: what it tells of is about to be replaced.
    ///
    /// # Errors
    /// A [`JournalError`].
    pub fn forget(path: &Path) -> Result<(), JournalError> {
        let Some(file) = open_locked_if_there(path)? else { return Ok(()) };
        if is_empty(path, &file)? {
            return Ok(());
        }
        let Content { head, has_untold, .. } = read(path, &file)?;
        let journal = Self { path: path.to_owned(), file, done: Vec::new() };
        journal.begin_anew(&head, None)?;
        if has_untold { journal.note_untold() } else { Ok(()) }
    }

    fn begin_anew(&self, head: &JournalHead, identity: Option<&str>) -> Result<(), JournalError> {
        let identity = identity.map(str::to_owned);
        let first = FirstLine { journal: VERSION, restore: head.clone(), identity };
        self.file.set_len(0).map_err(|source| self.failed("write", source))?;
        self.write_line(&first)?;
        self.sync()
    }

    /// Opens the journal of an interrupted restore to go on with it; nothing if there is none. What is complete is forgotten
    /// unless the target still has the identity that it had.
    ///
    /// # Errors
    /// A [`JournalError`]: of another restore's journal, too.
    pub fn resume(
        path: &Path,
        head: &JournalHead,
        identity: Option<&str>,
    ) -> Result<Option<Self>, JournalError> {
        let Some(file) = open_locked_if_there(path)? else { return Ok(None) };
        if is_empty(path, &file)? {
            // Its restore ended before it was begun.
            return Ok(None);
        }
        let Content { head: found, identity: known, done, has_untold, len } = read(path, &file)?;
        if found != *head {
            let path = shown(path);
            return Err(JournalError::Other { path, found: Box::new(found) });
        }
        if identity.is_none() || known.as_deref() != identity {
            let journal = Self { path: path.to_owned(), file, done: Vec::new() };
            journal.begin_anew(head, identity)?;
            if has_untold {
                journal.note_untold()?;
            }
            return Ok(Some(journal));
        }
        let journal = Self { path: path.to_owned(), file, done: normalized(done) };
        // What is added does not continue a line that was cut off.
        journal.file.set_len(len).map_err(|source| journal.failed("write", source))?;
        Ok(Some(journal))
    }

    /// Reads what an earlier restore has left; nothing if there is no journal.
    ///
    /// # Errors
    /// A [`JournalError`].
    pub fn left(path: &Path) -> Result<Option<Left>, JournalError> {
        let Some(file) = if_there(open(path, OpenOptions::new().read(true)))? else { return Ok(None) };
        if is_empty(path, &file)? {
            // It was being begun, perhaps in place of another one, which is forgotten.
            return Ok(Some(Left { head: None, has_untold: true }));
        }
        let Content { head, has_untold, .. } = read(path, &file)?;
        Ok(Some(Left { head: Some(head), has_untold }))
    }

    /// What was complete when it was opened, sorted and apart.
    #[must_use]
    pub fn done(&self) -> &[Extent] {
        &self.done
    }

    /// Remembers ranges that are complete and durable in the target.
    pub(super) fn add(&self, done: &[Extent]) -> Result<(), JournalError> {
        for done in done {
            self.write_line(&Line::Done(*done))?;
        }
        self.sync()
    }

    /// Remembers that there are changes on the disk that nothing tells of.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn note_untold(&self) -> Result<(), JournalError> {
        self.write_line(&Line::Untold(true))?;
        self.sync()
    }

    /// Removes it: the restore is complete, or nothing of it is kept.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(self) -> Result<(), JournalError> {
        // Should its name come back after a crash, it must not tell of what others have written since.
        self.file
            .set_len(0)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| self.failed("write", source))?;
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

/// Opens a journal that nobody else writes.
fn open_locked(path: &Path, how: &mut OpenOptions) -> Result<File, JournalError> {
    let file = open(path, how)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Where there are no locks, the target's have to do.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(JournalError::Busy { path: shown(path) }),
        Err(error) => Err(failed("open", path, error.into())),
    }
}

fn open_locked_if_there(path: &Path) -> Result<Option<File>, JournalError> {
    if_there(open_locked(path, OpenOptions::new().read(true).write(true)))
}

fn if_there(opened: Result<File, JournalError>) -> Result<Option<File>, JournalError> {
    match opened {
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_empty(path: &Path, file: &File) -> Result<bool, JournalError> {
    Ok(file.metadata().map_err(|source| failed("read", path, source))?.len() == 0)
}

fn read(path: &Path, file: &File) -> Result<Content, JournalError> {
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
    let (mut done, mut has_untold) = (Vec::new(), false);
    while next(&mut line)? {
        let extent = match serde_json::from_slice(&line).map_err(|_| not_one())? {
            Line::Done(extent) => extent,
            Line::Untold(untold) => {
                has_untold |= untold;
                continue;
            }
        };
        let end = extent.start.checked_add(extent.length);
        if extent.length == 0 || end.is_none_or(|end| end > first.restore.disk_bytes) {
            return Err(not_one());
        }
        done.push(extent);
    }
    Ok(Content { head: first.restore, identity: first.identity, done, has_untold, len })
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
        let journal = Journal::begin(&path, &head("a"), Some("7")).unwrap();
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
            let journal = Journal::resume(&path, &head("a"), Some("7")).unwrap().unwrap();
            let all = [
                vec![],
                vec![extent(500, 100)],
                vec![extent(0, 10), extent(500, 100)],
                vec![extent(0, 20), extent(500, 100)],
            ];
            let whole_lines = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(journal.done(), all[whole_lines]);
            journal.add(&[extent(990, 10)]).unwrap();
            drop(journal);
            let again = Journal::resume(&path, &head("a"), Some("7")).unwrap().unwrap();
            assert_eq!(again.done().last(), Some(&extent(990, 10)));
        }
    }

    #[test]
    fn what_is_complete_counts_for_the_same_target_only() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        for (begun, found) in [(Some("7"), Some("8")), (Some("7"), None), (None, Some("7")), (None, None)] {
            let journal = Journal::begin(&path, &head("a"), begun).unwrap();
            journal.add(&[extent(0, 10)]).unwrap();
            journal.note_untold().unwrap();
            drop(journal);
            assert_eq!(Journal::resume(&path, &head("a"), found).unwrap().unwrap().done(), []);
            // And is forgotten.
            assert_eq!(Journal::resume(&path, &head("a"), begun).unwrap().unwrap().done(), []);
            assert!(Journal::left(&path).unwrap().unwrap().has_untold);
        }
    }

    #[test]
    fn another_restore_does_not_go_on_with_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        assert!(Journal::resume(&path, &head("a"), Some("7")).unwrap().is_none());
        Journal::begin(&path, &head("a"), Some("7")).unwrap();
        let error = Journal::resume(&path, &head("b"), Some("7")).unwrap_err();
        let told = format!("the journal {} is of disk disk0 of snapshot a to disk.raw", path.display());
        assert_eq!(error.to_string(), told);
        Journal::begin(&path, &head("b"), Some("7")).unwrap().remove().unwrap();
        assert_eq!(Journal::left(&path).unwrap(), None);
    }

    #[test]
    fn two_restores_do_not_share_one() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let first = Journal::begin(&path, &head("a"), Some("7")).unwrap();
        first.add(&[extent(0, 10)]).unwrap();
        let errors = [
            Journal::begin(&path, &head("b"), Some("7")).unwrap_err(),
            Journal::resume(&path, &head("a"), Some("7")).unwrap_err(),
            Journal::forget(&path).unwrap_err(),
        ];
        for error in errors {
            let told = format!("another restore keeps the journal {}", path.display());
            assert_eq!(error.to_string(), told);
        }
        drop(first);
        assert_eq!(Journal::resume(&path, &head("a"), Some("7")).unwrap().unwrap().done(), [extent(0, 10)]);
    }

    #[test]
    fn what_is_replaced_is_forgotten_but_not_that_there_are_changes_nobody_told_of() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        Journal::forget(&path).unwrap();
        for has_untold in [false, true] {
            let journal = Journal::begin(&path, &head("a"), Some("7")).unwrap();
            journal.add(&[extent(0, 10)]).unwrap();
            if has_untold {
                journal.note_untold().unwrap();
            }
            drop(journal);
            Journal::forget(&path).unwrap();
            assert_eq!(Journal::left(&path).unwrap(), Some(Left { head: Some(head("a")), has_untold }));
            assert_eq!(Journal::resume(&path, &head("a"), Some("7")).unwrap().unwrap().done(), []);
        }
        fs::write(&path, b"").unwrap();
        assert_eq!(Journal::left(&path).unwrap(), Some(Left { head: None, has_untold: true }));
    }

    #[test]
    fn a_file_that_is_no_journal_is_left_as_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let line = serde_json::to_string(&FirstLine { journal: VERSION, restore: head("a"), identity: None })
            .unwrap();
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
            for result in [
                Journal::begin(&path, &head("a"), Some("7")).err(),
                Journal::resume(&path, &head("a"), Some("7")).err(),
            ] {
                assert!(matches!(result, Some(JournalError::NotAJournal { .. })), "{content}: {result:?}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
