//! Some restore points with what they need.

use super::needs::Needed;
use super::repacks::ATTEMPTS;
use super::sound::read_object;
use super::{NotCopied, Run};
use crate::error::{EngineError, chain};
use crate::replica::Presence;
use crate::snapshots::{self, Snapshot};
use crate::store::StoreError;
use crate::threads;
use repo_format::{Decision, DecisionName, PackRef, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// Packs that are copied before the restore points that need them: enough to keep all jobs busy, and few enough that
/// restore points arrive all the time.
const PACKS_AT_ONCE: usize = 1024;

/// Restore points, and the packs that they need together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    roots: Vec<Needed>,
    packs: BTreeSet<PackRef>,
}

impl Batch {
    /// Parts restore points so that few packs have to be copied for each part.
    pub(super) fn split(needed: Vec<Needed>) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        for needed in needed {
            if batches.last().is_none_or(|batch| batch.packs.len() >= PACKS_AT_ONCE) {
                batches.push(Self::default());
            }
            if let Some(batch) = batches.last_mut() {
                batch.packs.extend(needed.missing.iter().cloned());
                batch.roots.push(needed);
            }
        }
        batches
    }
}

/// Restore points that could not be copied, and why.
type Failed = Vec<(Snapshot, String)>;

impl Run<'_> {
    /// Copies the restore points among some decisions.
    pub(super) fn copy_roots(&mut self, names: &[DecisionName]) -> Result<(), EngineError> {
        let roots = self.read(names)?;
        let count = roots.len();
        let roots = self.doubts.whole_of(roots)?;
        self.report.snapshots.incomplete += (count - roots.len()) as u64;
        let mut failed = self.copy_all_of(roots)?;
        for _ in 1..ATTEMPTS {
            if failed.is_empty() {
                return Ok(());
            }
            // What was not where it was looked for may have been moved meanwhile, or forgotten.
            self.needs.reload()?;
            let reasons: Vec<String> = failed.iter().map(|(_, reason)| reason.clone()).collect();
            let again = self.not_forgotten(failed)?;
            failed = self.copy_all_of(again)?;
            if failed.iter().map(|(_, reason)| reason).eq(&reasons) {
                break;
            }
        }
        for (root, reason) in failed {
            self.report.failed.push(NotCopied { snapshot: root.session().to_string(), reason });
        }
        Ok(())
    }

    fn not_forgotten(&mut self, failed: Failed) -> Result<Vec<Snapshot>, EngineError> {
        let mut again = Vec::new();
        for (root, _) in failed {
            if snapshots::is_forgotten(self.source, &root.name)? {
                self.report.snapshots.forgotten += 1;
            } else {
                again.push(root);
            }
        }
        Ok(again)
    }

    /// Reads decisions of the source. Those of sessions that were aborted are copied.
    pub(super) fn read(&mut self, names: &[DecisionName]) -> Result<Vec<Snapshot>, EngineError> {
        let source = self.source;
        let read = threads::each(names, self.copier.jobs(), |name| snapshots::read(source, name));
        let (mut roots, mut aborted) = (Vec::new(), Vec::new());
        for (name, decision) in names.iter().zip(read) {
            match decision {
                Ok(Some(Decision::Commit(commit))) => {
                    roots.push(Snapshot { name: name.clone(), commit: *commit });
                }
                Ok(Some(Decision::Abort(_))) => aborted.push(name.blob()),
                // Of a repack session, or gone since it was listed: it was forgotten.
                Ok(Some(Decision::Repack(_)) | None) => {}
                Err(error) if error.is_damage() => self.fail(name.session, &error),
                Err(error) => return Err(error),
            }
        }
        aborted.retain(|name| !self.objects.has(name));
        self.copy_objects(&aborted)?;
        Ok(roots)
    }

    fn copy_all_of(&mut self, roots: Vec<Snapshot>) -> Result<Failed, EngineError> {
        let mut failed = Vec::new();
        for batch in Batch::split(self.needs.of(roots)?) {
            failed.extend(self.copy_batch(batch)?);
        }
        Ok(failed)
    }

    fn copy_batch(&mut self, batch: Batch) -> Result<Failed, EngineError> {
        let Batch { roots, mut packs } = batch;
        packs.retain(|pack| !self.needs.is_there(pack));
        let packs: Vec<PackRef> = packs.into_iter().collect();
        let committed = roots.iter().map(|needed| needed.root.session()).collect();
        // One that stored nothing of its own has an intent, too.
        let owner = |needed: &Needed| (needed.root.name.writer.clone(), needed.root.session());
        self.copy_sessions(roots.iter().map(owner).collect(), &committed)?;
        let lost = self.copy_packs(&packs, &committed)?;
        // Their packs may be there from a run that ended before it copied their indexes.
        self.copy_indexes(&committed)?;
        let passed: BTreeSet<SessionId> = roots.iter().flat_map(|needed| needed.passed.clone()).collect();
        let mut unmoved = self.copy_records(&passed)?;
        unmoved.extend(self.prove_records(&passed)?);
        let (mut complete, mut failed) = (Vec::new(), Vec::new());
        for Needed { root, missing, passed, failed: reason } in roots {
            let of_packs = missing.iter().find_map(|pack| lost.get(pack));
            let of_records = || passed.iter().find_map(|session| unmoved.get(session));
            match reason.or_else(|| of_packs.or_else(of_records).cloned()) {
                Some(reason) => failed.push((root, reason)),
                None => complete.push(root),
            }
        }
        failed.extend(self.commit(complete)?);
        Ok(failed)
    }

    /// Copies packs that are not at the destination, with what tells of the sessions that made them, and looks whether
    /// they are there. Returns those that are not, and why.
    pub(super) fn copy_packs(
        &mut self,
        packs: &[PackRef],
        committed: &BTreeSet<SessionId>,
    ) -> Result<BTreeMap<PackRef, String>, EngineError> {
        let mut lost = BTreeMap::new();
        if packs.is_empty() {
            return Ok(lost);
        }
        let owners = packs.iter().map(|pack| (pack.name.writer.clone(), pack.name.session)).collect();
        self.copy_sessions(owners, committed)?;
        let copied = self.copier.copy_packs(packs, self.observer)?;
        let mut presence = Presence::as_asked();
        if let (Some(destination), false) = (self.destination, self.copier.is_pretending()) {
            presence.look_for(destination, packs.iter())?;
        }
        for (pack, result) in packs.iter().zip(copied) {
            match result {
                Ok(()) if self.copier.is_pretending() || presence.has(pack) => self.needs.note(pack),
                Ok(()) => {
                    let error = super::ReplicateError::NotListed { name: pack.name.blob() };
                    lost.insert(pack.clone(), chain(&error));
                }
                Err(error) => drop(lost.insert(pack.clone(), chain(&error))),
            }
        }
        let sessions = packs.iter().map(|pack| pack.name.session).collect();
        self.copy_indexes(&sessions)?;
        Ok(lost)
    }

    /// Creates the decisions of restore points of which everything is there.
    fn commit(&mut self, roots: Vec<Snapshot>) -> Result<Failed, EngineError> {
        if roots.is_empty() {
            return Ok(Vec::new());
        }
        self.check_destination()?;
        let (source, copier) = (self.source, &self.copier);
        let results = copier.each(&roots, |root| {
            let name = root.name.blob();
            let open = |bytes: &[u8]| Decision::open(source.keys(), &root.name, bytes);
            let (bytes, _) = match read_object(source.store(), &name, open) {
                Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(false),
                other => other?,
            };
            copier.object(&name, &bytes).map(|()| true)
        })?;
        self.moved(0)?;
        let mut failed = Vec::new();
        for (root, result) in roots.into_iter().zip(results) {
            match result {
                Ok(true) if self.objects.has(&root.name.blob()) => {}
                Ok(true) => self.report.snapshots.copied += 1,
                // It was forgotten, and a pruner has removed it.
                Ok(false) => self.report.snapshots.forgotten += 1,
                Err(error) => failed.push((root, chain(&error))),
            }
        }
        Ok(failed)
    }
}
