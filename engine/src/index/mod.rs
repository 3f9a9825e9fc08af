//! The local index: where chunks of other sessions are, as far as this host knows.
//!
//! A cache of the repository's index blobs in immutable sorted tables, memory-mapped from a directory or held in
//! memory. Everything in it is a hint: a missing entry costs space in the repository, a stale one is refused when
//! it is confirmed (PROTOCOL W5). A *wrong* entry would be worse than none, so every record is checked against a
//! keyed checksum when it is used, and a table that fails is dropped and synchronised again.
//!
//! Tables are merged in tiers of four, so that n entries make about log4(n) tables. A lookup that misses reads about
//! three cache lines of each table; one that finds its chunk also reads and checks a block of 4 KiB.
//!
//! Memory: what is mapped, 2.1 bytes an entry ([`LocalIndex::resident_max`]), of which the kernel keeps what was
//! touched; and for each table its list of packs, sessions and index blobs (under 100 bytes for each of them). Merging
//! takes `MERGED_MAX` read buffers besides.

mod build;
pub(crate) mod directory;
pub(crate) mod layout;
mod map;
mod meta;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod verdicts;

pub use sync::{Preference, SyncReport, sync};
pub use verdicts::Verdict;

use build::{BuildError, Input, Sink};
use directory::Directory;
use layout::{Checks, Damaged};
use meta::Meta;
use repo_format::{BlobName, ChunkId, DecisionName, Index, Location, RepositoryId, SessionId};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use table::Table;
use verdicts::Verdicts;

/// How many places a lookup returns: more than one only matters when the first ones cannot be confirmed.
pub const MAX_HITS: usize = 4;
/// So many tables of one size class are merged into one.
const TABLES_PER_CLASS: usize = 4;
/// So many tables at most are merged at once, and no more are left unmerged by a synchronisation: each is an open file.
const MERGED_MAX: usize = 128;
/// Tables below so many bits of entries (256 Ki entries, 13 MB) are one size class; each next class is four times
/// as large.
const SMALLEST_CLASS_BITS: u32 = 18;
/// How often the directory is listed again because a table went away between listing and opening it.
const LISTINGS_MAX: u32 = 4;

/// A failure of the local index. A caller can go on with an index in memory, or with none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The directory does not exist and cannot be created, or cannot be read or written.
    #[error("the index cache directory {} cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written. What the index had before is still in use.
    #[error("could not write to the index cache directory {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The places of one chunk, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hits {
    places: [Option<Location>; MAX_HITS],
}

impl Hits {
    /// Whether the chunk is not in the index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places[0].is_none()
    }

    /// Goes through the places, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.places.iter().flatten()
    }

    fn is_full(&self) -> bool {
        self.places[MAX_HITS - 1].is_some()
    }

    fn push(&mut self, place: Location) {
        if self.iter().any(|known| *known == place) {
            return;
        }
        if let Some(free) = self.places.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(place);
        }
    }
}

impl IntoIterator for Hits {
    type Item = Location;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Location>, MAX_HITS>>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.into_iter().flatten()
    }
}

/// What one repository's index blobs say, as far as they are cached. Lookups may come from many threads.
pub struct LocalIndex {
    checks: Checks,
    directory: Option<Directory>,
    budget_bytes: u64,
    /// The newest first.
    tables: Vec<Table>,
    verdicts: Verdicts,
    /// Files that were found damaged and taken out of use, and not yet reported.
    damaged: Vec<PathBuf>,
}

impl LocalIndex {
    /// Opens the cache of `repository` in a directory of its own below `root`, which is created if it does not
    /// exist; `None` keeps everything in memory. `check_key` is a secret of the repository; `budget_bytes` is what
    /// [`sync()`] fills the tables up to.
    ///
    /// # Errors
    /// [`IndexError::Directory`]. Damaged files are no error: see [`LocalIndex::take_damaged`].
    pub fn open(
        root: Option<&Path>,
        repository: RepositoryId,
        check_key: [u8; 32],
        budget_bytes: u64,
    ) -> Result<Self, IndexError> {
        let checks = Checks::new(check_key, repository);
        let directory = root.map(|root| Directory::open(root, repository)).transpose()?;
        let verdicts =
            Verdicts::open(directory.as_ref(), &checks).map_err(|source| match directory.as_ref() {
                Some(directory) => IndexError::Directory { path: directory.path().to_owned(), source },
                None => unreachable!("a memo in memory reads no file"),
            })?;
        let mut index =
            Self { checks, directory, budget_bytes, tables: Vec::new(), verdicts, damaged: Vec::new() };
        index.load_tables()?;
        Ok(index)
    }

    /// Makes a table of one index, which has the content of the blobs `covered`, and merges tables if there are
    /// too many. Entries with a pack number that the index does not list are left out.
    ///
    /// # Errors
    /// [`IndexError::Write`]; what was added before is still in use.
    pub fn add(&mut self, covered: &[BlobName], index: &Index) -> Result<(), IndexError> {
        self.add_uncompacted(covered, &[index])?;
        self.compact()
    }

