//! Pruning: what no snapshot needs any more is deleted, while backups and restores go on (PROTOCOL 4).
//!
//! One *generation* at a time condemns packs, waits until all sessions are decided that may not know of it, looks once
//! more at what is needed, publishes what it deletes, and deletes exactly that. Each step is one create or deletes what is
//! published, so a run may end anywhere, and any other one goes on. A run never waits: it goes as far as it can.
//!
//! # What may run together
//!
//! | | backup | restore, serve, verify | forget | prune |
//! | --- | --- | --- | --- | --- |
//! | prune | yes: it leaves what is condemned alone, or is waited for | yes: what is packed again is read at its new place; a snapshot that was forgotten meanwhile is told of | yes | yes: both carry out what was published first |
//!
//! # Memory
//! Names and lengths of all packs (some 16 bytes each), what marking takes (`mark`), the ids of all snapshots, and for
//! packing again what `choice` takes.

mod barrier;
mod candidates;
mod choice;
mod compact;
mod generation;
mod listing;
pub(crate) mod mark;
mod roots;
mod sessions;
mod sweep;
mod usage;

pub use crate::repack::RepackReport;
pub use choice::{PackUse, RepackPolicy, Unused};
pub(crate) use sessions::{Owner, Sessions, Undecided};

use crate::backup::Unfinished;
use crate::entropy::Entropy;
use crate::error::{EngineError, chain};
use crate::generations::{Generations, Open, WaitList};
use crate::lineage::{check_is_written, check_may_delete};
use crate::observer::Observer;
use crate::pack_set::PackSet;
use crate::repack::{RepackJob, repack};
use crate::repository::Repository;
use candidates::{Candidates, Published};
use repo_format::{PackRef, RetentionKey, SessionId, WriterId};
use serde::Serialize;
use std::collections::BTreeSet;

/// What a prune is to do.
pub struct PruneJob<'a> {
    /// The writer that its sessions belong to.
    pub writer: &'a WriterId,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// The program and its version: at most 255 bytes.
    pub program: &'a str,
    /// Randomness of this run.
    pub entropy: &'a Entropy,
    /// A session that stored nothing for so many milliseconds, by the store's dates, is aborted.
    pub patience: u64,
    /// Sessions that are aborted whatever they do.
    pub abort: &'a [SessionId],
    /// What is known of sessions of the same writer, and of no VM, that began and did not end.
    pub unfinished: Unfinished<'a>,
    /// At most so many per cent of what is stored are condemned; 100 if the operator confirmed more.
    pub condemn_at_most: u8,
    /// What is packed again.
    pub repack: RepackPolicy<'a>,
    /// How far to go.
    pub end: PruneEnd,
}

/// How far a prune goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneEnd {
    /// It ends the generation that is open, if one is, and begins another.
    All,
    /// It only ends the generation that is open.
    OpenGeneration,
}

/// Packs, and how long they are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// The generation that it worked on last; nothing if there was none to do.
    pub generation: Option<u32>,
    /// Whether that has ended.
    pub sealed: bool,
    /// What the generation condemned.
    pub condemned: Amount,
    /// What turned out to be needed.
    pub rescued: Amount,
    /// What was deleted, over all generations that this run worked on.
    pub deleted: Amount,
    /// What the store's retention did not let it delete; later generations try again.
    pub deferred: Amount,
    /// What was packed again.
    pub repacked: Option<RepackReport>,
    /// Why nothing was packed again: a part of a map that is damaged.
    pub repack_failed: Option<String>,
    /// What is stored and not needed, in packs that are needed for something else and were not packed again: without the
    /// data key, in all data packs.
    pub unused_bytes_left: u64,
    /// Index blobs that were written, and that were removed.
    pub indexes_written: u64,
    /// See `indexes_written`.
    pub indexes_removed: u64,
    /// Decisions of forgotten snapshots, intents of ended sessions, and records of aborted repacks that were removed.
    pub objects_removed: u64,
    /// Sessions that this run aborted.
    pub aborted: Vec<String>,
    /// What it waits for.
    pub waiting: Vec<Waiting>,
    /// Objects without the retention role's signature, and tombstones and lists of whom to wait for that cannot be read: they
    /// were ignored.
    pub ignored: Vec<String>,
    /// Packs that no decided or running session explains.
    pub unexplained: u64,
    /// Valid snapshots that were marked.
    pub snapshots: u64,
}

