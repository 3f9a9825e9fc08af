//! One generation, from its condemned packs to its seal (P3 to P8).

use super::roots::{self, mark};
use super::sessions::{Looked, Owner, Sessions, Undecided, Verdict};
use super::{Amount, Run, Waiting};
use crate::error::EngineError;
use crate::generations::{CondemnedPacks, Generations, WaitList};
use crate::pack_set::PackSet;
use crate::repository::exists;
use crate::store::Put;
use repo_format::limits::SEALED_PLAIN_LEN_MAX;
use repo_format::{
    Abort, AbortBy, Awaited, BlobName, Condemned, Decision, DecisionName, GcResult, GenerationSeal, PackRef,
    SessionId,
};
use std::collections::BTreeSet;

/// The lists of earlier generations in a result are at most so long, so that with its own it is within the limit.
const EARLIER_LEN_MAX: usize = SEALED_PLAIN_LEN_MAX / 4;
/// Sessions that a list of whom to wait for has at most, to be within that limit: whoever may begin sessions can begin many.
const AWAITED_MAX: usize = 400_000;

impl Run<'_, '_, '_> {
    /// P3: publishes what is condemned, or finds what another pruner published.
    pub(super) fn condemn(&mut self, n: u32, packs: &PackSet) -> Result<(), EngineError> {
        let salt = self.salt("condemned salt", n);
        let (name, bytes) =
            Condemned { packs: packs.to_table() }.seal(self.repository.keys(), self.key, n, salt);
        // Whatever is under that name now is read in the next step.
        let _whose = self.put(&name, &bytes)?;
        Ok(())
    }

    /// P4 to P7: waits for no one, but aborts whom it may. Returns whether there is a result.
    pub(super) fn decide(
        &mut self,
        n: u32,
        condemned: &CondemnedPacks,
        roster: &BTreeSet<SessionId>,
        generations: &mut Generations,
    ) -> Result<bool, EngineError> {
        self.report.generation = Some(n);
        self.report.condemned = Amount::of(&condemned.packs);
        if self.has_to_wait(n, condemned, roster, generations)? {
            return Ok(false);
        }
        let records = roots::records(self.repository)?;
        self.ignore(records.unsigned.clone());
        let (roots, marker) = mark(self.repository, &records, roster, self.observer)?;
        self.report.snapshots = roots.valid.len() as u64;
        self.ignore(roots.ignored);
        let needed = marker.into_needed();
        let stays = |pack: &PackRef| needed.contains(&pack.name) || roots.lost.contains(&pack.name.session);
        let (rescued, delete): (Vec<PackRef>, Vec<PackRef>) =
            condemned.packs.to_table().into_iter().partition(stays);
        self.report.rescued = Amount::of(&rescued.iter().cloned().collect());
        self.publish(n, delete, rescued, generations)?;
        Ok(true)
    }

    /// P4 and P5: aborts whom it may, and reports whom the generation waits for, of those that may not know what is condemned.
    /// They are published, so that no later call waits for sessions that began after them. Returns whether there are any.
    fn has_to_wait(
        &mut self,
        n: u32,
        condemned: &CondemnedPacks,
        roster: &BTreeSet<SessionId>,
        generations: &mut Generations,
    ) -> Result<bool, EngineError> {
        let list = generations.wait_list(self.repository, n, condemned)?;
        let Looked { undecided, guessed } =
            Sessions::list(self.repository, roster.iter().copied())?.look(self.repository)?;
        let mut sessions = guessed;
        self.report.waiting.clear();
        for (owner, waiting) in self.settle(undecided)? {
            let is_awaited = match &list {
                WaitList::Published(owners) => owners.contains(&owner),
                WaitList::Missing | WaitList::Useless => true,
            };
            if is_awaited {
                self.report.waiting.extend(waiting);
            }
            sessions.push(owner);
        }
        let waits = !self.report.waiting.is_empty();
        if waits && !matches!(list, WaitList::Published(_)) && sessions.len() <= AWAITED_MAX {
            sessions.sort();
            self.publish_awaited(n, &Awaited { condemned: condemned.hash, sessions }, &list)?;
        }
        Ok(waits)
    }

    fn publish_awaited(&self, n: u32, awaited: &Awaited, before: &WaitList) -> Result<(), EngineError> {
        let salt = self.salt("awaited salt", n);
        let (name, bytes) = awaited.seal(self.repository.keys(), self.key, n, salt);
        if *before == WaitList::Useless {
            // Where retention keeps it, every call lists anew.
            let _refused = self.delete(std::slice::from_ref(&name))?;
        }
        // Whatever is under that name now was listed after P3 too: who is in neither list is decided, or knows.
        let _whose = self.put(&name, &bytes)?;
        Ok(())
    }

    /// P5: aborts whom it may. Returns the others, each with what is waited for, or nothing if the operator says that it has
    /// ended.
    fn settle(&mut self, undecided: Vec<Undecided>) -> Result<Vec<(Owner, Option<Waiting>)>, EngineError> {
        let mut left = Vec::new();
        for open in undecided {
            let owner = open.owner();
            match open.verdict(self.repository, self.job)? {
                Verdict::Abort(decision) => self.abort(&decision)?,
                Verdict::Discard => {
                    // Where retention keeps it, it is passed over all the same: the operator says that it has ended.
                    self.delete(&[BlobName::intent(&owner.1, owner.0)])?;
                    self.report.aborted.push(owner.0.to_string());
                    left.push((owner, None));
                }
                Verdict::Wait(waiting) => left.push((owner, Some(waiting))),
            }
        }
        Ok(left)
    }

    /// Aborts whom it may where no generation waits for anybody, so that what they stored can go. Returns whether there was
    /// any.
    pub(super) fn abort_quiet(&mut self, roster: &BTreeSet<SessionId>) -> Result<bool, EngineError> {
        let before = self.report.aborted.len();
        let sessions = Sessions::list(self.repository, roster.iter().copied())?;
        let _left = self.settle(sessions.undecided(self.repository)?)?;
        Ok(self.report.aborted.len() > before)
    }

    /// Decides a session that is not waited for any more, unless it has decided itself.
    fn abort(&mut self, decision: &DecisionName) -> Result<(), EngineError> {
        let abort = Abort {
            session: decision.session,
            time: self.job.time,
            program: self.job.program.to_owned(),
            by: AbortBy::Pruner,
        };
        let salt = self.draw().draw("abort salt", 0);
        let bytes = Decision::Abort(abort).seal_signed(self.repository.keys(), self.key, decision, salt);
        if self.put(&decision.blob(), &bytes)? != Put::Different {
            self.report.aborted.push(decision.session.to_string());
        }
        // Else it has decided itself; how, is looked at with all other decisions.
        Ok(())
    }

    /// P7: publishes what is deleted, with the lists of the generations before.
    fn publish(
        &mut self,
        n: u32,
        delete: Vec<PackRef>,
        rescued: Vec<PackRef>,
        generations: &mut Generations,
    ) -> Result<(), EngineError> {
        let mut covers = generations.covered_by(n);
        let mut earlier = match covers {
            1 => PackSet::default(),
            _ => generations.deleted_in(self.repository, n + 1 - covers..=n - 1)?,
        };
        if earlier.table_len() > EARLIER_LEN_MAX {
            (covers, earlier) = (1, PackSet::default());
        }
        let result = GcResult { delete, rescued, covers, earlier: earlier.to_table() };
        let salt = self.salt("result salt", n);
        let (name, bytes) = result.seal(self.repository.keys(), self.key, n, salt);
        // Whatever is under that name now is carried out.
        let _whose = self.put(&name, &bytes)?;
        Ok(())
    }

    /// P8: carries out a published result, and seals the generation, unless replicas hold some of it up.
    /// Returns whether there may be more to do.
    pub(super) fn carry_out(
        &mut self,
        n: u32,
        result: &GcResult,
        roster: &BTreeSet<SessionId>,
        generations: &Generations,
    ) -> Result<bool, EngineError> {
        let seal = BlobName::generation_seal(n);
        self.report.generation = Some(n);
        if exists(self.repository.store(), &seal)?.is_some() {
            // Another pruner has ended it since it was listed.
            return Ok(true);
        }
        // Should the result get lost, nobody may go by a list that says nothing to those who began after it.
        if generations.has_wait_list(n) {
            let _refused = self.delete(&[BlobName::awaited(n)])?;
        }
        let delete: PackSet = result.delete.iter().cloned().collect();
        self.compact(&delete)?;
        if !self.delete_unheld(&delete)? {
            return Ok(false);
        }
        let end = GenerationSeal { roster: self.tidy(roster)? };
        let salt = self.salt("generation seal salt", n);
        let (name, bytes) = end.seal(self.repository.keys(), self.key, n, salt);
        // Two pruners that end one generation may have seen different rosters; both are true.
        let _whose = self.put(&name, &bytes)?;
        self.report.sealed = true;
        Ok(true)
    }

    /// Creates a blob under a name that other pruners use too; a create that failed may have been applied, so it is
    /// settled by a second one.
    fn put(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, EngineError> {
        let store = self.repository.store();
        Ok(store.put_new(name, bytes).or_else(|_| store.put_new(name, bytes))?)
    }

    fn salt(&self, purpose: &str, n: u32) -> [u8; 32] {
        self.job.entropy.draw(purpose, u64::from(n))
    }
}
