//! What is remembered of packs: when each was read last, and whether it was sound.
//!
//! The file is a sequence of records of 41 bytes: a keyed hash of the pack's name and length, a state (1 seen,
//! 2 sound, 3 damaged), a time, and a keyed check of 16 bytes. A record that is damaged counts as forgotten. No digest
//! of the content is needed: a sound pack is authentic, so that its name and length tell what is in it.
//!
//! # Concurrent runs
//! Whoever saves reads the file again under a lock, and of two records of a pack the one with the newer reading
//! stays, so that what one run learned is not undone by another. Where there are no locks, a run can undo what
//! another saved at the same moment: those packs are read again.

use crate::entropy::Entropy;
use crate::index::IndexError;
use crate::index::directory::Directory;
use crate::index::layout::Checks;
use repo_format::{PackName, RepositoryId};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file's name, with the version of its form.
const FILE_NAME: &str = "verified-1";
/// The name of the file that is locked while the other is replaced.
const LOCK_NAME: &str = "verified-1.lock";
const KEY_LEN: usize = 16;
const BODY_LEN: usize = KEY_LEN + 1 + 8;
const CHECK_LEN: usize = 16;
const RECORD_LEN: usize = BODY_LEN + CHECK_LEN;
/// The longest file that is read: 26 million packs, 800 TiB of the default length.
const FILE_LEN_MAX: u64 = 1 << 30;
/// Milliseconds that a time may be ahead of now: a run that began a little later may have saved it already. What is
/// farther ahead is of a clock that was wrong, and would count as read last for as long as that.
const AHEAD_MAX: u64 = 86_400_000;

/// Stands for a pack of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key([u8; KEY_LEN]);

/// What is known of a pack's data; of two readings at one time, the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It was there, and never read.
    Seen = 1,
    /// All of it was read and is what was written.
    Sound = 2,
    /// It was read and cannot be relied on.
    Damaged = 3,
}

/// What is known of a pack, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    /// When it was read last, or seen first; milliseconds since 1970.
    pub(super) time: u64,
}

impl Record {
    /// The one of two records of a pack that tells more: a reading, and of two the newer one.
    fn or(self, other: Self) -> Self {
        match (self.state, other.state) {
            (State::Seen, State::Seen) => Self { state: State::Seen, time: self.time.min(other.time) },
            (State::Seen, _) => other,
            (_, State::Seen) => self,
            _ if (other.time, other.state) > (self.time, self.state) => other,
            _ => self,
        }
    }

    /// The record as far as it can be so at `now`.
    fn at(self, now: u64) -> Self {
        match self.state {
            _ if self.time <= now.saturating_add(AHEAD_MAX) => self,
            State::Damaged => Self { time: now, ..self },
            State::Seen | State::Sound => Self { state: State::Seen, time: now },
        }
    }
}

/// Which packs of one repository were read when, and what was found.
///
/// It outlasts a run in a file of the repository's cache directory. The file may be deleted at any time: everything
/// is read again then.
pub struct Memory {
    checks: Checks,
    directory: Option<Directory>,
    known: HashMap<Key, Record>,
    /// Packs that were in the file and are no more in the repository.
    gone: HashSet<Key>,
    has_changed: bool,
    failure: Option<IndexError>,
}

impl Memory {
    /// Opens the memory of `repository` in its directory below `root`, which is created if it does not exist.
    /// `check_key` is a secret of the repository.
    ///
    /// # Errors
    /// [`IndexError::Directory`]. Damage to the file is no error but forgotten.
    pub fn open(root: &Path, repository: RepositoryId, check_key: [u8; 32]) -> Result<Self, IndexError> {
        let checks = Checks::new(check_key, repository);
        let directory = Directory::open(root, repository)?;
        let known = read(&directory, &checks)
            .map_err(|source| IndexError::Directory { path: directory.path().to_owned(), source })?;
        Ok(Self { directory: Some(directory), ..Self::of(checks, known) })
    }

    /// A memory that ends with this value. Which packs come first among those that were never read follows from
    /// `entropy`.
    #[must_use]
    pub fn passing(repository: RepositoryId, entropy: &Entropy) -> Self {
        Self::of(Checks::new(entropy.draw("verify memory", 0), repository), HashMap::new())
    }

    fn of(checks: Checks, known: HashMap<Key, Record>) -> Self {
        Self { checks, directory: None, known, gone: HashSet::new(), has_changed: false, failure: None }
    }

    /// Returns why the file could not be written, once. What could not be saved is lost when this value is.
    pub fn take_failure(&mut self) -> Option<IndexError> {
        self.failure.take()
    }

