//! What lets an interrupted restore go on: its journal, which is next to a file, and else in the cache directory.

use super::Arguments;
use super::identity::identity;
use super::place::Place;
use crate::console::{say, warn};
use crate::settings::Settings;
use keepstone_engine::Repository;
use keepstone_engine::restore::{Journal, JournalError, JournalHead, Left};
use keepstone_engine::target::partial_path;
use repo_format::Disk;
use repo_format::SessionId;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What is added to a file's name for its journal.
const JOURNAL: &str = ".keepstone-journal";

/// Where a restore keeps its journal, and what is there.
pub(super) struct GoingOn {
    path: Option<PathBuf>,
    head: JournalHead,
    /// The journal of the interrupted restore that is gone on with.
    resumed: Option<Journal>,
    /// What nothing tells of may be at the place: an interrupted restore has left it there, or found it.
    has_untold: bool,
    /// Nobody can go on with this one.
    is_final: bool,
    in_place: bool,
}

impl GoingOn {
    /// Looks for what an earlier restore left.
    ///
    /// # Errors
    /// A journal that cannot be used, or is of another restore and is to be gone on with.
    pub(super) fn look(
        settings: &Settings,
        repository: &Repository<'_>,
        place: &Place,
        arguments: &Arguments,
        (snapshot, disk): (SessionId, &Disk),
    ) -> Result<Self, JournalError> {
        let path = journal_path(settings, repository, place, &arguments.to);
        let named = match place {
            // A new file beside one that is brought back: what is complete in the one is not in the other.
            Place::File(path) if arguments.in_place => format!("{}, in place", file_name(path)),
            Place::File(path) => file_name(path),
            _ => arguments.to.clone(),
        };
        let head = JournalHead::new(repository.config().repository, snapshot, disk, &named);
        let is_final = !arguments.format.can_go_on();
        let in_place = arguments.in_place;
        let mut going_on = Self { path, head, resumed: None, has_untold: false, is_final, in_place };
        let Some(path) = &going_on.path else { return Ok(going_on) };
        let left = Journal::left(path)?;
        let is_same = left.as_ref().is_some_and(|left| left.head.as_ref() == Some(&going_on.head));
        going_on.has_untold = left.is_some_and(|Left { has_untold, .. }| has_untold || !is_same);
        if arguments.resume {
            let identity = identity(place, arguments.in_place);
            let resumed = Journal::resume(path, &going_on.head, identity.as_deref())?;
            going_on.resumed = resumed.filter(|_| !is_gone(place, arguments));
        } else if is_same && !arguments.in_place && !is_final {
            say("an interrupted restore of the same disk is begun anew; --resume would have gone on with it");
        }
        Ok(going_on)
    }

    /// Whether there may be changes at the place that nothing tells of.
    pub(super) fn has_untold(&self) -> bool {
        self.has_untold
    }

    /// Whether there is an interrupted restore to go on with.
    pub(super) fn goes_on(&self) -> bool {
        self.resumed.is_some()
    }

    /// Forgets what an earlier restore had complete, unless this one goes on with it: before the target is opened, which
    /// may empty it.
    ///
    /// # Errors
    /// A journal that cannot be written, or that another restore has.
    pub(super) fn forget(&self) -> Result<(), JournalError> {
        match &self.path {
            Some(path) if !self.goes_on() => Journal::forget(path),
            _ => Ok(()),
        }
    }

    /// Opens the journal, when the target is open; `is_new` if nothing of an earlier restore is in that.
    ///
    /// # Errors
    /// A journal that cannot be written next to its file. Elsewhere it is done without.
    pub(super) fn journal(&mut self, place: &Place, is_new: bool) -> Result<Option<Journal>, JournalError> {
        // One that is replaced is closed first: it is locked.
        if let Some(journal) = self.resumed.take().filter(|_| !is_new) {
            return Ok(Some(journal));
        }
        let Some(path) = &self.path else { return Ok(None) };
        if !matches!(place, Place::File(_))
            && let Some(directory) = path.parent()
            && let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(directory)
        {
            tracing::info!(%error, "there is no directory for a journal");
            return Ok(None);
        }
        let identity = identity(place, self.in_place);
        let journal = Journal::begin(path, &self.head, identity.as_deref())?;
        if self.is_final {
            // What an earlier journal tells of is gone.
            return journal.remove().map(|()| None);
        }
        if self.has_untold {
            journal.note_untold()?;
        }
        Ok(Some(journal))
    }
}

/// Whether what was restored is gone, and with it what was complete.
fn is_gone(place: &Place, arguments: &Arguments) -> bool {
    match place {
        Place::File(path) if !arguments.in_place => {
            partial_path(path).is_none_or(|partial| !partial.exists())
        }
        _ => false,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.display().to_string())
}

/// Where the journal is; nothing for what cannot be gone on with.
fn journal_path(
    settings: &Settings,
    repository: &Repository<'_>,
    place: &Place,
    to: &str,
) -> Option<PathBuf> {
    match place {
        Place::File(path) => {
            let mut name = OsString::from(path.file_name()?);
            name.push(JOURNAL);
            Some(path.with_file_name(name))
        }
        // The beginning of a disk of a VM is durable at the end only: what is there is found by comparing.
        Place::Output(_) | Place::Machine(_) => None,
        _ => {
            // A name of any length, with any characters, as one that is none of these.
            let name = format!("restore-{}", repository.keys().vm_tag(to));
            Some(settings.cache_dir()?.join(repository.config().repository.to_string()).join(name))
        }
    }
}

/// Says what is left of a restore that failed, and drops the journal of one of which nothing is.
pub(super) fn tell_left(place: &Place, arguments: &Arguments, journal: Journal) {
    let kept = match place {
        Place::File(path) if !arguments.in_place => {
            let partial = partial_path(path).filter(|partial| partial.exists());
            partial.map(|partial| format!("what was restored so far is in {}", partial.display()))
        }
        _ => Some(format!("{} is incomplete", arguments.to)),
    };
    match kept {
        Some(kept) => say(&format!("{kept}; the same command with --resume goes on from there")),
        None => {
            if let Err(error) = journal.remove() {
                warn(&error.to_string());
            }
        }
    }
}
