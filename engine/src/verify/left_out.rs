//! Restore points that came from elsewhere in part (SPEC 10.8), and what is theirs. A verification of all that is whole leaves
//! them out.
//!
//! What only they need is not missed, and is not told to be needed by nobody. Where a part of a map has not arrived, nobody
//! knows what that is: then it may be any pack that was not stored for a snapshot of this place.
//!
//! # Memory
//! That of [`NamedPacks`], and some bytes for each pack that they name.

use super::needs::Published;
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::lineage::Standing;
use crate::map::named::{NamedPacks, Notes, ROOTS_AT_ONCE};
use crate::pack_set::PackSet;
use crate::records::Records;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Location, PackName, PackRef, SessionId};
use std::collections::HashSet;

/// What is left out.
#[derive(Default)]
pub(super) struct LeftOut {
    snapshots: HashSet<SessionId>,
    named: Named,
    /// Sessions that they tell of: they are of the place that they came from.
    told: HashSet<SessionId>,
    /// The sessions of snapshots that were made in this place, of which they know nothing.
    made_here: HashSet<SessionId>,
}

impl LeftOut {
    /// Finds out what belongs to some restore points. The others are whole.
    pub(super) fn of(
        (repository, published): (&Repository<'_>, &Published),
        snapshots: &[Snapshot],
        others: &[Snapshot],
    ) -> Result<Self, EngineError> {
        let mut named = Named::by(repository, &published.records, snapshots)?;
        let mut told: HashSet<SessionId> = named.packs.sessions().collect();
        for snapshot in snapshots {
            told.extend(snapshot.commit.parent.as_ref().map(|parent| parent.session));
            told.extend(&snapshot.commit.via);
        }
        named.follow(&published.records);
        let is_made_here = |snapshot: &&Snapshot| match &published.standing {
            Standing::Promoted(promoted) => promoted.made(snapshot),
            Standing::Written | Standing::Replica => false,
        };
        let made_here = others.iter().filter(is_made_here).map(Snapshot::session).collect();
        Ok(Self { snapshots: snapshots.iter().map(Snapshot::session).collect(), named, told, made_here })
    }

    /// Whether a snapshot is one of them.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.snapshots.contains(&session)
    }

    /// Whether they are all that something is for.
    pub(super) fn are_all_of(&self, sessions: &[SessionId]) -> bool {
        !sessions.is_empty() && sessions.iter().all(|session| self.has(*session))
    }

    /// Whether one of them tells of a session, which is of another place then.
    pub(super) fn tell_of(&self, session: SessionId) -> bool {
        self.told.contains(&session)
    }

    /// Whether one of them may need a pack.
    pub(super) fn may_need(&self, pack: &PackName) -> bool {
        (self.named.is_partial && !self.made_here.contains(&pack.session))
            || self.has(pack.session)
            || self.named.packs.contains(pack)
    }
}

/// What some snapshots name, by their maps.
#[derive(Default)]
pub(super) struct Named {
    pub(super) packs: PackSet,
    /// Whether a part of a map cannot be read.
    is_partial: bool,
}

impl Named {
    pub(super) fn by(
        repository: &Repository<'_>,
        records: &Records,
        snapshots: &[Snapshot],
    ) -> Result<Self, EngineError> {
        let mut named = Self::default();
        if snapshots.is_empty() {
            return Ok(named);
        }
        let mut maps = NamedPacks::new(FrameReader::knowing(repository, records));
        for roots in snapshots.chunks(ROOTS_AT_ONCE) {
            maps.facts(roots, &mut named)?;
        }
        Ok(named)
    }

    /// Adds where records lead to, whatever they apply to.
    fn follow(&mut self, records: &Records) {
        let mut packs: Vec<PackName> =
            records.repacked().filter(|pack| self.packs.contains(pack)).cloned().collect();
        while let Some(pack) = packs.pop() {
            for new in records.moving(&pack).flat_map(|record| record.leads_from(&pack)) {
                if !self.packs.contains(&new.name) {
                    self.packs.insert(new);
                    packs.push(new.name.clone());
                }
            }
        }
    }
}

impl Notes for Named {
    fn note(&mut self, named: &[Vec<PackRef>]) -> Result<Vec<Vec<u32>>, EngineError> {
        named.iter().flatten().for_each(|pack| self.packs.insert(pack));
        Ok(vec![Vec::new(); named.len()])
    }

    fn out_of_reach(&self, _: &Location) -> Option<u32> {
        None
    }

    fn unreadable(&mut self, _: &Location, _: EngineError) -> Result<u32, EngineError> {
        self.is_partial = true;
        Ok(0)
    }
}
