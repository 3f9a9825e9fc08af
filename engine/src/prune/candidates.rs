//! Candidates: packs of decided sessions that no valid root needs (P1, P2).

use super::barrier::Held;
use super::listing::list;
use super::roots::{self, Roots, mark};
use super::sessions::{Owner, Sessions, Undecided, Verdict};
use super::{Amount, PruneJob, PrunePlan, choice};
use crate::error::{EngineError, chain};
use crate::generations::WaitList;
use crate::observer::Observer;
use crate::pack_set::PackSet;
use crate::records::Records;
use crate::repository::Repository;
use repo_format::limits::{PACK_LEN_MAX, PACK_LEN_MIN};
use repo_format::{BlobKind, PREFIX_DATA, PREFIX_INDEX, PREFIX_MAP, PackRef, SessionId};
use std::collections::BTreeSet;

/// Packs that one generation condemns at most: their list is within the limit of a sealed object, however many
/// sessions they are of (SPEC 12).
const CONDEMNED_MAX: usize = 400_000;

/// What is stored, and what of it nothing needs.
pub(super) struct Candidates {
    /// All packs.
    pub(super) stored: PackSet,
    /// Those that may be condemned.
    pub(super) packs: PackSet,
    /// What valid roots need.
    pub(super) needed: PackSet,
    pub(super) records: Records,
    pub(super) roots: Roots,
    /// Packs that nothing needs, of sessions of which there is neither an intent nor an end.
    pub(super) unexplained: u64,
}

impl Candidates {
    /// Marks (P1), and lists all packs (P2). What this tells may be out of date at once: it only decides what is worth
    /// condemning.
    pub(super) fn find(
        repository: &Repository<'_>,
        roster: &BTreeSet<SessionId>,
        observer: &dyn Observer,
    ) -> Result<Self, EngineError> {
        let mut sessions = Sessions::list(repository, roster.iter().copied())?;
        let undecided: BTreeSet<Owner> =
            sessions.undecided(repository)?.iter().map(Undecided::owner).collect();
        let records = roots::records(repository)?;
        let (roots, marker) = mark(repository, &records, roster, observer)?;
        let needed = marker.into_needed();
        let (mut stored, mut packs) = (PackSet::default(), PackSet::default());
        let mut unexplained = 0;
        for prefix in [PREFIX_MAP, PREFIX_DATA] {
            for info in list(repository, prefix)? {
                let Some(BlobKind::Pack(name)) = info.name.kind() else { continue };
                let pack = PackRef { len: listed_len(info.len), name };
                stored.insert(&pack);
                if needed.contains(&pack.name)
                    || roots.lost.contains(&pack.name.session)
                    || packs.len() >= CONDEMNED_MAX
                {
                    continue;
                }
                let owner = (pack.name.session, pack.name.writer.clone());
                if sessions.is_decided(repository, &undecided, &owner)? {
                    packs.insert(&pack);
                } else if !undecided.contains(&owner) {
                    unexplained += 1;
                }
            }
        }
        Ok(Self { stored, packs, needed, records, roots, unexplained })
    }
}

/// The length of a blob, as a pack table can have it: of what is too short or too long to be a pack only the name matters.
fn listed_len(len: u64) -> u32 {
    let bounded = len.clamp(PACK_LEN_MIN as u64, PACK_LEN_MAX as u64);
    u32::try_from(bounded).expect("a pack is shorter than 4 GiB")
}

/// What earlier runs published.
pub(super) struct Published<'a> {
    pub(super) roster: &'a BTreeSet<SessionId>,
    /// Whom the generation waits for that is open.
    pub(super) wait_list: WaitList,
    /// What that condemned, or is about to delete.
    pub(super) open: &'a PackSet,
}

/// See [`super::plan`].
pub(super) fn plan(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    published: &Published<'_>,
    plan: &mut PrunePlan,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let Published { roster, wait_list, open } = published;
    let candidates = Candidates::find(repository, roster, observer)?;
    for open in Sessions::list(repository, roster.iter().copied())?.undecided(repository)? {
        if let WaitList::Published(owners) = wait_list
            && !owners.contains(&open.owner())
        {
            continue;
        }
        if let Verdict::Wait(waiting) = open.verdict(repository, job)? {
            plan.waiting.push(waiting);
        }
    }
    let going = open.iter().chain(candidates.packs.iter().filter(|pack| !open.contains(&pack.name)));
    let held = Held::find(repository, going)?;
    plan.waiting.extend(held.waiting);
    plan.stored = Amount::of(&candidates.stored);
    plan.delete = Amount::of(&candidates.packs);
    match choice::plan(repository, job, &candidates, plan, observer) {
        Err(error) if error.is_damage() => plan.repack_fails = Some(chain(&error)),
        other => other?,
    }
    let names = repository.list(PREFIX_INDEX)?;
    let is_index = |info: &&crate::store::BlobInfo| matches!(info.name.kind(), Some(BlobKind::Index { .. }));
    plan.indexes = names.iter().filter(is_index).count() as u64;
    plan.snapshots = candidates.roots.valid.len() as u64;
    plan.ignored = candidates.roots.ignored.iter().map(ToString::to_string).collect();
    plan.ignored.extend(held.ignored.iter().map(ToString::to_string));
    plan.ignored.extend(candidates.records.unsigned.iter().map(ToString::to_string));
    Ok(())
}
