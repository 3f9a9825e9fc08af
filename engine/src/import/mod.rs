//! Importing restore points that another place of the same repository has, and this one has not.
//!
//! Two places of a repository part when one of them, a replica, is promoted: each goes on with decisions, generations and
//! records of its own, and none of these may ever be copied to the other (PROTOCOL section 8). What can be taken over is
//! what a disk holds. So an import is an ordinary backup, whose source is the disk as it is there: what is made of it is
//! whole because every backup is, whatever has become of the place that it was read from.
//!
//! # What it costs
//! What changed since a restore point that both places have (the original's parent, if it can be): both maps are compared
//! there, and only where they differ is read. Chunks that are here already are found as in any backup. Without such a
//! restore point everything is read.
//!
//! # What an imported restore point keeps
//! The time, tags, properties and change ids of the original, and its place among the VM's restore points: its decision has
//! a number that is not higher than the original's and higher than those here that are lower, so nothing that was made
//! here since is less new by it. The property [`IMPORTED_FROM`] tells the original.
//!
//! # Twice and at once
//! The id of the new session follows from that of the original. Whoever imports it, whenever, therefore sees that it was
//! imported, or that it was imported and forgotten; and of two that run at once at least one sees the other and stops.
//!
//! # What is believed
//! That something here is an original, or was imported from it, is believed if the decision is the same, or if what the
//! disks hold is: their maps are compared, down to the chunks' ids. Any host that may write could claim it.

mod plan;
mod run;

pub use plan::{Chosen, ChosenVm, Fate, PlannedPoint, VmPlan, Wanted, choose, plan};
pub use run::{ImportJob, Imported, Importer, Outcome};

use crate::error::EngineError;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{
    BlobKind, DecisionName, PREFIX_INTENTS, SessionId, VmTag, decisions_prefix, tombstones_prefix,
};
use std::collections::BTreeSet;

/// The key of the property of an imported snapshot that tells which one it was imported from, by its id.
pub const IMPORTED_FROM: &str = "imported-from";

/// How often an import of one restore point can be begun: each beginning uses up an id, and so does one that is interrupted.
const BEGINNINGS_MAX: u64 = 1 << 16;

/// Ids after which there are no more in use if one is not: an id that nothing tells of any more leaves a gap.
const GAP_MAX: usize = 16;

/// What the ids of sessions that import are derived for.
const ID_CONTEXT: &str = "keepstone v0 imported session";

/// The restore point that a snapshot is, wherever it was imported to.
fn origin(snapshot: &Snapshot) -> SessionId {
    let told = snapshot.commit.properties.iter().find(|(key, _)| key == IMPORTED_FROM);
    told.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| snapshot.session())
}

/// The ids of sessions that import a restore point, the first one first.
fn sessions_of(repository: &Repository<'_>, origin: SessionId) -> impl Iterator<Item = SessionId> {
    let key = repository.keys().local_key(ID_CONTEXT);
    let session = move |number: u64| {
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&origin.0).update(&number.to_le_bytes());
        SessionId(*hasher.finalize().as_bytes().first_chunk().expect("32 bytes begin with 16"))
    };
    (0..BEGINNINGS_MAX).map(session)
}

/// The sessions of a VM that there were.
struct Taken {
    /// Those that something tells of: an intent, a decision or a tombstone.
    sessions: BTreeSet<SessionId>,
    decisions: Vec<DecisionName>,
}

impl Taken {
    fn list(into: &Repository<'_>, vm: VmTag) -> Result<Self, EngineError> {
        let mut taken = Self { sessions: BTreeSet::new(), decisions: Vec::new() };
        for prefix in [decisions_prefix(vm), tombstones_prefix(vm), PREFIX_INTENTS.to_owned()] {
            for info in into.list(&prefix)? {
                match info.name.kind() {
                    Some(BlobKind::Decision(name)) => {
                        taken.sessions.insert(name.session);
                        taken.decisions.push(name);
                    }
                    Some(BlobKind::Tombstone { session, .. } | BlobKind::Intent { session, .. }) => {
                        taken.sessions.insert(session);
                    }
                    _ => {}
                }
            }
        }
        Ok(taken)
    }

    /// The ids that sessions may have had that imported a restore point.
    fn of(&self, repository: &Repository<'_>, origin: SessionId) -> Vec<SessionId> {
        let mut free = 0;
        let is_near = |id: &SessionId| {
            free = if self.sessions.contains(id) { 0 } else { free + 1 };
            free <= GAP_MAX
        };
        sessions_of(repository, origin).take_while(is_near).collect()
    }
}
