//! Where a disk differs from a snapshot, by what is known of its changes since another one.

use crate::diff::diff_of_snapshots;
use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use crate::source::{DiskSource, FullReason, Outside, Since};
use repo_format::{Disk, SessionId};

/// Where a disk may differ from what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// In these areas only, sorted and apart; if what was told of its changes is true.
    Areas(Vec<Extent>),
    /// Anywhere.
    Anywhere(FullReason),
}

/// Finds out where the disk of a `source` differs from `wanted`, if since `known` was taken of it no more has changed than
/// the source tells. Both disks are told with their snapshots.
///
/// # Errors
/// A source that cannot be asked, or maps that cannot be compared; [`EngineError::ForgottenMeanwhile`].
pub fn tracked_areas(
    repository: &Repository<'_>,
    source: &dyn DiskSource,
    (since, known): (&Snapshot, &Disk),
    (snapshot, wanted): (SessionId, &Disk),
) -> Result<Tracked, EngineError> {
    let (change_id, properties) = (known.change_id.as_deref(), &since.commit.properties);
    let changed = source.changed_areas(Some(&Since { change_id, size: known.size, properties }));
    let changed = changed.map_err(|source| EngineError::TargetUnread { offset: 0, source })?;
    match changed.outside {
        Outside::Unchanged => {}
        Outside::Zero { full_reason } | Outside::SaidZero { full_reason } => {
            return Ok(Tracked::Anywhere(full_reason.unwrap_or(FullReason::NoChangeTracking)));
        }
    }
    let mut areas = changed.areas;
    areas.extend(diff_of_snapshots(repository, [since.session(), snapshot], known, wanted)?);
    let within = areas.into_iter().filter_map(|area| area.clip(0, wanted.size));
    Ok(Tracked::Areas(normalized(within.collect())))
}
