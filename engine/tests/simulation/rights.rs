//! What a process may ask a store for.

use crate::world::Site;
use repo_format::{BlobKind, BlobName, PackKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Writer,
    Retention,
    Pruner,
    Reader,
    /// It copies restore points.
    Replicator,
    /// It follows what the source deleted, too.
    Follower,
}

impl Role {
    /// Readers create nothing. Who copies creates nothing at the source but what he confirms, and nothing at the copy that
    /// tells of places or is a pruner's; nobody else writes to the copy.
    pub fn may_create(self, site: Site, name: &BlobName) -> bool {
        let is_confirmed = matches!(name.kind(), Some(BlobKind::Barrier { .. }));
        match (self, site) {
            (Self::Replicator | Self::Follower, Site::Source) => is_confirmed,
            (Self::Replicator | Self::Follower, Site::Copy) => {
                name.kind().is_some_and(|kind| is_copied(&kind))
            }
            (_, Site::Copy) | (Self::Reader, Site::Source) => false,
            (Self::Writer | Self::Retention | Self::Pruner, Site::Source) => true,
        }
    }

    /// Writers read no data.
    pub fn may_read(self, name: &BlobName) -> bool {
        let is_data = matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data);
        self != Self::Writer || !is_data
    }

    /// Only pruners delete, and at the copy who follows what they deleted.
    pub fn may_delete(self, site: Site, name: &BlobName) -> bool {
        let goes =
            matches!(name.kind(), Some(BlobKind::Pack(_) | BlobKind::Decision(_) | BlobKind::Index { .. }));
        match site {
            Site::Source => self == Self::Pruner,
            Site::Copy => self == Self::Follower && goes,
        }
    }
}

/// Whether something may come to a replica that is filled.
fn is_copied(kind: &BlobKind) -> bool {
    !matches!(
        kind,
        BlobKind::Condemned(_)
            | BlobKind::Awaited(_)
            | BlobKind::GcResult(_)
            | BlobKind::GenerationSeal(_)
            | BlobKind::Lineage(_)
            | BlobKind::Barrier { .. }
            | BlobKind::Canary
    )
}
