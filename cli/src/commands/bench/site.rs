//! Where a run stores what it backs up: below a prefix of its own in a repository, or in the scratch directory.

use super::below::Below;
use crate::console::{one_line, warn};
use crate::exit::Usage;
use crate::location::Location;
use crate::numbers::{count, size};
use crate::open::{self, AnyStore, Store};
use crate::settings::Settings;
use anyhow::Context as _;
use keepstone_engine::EngineError;
use keepstone_engine::store::azure::ServiceError;
use keepstone_engine::store::{BlobStore, LocalStore, RecordingStore, StoreError};
use repo_format::{BlobName, Geometry, SessionId, UncheckedConfig};
use std::path::{Path, PathBuf};

/// What the names of all blobs of benchmarks begin with. No kind of blob of a repository does.
const PREFIX: &str = "bench/";
/// Names of one page of a listing.
const LIST_PAGE: usize = 5000;
/// What is created and removed first, to see that both work.
const PROBE: &str = "probe";
/// So many names of what is left alone are told.
const NAMES_TOLD: usize = 10;

/// Credentials that may not delete.
#[derive(Debug, thiserror::Error)]
#[error(
    "what bench writes into a repository it must remove again, and that is not possible here: nothing was written"
)]
pub(crate) struct CannotDelete {
    /// The refused delete of a blob that does not exist.
    source: StoreError,
}

/// A container that a run may use.
pub(super) struct Container {
    store: Store,
    /// The directory that it is in, if it is in one.
    directory: Option<PathBuf>,
    /// How the repository there is cut; that of new repositories where there is none.
    geometry: Geometry,
    /// What the names of this run's blobs begin with.
    prefix: String,
    kind: &'static str,
    place: String,
}

impl Container {
    /// Takes the repository that was named, without writing to it.
    ///
    /// # Errors
    /// There is none, or it cannot be reached.
    pub(super) fn repository(settings: &Settings) -> anyhow::Result<Self> {
        let store = open::store(settings)?;
        let config = store.get(&BlobName::config(), None).map_err(|error| match error {
            StoreError::NotFound { .. } => EngineError::NotARepository,
            error => error.into(),
        })?;
        let name = BlobName::config();
        let config =
            UncheckedConfig::parse(&config).map_err(|source| EngineError::Damaged { name, source })?;
        let (directory, kind, place) = match settings.location()? {
            Location::Directory(path) => (Some(path.to_owned()), "directory", path.display().to_string()),
            Location::Azure(place) => (None, "azure", place.to_string()),
        };
        let prefix = format!("{PREFIX}{}/{}/", settings.writer, run_id()?);
        Ok(Self { store, directory, geometry: *config.geometry(), prefix, kind, place })
    }

    /// Makes a container in an empty directory.
    ///
    /// # Errors
    /// A directory that blobs cannot be stored in.
    pub(super) fn scratch(directory: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            store: RecordingStore::new(AnyStore::Directory(LocalStore::create(directory)?)),
            directory: Some(directory.to_owned()),
            geometry: Geometry::default(),
            prefix: PREFIX.to_owned(),
            kind: "directory",
            place: directory.display().to_string(),
        })
    }

    /// How disks are cut.
    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// "directory" or "azure".
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The store with everything that is in it.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// What the names of this run's blobs begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Tells of what earlier runs of this writer were killed before they removed it, or removes it. What no run can have
    /// written is told and left when the rest is removed, and makes it false.
    ///
    /// # Errors
    /// A container that cannot be listed, or blobs that cannot be removed.
    pub(super) fn leftovers(&self, settings: &Settings, are_removed: bool) -> anyhow::Result<bool> {
        let prefix = format!("{PREFIX}{}/", settings.writer);
        let (mut names, mut others, mut bytes, mut from) = (Vec::new(), Vec::new(), 0, None);
        loop {
            let page = self.store.list(&prefix, from.as_ref(), LIST_PAGE)?;
            for info in page.blobs {
                if info.name.as_str().strip_prefix(&prefix).is_some_and(is_of_a_run) {
                    bytes += info.len;
                    names.push(info.name);
                } else {
                    others.push(info.name.to_string());
                }
            }
            others.extend(page.foreign.into_iter().map(|foreign| foreign.name));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let is_clean = others.is_empty() || !are_removed;
        if !is_clean {
            settings.screen.warn(&others_told(&prefix, &others));
        }
        if names.is_empty() {
            return Ok(is_clean);
        }
        let (blobs, bytes) = (count(names.len() as u64, "blob"), size(bytes));
        if are_removed {
            for name in &names {
                self.store
                    .delete(name)
                    .with_context(|| format!("could not remove {name}, which a benchmark left"))?;
            }
            self.remove_directories();
            settings.console.message(&format!("removed {blobs} of {bytes} that an earlier benchmark left"));
        } else {
            settings.screen.warn(&format!(
                "{blobs} of {bytes} below {prefix} are of a benchmark that was killed, or that is running; if none is, \
                 add --remove-leftovers"
            ));
        }
        Ok(is_clean)
    }

    /// Begins to store: makes sure first that what is written can be removed.
    ///
    /// # Errors
    /// [`CannotDelete`], before anything is written; a container that cannot be written to; or a tiny blob that was
    /// written and cannot be removed, which is then named.
    pub(super) fn begin(&self) -> anyhow::Result<Site<'_>> {
        let below = Below::new(&self.store, self.prefix.clone());
        let site = Site { container: self, below, has_ended: false };
        let probe = BlobName::parse(PROBE).expect("it is a name");
        site.below.delete(&probe).map_err(|source| match &source {
            StoreError::Service { source: ServiceError::Forbidden { .. }, .. } => {
                anyhow::Error::new(CannotDelete { source })
            }
            _ => source.into(),
        })?;
        site.below.put_new(&probe, b"keepstone bench\n")?;
        site.below.delete(&probe).with_context(|| {
            format!("{}{PROBE}, a blob of 16 bytes, was written and cannot be removed", self.prefix)
        })?;
        Ok(site)
    }

    /// Removes the directories of this writer's benchmarks that are empty.
    fn remove_directories(&self) {
        let Some(root) = &self.directory else { return };
        let parts = PREFIX.trim_end_matches('/');
        remove_empty(&root.join(parts));
    }
}

