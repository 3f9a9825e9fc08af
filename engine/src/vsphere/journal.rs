//! The snapshots that this host made and has not seen removed, in a file that survives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest file that is read: a thousand names.
const FILE_LEN_MAX: u64 = 64 << 10;

/// The names of snapshots of one VM. Each is noted before the snapshot is made and forgotten after it was removed, so a
/// snapshot that is noted is this host's, and no running backup's once the host knows that none runs.
#[derive(Debug)]
pub struct Journal {
    /// Nothing if there is no place for a file: then nothing is known after the process.
    path: Option<PathBuf>,
    names: Vec<String>,
}

impl Journal {
    /// Opens the journal in a file, which need not be there yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => drop(file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text = String::from_utf8_lossy(&bytes);
        // A line that a crash cut off was of a snapshot that was not begun.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let names = whole.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
        Ok(Self { path: Some(path.to_owned()), names })
    }

    /// A journal that ends with the process.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { path: None, names: Vec::new() }
    }

    /// Whether this host made a snapshot of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|found| found == name)
    }

    /// The snapshots that are noted.
    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Notes a snapshot that is about to be made.
    ///
    /// # Errors
    /// When that cannot be written: then the snapshot should not be made.
    pub fn note(&mut self, name: &str) -> io::Result<()> {
        if let Some(path) = &self.path {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            // Before it may be what a crash left of a line.
            file.write_all(format!("\n{name}\n").as_bytes())?;
            file.sync_all()?;
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Forgets a snapshot that is there no longer.
    ///
    /// # Errors
    /// When that cannot be written. What stays noted does no harm: names are not used again.
    pub fn forget(&mut self, name: &str) -> io::Result<()> {
        self.names.retain(|found| found != name);
        let Some(path) = &self.path else { return Ok(()) };
        if self.names.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let partial = path.with_extension("partial");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all((self.names.join("\n") + "\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(partial, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn what_was_noted_and_not_forgotten_is_known_to_the_next_process() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        for name in ["a 1", "a 2", "a 3"] {
            journal.note(name).unwrap();
        }
        journal.forget("a 2").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(["a 1", "a 2", "a 3", "a"].map(|name| journal.has(name)), [true, false, true, false]);
        journal.forget("a 1").unwrap();
        journal.forget("a 3").unwrap();
        assert!(!path.exists());
        journal.forget("a 3").unwrap();
    }

    #[test]
    fn a_line_that_was_cut_off_is_not_known() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        fs::write(&path, "a 1\n\na 2").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.has("a 1"), journal.has("a 2"), journal.has("")), (true, false, false));
        journal.note("a 3").unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.has("a 1"), journal.has("a 3")), (true, true));
    }

    #[test]
    fn without_a_place_nothing_fails() {
        let mut journal = Journal::nowhere();
        journal.note("a 1").unwrap();
        assert!(journal.has("a 1"));
        journal.forget("a 1").unwrap();
        assert!(!journal.has("a 1"));
    }
}
