//! Where a disk differs from a snapshot, by what is known of its changes since another one.

use crate::diff::diff;
use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::repository::Repository;
use crate::source::{DiskSource, FullReason, Outside, Since};
use repo_format::Disk;

/// Where a disk may differ from what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// In these areas only, sorted and apart; if what was told of its changes is true.
    Areas(Vec<Extent>),
    /// Anywhere.
    Anywhere(FullReason),
}

/// Finds out where the disk of a `source` differs from `wanted`, if since `known` was taken of it no more has changed than
/// the source tells. `properties` are those of the snapshot of `known`.
///
/// # Errors
/// A source that cannot be asked, or maps that cannot be compared.
pub fn tracked_areas(
    repository: &Repository<'_>,
    source: &dyn DiskSource,
    known: &Disk,
    properties: &[(String, String)],
    wanted: &Disk,
) -> Result<Tracked, EngineError> {
    let since = Since { change_id: known.change_id.as_deref(), size: known.size, properties };
    let changed = source.changed_areas(Some(&since));
    let changed = changed.map_err(|source| EngineError::TargetUnread { offset: 0, source })?;
    match changed.outside {
        Outside::Unchanged => {}
        Outside::Zero { full_reason } | Outside::SaidZero { full_reason } => {
            return Ok(Tracked::Anywhere(full_reason.unwrap_or(FullReason::NoChangeTracking)));
        }
    }
    let mut areas = changed.areas;
    areas.extend(diff(repository, known, wanted)?);
    let within = areas.into_iter().filter_map(|area| area.clip(0, wanted.size));
    Ok(Tracked::Areas(normalized(within.collect())))
}
