//! A served disk, with what was written over it, as the source of a backup.

use super::Overlay;
use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::source::{ChangedAreas, DiskSource, Outside, ReadPart, Since, read_each};
use crate::view::{Area, AreaKind, DiskView};
use std::io;

/// Areas that are asked for at a time.
const AREAS_AT_ONCE: usize = 4096;

/// A disk of a snapshot with the changes over it, if there are any.
///
/// What it tells of changes counts from that very snapshot: [`crate::backup::CountedFrom::Exactly`].
pub enum ChangedDisk<'d, 'r, 's> {
    /// It is as in the snapshot.
    Unchanged(&'d DiskView<'r, 's>),
    /// It was written over.
    Changed(&'d Overlay<'d, 'r, 's>),
}

impl ChangedDisk<'_, '_, '_> {
    fn areas(&self, start: u64, end: u64) -> Result<Vec<Area>, EngineError> {
        match self {
            Self::Unchanged(view) => view.areas(start, end, AREAS_AT_ONCE),
            Self::Changed(overlay) => overlay.areas(start, end, AREAS_AT_ONCE),
        }
    }

    /// All that is not a hole.
    fn data(&self) -> Result<Vec<Extent>, EngineError> {
        let (mut data, mut at) = (Vec::new(), 0);
        while at < self.size() {
            for area in self.areas(at, self.size())? {
                at = area.extent.end();
                data.extend((area.kind != AreaKind::Hole).then_some(area.extent));
            }
        }
        Ok(normalized(data))
    }
}

impl DiskSource for ChangedDisk<'_, '_, '_> {
    fn size(&self) -> u64 {
        match self {
            Self::Unchanged(view) => view.size(),
            Self::Changed(overlay) => overlay.view().size(),
        }
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let (areas, outside) = match (since, self) {
            (None, _) => {
                let data = self.data().map_err(io::Error::other)?;
                (data, Outside::Zero { full_reason: None })
            }
            (Some(_), Self::Unchanged(_)) => (Vec::new(), Outside::Unchanged),
            (Some(_), Self::Changed(overlay)) => (overlay.changed(), Outside::Unchanged),
        };
        Ok(ChangedAreas { areas, outside, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| match self {
            Self::Unchanged(view) => view.read_at(offset, buffer).map_err(io::Error::other),
            Self::Changed(overlay) => overlay.read_at(offset, buffer),
        })
    }

    /// Nobody else writes to an overlay that is open.
    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
