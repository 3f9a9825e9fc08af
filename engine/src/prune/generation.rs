//! One generation, from its condemned packs to its seal (P3 to P8).

use super::roots::{self, mark};
use super::sessions::{Owner, Sessions, Undecided, Verdict};
use super::{Amount, Run};
use crate::error::EngineError;
use crate::generations::{Generations, covered_by};
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
        condemned: &PackSet,
        roster: &BTreeSet<SessionId>,
        generations: &mut Generations,
    ) -> Result<bool, EngineError> {
        self.report.generation = Some(n);
        self.report.condemned = Amount::of(condemned);
        if !self.all_decided(n, roster, generations)? {
            return Ok(false);
        }
        let records = roots::records(self.repository)?;
        self.ignore(records.unsigned.clone());
        let (roots, marker) = mark(self.repository, &records, roster, self.observer)?;
        self.report.snapshots = roots.valid.len() as u64;
        self.ignore(roots.ignored);
        let needed = marker.into_needed();
        let (rescued, delete): (Vec<PackRef>, Vec<PackRef>) =
            condemned.to_table().into_iter().partition(|pack| needed.contains(&pack.name));
        self.report.rescued = Amount::of(&rescued.iter().cloned().collect());
        self.publish(n, delete, rescued, generations)?;
        Ok(true)
    }

    /// P4 and P5: whether every session is decided that may not know what is condemned; what is not is waited for, or
    /// aborted. Those that are waited for are published, so that no later call waits for sessions that began after it.
    fn all_decided(
        &mut self,
        n: u32,
        roster: &BTreeSet<SessionId>,
        generations: &mut Generations,
    ) -> Result<bool, EngineError> {
        let published = generations.awaited(self.repository, n)?;
        let mut undecided =
            Sessions::list(self.repository, roster.iter().copied())?.undecided(self.repository)?;
        if let Some(awaited) = &published {
            undecided.retain(|open| awaited.contains(&open.owner()));
        }
        let sessions = self.settle(undecided)?;
        if published.is_none() && !sessions.is_empty() {
            let salt = self.salt("awaited salt", n);
            let (name, bytes) = Awaited { sessions }.seal(self.repository.keys(), self.key, n, salt);
            // Whatever is under that name now was listed after P3 too: whoever is in neither list is decided, or knows.
            let _whose = self.put(&name, &bytes)?;
        }
        Ok(self.report.waiting.is_empty())
    }

    /// P5: aborts whom it may, and reports the others, which are returned, sorted.
    fn settle(&mut self, undecided: Vec<Undecided>) -> Result<Vec<Owner>, EngineError> {
        let mut waiting = Vec::new();
        self.report.waiting.clear();
        for open in undecided {
            let (writer, session) = (open.writer.clone(), open.session);
            match open.verdict(self.repository, self.job)? {
                Verdict::Abort(decision) => self.abort(&decision)?,
                Verdict::Discard => {
                    // Where retention keeps it, it is passed over all the same: the operator says that it has ended.
                    self.delete(&[BlobName::intent(&writer, session)])?;
                    self.report.aborted.push(session.to_string());
                }
                Verdict::Wait(told) => {
                    waiting.push((session, writer));
                    self.report.waiting.push(told);
                }
            }
        }
        waiting.sort();
        Ok(waiting)
    }

    /// Aborts whom it may where no generation waits for anybody, so that what they stored can go. Returns whether there was
    /// any.
    pub(super) fn abort_quiet(&mut self, roster: &BTreeSet<SessionId>) -> Result<bool, EngineError> {
        let before = self.report.aborted.len();
        let sessions = Sessions::list(self.repository, roster.iter().copied())?;
        self.settle(sessions.undecided(self.repository)?)?;
        self.report.waiting.clear();
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
        let mut covers = covered_by(n);
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

    /// P8: carries out a published result, and seals the generation. Returns that there may be more to do.
    pub(super) fn carry_out(
        &mut self,
        n: u32,
        result: &GcResult,
        roster: &BTreeSet<SessionId>,
    ) -> Result<bool, EngineError> {
        let seal = BlobName::generation_seal(n);
        self.report.generation = Some(n);
        if exists(self.repository.store(), &seal)?.is_some() {
            // Another pruner has ended it since it was listed.
            return Ok(true);
        }
        let delete: PackSet = result.delete.iter().cloned().collect();
        self.compact(&delete)?;
        self.delete_packs(&delete)?;
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
