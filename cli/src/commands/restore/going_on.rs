//! What lets an interrupted restore go on: its journal, which is next to a file, and else in the cache directory.

use super::Arguments;
use super::place::Place;
use crate::console::{say, warn};
use crate::settings::Settings;
use keepstone_engine::Repository;
use keepstone_engine::restore::{Journal, JournalError, JournalHead};
use keepstone_engine::target::partial_path;
use repo_format::Disk;
use repo_format::SessionId;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

/// What is added to a file's name for its journal.
const JOURNAL: &str = ".keepstone-journal";

/// Where a restore keeps its journal, and what is there.
pub(super) struct GoingOn {
    path: Option<PathBuf>,
    head: JournalHead,
    /// The journal of the interrupted restore that is gone on with.
    resumed: Option<Journal>,
    /// An interrupted restore to the same place, which is not gone on with.
    left: Option<JournalHead>,
    /// Nobody can go on with this one.
    is_final: bool,
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
            // The journal moves with its file.
            Place::File(path) => path.file_name().map_or_else(String::new, |name| name.display().to_string()),
            _ => arguments.to.clone(),
        };
        let head = JournalHead::new(repository.config().repository, snapshot, disk, &named);
        let is_final = !arguments.format.can_go_on();
        let mut going_on = Self { path, head, resumed: None, left: None, is_final };
        let Some(path) = &going_on.path else { return Ok(going_on) };
        if arguments.resume {
            going_on.resumed = Journal::resume(path, &going_on.head)?;
        } else {
            going_on.left = Journal::head(path)?;
            let is_same = going_on.left.as_ref() == Some(&going_on.head);
            if is_same && !arguments.in_place && !is_final {
                say(
                    "an interrupted restore of the same disk is begun anew; --resume would have gone on with it",
                );
            }
        }
        Ok(going_on)
    }

    /// Whether something may have been restored to the place that is not of this snapshot.
    pub(super) fn is_mixed(&self) -> bool {
        self.left.as_ref().is_some_and(|left| *left != self.head)
    }

    /// Opens the journal, when the target is open.
    ///
    /// # Errors
    /// A journal that cannot be written next to its file. Elsewhere it is done without.
    pub(super) fn journal(&mut self, place: &Place) -> Result<Option<Journal>, JournalError> {
        if let Some(journal) = self.resumed.take() {
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
        let journal = Journal::begin(path, &self.head)?;
        if self.is_final {
            // What an earlier journal tells of is gone.
            return journal.remove().map(|()| None);
        }
        Ok(Some(journal))
    }
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
