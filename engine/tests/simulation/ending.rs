//! What must hold when nothing goes wrong any more.

use crate::actors::{Simulation, told};
use crate::client::Client;
use crate::harms;

use crate::rights::Role;
use crate::scenario::{Sabotage, Store};
use crate::world::{DAY, Site};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::store::{Page, Put, StoreError};
use keepstone_engine::verify::{Finding, FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, EngineError, Repository};
use repo_format::{BlobKind, BlobName, Decision, SessionId};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Prunes after which nothing may be left to do.
const PRUNES_MAX: usize = 8;
/// So many of them pack again what is mostly not needed. One that finds what two pruners packed again at the same time counts
/// only one of the copies as needed, and packs the others again each time.
const REPACKS_MAX: usize = 3;
/// Prunes of a store that is harmed before each, or whose listings lie.
const LIES: usize = 2;

/// A store that remembers which packs were read.
struct Reads {
    inner: Client,
    packs: Mutex<BTreeSet<BlobName>>,
}

impl BlobStore for Reads {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        if let Some(BlobKind::Pack(_)) = name.kind() {
            self.packs.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        }
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

impl Simulation {
    /// Nothing goes wrong any more.
    pub fn end(&self) {
        self.world.quiet();
        // By any clock, all sessions are old now.
        self.world.inner().pass(1000 * DAY);
        let result = match self.scenario.store {
            Store::Honest => self.end_whole(),
            Store::Destroys => self.end_damaged(),
        };
        if let Err(error) = result {
            self.world.violated(&format!("in the end: {}", told(&error)));
        }
    }

    fn end_whole(&self) -> Result<(), EngineError> {
        for (name, vms) in &self.scenario.writers {
            for vm in vms {
                self.back_up_at_last(name, *vm);
            }
        }
        if self.late.is_some() && self.world.draw(|random| random.one_in(2)) {
            self.forget_incomplete()?;
        }
        self.clean()?;
        self.note_pruned();
        if self.scenario.sabotage == Sabotage::LosesAPack {
            harms::lose_a_pack(&self.world, Site::Source);
        }
        if self.scenario.sabotage == Sabotage::LosesAPackOfTheCopy {
            harms::lose_a_pack(&self.world, Site::Copy);
        }
        let reads = Reads {
            inner: Client::new(&self.world, self.safe_process(Role::Reader)),
            packs: Mutex::default(),
        };
        let repository = Repository::open(&reads, crate::PASSWORD)?;
        let list = snapshots::list(&repository, None)?;
        if !list.unreadable.is_empty() {
            self.world.violated(&format!("unreadable in the end: {:?}", list.unreadable));
        }
        let known = self.oracle.known().clone();
        self.lists_all(&list.snapshots, &known);
        let incomplete = self.incomplete()?;
        for snapshot in &list.snapshots {
            let restored = self.oracle.restore(&self.world, &repository, snapshot);
            if incomplete.contains(&snapshot.session()) {
                self.world.reach("a restore point was still in part in the end");
                continue;
            }
            restored?;
            let is_reported = known.acknowledged.contains_key(&snapshot.session());
            self.world.reach(if is_reported {
                "a reported snapshot was whole in the end"
            } else {
                "a snapshot that nobody reported was whole in the end"
            });
        }
        let needed = reads.packs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What these need is not known by reading; a verification tells what is not needed.
        if incomplete.is_empty() {
            self.has_no_garbage(&needed)?;
        }
        if !self.scenario.replicators.is_empty() {
            self.check_copy_at_last(&list.snapshots)?;
        }
        let is_whole = |snapshot: &&Snapshot| !incomplete.contains(&snapshot.session());
        let whole = list.snapshots.iter().filter(is_whole).map(|snapshot| snapshot.session().to_string());
        self.verifies(&repository, &whole.collect())
    }

    /// Prunes until nothing is left to do.
    fn clean(&self) -> Result<(), EngineError> {
        let mut whole = BTreeSet::new();
        for number in 0..PRUNES_MAX {
            if number == REPACKS_MAX {
                self.world.inner().repacks = false;
            }
            let before = self.world.truth.names();
            let (_, result) = self.prune("pruner-z", self.safe_process(Role::Pruner), self.world.now());
            let report = match result {
                Err(error) if self.refuses(&error, true) => {
                    self.forget_incomplete()?;
                    continue;
                }
                result => result?,
            };
            self.note_prune(&report);
            if self.late.is_some() && report.waiting.is_empty() {
                self.check_whole(&mut whole)?;
            }
            if !self.scenario.replicators.is_empty() {
                self.copy_at_last()?;
            }
            if self.world.truth.names() == before && report.waiting.is_empty() {
                return Ok(());
            }
        }
        self.world.violated("prunes do not come to rest");
        Ok(())
    }

    fn has_no_garbage(&self, needed: &BTreeSet<BlobName>) -> Result<(), EngineError> {
        let names = self.world.truth.names();
        let records: BTreeSet<SessionId> = names
            .iter()
            .filter_map(|name| match name.kind() {
                Some(BlobKind::Repack(session)) => Some(session),
                _ => None,
            })
            .collect();
        let is_garbage = |name: &&BlobName| match name.kind() {
            // What two pruners have packed again is needed twice and read once; a verification tells what is not needed.
            Some(BlobKind::Pack(pack)) => !needed.contains(*name) && !records.contains(&pack.session),
            _ => false,
        };
        let unexplained = self.unexplained()?;
        let garbage: Vec<_> =
            names.iter().filter(|name| is_garbage(name) && !unexplained.contains(*name)).collect();
        if !garbage.is_empty() {
            self.world.violated(&format!("nothing needs, and nothing deletes: {garbage:?}"));
        }
        Ok(())
    }