/// What a run may write to, until it ends.
pub(super) struct Site<'a> {
    container: &'a Container,
    below: Below<'a>,
    has_ended: bool,
}

impl Site<'_> {
    /// A store of its own for a part of the run; what is left there is removed with everything else.
    pub(super) fn part(&self, name: &str) -> Below<'_> {
        Below::new(&self.below, format!("{name}/"))
    }

    /// Removes everything that the run wrote. What cannot be removed is told, and makes it false.
    pub(super) fn end(mut self) -> bool {
        self.has_ended = true;
        self.remove()
    }

    fn remove(&self) -> bool {
        let outcome = self.below.remove_all();
        self.container.remove_directories();
        let Err(error) = outcome else { return true };
        let (blobs, prefix) = (count(self.below.left() as u64, "blob"), self.below.prefix());
        let error = anyhow::Error::new(error);
        warn(&format!(
            "{blobs} below {prefix} could not be removed; --remove-leftovers tries again: {error:#}"
        ));
        false
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.remove();
        }
    }
}

/// Checks what only makes sense with a repository.
///
/// # Errors
/// There is none.
pub(super) fn refuse_without_repository(remove_leftovers: bool) -> Result<(), Usage> {
    if remove_leftovers {
        return Err(Usage::new("--remove-leftovers is about a repository, and none was named")
            .hint("name it with -r REPO or in KEEPSTONE_REPOSITORY"));
    }
    Ok(())
}

/// Whether a run can have written a blob, by what its name has behind the prefix of the writer.
fn is_of_a_run(name: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let Some((run, rest)) = name.split_once('/') else { return false };
    if run.len() != 32 || !run.bytes().all(is_hex) {
        return false;
    }
    let Some((part, name)) = rest.split_once('/') else { return rest == PROBE };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if part.strip_prefix("requests-").is_some_and(is_number) {
        return name.strip_prefix("blob-").is_some_and(|number| number.len() >= 6 && is_number(number));
    }
    part.strip_prefix("round-").is_some_and(is_number)
        && BlobName::parse(name).is_some_and(|name| name.kind().is_some())
}

/// What is not removed because no run can have written it.
fn others_told(prefix: &str, others: &[String]) -> String {
    let mut names: Vec<String> = others.iter().take(NAMES_TOLD).map(|name| one_line(name)).collect();
    if others.len() > NAMES_TOLD {
        names.push(format!("{} more", others.len() - NAMES_TOLD));
    }
    let (files, names) = (count(others.len() as u64, "file"), names.join(", "));
    format!("{files} below {prefix} that no benchmark writes stayed: {names}")
}

/// An id that no other run has.
fn run_id() -> anyhow::Result<SessionId> {
    let mut id = SessionId([0; 16]);
    getrandom::fill(&mut id.0).context("could not get random bytes from the system")?;
    Ok(id)
}

/// Removes a directory and those in it, as far as nothing else is there.
fn remove_empty(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // One that is not empty stays: somebody else's run may be using it.
    let _ = std::fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_run_can_have_written_is_taken_for_a_leftover() {
        let run = "0123456789abcdef0123456789abcdef";
        let written = ["probe", "requests-0/blob-000017", "requests-12/blob-1000000", "round-0/config"];
        for name in written {
            assert!(is_of_a_run(&format!("{run}/{name}")), "{name}");
        }
        assert!(is_of_a_run(&format!("{run}/round-3/d/bench/{run}-00000001")));
        let others = [
            "probes",
            "config",
            "requests-0/notes",
            "requests-0/blob-17",
            "requests-x/blob-000017",
            "round-0/notes",
            "round-0/d/bench/pack",
            "round-/config",
            "requests-0/blob-000017/more",
        ];
        for name in others {
            assert!(!is_of_a_run(&format!("{run}/{name}")), "{name}");
        }
        for run in ["0123", "0123456789abcdef0123456789abcdeg", "0123456789ABCDEF0123456789ABCDEF"] {
            assert!(!is_of_a_run(&format!("{run}/probe")), "{run}");
        }
        assert!(!is_of_a_run(run) && !is_of_a_run("probe"));
    }

    #[test]
    fn of_many_names_some_are_told() {
        let others: Vec<String> = (0..12).map(|number| format!("n{number}")).collect();
        let told = others_told("bench/w/", &others);
        assert_eq!(
            told,
            "12 files below bench/w/ that no benchmark writes stayed: n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, 2 more"
        );
    }
}
