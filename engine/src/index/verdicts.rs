//! A memo of how sessions were decided: facts that never change, kept so that no later run asks for them again.
//!
//! The file is a sequence of records of 33 bytes: session id, verdict (1 COMMIT, 2 ABORT), and a keyed check of 16
//! bytes. Records are appended with one write each; one that is damaged counts as forgotten.

use super::directory::Directory;
use super::layout::Checks;
use repo_format::SessionId;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// The file's name, with the version of its form.
const FILE_NAME: &str = "verdicts-1";
const RECORD_LEN: usize = 33;
const CHECK_LEN: usize = 16;
/// The longest file that is read: two million sessions, more than a repository will see.
const FILE_LEN_MAX: u64 = 64 << 20;

/// How a session was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It became a snapshot.
    Commit,
    /// It was given up.
    Abort,
}

/// The verdicts that are known.
pub(super) struct Verdicts {
    known: HashMap<SessionId, Verdict>,
}

impl Verdicts {
    /// Reads the memo of a directory; `None` begins an empty one. A file with anything but intact, different
    /// records is rewritten.
    pub(super) fn open(directory: Option<&Directory>, checks: &Checks) -> io::Result<Self> {
        let Some(directory) = directory else { return Ok(Self { known: HashMap::new() }) };
        let mut bytes = Vec::new();
        match File::open(directory.path().join(FILE_NAME)) {
            Ok(file) => file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let (records, rest) = bytes.as_chunks();
        let mut verdicts = Self { known: HashMap::with_capacity(records.len()) };
        for (session, verdict) in records.iter().filter_map(|record| decode(record, checks)) {
            verdicts.known.entry(session).or_insert(verdict);
        }
        if !rest.is_empty() || verdicts.known.len() != records.len() {
            verdicts.rewrite(directory, checks)?;
        }
        Ok(verdicts)
    }

    pub(super) fn get(&self, session: SessionId) -> Option<Verdict> {
        self.known.get(&session).copied()
    }

    /// Adds a verdict, to the file too unless it is known already. It is known for this run even on an error.
    pub(super) fn remember(
        &mut self,
        session: SessionId,
        verdict: Verdict,
        directory: Option<&Directory>,
        checks: &Checks,
    ) -> io::Result<()> {
        if self.known.contains_key(&session) {
            return Ok(());
        }
        self.known.insert(session, verdict);
        let Some(directory) = directory else { return Ok(()) };
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(directory.path().join(FILE_NAME));
        match file {
            Ok(mut file) => file.write_all(&encode(session, verdict, checks)),
            // Somebody deleted the directory, and the earlier verdicts with it.
            Err(error) if error.kind() == ErrorKind::NotFound => self.rewrite(directory, checks),
            Err(error) => Err(error),
        }
    }

    fn rewrite(&self, directory: &Directory, checks: &Checks) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.known.len() * RECORD_LEN);
        for (session, verdict) in &self.known {
            bytes.extend_from_slice(&encode(*session, *verdict, checks));
        }
        let mut temporary = directory.temporary()?;
        temporary.file().write_all(&bytes)?;
        temporary.publish(&directory.path().join(FILE_NAME))
    }
}

fn encode(session: SessionId, verdict: Verdict, checks: &Checks) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    record[..16].copy_from_slice(&session.0);
    record[16] = match verdict {
        Verdict::Commit => 1,
        Verdict::Abort => 2,
    };
    let check = checks.check(*b"verdicts", &[&record[..17]]);
    record[17..].copy_from_slice(&check[..CHECK_LEN]);
    record
}

fn decode(record: &[u8; RECORD_LEN], checks: &Checks) -> Option<(SessionId, Verdict)> {
    let (session, _) = record.split_first_chunk()?;
    let verdict = match record[16] {
        1 => Verdict::Commit,
        2 => Verdict::Abort,
        _ => return None,
    };
    let intact = checks.check(*b"verdicts", &[&record[..17]])[..CHECK_LEN] == record[17..];
    intact.then_some((SessionId(*session), verdict))
}