    /// The key of a pack. Keys are in an order that tells nothing of sessions.
    pub(super) fn key(&self, pack: &PackName, len: u64) -> Key {
        let name = pack.blob();
        let check = self.checks.check(*b"verpack\0", &[&len.to_le_bytes(), name.as_str().as_bytes()]);
        let (key, _) = check.split_first_chunk().expect("a checksum has 32 bytes");
        Key(*key)
    }

    pub(super) fn get(&self, key: Key) -> Option<Record> {
        self.known.get(&key).copied()
    }

    /// Begins a run at `now`: forgets packs that are not there, and times that cannot be.
    pub(super) fn begin(&mut self, now: u64, there: &HashSet<Key>) {
        let gone: Vec<Key> = self.known.keys().filter(|key| !there.contains(key)).copied().collect();
        for key in gone {
            self.known.remove(&key);
            self.gone.insert(key);
            self.has_changed = true;
        }
        for record in self.known.values_mut() {
            *record = record.at(now);
        }
    }

    /// Remembers what is known of a pack now. A reading replaces what was known, whatever the clock said then.
    pub(super) fn note(&mut self, key: Key, state: State, now: u64) {
        let new = match self.known.get(&key) {
            Some(_) if state == State::Seen => return,
            Some(Record { state: State::Sound | State::Damaged, time }) => {
                Record { state, time: now.max(time.saturating_add(1)) }
            }
            _ => Record { state, time: now },
        };
        self.known.insert(key, new);
        self.has_changed = true;
    }

    /// Saves what changed, together with what other runs saved. A failure is kept for [`Memory::take_failure`].
    pub(super) fn save(&mut self, now: u64) {
        let Some(directory) = self.directory.clone().filter(|_| self.has_changed) else { return };
        match self.rewrite(&directory, now) {
            Ok(()) => self.has_changed = false,
            Err(source) => {
                let path = directory.path().to_owned();
                self.failure.get_or_insert(IndexError::Write { path, source });
            }
        }
    }

    fn rewrite(&mut self, directory: &Directory, now: u64) -> io::Result<()> {
        // Without a lock, the file is replaced all the same: see the module's docs.
        let lock =
            OpenOptions::new().append(true).create(true).mode(0o600).open(directory.path().join(LOCK_NAME));
        let _locked = lock.ok().filter(|lock| lock.lock().is_ok());
        for (key, saved) in read(directory, &self.checks)? {
            if !self.gone.contains(&key) {
                let saved = saved.at(now);
                self.known.entry(key).and_modify(|known| *known = known.or(saved)).or_insert(saved);
            }
        }
        let mut bytes = Vec::with_capacity(self.known.len() * RECORD_LEN);
        for (key, record) in &self.known {
            bytes.extend_from_slice(&encode(*key, *record, &self.checks));
        }
        let mut temporary = directory.temporary()?;
        temporary.file().write_all(&bytes)?;
        temporary.publish(&directory.path().join(FILE_NAME))
    }
}

/// The intact records of a directory's file, of which there need be none.
fn read(directory: &Directory, checks: &Checks) -> io::Result<HashMap<Key, Record>> {
    let mut bytes = Vec::new();
    match File::open(directory.path().join(FILE_NAME)) {
        Ok(file) => file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let (records, _) = bytes.as_chunks();
    let mut known: HashMap<Key, Record> = HashMap::with_capacity(records.len());
    for (key, record) in records.iter().filter_map(|record| decode(record, checks)) {
        known.entry(key).and_modify(|known| *known = known.or(record)).or_insert(record);
    }
    Ok(known)
}

fn encode(key: Key, record: Record, checks: &Checks) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[..KEY_LEN].copy_from_slice(&key.0);
    bytes[KEY_LEN] = record.state as u8;
    bytes[KEY_LEN + 1..BODY_LEN].copy_from_slice(&record.time.to_le_bytes());
    let check = checks.check(*b"verified", &[&bytes[..BODY_LEN]]);
    bytes[BODY_LEN..].copy_from_slice(&check[..CHECK_LEN]);
    bytes
}

fn decode(bytes: &[u8; RECORD_LEN], checks: &Checks) -> Option<(Key, Record)> {
    let (body, check) = bytes.split_at(BODY_LEN);
    let (key, rest) = body.split_first_chunk()?;
    let (state, time) = rest.split_first()?;
    let state = match state {
        1 => State::Seen,
        2 => State::Sound,
        3 => State::Damaged,
        _ => return None,
    };
    let time = u64::from_le_bytes(time.try_into().ok()?);
    let is_intact = checks.check(*b"verified", &[body])[..CHECK_LEN] == *check;
    is_intact.then_some((Key(*key), Record { state, time }))
}
