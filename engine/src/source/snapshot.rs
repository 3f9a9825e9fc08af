//! A disk of a snapshot as a source: what is imported from another place is read from there as any disk is.

use super::{ChangedAreas, DiskSource, Outside, ReadPart, Since};
use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::threads::{Mutex, each, lock};
use crate::view::{AreaKind, DiskView};
use std::io;

/// Areas that are asked for at a time.
const AREAS_AT_ONCE: usize = 4096;
/// Parts that are read at the same time: each may be a round trip or two to a far store.
const PARTS_AT_ONCE: usize = 16;

/// A disk of a snapshot, and where it differs from another one.
pub struct SnapshotDisk<'r, 's> {
    view: DiskView<'r, 's>,
    change_id: Option<String>,
    changed: Option<Vec<Extent>>,
}

impl<'r, 's> SnapshotDisk<'r, 's> {
    /// A disk that recorded a change id, and where it differs from the one that a backup counts from, if that is known.
    ///
    /// What it tells of changes counts from that very snapshot: [`crate::backup::CountedFrom::Exactly`].
    #[must_use]
    pub fn new(view: DiskView<'r, 's>, change_id: Option<String>, changed: Option<Vec<Extent>>) -> Self {
        let size = view.size();
        let within = |areas: Vec<Extent>| areas.into_iter().filter_map(|area| area.clip(0, size)).collect();
        Self { view, change_id, changed: changed.map(within) }
    }

    /// What was read of it so far, and what that took.
    #[must_use]
    pub fn view(&self) -> &DiskView<'r, 's> {
        &self.view
    }

    /// All that is not a hole.
    fn data(&self) -> Result<Vec<Extent>, EngineError> {
        let (mut data, mut at) = (Vec::new(), 0);
        while at < self.view.size() {
            for area in self.view.areas(at, self.view.size(), AREAS_AT_ONCE)? {
                at = area.extent.end();
                data.extend((area.kind != AreaKind::Hole).then_some(area.extent));
            }
        }
        Ok(normalized(data))
    }
}

impl DiskSource for SnapshotDisk<'_, '_> {
    fn size(&self) -> u64 {
        self.view.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let (areas, outside) = match (since, &self.changed) {
            (Some(_), Some(changed)) => (changed.clone(), Outside::Unchanged),
            _ => (self.data().map_err(io::Error::other)?, Outside::Zero { full_reason: None }),
        };
        Ok(ChangedAreas { areas, outside, change_id: self.change_id.clone() })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        let parts: Vec<Mutex<&mut ReadPart<'_>>> = parts.iter_mut().map(Mutex::new).collect();
        let read = each(&parts, PARTS_AT_ONCE, |part| {
            let mut part = lock(part);
            let offset = part.offset;
            self.view.read_at(offset, part.buffer)
        });
        read.into_iter().collect::<Result<(), EngineError>>().map_err(io::Error::other)
    }

    /// A snapshot never changes.
    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
