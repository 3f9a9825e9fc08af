//! Everything a backup of one disk decides before it reads a byte.

use super::{AuditReport, JobDisk, StoredDisk};
use crate::error::EngineError;
use crate::extent::{normalized, total_length};
use crate::map::Shape;
use crate::map::writer::Untouched;
use crate::rechunk::resize_areas;
use crate::source::{ChangedAreas, FullReason, Outside, Since};
use crate::{DiskSource, Extent};
use repo_format::{Config, Disk, DiskMode};
use std::collections::BTreeSet;

/// How one disk is backed up.
pub(crate) struct DiskPlan<'a> {
    pub(crate) key: &'a str,
    pub(crate) source: &'a dyn DiskSource,
    pub(crate) shape: Shape,
    pub(crate) mode: DiskMode,
    pub(crate) full_reason: Option<FullReason>,
    pub(crate) change_id: Option<String>,
    /// Bytes that the source called changed (or allocated).
    pub(crate) changed_bytes: u64,
    /// Areas to look at: sorted, disjoint, within the disk.
    pub(crate) areas: Vec<Extent>,
    /// The disk before, if there was one: its size.
    pub(crate) base_size: Option<u64>,
    /// Whether an audit compares what lies outside the areas, and with what.
    pub(crate) audited: Option<AuditAgainst>,
    /// What checking the areas gave, if it was done.
    pub(crate) audit: Option<AuditReport>,
}

/// What should be outside of the areas of a plan, if that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditAgainst {
    /// What the parent has there.
    Parent,
    /// Zeros.
    Zeros,
}

impl<'a> DiskPlan<'a> {
    /// Asks the source what changed since the parent, or only what is allocated, for a reason. `base_size` is the disk's
    /// length in the parent.
    pub(crate) fn ask(
        config: &Config,
        disk: &JobDisk<'a>,
        base_size: Option<u64>,
        since: Result<Since<'_>, FullReason>,
    ) -> Result<Self, EngineError> {
        let (since, reason) = match since {
            Ok(since) => (Some(since), FullReason::NoChangeTracking),
            Err(reason) => (None, reason),
        };
        let changed = disk
            .source
            .changed_areas(since.as_ref())
            .map_err(|source| EngineError::Source { disk: disk.key.to_owned(), source })?;
        if since.is_none() && changed.outside == Outside::Unchanged {
            return Err(EngineError::BadJob("a source tells changes that nothing was said to count from"));
        }
        let shape = Shape::new(&config.geometry, disk.source.size());
        Ok(Self::new(disk, shape, base_size, changed, reason))
    }

    fn new(
        disk: &JobDisk<'a>,
        shape: Shape,
        base_size: Option<u64>,
        changed: ChangedAreas,
        reason: FullReason,
    ) -> Self {
        let changed_bytes = total_length(&changed.areas);
        // Where nothing was asked of the source, what it says of its changes is beside the point.
        let asked = reason == FullReason::NoChangeTracking;
        let why = |told: Option<FullReason>| Some(told.filter(|_| asked).unwrap_or(reason));
        let (mode, full_reason, audited) = match changed.outside {
            Outside::Unchanged => (DiskMode::Incremental, None, Some(AuditAgainst::Parent)),
            Outside::Zero { full_reason } => (DiskMode::Full, why(full_reason), None),
            Outside::SaidZero { full_reason } => {
                (DiskMode::Full, why(full_reason), Some(AuditAgainst::Zeros))
            }
        };
        let mut areas = changed.areas;
        if let (DiskMode::Incremental, Some(base_size)) = (mode, base_size) {
            areas.extend(resize_areas(base_size, shape.size, shape.region_len));
        }
        let areas = normalized(areas).into_iter().filter_map(|area| area.clip(0, shape.size)).collect();
        Self {
            key: disk.key,
            source: disk.source,
            shape,
            mode,
            full_reason,
            change_id: changed.change_id,
            changed_bytes,
            areas,
            base_size,
            audited,
            audit: None,
        }
    }

    /// Adds cells that have to be read although they did not change, because what is stored of them may not be
    /// referenced any more. Only for incremental backups: a full one looks at everything, and refuses places one by one.
    pub(crate) fn force(&mut self, cells: &BTreeSet<u64>) {
        let (cell_len, size) = (u64::from(self.shape.cell_len), self.shape.size);
        let forced =
            cells.iter().filter_map(|cell| Extent { start: cell * cell_len, length: cell_len }.clip(0, size));
        self.look_at(forced);
    }

    /// Adds areas.
    pub(crate) fn look_at(&mut self, areas: impl IntoIterator<Item = Extent>) {
        self.areas.extend(areas);
        self.areas = normalized(std::mem::take(&mut self.areas));
    }

    pub(crate) fn untouched(&self) -> Untouched {
        match self.mode {
            DiskMode::Full => Untouched::Hole,
            DiskMode::Incremental => Untouched::AsBase,
        }
    }

    /// The regions that have to be looked at, each with its areas.
    pub(crate) fn touched_regions(&self) -> Vec<(u64, Vec<Extent>)> {
        touched_regions(&self.areas, u64::from(self.shape.region_len))
    }

    /// What the snapshot says of the disk.
    pub(crate) fn disk(&self, stored: &StoredDisk) -> Disk {
        Disk {
            key: self.key.to_owned(),
            size: self.shape.size,
            change_id: self.change_id.clone(),
            mode: self.mode,
            changed_bytes: self.changed_bytes,
            read_bytes: stored.read_bytes,
            map: stored.map.clone(),
        }
    }
}

/// Cuts areas (sorted, disjoint) at the edges of regions and groups them by region.
fn touched_regions(areas: &[Extent], region_len: u64) -> Vec<(u64, Vec<Extent>)> {
    let mut regions: Vec<(u64, Vec<Extent>)> = Vec::new();
    for area in areas {
        for region in area.start / region_len..=(area.end() - 1) / region_len {
            let Some(part) = area.clip(region * region_len, (region + 1) * region_len) else { continue };
            match regions.last_mut() {
                Some((last, parts)) if *last == region => parts.push(part),
                _ => regions.push((region, vec![part])),
            }
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_cut_at_region_edges_and_grouped() {
        let areas = [Extent { start: 5, length: 2 }, Extent { start: 9, length: 12 }];
        let expected = vec![
            (0, vec![Extent { start: 5, length: 2 }, Extent { start: 9, length: 1 }]),
            (1, vec![Extent { start: 10, length: 10 }]),
            (2, vec![Extent { start: 20, length: 1 }]),
        ];
        assert_eq!(touched_regions(&areas, 10), expected);
    }
}
