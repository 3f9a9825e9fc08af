//! The cache directory of one repository.
//!
//! Files appear complete, under a name that follows from their content, and are never changed afterwards; they may
//! disappear at any time, which running processes do not notice. So any number of runs can share the directory
//! without locks. Tables of other versions have other names: those of earlier ones are removed, as nothing would ever
//! use them again, and those of later ones are left alone.

use super::layout::VERSION;
use super::{IndexError, remove_file};
use repo_format::RepositoryId;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the names of unfinished files begin with.
const TEMPORARY: &str = "tmp-";
/// What follows a table's own name, and precedes its version.
const TABLE: &str = ".table-";
/// How many names an unfinished file tries: as many runs as could reasonably write at once.
const TEMPORARIES_MAX: u32 = 4096;

/// An existing, writable cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Creates the directory of `repository` below `root` if it does not exist, tries whether it can be written
    /// to, and removes what crashed runs left unfinished and what earlier versions left.
    pub(crate) fn open(root: &Path, repository: RepositoryId) -> Result<Self, IndexError> {
        let directory = Self { path: root.join(repository.to_string()) };
        let trial = directory.temporary().and_then(|_| directory.remove_abandoned());
        let trial = trial.and_then(|()| directory.remove_outdated());
        trial.map_err(|source| IndexError::Directory { path: directory.path.clone(), source })?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The table files, in no particular order.
    pub(super) fn tables(&self) -> io::Result<Vec<PathBuf>> {
        self.tables_of(|version| version == VERSION)
    }

    fn tables_of(&self, wanted: impl Fn(u32) -> bool) -> io::Result<Vec<PathBuf>> {
        let names = self.names()?;
        let is_wanted = |name: &&String| {
            let version = name.rsplit_once(TABLE).and_then(|(_, version)| version.parse().ok());
            version.is_some_and(&wanted)
        };
        Ok(names.iter().filter(is_wanted).map(|name| self.path.join(name)).collect())
    }

    /// The name of the table whose preamble has the checksum `check`.
    pub(super) fn table_name(check: &[u8; 32]) -> String {
        let (name, _) = check.split_first_chunk().expect("a checksum has 32 bytes");
        format!("{:032x}{TABLE}{VERSION}", u128::from_be_bytes(*name))
    }

    /// Creates an unfinished file, and the directory if somebody deleted it.
    pub(crate) fn temporary(&self) -> io::Result<Temporary> {
        match self.create_temporary() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
                self.create_temporary()
            }
            created => created,
        }
    }

    fn create_temporary(&self) -> io::Result<Temporary> {
        for number in 0..TEMPORARIES_MAX {
            let path = self.path.join(format!("{TEMPORARY}{number}"));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                // The lock tells other runs that the file is not abandoned. A run that holds it, or held it just now,
                // removes the file as abandoned; the next name is as good.
                Ok(file) => {
                    let refused = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
                    if !refused && is_at(&file, &path)? {
                        return Ok(Temporary { file, path, published: false });
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn remove_abandoned(&self) -> io::Result<()> {
        for name in self.names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let path = self.path.join(name);
            // The lock is held until the file is gone: only who holds it takes the name away from the file, so the
            // name cannot come to mean another one meanwhile.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() && is_at(&file, &path)? {
                remove_file(&path);
            }
        }
        Ok(())
    }

    fn remove_outdated(&self) -> io::Result<()> {
        for path in self.tables_of(|version| version < VERSION)? {
            remove_file(&path);
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An unfinished file, which goes away unless it is published.
pub(crate) struct Temporary {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Makes the content durable and gives the file its name; what had the name before is replaced.
    pub(crate) fn publish(&mut self, path: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        fs::rename(&self.path, path)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            remove_file(&self.path);
        }
    }
}
