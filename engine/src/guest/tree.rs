//! A file system of a guest: finding and reading what is in it.

use super::contents::System;
use super::device::Section;
use super::error::{Fault, GuestError};
use super::names::{components, is_name, joined, shown};
use super::systems::{self, Content, FileSystem, Found, Kind, Metadata, Node, Piece};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Symbolic links on the way to a file, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// A file system that is open.
pub struct Tree {
    section: Section,
    system: System,
    files: Box<dyn FileSystem>,
    /// A reader that panicked is not used again.
    has_panicked: Cell<bool>,
}

/// Whether the last name of a path is followed where it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// What it leads to is meant.
    Last,
    /// The link itself is meant.
    Never,
}

/// A file, directory or anything else that has a name.
#[derive(Clone)]
pub struct Entry {
    /// Its name in its directory: any bytes. Empty for the root.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The path of its directory: the entries of one share it.
    directory: Rc<[u8]>,
    node: Node,
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Entry({:?} {})", self.kind, shown(&self.path()))
    }
}

impl Tree {
    pub(super) fn open(section: Section, system: System) -> Result<Self, GuestError> {
        section.begin();
        let opened = catch_unwind(AssertUnwindSafe(|| systems::open(&section, system)));
        let opened = opened.unwrap_or_else(|_| Err(Fault::Panicked.damaged(system)));
        let files = opened.map_err(|error| section.failure().map_or(error, GuestError::Disk))?;
        Ok(Self { section, system, files, has_panicked: Cell::new(false) })
    }

    /// What the file system is.
    #[must_use]
    pub fn system(&self) -> System {
        self.system
    }

    /// How many directories there can be, where [`Entry::identity`] does not tell them from one another.
    pub(super) fn directories_max(&self) -> Option<u64> {
        self.files.directories_max()
    }

    /// Asks the file system. A disk that failed is the error then, whatever its reader made of that.
    fn ask<T>(&self, ask: impl FnOnce(&dyn FileSystem) -> Result<T, GuestError>) -> Result<T, GuestError> {
        if self.has_panicked.get() {
            return Err(Fault::Panicked.damaged(self.system));
        }
        self.section.begin();
        let asked = catch_unwind(AssertUnwindSafe(|| ask(self.files.as_ref())));
        let answer = asked.unwrap_or_else(|_| {
            self.has_panicked.set(true);
            Err(Fault::Panicked.damaged(self.system))
        });
        answer.map_err(|error| self.section.failure().map_or(error, GuestError::Disk))
    }

    /// Finds a path from the root; symbolic links on the way are followed, within the volume.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `TooManyLinks`; a disk that cannot be read, a damaged file system.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Entry, GuestError> {
        let root = self.root()?;
        // The directories between the root and where the way has come to, and that.
        let (mut way, mut here) = (Vec::new(), root.clone());
        let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        // What ends with a separator is meant to be a directory.
        let follows_last = follow == Follow::Last || path.ends_with(b"/");
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if here.kind != Kind::Directory {
                return Err(GuestError::NotADirectory { path: shown(&here.path()) });
            }
            if name == b".." {
                here = way.pop().unwrap_or_else(|| root.clone());
                continue;
            }
            let found = self.lookup(&here, &name)?;
            if found.kind == Kind::Symlink && (follows_last || !rest.is_empty()) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(GuestError::TooManyLinks { path: shown(path) });
                }
                let target = self.read_link(&found)?;
                if target.starts_with(b"/") {
                    way.clear();
                    here = root.clone();
                }
                components(&target).rev().for_each(|name| rest.push_front(name.to_vec()));
            } else {
                way.push(std::mem::replace(&mut here, found));
            }
        }
        if path.ends_with(b"/") && here.kind != Kind::Directory {
            return Err(GuestError::NotADirectory { path: shown(&here.path()) });
        }
        Ok(here)
    }

    fn root(&self) -> Result<Entry, GuestError> {
        let node = self.ask(|files| files.root())?;
        Ok(Entry { name: Vec::new(), kind: Kind::Directory, directory: b"/".as_slice().into(), node })
    }

    fn lookup(&self, directory: &Entry, name: &[u8]) -> Result<Entry, GuestError> {
        let found = self.ask(|files| files.lookup(&directory.node, name))?;
        let path = directory.path();
        let found = found.ok_or_else(|| GuestError::not_found(&joined(&path, name)))?;
        Ok(entry(&path.into(), found))
    }

    /// What is in a directory, by name; without `.` and `..`. Names may be any bytes: see [`Entry::has_possible_name`].
    ///
    /// # Errors
    /// `NotADirectory`, and as [`Tree::resolve`].
    pub fn list(&self, directory: &Entry) -> Result<Vec<Entry>, GuestError> {
        if directory.kind != Kind::Directory {
            return Err(GuestError::NotADirectory { path: shown(&directory.path()) });
        }
        let found = self.ask(|files| files.entries(&directory.node))?;
        let path = directory.path().into();
        let mut entries: Vec<Entry> = found.into_iter().map(|found| entry(&path, found)).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// What is known of an entry besides its name.
    ///
    /// # Errors
    /// A disk that cannot be read, a damaged file system.
    pub fn metadata(&self, entry: &Entry) -> Result<Metadata, GuestError> {
        self.ask(|files| files.metadata(&entry.node))
    }

    /// Where a symbolic link leads to, as it is written.
    ///
    /// # Errors
    /// A disk that cannot be read, a damaged file system.
    pub fn read_link(&self, entry: &Entry) -> Result<Vec<u8>, GuestError> {
        self.ask(|files| files.read_link(&entry.node))
    }

    /// Begins to read a file.
    pub(super) fn reader<'t>(&'t self, entry: &Entry) -> Result<Reader<'t>, GuestError> {
        match entry.kind {
            Kind::File => {}
            Kind::Directory => return Err(GuestError::IsADirectory { path: shown(&entry.path()) }),
            _ => return Err(GuestError::Special { path: shown(&entry.path()) }),
        }
        let content = self.ask_content(|files| files.content(&entry.node))?;
        Ok(Reader { tree: self, content })
    }

    fn ask_content<'t>(
        &'t self,
        ask: impl FnOnce(&'t dyn FileSystem) -> Result<Box<dyn Content + 't>, GuestError>,
    ) -> Result<Box<dyn Content + 't>, GuestError> {
        let files = self.files.as_ref();
        self.ask(|_| ask(files))
    }
}

fn entry(directory: &Rc<[u8]>, found: Found) -> Entry {
    Entry { name: found.name, kind: found.kind, directory: Rc::clone(directory), node: found.node }
}

impl Entry {
    /// What tells one directory from another, where the file system says it.
    pub(super) fn identity(&self) -> Option<u64> {
        systems::identity(&self.node)
    }

    /// Its path from the root of its volume.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        if self.name.is_empty() { self.directory.to_vec() } else { joined(&self.directory, &self.name) }
    }

    /// Whether a directory can have an entry of this name. A damaged or hostile file system may hold others, like `..` or
    /// `a/b`, which nothing should be made of.
    #[must_use]
    pub fn has_possible_name(&self) -> bool {
        is_name(&self.name)
    }
}

/// A file that is read from front to back.
pub(super) struct Reader<'t> {
    tree: &'t Tree,
    content: Box<dyn Content + 't>,
}

impl Reader<'_> {
    /// Reads what comes next; `buffer` holds it then.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError> {
        let content = &mut self.content;
        self.tree.ask(|_| content.next(buffer))
    }
}