/// A session that a prune waits for, or that it waits to arrive elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The session, in hex.
    pub session: String,
    /// Its writer.
    pub writer: String,
    /// When it began, by the store's clock, milliseconds since 1970; of one that is waited for at a replica, when its record
    /// was made.
    pub begun: u64,
    /// When it last stored something, likewise.
    pub newest: u64,
    /// What is waited for.
    pub why: WaitingFor,
    /// The replica that is waited for, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
}

/// What a prune waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitingFor {
    /// That the session ends, or is quiet for longer than the patience.
    Decision,
    /// Its intent cannot be read, so what it would be aborted by is not known.
    UnreadableIntent,
    /// That a session that packed again is confirmed at a replica, or that the replica is removed.
    Replica,
}

/// What a prune would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunePlan {
    /// The generation that is open, whose packs are deleted first.
    pub open_generation: Option<u32>,
    /// What that has condemned, or is about to delete.
    pub open: Amount,
    /// Everything that is stored in packs.
    pub stored: Amount,
    /// What no snapshot needs.
    pub delete: Amount,
    /// What would be packed again.
    pub repack: Amount,
    /// Why nothing would be packed again: a part of a map that is damaged.
    pub repack_fails: Option<String>,
    /// How much of that is needed and would be written.
    pub rewritten_bytes: u64,
    /// What is stored and not needed, and stays: in packs that are needed for something else.
    pub unused_bytes_left: u64,
    /// The packs to delete, and those to pack again, with how much of each is needed.
    #[serde(skip)]
    pub packs: Vec<PackUse>,
    /// Index blobs that there are.
    pub indexes: u64,
    /// What the prune would wait for: replicas, and sessions, those that have not ended, and of these, where a generation is open and has told
    /// whom it waits for, those only.
    pub waiting: Vec<Waiting>,
    /// See [`PruneReport::ignored`].
    pub ignored: Vec<String>,
    /// Valid snapshots.
    pub snapshots: u64,
}

/// One run.
struct Run<'a, 'r, 's> {
    repository: &'r Repository<'s>,
    key: &'a RetentionKey,
    job: &'a PruneJob<'a>,
    observer: &'a dyn Observer,
    report: PruneReport,
    /// How often randomness was drawn for something of its own.
    drawn: u64,
}

/// Prunes as far as it is possible now.
///
/// Afterwards nothing is missing that a valid snapshot needs. If the report is waiting for something, the next call, by
/// anybody, goes on.
///
/// # Errors
/// [`EngineError::IsAReplica`], and [`EngineError::OtherSideMayBeThere`] in one that was promoted until somebody declared
/// otherwise; [`EngineError::CannotMark`] if a snapshot or its map cannot be read, [`EngineError::ListingLies`] or
/// [`EngineError::SnapshotVanished`] if a listing is not to be believed, [`EngineError::TooMuchCondemned`]; a failing
/// store. What had been done by then stays, and the next call goes on.
pub fn prune(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &PruneJob<'_>,
    observer: &dyn Observer,
) -> Result<PruneReport, EngineError> {
    if key.public() != repository.config().retention_public_key {
        return Err(EngineError::BadJob("the retention key is another repository's"));
    }
    let standing = check_may_delete(repository)?;
    listing::make_canaries(repository)?;
    let mut run = Run { repository, key, job, observer, report: PruneReport::default(), drawn: 0 };
    let mut opened = false;
    let mut before = None;
    loop {
        let mut generations = Generations::own(repository, &standing)?;
        let open = generations.first_open(repository)?;
        // Each step publishes something that the next listing shows.
        if before.replace(open.step()) == Some(open.step()) {
            return Err(EngineError::ListingLies { name: open.next_name() });
        }
        let roster: BTreeSet<SessionId> = generations.roster(repository)?.into_iter().collect();
        let went_on = match open {
            Open::Decided(n, result) => run.carry_out(n, &result, &roster, &generations)?,
            Open::Condemned(n, packs) => run.decide(n, &packs, &roster, &mut generations)?,
            Open::Free(_) if opened || job.end == PruneEnd::OpenGeneration => false,
            Open::Free(n) => {
                opened = true;
                let deleted = generations.deleted_here(repository)?;
                run.open(n, &roster, &deleted)?
            }
        };
        run.ignore(generations.ignored);
        if !went_on {
            return Ok(run.report);
        }
    }
}

