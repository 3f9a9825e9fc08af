//! Copying a directory with all that is below.

use super::place::Directory;
use super::{Copy, ProblemKind};
use crate::guest::ENTRIES_MAX;
use crate::guest::error::GuestError;
use crate::guest::systems::{Kind, Metadata};
use crate::guest::tree::Entry;
use crate::observer::{Event, tell};
use std::collections::BTreeSet;
use std::vec::IntoIter;

/// Directories in one another: each of them is open, and a process may have 1024 files open.
const LEVELS_MAX: usize = 256;
/// Entries that are known and not copied yet, of all levels.
const WAITING_MAX: usize = 2 * ENTRIES_MAX;

/// A directory whose entries are being copied.
struct Level {
    entries: IntoIter<Entry>,
    directory: Directory,
    metadata: Metadata,
    entry: Entry,
}

/// The directories from the named one to where the copy is.
pub(super) struct Walk<'w, 'c> {
    copy: &'w mut Copy<'c>,
    levels: Vec<Level>,
    /// Directories that were there already: none can be in two places.
    seen: BTreeSet<u64>,
}

impl<'w, 'c> Walk<'w, 'c> {
    pub(super) fn new(copy: &'w mut Copy<'c>) -> Self {
        Self { copy, levels: Vec::new(), seen: BTreeSet::new() }
    }

    pub(super) fn run(mut self, top: &Entry, directory: Directory) -> Result<(), GuestError> {
        self.enter(top.clone(), directory)?;
        while let Some(level) = self.levels.last_mut() {
            // So that somebody who wants to stop is heard in a tree of empty files.
            tell(self.copy.observer, Event::Progress(0))?;
            match level.entries.next() {
                Some(entry) => self.one(entry)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Copies an entry of the innermost directory.
    fn one(&mut self, entry: Entry) -> Result<(), GuestError> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        if !entry.has_possible_name() {
            let reason = "no file can have this name".to_owned();
            self.copy.note_as(&entry, ProblemKind::Name, reason);
            return Ok(());
        }
        if entry.kind != Kind::Directory {
            let copied = self.copy.tree.metadata(&entry);
            let copied =
                copied.and_then(|metadata| self.copy.put(&entry, &metadata, &level.directory, &entry.name));
            return copied.or_else(|error| self.copy.note(&entry, error));
        }
        if self.levels.len() == LEVELS_MAX {
            let reason = format!("it is more than {LEVELS_MAX} directories deep");
            self.copy.note_as(&entry, ProblemKind::Guest, reason);
            return Ok(());
        }
        // A directory may lead back to itself, in many ways at once.
        if self.copy.tree.directories_max().is_some_and(|most| self.copy.report.directories >= most) {
            let reason = "more directories were copied than there are: some lead back to others".to_owned();
            self.copy.note_as(&entry, ProblemKind::Guest, reason);
            return Ok(());
        }
        match level.directory.make(&entry.name, self.copy.job.existing) {
            Ok(directory) => self.enter(entry, directory),
            Err(error) => self.copy.note(&entry, error),
        }
    }

    fn enter(&mut self, entry: Entry, directory: Directory) -> Result<(), GuestError> {
        self.copy.report.directories += 1;
        if entry.identity().is_some_and(|identity| !self.seen.insert(identity)) {
            let reason = "it leads back to a directory that was copied already".to_owned();
            self.copy.note_as(&entry, ProblemKind::Guest, reason);
            return Ok(());
        }
        let tree = self.copy.tree;
        let known = tree.metadata(&entry).and_then(|metadata| Ok((metadata, tree.list(&entry)?)));
        let (metadata, entries) = match known {
            Ok(known) => known,
            // The one that was named is what is asked for.
            Err(error) if self.levels.is_empty() => return Err(error),
            Err(error) => return self.copy.note(&entry, error),
        };
        let waiting: usize = self.levels.iter().map(|level| level.entries.len()).sum();
        if waiting + entries.len() > WAITING_MAX {
            let reason =
                "there is more in it, and in the directories around it, than fits into memory".to_owned();
            self.copy.note_as(&entry, ProblemKind::Guest, reason);
            return Ok(());
        }
        self.levels.push(Level { entries: entries.into_iter(), directory, metadata, entry });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), GuestError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if let Err(error) = level.directory.finish(&level.metadata, self.copy.job) {
            self.copy.note(&level.entry, error)?;
        }
        if self.levels.is_empty() { level.directory.sync_all() } else { Ok(()) }
    }
}
