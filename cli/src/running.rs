//! What this host remembers of its own backups of one VM: whether one is running, and which sessions have ended
//! without a word.
//!
//! A backup holds a lock on a file in the cache directory, and writes its session's id there before it begins. If the
//! process is killed, the system releases the lock; so whoever gets it knows that the sessions in the file have ended.

use crate::settings::Settings;
use keepstone_engine::backup::Unfinished;
use keepstone_engine::{Event, Observer, Repository};
use repo_format::{SessionId, WriterId};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest file that is read: the ids of two thousand sessions.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Another process of this host does the same with the same VM as the same writer.
#[derive(Debug, thiserror::Error)]
#[error("a {what} {vm} as the writer {writer} is running on this host already")]
pub(crate) struct AlreadyRunning {
    /// With its preposition.
    pub(crate) what: &'static str,
    pub(crate) vm: String,
    pub(crate) writer: WriterId,
}

/// A running backup, as other processes of this host see it; an observer that notes the sessions.
pub(crate) struct Running<'a> {
    /// Where it is noted, and for which writer and VM.
    place: Option<(PathBuf, String)>,
    /// Nothing if there is no cache directory that can be written: then nobody sees this backup.
    file: Option<File>,
    ended: Vec<SessionId>,
    observer: &'a dyn Observer,
}

impl<'a> Running<'a> {
    /// Begins a backup of `vm`, or a prune, whose sessions are of a VM without a name.
    ///
    /// # Errors
    /// [`AlreadyRunning`].
    pub(crate) fn begin(
        settings: &Settings,
        repository: &Repository<'_>,
        vm: &str,
        observer: &'a dyn Observer,
    ) -> Result<Self, AlreadyRunning> {
        let unseen = |reason: io::Error| {
            tracing::info!(%reason, "other processes do not see this backup");
            Ok(Self { place: None, file: None, ended: Vec::new(), observer })
        };
        let Some(cache) = settings.cache_dir() else { return unseen(io::ErrorKind::NotFound.into()) };
        let directory = cache.join(repository.config().repository.to_string());
        let of = format!("{}-{}", settings.writer, repository.keys().vm_tag(vm));
        let opened = open(&directory, &format!("running-{of}"));
        let file = match opened {
            Ok(file) => file,
            Err(error) => return unseen(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let writer = settings.writer.clone();
                return Err(match vm {
                    "" => AlreadyRunning { what: "prune of", vm: "this repository".to_owned(), writer },
                    vm => AlreadyRunning { what: "backup of", vm: vm.to_owned(), writer },
                });
            }
            Err(TryLockError::Error(error)) => return unseen(error),
        }
        match sessions(&file) {
            Ok(ended) => Ok(Self { place: Some((directory, of)), file: Some(file), ended, observer }),
            Err(error) => unseen(error),
        }
    }

    /// What the backup may take for granted about unfinished sessions.
    pub(crate) fn unfinished(&self) -> Unfinished<'_> {
        Unfinished::MayRun { ended: &self.ended }
    }

    /// The path of a file that only this backup uses, and the next one of the same writer and VM after it.
    pub(crate) fn beside(&self, what: &str) -> Option<PathBuf> {
        self.place.as_ref().map(|(directory, of)| directory.join(format!("{what}-{of}")))
    }

    /// Notes that the backup has ended with a decision, and that all earlier sessions have one.
    pub(crate) fn decided(&self) {
        if let Some(Err(reason)) = self.file.as_ref().map(|file| file.set_len(0)) {
            tracing::info!(%reason, "the list of sessions stays");
        }
    }
}

impl Observer for Running<'_> {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let (Event::SessionBegins(session), Some(mut file)) = (&event, self.file.as_ref())
            && let Err(reason) = file.write_all(format!("{session}\n").as_bytes())
        {
            // Then a later backup has to wait until the session has been quiet for long enough.
            tracing::info!(%reason, "the session is not noted");
        }
        self.observer.observe(event)
    }
}

/// Opens a file of a directory, and makes both if need be.
pub(crate) fn open(directory: &Path, name: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(name);
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// The sessions that a file names; lines that are none are left out.
fn sessions(file: &File) -> io::Result<Vec<SessionId>> {
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}
