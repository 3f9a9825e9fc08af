//! What is served: a disk of a snapshot, with or without changes over it.

use crate::error::{EngineError, chain};
use crate::nbd::server::wire::Errno;
use crate::overlay::Overlay;
use crate::view::{Area, Cached, DiskView};
use std::io;

/// The disk that a server serves.
#[derive(Clone, Copy)]
pub enum Served<'a, 'r, 's> {
    /// As it is in the snapshot.
    ReadOnly(&'a DiskView<'r, 's>),
    /// With changes over it.
    Writable(&'a Overlay<'a, 'r, 's>),
}

/// Why a request cannot be done.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    pub(super) text: String,
    /// Whether something stored is damaged or missing.
    pub(super) is_damage: bool,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { errno: Errno::InputOutput, text: chain(&error), is_damage: error.is_damage() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let errno = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Errno::NoSpace
            }
            _ => Errno::InputOutput,
        };
        let stored = error.get_ref().and_then(|inner| inner.downcast_ref::<EngineError>());
        let is_damage = stored.is_some_and(EngineError::is_damage);
        Self { errno, text: chain(&error), is_damage }
    }
}

impl Failure {
    pub(super) fn new(errno: Errno, text: &str) -> Self {
        Self { errno, text: text.to_owned(), is_damage: false }
    }
}

impl Served<'_, '_, '_> {
    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.view().size()
    }

    pub(super) fn view(&self) -> &DiskView<'_, '_> {
        match self {
            Self::ReadOnly(view) => view,
            Self::Writable(overlay) => overlay.view(),
        }
    }

    pub(super) fn overlay(&self) -> Result<&Overlay<'_, '_, '_>, Failure> {
        match self {
            Self::ReadOnly(_) => Err(Failure::new(Errno::NotPermitted, "the disk is served read-only")),
            Self::Writable(overlay) => Ok(overlay),
        }
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::ReadOnly(view) => view.read_at(offset, buffer)?,
            Self::Writable(overlay) => overlay.read_at(offset, buffer)?,
        }
        Ok(())
    }

    /// What is in memory of a range.
    pub(super) fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<Cached, Failure> {
        Ok(match self {
            Self::ReadOnly(view) => view.read_cached(offset, buffer)?,
            Self::Writable(_) => Cached::Absent,
        })
    }

    /// Makes durable what was changed.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        match self {
            Self::ReadOnly(_) => Ok(()),
            Self::Writable(overlay) => Ok(overlay.flush()?),
        }
    }

    pub(super) fn areas(&self, start: u64, end: u64, count: usize) -> Result<Vec<Area>, Failure> {
        Ok(match self {
            Self::ReadOnly(view) => view.areas(start, end, count)?,
            Self::Writable(overlay) => overlay.areas(start, end, count)?,
        })
    }
}