/// Tells what a prune would do; writes nothing. In a place that was promoted it tells it before [`prune`] may do it.
///
/// # Errors
/// As [`prune`].
pub fn plan(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    observer: &dyn Observer,
) -> Result<PrunePlan, EngineError> {
    let mut generations = Generations::own(repository, &check_is_written(repository)?)?;
    let mut plan = PrunePlan::default();
    let mut wait_list = WaitList::Missing;
    let mut open = PackSet::default();
    match generations.first_open(repository)? {
        Open::Free(_) => {}
        Open::Condemned(n, packs) => {
            wait_list = generations.wait_list(repository, n, &packs)?;
            (plan.open_generation, open) = (Some(n), packs.packs);
        }
        Open::Decided(n, result) => {
            (plan.open_generation, open) = (Some(n), result.delete.into_iter().collect());
        }
    }
    plan.open = Amount::of(&open);
    let roster: BTreeSet<SessionId> = generations.roster(repository)?.into_iter().collect();
    let published = Published { roster: &roster, wait_list, open: &open };
    candidates::plan(repository, job, &published, &mut plan, observer)?;
    plan.ignored.extend(generations.ignored.iter().map(ToString::to_string));
    Ok(plan)
}

impl Run<'_, '_, '_> {
    /// P0 to P3: opens a generation, if there is something to delete. Returns whether one is open.
    fn open(&mut self, n: u32, roster: &BTreeSet<SessionId>, deleted: &PackSet) -> Result<bool, EngineError> {
        let mut candidates = Candidates::find(self.repository, roster, self.observer)?;
        if candidates.packs.is_empty() && self.abort_quiet(roster)? {
            candidates = Candidates::find(self.repository, roster, self.observer)?;
        }
        // What is only emptied below is no loss, however much it is.
        self.check_share(&candidates, deleted)?;
        if self.repack(&candidates)? {
            candidates = Candidates::find(self.repository, roster, self.observer)?;
        }
        self.report.snapshots = candidates.roots.valid.len() as u64;
        self.report.unexplained = candidates.unexplained;
        self.ignore(std::mem::take(&mut candidates.roots.ignored));
        if candidates.packs.is_empty() {
            let _roster = self.tidy(roster)?;
            self.compact(&candidates.packs)?;
            return Ok(false);
        }
        self.condemn(n, &candidates.packs)?;
        Ok(true)
    }

    /// Packs again what is worth it. Returns whether packs were emptied. A page that cannot be read keeps nothing else from
    /// being pruned: it names chunks, and the packs that these are in are known without it.
    fn repack(&mut self, candidates: &Candidates) -> Result<bool, EngineError> {
        let repacked = choice::choose(self.repository, self.job, candidates, self.observer).and_then(
            |(packs, unused)| {
                self.report.unused_bytes_left = unused;
                if packs.is_empty() {
                    return Ok(None);
                }
                let PruneJob { writer, time, program, .. } = self.job;
                let entropy = self.draw();
                let job = RepackJob { writer, time: *time, program, entropy: &entropy, packs: &packs };
                repack(self.repository, self.key, &job, self.observer).map(Some)
            },
        );
        match repacked {
            Ok(repacked) => self.report.repacked = repacked,
            Err(error) if error.is_damage() => self.report.repack_failed = Some(chain(&error)),
            Err(error) => return Err(error),
        }
        Ok(self.report.repacked.as_ref().is_some_and(|report| report.emptied > 0 && !report.aborted))
    }

    /// Randomness for something of its own.
    fn draw(&mut self) -> Entropy {
        self.drawn += 1;
        self.job.entropy.attempt(self.drawn)
    }

    fn ignore(&mut self, names: Vec<repo_format::BlobName>) {
        for name in names {
            let name = name.to_string();
            if !self.report.ignored.contains(&name) {
                self.report.ignored.push(name);
            }
        }
    }

    /// What was to be deleted before, and retention kept, was asked about before.
    fn check_share(&self, candidates: &Candidates, deleted: &PackSet) -> Result<(), EngineError> {
        let is_new = |pack: &PackRef| !deleted.contains(&pack.name);
        let new = candidates.packs.iter().filter(is_new).map(|pack| u64::from(pack.len));
        let (condemned, stored) = (new.sum(), candidates.stored.bytes());
        let limit = u128::from(stored) * u128::from(self.job.condemn_at_most);
        if u128::from(condemned) * 100 > limit {
            return Err(EngineError::TooMuchCondemned { condemned, stored, limit: self.job.condemn_at_most });
        }
        Ok(())
    }
}

impl Amount {
    fn of(packs: &PackSet) -> Self {
        Self { packs: packs.len() as u64, bytes: packs.bytes() }
    }

    fn add(&mut self, len: u32) {
        self.packs += 1;
        self.bytes += u64::from(len);
    }
}
