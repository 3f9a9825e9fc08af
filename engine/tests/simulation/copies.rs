//! What must hold at a store that restore points are copied to, and at the source for its sake.

use crate::actors::{Simulation, told};
use crate::replicator::confirmed;
use crate::states::State;
use keepstone_engine::replica::Completeness;
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::{EngineError, Repository};
use repo_format::{BlobKind, BlobName, Decision, PackName, RepackRecord, SessionId};
use std::collections::BTreeSet;
use std::sync::PoisonError;

/// What was seen of the copy so far.
#[derive(Default)]
pub struct Seen {
    whole: BTreeSet<SessionId>,
}

impl Simulation {
    /// Looks at the states of the stores that nobody has looked at.
    pub fn check_states(&self) {
        while let Some((state, pack)) = self.next_of_source() {
            if let Err(error) = self.check_kept(&state, &pack) {
                self.wrong_in(&state, &told(&error));
            }
        }
        // Whoever looks at some of the copy's goes on until there is none: they are looked at in their order.
        let Some(mut seen) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        while let Some(state) = self.next_of_copy() {
            if let Err(error) = self.check_copy(&state, &mut seen) {
                self.wrong_in(&state, &told(&error));
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    fn next_of_source(&self) -> Option<(State, PackName)> {
        self.world.inner().states.of_source.pop_front()
    }

    fn next_of_copy(&self) -> Option<State> {
        self.world.inner().states.of_copy.pop_front()
    }

    fn wrong_in(&self, state: &State, what: &str) {
        let State { call, changed, .. } = state;
        self.world.violated(&format!("at the copy, after {changed} before call {call}: {what}"));
    }

    /// Every restore point that is there is whole and restores from exactly what is there, and one that was there before
    /// is, unless it was forgotten.
    fn check_copy(&self, state: &State, seen: &mut Seen) -> Result<(), EngineError> {
        let names = state.store.names();
        if !names.contains(&BlobName::config()) {
            // Nothing can be taken for a repository that is not there.
            if names.iter().any(|name| matches!(name.kind(), Some(BlobKind::Decision(_)))) {
                self.wrong_in(state, "there are decisions and no config");
            }
            return Ok(());
        }
        let repository = Repository::open(&state.store, crate::PASSWORD)?;
        let list = snapshots::list(&repository, None)?;
        if !list.unreadable.is_empty() {
            self.wrong_in(state, &format!("unreadable: {:?}", list.unreadable));
        }
        let found = Completeness::of_everything(&repository)?.of(&list.snapshots)?;
        let mut whole = BTreeSet::new();
        for (snapshot, found) in list.snapshots.iter().zip(found) {
            if let Some(missing) = found.missing() {
                self.wrong_in(state, &format!("snapshot {} lacks {missing}", snapshot.session()));
            } else {
                whole.insert(snapshot.session());
            }
        }
        let forgotten = &state.forgotten;
        for session in seen.whole.difference(&whole).filter(|session| !forgotten.contains(session)) {
            self.wrong_in(state, &format!("snapshot {session} was whole and is not any more"));
        }
        let is_last = self.world.inner().states.of_copy.is_empty();
        let is_new = |snapshot: &&Snapshot| is_last || !seen.whole.contains(&snapshot.session());
        for snapshot in list.snapshots.iter().filter(is_new) {
            if let Err(error) = self.oracle.restore(&self.world, &repository, snapshot) {
                let session = snapshot.session();
                self.wrong_in(state, &format!("snapshot {session} does not restore: {}", told(&error)));
            }
        }
        self.world.reach("a state of the copy was looked at");
        seen.whole.extend(whole);
        Ok(())
    }

    /// A pack that was packed again goes only after that is confirmed at the registered copy (REP-1).
    fn check_kept(&self, state: &State, pack: &PackName) -> Result<(), EngineError> {
        let repository = Repository::open(&state.store, crate::PASSWORD)?;
        let Some(confirmed) = confirmed(&repository)? else { return Ok(()) };
        let records = records(&repository, &state.store.names())?;
        let (mut names, mut reached) = (vec![pack.clone()], BTreeSet::new());
        while let Some(name) = names.pop() {
            for record in &records {
                for new in leads_from(record, &name) {
                    if !confirmed.contains(&(record.session, record.decision.writer.clone())) {
                        let session = record.session;
                        self.wrong_in(state, &format!("{session} packed it again, and is not confirmed"));
                    }
                    if reached.insert(new.clone()) {
                        names.push(new);
                    }
                }
            }
        }
        if !reached.is_empty() {
            self.world.reach("a pack was deleted when what was packed again was confirmed");
        }
        Ok(())
    }

    /// In the end the copy has the restore points of the source.
    pub fn check_copy_at_last(&self, source: &[Snapshot]) -> Result<(), EngineError> {
        self.world.inner().keep_last_state(&self.world);
        self.check_states();
        let repository = Repository::open(&self.world.copy, crate::PASSWORD)?;
        let there: BTreeSet<SessionId> =
            snapshots::list(&repository, None)?.snapshots.iter().map(Snapshot::session).collect();
        let here: BTreeSet<SessionId> = source.iter().map(Snapshot::session).collect();
        if there != here {
            self.world.violated(&format!("in the end the copy has {there:?}, and the source {here:?}"));
        }
        let packs = |names: Vec<BlobName>| -> BTreeSet<BlobName> {
            names.into_iter().filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_)))).collect()
        };
        let (there, here) = (packs(self.world.copy.names()), packs(self.world.truth.names()));
        if there != here {
            let (more, less): (Vec<_>, Vec<_>) =
                (there.difference(&here).collect(), here.difference(&there).collect());
            self.world.violated(&format!(
                "in the end the copy has {more:?}, which the source has not, and lacks {less:?}"
            ));
        }
        self.world.reach("a copy had everything in the end");
        Ok(())
    }
}

/// The records whose sessions were committed.
pub fn records(repository: &Repository<'_>, names: &[BlobName]) -> Result<Vec<RepackRecord>, EngineError> {
    let store = repository.store();
    let mut records = Vec::new();
    for name in names.iter().filter(|name| matches!(name.kind(), Some(BlobKind::Repack(_)))) {
        let record = RepackRecord::open(repository.keys(), name, &store.get(name, None)?);
        let record = record.expect("a store that is honest");
        let Ok(bytes) = store.get(&record.decision.blob(), None) else { continue };
        if matches!(Decision::open(repository.keys(), &record.decision, &bytes), Ok(Decision::Repack(_))) {
            records.push(record);
        }
    }
    Ok(records)
}

fn leads_from(record: &RepackRecord, pack: &PackName) -> Vec<PackName> {
    let name = |number: &u32| record.packs[usize::try_from(*number).expect("few packs")].name.clone();
    let from = record.leads.iter().filter(|lead| name(&lead.old) == *pack);
    from.flat_map(|lead| lead.new.iter().map(name)).collect()
}