    fn verifies(&self, repository: &Repository<'_>, whole: &BTreeSet<String>) -> Result<(), EngineError> {
        let job = VerifyJob::everything(ReadData::Everything, self.world.now());
        let report = verify(repository, &job, &Quiet)?;
        // Hints and intents of sessions without a pack wait for the next generation that has something to delete.
        let waits = |finding: &Finding| {
            matches!(finding.kind, FindingKind::StaleIndex | FindingKind::UndecidedSession)
                || self.is_of_twins(finding)
                || self.is_of_late(finding, &|snapshot| !whole.contains(snapshot))
        };
        let findings: Vec<Finding> = report.findings.into_iter().filter(|finding| !waits(finding)).collect();
        let packs = report.unneeded_packs.saturating_sub(self.unexplained()?.len() as u64);
        if !findings.is_empty() || packs > 0 {
            self.world.violated(&format!("verify found {findings:?} and {packs} packs that nothing needs"));
        }
        Ok(())
    }

    /// Something that was acknowledged may be gone: nobody gets wrong bytes, a verification names it, and prunes make it no
    /// worse.
    fn end_damaged(&self) -> Result<(), EngineError> {
        let client = Client::new(&self.world, self.safe_process(Role::Reader));
        let repository = Repository::open(&client, crate::PASSWORD)?;
        let whole = self.whole(&repository)?;
        let job = VerifyJob::everything(ReadData::Everything, self.world.now());
        let report = verify(&repository, &job, &Quiet)?;
        let forgotten = self.world.inner().forgotten.clone();
        let listed = snapshots::list(&repository, None)?.snapshots;
        let known = self.oracle.known().clone();
        let expected = known.acknowledged.keys().copied().chain(listed.iter().map(Snapshot::session));
        for session in expected.filter(|session| !whole.contains(session) && !forgotten.contains(session)) {
            self.is_named(&repository, session, &report.findings);
        }
        // What a listing lies about is known from the last prune that it did not lie to.
        let is_known = self.prune_not_seeing(&BTreeSet::new())? && self.prune_not_seeing(&BTreeSet::new())?;
        for _ in 0..LIES {
            if is_known && self.world.draw(|random| random.one_in(2)) {
                self.prune_not_seeing(&harms::hidden(&self.world))?;
            } else {
                harms::one(&self.world);
                self.prune_not_seeing(&BTreeSet::new())?;
            }
        }
        Ok(())
    }

    /// The snapshots that restore.
    fn whole(&self, repository: &Repository<'_>) -> Result<BTreeSet<SessionId>, EngineError> {
        let mut whole = BTreeSet::new();
        for snapshot in &snapshots::list(repository, None)?.snapshots {
            match self.oracle.restore(&self.world, repository, snapshot) {
                Ok(()) => drop(whole.insert(snapshot.session())),
                Err(_) => self.world.reach("a snapshot was damaged"),
            }
        }
        Ok(whole)
    }

    /// A finding names the session, unless nothing of it is left, or it is aborted now.
    fn is_named(&self, repository: &Repository<'_>, session: SessionId, findings: &[Finding]) {
        let id = session.to_string();
        let names = self.world.truth.names();
        let of_session: Vec<&BlobName> = names.iter().filter(|name| name.as_str().contains(&id)).collect();
        let is_aborted = of_session.iter().any(|name| {
            let Some(BlobKind::Decision(decision)) = name.kind() else { return false };
            let bytes = self.world.truth.get(name, None).unwrap_or_default();
            matches!(Decision::open(repository.keys(), &decision, &bytes), Ok(Decision::Abort(_)))
        });
        if of_session.is_empty() || is_aborted {
            return self.world.reach("a lost decision let a snapshot be taken for one that never was");
        }
        let names_it = |finding: &Finding| {
            finding.kind != FindingKind::UnknownName
                && (finding.blob.contains(&id)
                    || finding.affected.iter().any(|affected| affected.snapshot == id))
        };
        if findings.iter().any(names_it) {
            self.world.reach("a verification named a damaged snapshot");
        } else {
            self.world
                .violated(&format!("snapshot {id} does not restore, and no finding names it: {findings:?}"));
        }
    }

    /// What restores before a prune restores after it, whatever listings do not show. Returns whether the prune did all that
    /// there was to do.
    fn prune_not_seeing(&self, hidden: &BTreeSet<BlobName>) -> Result<bool, EngineError> {
        let client = Client::new(&self.world, self.safe_process(Role::Reader));
        let repository = Repository::open(&client, crate::PASSWORD)?;
        let whole = self.whole(&repository)?;
        let process = self.safe_process(Role::Pruner).not_seeing(hidden.clone());
        let (_, result) = self.prune("pruner-z", process, self.world.now());
        match &result {
            Ok(report) => self.note_prune(report),
            Err(error) => {
                self.world.reach("a prune refused to go on with what it saw");
                self.world.note("pruner-z", "is", "refused", &told(error));
            }
        }
        let after = self.whole(&repository)?;
        let forgotten = self.world.inner().forgotten.clone();
        for session in whole.iter().filter(|session| !after.contains(session) && !forgotten.contains(session))
        {
            let told = result.as_ref().map_err(told);
            self.world.violated(&format!(
                "a prune that does not see {hidden:?} destroyed snapshot {session}: {told:?}"
            ));
        }
        Ok(result.is_ok_and(|report| report.waiting.is_empty()))
    }

    /// Destroys blobs now and then.
    pub fn harmer(&self) {
        for _ in 0..self.scenario.harms {
            self.pause();
            harms::one(&self.world);
        }
    }
}
