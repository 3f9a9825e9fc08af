//! Listings in the order of whole names.
//!
//! `a-b` is before `a/b`, and `a/b` before `a0`: a directory has its place as if its name ended with a slash,
//! and all that is below it is together there.

use super::is_absent;
use super::root::{LOST_AND_FOUND, Root, is_hidden};
use crate::store::{BlobInfo, Foreign, Page};
use repo_format::BlobName;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Lists one page. Costs one look-up if the prefix is the name of a blob, and else reads the directories that
/// hold names from `from` on until the page is full, beginning at the last one that the prefix names.
pub(super) fn page(root: &Root, prefix: &str, from: Option<&BlobName>, limit: usize) -> io::Result<Page> {
    let from = from.map_or("", BlobName::as_str);
    let (base, leaf) = match prefix.rsplit_once('/') {
        None => ("", prefix),
        Some((base, leaf)) if BlobName::parse(base).is_some() => (base, leaf),
        Some(_) => return Ok(Page::default()),
    };
    if is_hidden(base) {
        return Ok(Page::default());
    }
    let dir = match root.dir(base) {
        Err(error) if is_absent(&error) => return Ok(Page::default()),
        result => result?,
    };
    if prefix >= from
        && let Some(name) = BlobName::parse(prefix)
        && let Some(info) = blob_info(&dir, &name, leaf)?
    {
        // The rest of the listing is left to another page, so that this one does not read the directory.
        let next = BlobName::parse(&format!("{name}-"));
        return Ok(Page { blobs: vec![info], next, ..Page::default() });
    }
    let limit = limit.max(1);
    let wanted = limit.saturating_add(1);
    let mut walk = Walk { prefix, from, wanted, found: Vec::new(), foreign: Vec::new() };
    walk.visit(&dir, base)?;
    let mut blobs = walk.found;
    let next = if blobs.len() > limit { blobs.pop().map(|blob| blob.name) } else { None };
    Ok(Page { blobs, next, foreign: walk.foreign })
}

/// A blob in its directory; `None` if there is none, or something that is no blob.
fn blob_info(dir: &OwnedFd, name: &BlobName, leaf: &str) -> io::Result<Option<BlobInfo>> {
    match rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            let len = u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData)?;
            // A file that is dated before 1970 counts as from then.
            let millis = stat.st_mtime.saturating_mul(1000);
            let modified = u64::try_from(millis).unwrap_or(0);
            Ok(Some(BlobInfo { name: name.clone(), len, modified, tier: None }))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An entry of a directory that may lead to names of the page.
enum Entry {
    /// The whole name of a blob.
    Blob(BlobName),
    /// The whole path of a directory, with a slash at its end.
    Dir(String),
    /// What can be no blob.
    Foreign(Foreign),
}

impl Entry {
    fn key(&self) -> &str {
        match self {
            Self::Blob(name) => name.as_str(),
            Self::Dir(path) => path,
            Self::Foreign(foreign) => &foreign.name,
        }
    }
}

struct Walk<'a> {
    prefix: &'a str,
    from: &'a str,
    wanted: usize,
    found: Vec<BlobInfo>,
    foreign: Vec<Foreign>,
}

impl Walk<'_> {
    /// Adds what is below a directory, in order, until enough is found.
    fn visit(&mut self, dir: &OwnedFd, path: &str) -> io::Result<()> {
        let Some(entries) = self.entries(dir, path)? else {
            self.note(Foreign { name: format!("{path}/"), what: "an empty directory" });
            return Ok(());
        };
        for entry in entries {
            if self.found.len() >= self.wanted {
                break;
            }
            match entry {
                Entry::Blob(name) => {
                    // `None`: deleted since the directory was read.
                    self.found.extend(blob_info(dir, &name, leaf_of(name.as_str()))?);
                }
                Entry::Dir(path) => {
                    let path = path.trim_end_matches('/');
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match rustix::fs::openat(dir, leaf_of(path), flags, Mode::empty()) {
                        Ok(below) => self.visit(&below, path)?,
                        Err(Errno::NOENT | Errno::NOTDIR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Entry::Foreign(foreign) => self.note(foreign),
            }
        }
        Ok(())
    }

    fn note(&mut self, foreign: Foreign) {
        if self.wants(&foreign.name) {
            self.foreign.push(foreign);
        }
    }

    /// The entries of a directory that may lead to names of the page, in the order of whole names; nothing if it has
    /// none at all and is not the root.
    fn entries(&self, dir: &OwnedFd, path: &str) -> io::Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        let mut is_empty = !path.is_empty();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let leaf = entry.file_name().to_bytes();
            if matches!(leaf, b"." | b"..") {
                continue;
            }
            is_empty = false;
            if path.is_empty() && leaf == LOST_AND_FOUND {
                continue;
            }
            let leaf = shown(leaf);
            let whole = if path.is_empty() { leaf } else { format!("{path}/{leaf}") };
            if is_hidden(&whole) {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                known => known,
            };
            entries.extend(self.entry(whole, file_type));
        }
        entries.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        Ok((!is_empty).then_some(entries))
    }

    fn entry(&self, whole: String, file_type: FileType) -> Option<Entry> {
        // What was written out has a backslash, which no name of a blob has.
        match (file_type, BlobName::parse(&whole)) {
            (FileType::RegularFile, Some(name)) => self.wants(&whole).then_some(Entry::Blob(name)),
            (FileType::Directory, Some(_)) => {
                let path = format!("{whole}/");
                self.may_hold(&path).then_some(Entry::Dir(path))
            }
            (FileType::Directory, None) => {
                Some(Entry::Foreign(Foreign { name: format!("{whole}/"), what: "a directory" }))
            }
            (file_type, _) => Some(Entry::Foreign(Foreign { name: whole, what: what(file_type) })),
        }
    }

    fn wants(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && name >= self.from
    }

    /// Whether names that begin with `path` can be on the page.
    fn may_hold(&self, path: &str) -> bool {
        let below_prefix = path.starts_with(self.prefix) || self.prefix.starts_with(path);
        below_prefix && (path >= self.from || self.from.starts_with(path))
    }
}

/// A name as text: as it is if it is text without control characters, else with these written out.
fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

fn what(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something of an unknown kind",
    }
}

/// The last component of a path.
fn leaf_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, leaf)| leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_nothing_of_the_page_is_not_read() {
        let walk = Walk { prefix: "d/w", from: "d/w-1/5", wanted: 1, found: Vec::new(), foreign: Vec::new() };
        let read: Vec<&str> =
            ["c/", "d/", "d/v/", "d/w-/", "d/w-0/", "d/w-1/", "d/w-1/x/", "d/w/", "d/w0/", "d/x/", "e/"]
                .into_iter()
                .filter(|path| walk.may_hold(path))
                .collect();
        assert_eq!(read, ["d/", "d/w-1/", "d/w-1/x/", "d/w/", "d/w0/"]);
    }
}