    /// Finds the places of a chunk. A damaged table is taken out of use and reported by
    /// [`LocalIndex::take_damaged`]; its entries count as misses.
    #[must_use]
    pub fn lookup(&self, id: &ChunkId) -> Hits {
        let mut hits = Hits::default();
        for table in &self.tables {
            if hits.is_full() {
                break;
            }
            if !table.is_damaged() && table.lookup(id, &mut hits).is_err() {
                table.retire();
            }
        }
        hits
    }

    /// Returns the decision that an index named for a session.
    #[must_use]
    pub fn decision_of(&self, session: SessionId) -> Option<&DecisionName> {
        self.tables.iter().find_map(|table| table.meta().decision_of(session))
    }

    /// Returns the index blobs whose entries are in the cache.
    #[must_use]
    pub fn covered(&self) -> BTreeSet<BlobName> {
        let intact = self.tables.iter().filter(|table| !table.is_damaged());
        intact.flat_map(|table| table.meta().covered.iter().cloned()).collect()
    }

    /// Returns how many bytes the tables have, on disk or in memory.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.tables.iter().map(Table::len).sum()
    }

    /// Returns how many bytes of the tables are mapped or in memory: the most that any number of lookups keeps
    /// resident, besides the lists of each table.
    #[must_use]
    pub fn resident_max(&self) -> u64 {
        self.tables.iter().map(Table::resident_max).sum()
    }

    /// Returns how many entries the tables have; a chunk with several places counts for each.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.tables.iter().map(Table::entries).sum()
    }

    /// Returns how a session was decided, if that was ever remembered.
    #[must_use]
    pub fn verdict(&self, session: SessionId) -> Option<Verdict> {
        self.verdicts.get(session)
    }

    /// Remembers how a session was decided, for this and later runs. The first verdict of a session stays.
    ///
    /// # Errors
    /// [`IndexError::Write`]; this run knows the verdict nevertheless.
    pub fn remember_verdict(&mut self, session: SessionId, verdict: Verdict) -> Result<(), IndexError> {
        let remembered = self.verdicts.remember(session, verdict, self.directory.as_ref(), &self.checks);
        remembered.map_err(|source| self.write_error(source))
    }

    /// Drops the tables that were found damaged and returns their files, each of them once.
    pub fn take_damaged(&mut self) -> Vec<PathBuf> {
        self.drop_damaged();
        std::mem::take(&mut self.damaged)
    }

    fn drop_damaged(&mut self) {
        for table in self.tables.extract_if(.., |table| table.is_damaged()) {
            self.damaged.extend(table.path().map(Path::to_owned));
        }
    }

    fn load_tables(&mut self) -> Result<(), IndexError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let failed = |source| IndexError::Directory { path: directory.path().to_owned(), source };
        for _ in 0..LISTINGS_MAX {
            self.tables.clear();
            let mut vanished = false;
            for path in directory.tables().map_err(failed)? {
                let file = File::open(&path);
                match file.and_then(|file| Table::open_file(file, path.clone(), &self.checks)) {
                    Ok(Ok(table)) => self.tables.push(table),
                    Ok(Err(Damaged)) => {
                        remove_file(&path);
                        self.damaged.push(path);
                    }
                    // Another run merged it; what it was merged into is listed the next time.
                    Err(error) if error.kind() == ErrorKind::NotFound => vanished = true,
                    Err(error) => return Err(failed(error)),
                }
            }
            if !vanished {
                break;
            }
        }
        self.tables.sort_by_cached_key(|table| (Reverse(table.sequence()), table.path().map(Path::to_owned)));
        self.drop_subsumed();
        Ok(())
    }

    /// Removes tables whose index blobs are all covered by one other table: inputs of a merge whose run ended
    /// before it removed them, or of a merge that another run did too.
    fn drop_subsumed(&mut self) {
        let mut at = 0;
        while let Some(table) = self.tables.get(at) {
            let covered = &table.meta().covered;
            let subsumed = self.tables.iter().enumerate().any(|(other_at, other)| {
                let others = &other.meta().covered;
                let larger = others.len() > covered.len() || (others.len() == covered.len() && other_at < at);
                other_at != at && larger && covered.iter().all(|name| others.binary_search(name).is_ok())
            });
            if subsumed && !covered.is_empty() {
                self.remove_table(at);
            } else {
                at += 1;
            }
        }
    }

    /// Removes a table and its file.
    fn remove_table(&mut self, at: usize) {
        if let Some(path) = self.tables.remove(at).path() {
            remove_file(path);
        }
    }

    /// Makes one table of several indexes and leaves merging to a later [`LocalIndex::compact`].
    fn add_uncompacted(&mut self, covered: &[BlobName], indexes: &[&Index]) -> Result<(), IndexError> {
        self.drop_damaged();
        let mut metas: Vec<Meta> = indexes.iter().map(|index| index_meta(index)).collect();
        // Inputs are numbered by `metas`; the covered names come with the first one.
        if let Some(first) = metas.first_mut() {
            first.covered = covered.to_vec();
        }
        let (meta, numbers) = Meta::union(&metas.iter().collect::<Vec<_>>());
        let inputs: Vec<Input<'_>> = indexes
            .iter()
            .map(|index| {
                let mut entries: Vec<_> = index.entries.iter().collect();
                entries.sort_by_key(|entry| entry.id);
                Input::Index(entries)
            })
            .collect();
        let sequence = self.tables.first().map_or(0, Table::sequence) + 1;
        match self.build(&inputs, &numbers, &meta, sequence) {
            Ok(table) => self.tables.insert(0, table),
            Err(BuildError::Io(source)) => return Err(self.write_error(source)),
            Err(BuildError::Damaged(_)) => unreachable!("indexes in memory have no blocks"),
        }
        Ok(())
    }

    /// Merges tables until no size class has [`TABLES_PER_CLASS`] of them. Each merge takes all tables of a class
    /// at once, up to [`MERGED_MAX`], so that a first synchronisation copies its entries once or twice.
    fn compact(&mut self) -> Result<(), IndexError> {
        self.drop_damaged();
        while let Some(group) = self.full_class() {
            match self.merge(&group) {
                Ok(merged) => self.replace(&group, merged),
                Err(BuildError::Damaged(input)) => {
                    self.tables[group[input]].retire();
                    self.drop_damaged();
                }
                Err(BuildError::Io(source)) => return Err(self.write_error(source)),
            }
        }
        Ok(())
    }

    /// The places of the tables of the smallest size class that has too many, the newest first.
    fn full_class(&self) -> Option<Vec<usize>> {
        let classes: BTreeSet<u32> = self.tables.iter().map(size_class).collect();
        classes.into_iter().find_map(|class| {
            let of_class = |at: &usize| size_class(&self.tables[*at]) == class;
            let mut group: Vec<usize> = (0..self.tables.len()).filter(of_class).collect();
            group.drain(..group.len().saturating_sub(MERGED_MAX));
            let entries: u64 = group.iter().map(|&at| self.tables[at].entries()).sum();
            (group.len() >= TABLES_PER_CLASS && u32::try_from(entries).is_ok()).then_some(group)
        })
    }

    fn merge(&self, group: &[usize]) -> Result<Table, BuildError> {
        let tables: Vec<&Table> = group.iter().map(|&at| &self.tables[at]).collect();
        let (meta, numbers) = Meta::union(&tables.iter().map(|table| table.meta()).collect::<Vec<_>>());
        let inputs: Vec<Input<'_>> = tables.iter().map(|table| Input::Table(table)).collect();
        let sequence = tables.iter().map(|table| table.sequence()).max().unwrap_or_default();
        self.build(&inputs, &numbers, &meta, sequence)
    }

    /// Puts a merged table in the place of its inputs and removes their files; runs that have them mapped keep them.
    fn replace(&mut self, group: &[usize], merged: Table) {
        for &at in group.iter().rev() {
            let input = self.tables.remove(at);
            // A merge can give the very table that it began with, and then the file is the new one.
            if let Some(path) = input.path().filter(|path| Some(*path) != merged.path()) {
                remove_file(path);
            }
        }
        let at = self.tables.partition_point(|table| table.sequence() > merged.sequence());
        self.tables.insert(at, merged);
    }

    fn build(
        &self,
        inputs: &[Input<'_>],
        numbers: &[Vec<u32>],
        meta: &Meta,
        sequence: u64,
    ) -> Result<Table, BuildError> {
        let Some(directory) = &self.directory else {
            let mut sink = Sink::Memory(Vec::new());
            build::build(inputs, numbers, meta, sequence, &self.checks, &mut sink)?;
            let Sink::Memory(bytes) = sink else { unreachable!("the sink is memory") };
            return as_built(Table::open_memory(bytes, &self.checks));
        };
        let mut temporary = directory.temporary()?;
        let check =
            build::build(inputs, numbers, meta, sequence, &self.checks, &mut Sink::File(temporary.file()))?;
        let path = directory.path().join(Directory::table_name(&check));
        let file = temporary.file().try_clone()?;
        let table = as_built(Table::open_file(file, path.clone(), &self.checks)?)?;
        temporary.publish(&path)?;
        Ok(table)
    }

    fn write_error(&self, source: io::Error) -> IndexError {
        let path = self.directory.as_ref().map(|directory| directory.path().to_owned()).unwrap_or_default();
        IndexError::Write { path, source }
    }
}

/// What an index says as a whole.
fn index_meta(index: &Index) -> Meta {
    Meta { covered: Vec::new(), sessions: index.sessions.clone(), packs: index.packs.clone() }
}

/// Tables of one class are merged with each other.
fn size_class(table: &Table) -> u32 {
    table.entries().checked_ilog2().map_or(0, |bits| (bits + 2).saturating_sub(SMALLEST_CLASS_BITS) / 2)
}

fn as_built(opened: Result<Table, Damaged>) -> Result<Table, BuildError> {
    // What was written a moment ago reads back differently only if the disk or the memory is broken.
    opened.map_err(|Damaged| BuildError::Io(ErrorKind::InvalidData.into()))
}

/// Removes a file of the cache. A file that stays costs space until the next run removes it; nothing relies on it.
fn remove_file(path: &Path) {
    let _ = fs::remove_file(path);
}
