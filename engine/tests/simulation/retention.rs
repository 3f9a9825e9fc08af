//! Who forgets snapshots, and who frees what nothing needs any more.

use crate::actors::{Simulation, choose, told};
use crate::client::{Client, Process};
use crate::late::{Late, Seen, seen_in};
use crate::random::Random;
use crate::rights::Role;
use crate::world::DAY;
use keepstone_engine::backup::Unfinished;
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Rule};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, forget, plan};
use keepstone_engine::observer::Quiet;
use keepstone_engine::prune::{PruneEnd, PruneJob, PruneReport, RepackPolicy, Unused, prune};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::snapshots::{self, Selector};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore as _, EngineError, Entropy, Repository};
use repo_format::{RetentionKey, SessionId, WriterId};
use std::collections::BTreeSet;

/// The restore points that a forget of a state would forget.
fn going(store: &MemoryStore, job: &ForgetJob<'_>) -> Result<BTreeSet<SessionId>, EngineError> {
    let report = plan(&Repository::open(store, crate::PASSWORD)?, job)?;
    Ok(report.going().map(|point| point.snapshot.session()).collect())
}

/// How old an undecided session may get.
const PATIENCE: u64 = 7 * DAY;

impl Simulation {
    /// Forgets snapshots now and then.
    pub fn forgetter(&self) {
        let mut offset = 0;
        for _ in 0..self.scenario.forgets {
            self.pause();
            let time = self.clock(&mut offset);
            let client = Client::new(&self.world, self.process(Role::Retention));
            match self.forget(&client, time) {
                Ok(()) => self.world.reach("snapshots were forgotten"),
                Err(error) if client.process.is_untouched() && self.is_honest() => {
                    self.world.violated(&format!("forgetting failed for nothing: {}", told(&error)));
                }
                Err(_) => self.world.reach("forgetting failed"),
            }
        }
    }

    fn forget(&self, client: &Client, time: u64) -> Result<(), EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let key = unlock_retention(&repository, crate::PASSWORD)?;
        let list = snapshots::list(&repository, None)?;
        if self.late.is_some() && self.world.draw(|random| random.one_in(2)) {
            return self.forget_by_policy(&repository, &key, time);
        }
        let chosen: Vec<_> = self.world.draw(|random| {
            let count = 1 + random.index(3);
            (0..count).filter_map(|_| choose(random, &list.snapshots)).collect()
        });
        if chosen.is_empty() {
            return Ok(());
        }
        let selectors: Vec<Selector> =
            chosen.iter().map(|snapshot| Selector::Id(snapshot.session().to_string())).collect();
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let job = ForgetJob {
            what: What::Named(&selectors),
            last_ones: LastOnes::MayGo,
            times: Times::Checked,
            time,
            entropy: &entropy,
        };
        let report = forget(&repository, &key, &job, &Quiet)?;
        self.oracle.known().forgotten.extend(report.going().map(|point| point.snapshot.session()));
        Ok(())
    }

    /// Forgets what a policy does not keep. What is not whole takes nobody's place: what goes is what would go if it were
    /// not there.
    fn forget_by_policy(
        &self,
        repository: &Repository<'_>,
        key: &RetentionKey,
        time: u64,
    ) -> Result<(), EngineError> {
        let (bucket, most, times) = self.world.draw(|random| {
            let bucket = random.pick(&[Bucket::Each, Bucket::Each, Bucket::Day, Bucket::Month]);
            let times = random.pick(&[Times::Trusted, Times::Trusted, Times::Checked]);
            (bucket, 1 + u32::try_from(random.below(3)).expect("few"), times)
        });
        let policy = Policy::new(&[Rule { bucket, limit: Limit::Newest(most) }])?;
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let job = ForgetJob {
            what: What::Policy { policy: &policy, vms: &[], tags: &[] },
            last_ones: LastOnes::Stay,
            times,
            time,
            entropy: &entropy,
        };
        self.check_policy(&job)?;
        let report = forget(repository, key, &job, &Quiet)?;
        self.oracle.known().forgotten.extend(report.going().map(|point| point.snapshot.session()));
        self.world.reach("a policy was applied where restore points arrive late");
        Ok(())
    }

    fn check_policy(&self, job: &ForgetJob<'_>) -> Result<(), EngineError> {
        let store = self.world.truth.copied();
        let going = going(&store, job)?;
        let seen = seen_in(&store)?;
        for Seen { snapshot, .. } in seen.iter().filter(|seen| seen.missing.is_some()) {
            store.delete(&snapshot.name.blob())?;
            self.world.reach("a policy did not count what is not whole");
        }
        let without = self::going(&store, job)?;
        if going != without {
            self.world
                .violated(&format!("a policy forgets {going:?}, and without what is not whole {without:?}"));
        }
        Ok(())
    }

    /// Forgets all that is not whole.
    pub fn forget_incomplete(&self) -> Result<(), EngineError> {
        let client = Client::new(&self.world, self.safe_process(Role::Retention));
        let repository = Repository::open(&client, crate::PASSWORD)?;
        let key = unlock_retention(&repository, crate::PASSWORD)?;
        let incomplete = self.incomplete()?;
        let selectors: Vec<Selector> =
            incomplete.iter().map(|session| Selector::Id(session.to_string())).collect();
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let job = ForgetJob {
            what: What::Named(&selectors),
            last_ones: LastOnes::MayGo,
            times: Times::Checked,
            time: self.world.now(),
            entropy: &entropy,
        };
        let report = forget(&repository, &key, &job, &Quiet)?;
        self.oracle.known().forgotten.extend(report.going().map(|point| point.snapshot.session()));
        Ok(())
    }

    /// Prunes again and again.
    pub fn pruner(&self, name: &str, times: u64) {
        let mut offset = 0;
        for _ in 0..times {
            self.pause();
            let time = self.clock(&mut offset);
            let process = self.process(Role::Pruner);
            let is_given_up = self.late.as_ref().is_none_or(Late::is_declared);
            match self.prune(name, process, time) {
                (_, Ok(report)) => self.note_prune(&report),
                (_, Err(error)) if self.refuses(&error, is_given_up) => {}
                (client, Err(error)) if client.process.is_untouched() && self.is_honest() => {
                    self.world.violated(&format!("a prune failed for nothing: {}", told(&error)));
                }
                (_, Err(_)) => self.world.reach("a prune failed"),
            }
            self.check_states();
        }
    }

    pub fn prune(
        &self,
        name: &str,
        process: Process,
        time: u64,
    ) -> (Client, Result<PruneReport, EngineError>) {
        let client = Client::new(&self.world, process);
        let result = self.run_prune(name, &client, time);
        (client, result)
    }

    fn run_prune(&self, name: &str, client: &Client, time: u64) -> Result<PruneReport, EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let key = unlock_retention(&repository, crate::PASSWORD)?;
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let end =
            self.world.draw(|random| if random.one_in(6) { PruneEnd::OpenGeneration } else { PruneEnd::All });
        let repacks = self.world.inner().repacks;
        let max_unused = if repacks { Unused::Percent(0) } else { Unused::Unlimited };
        let job = PruneJob {
            writer: &WriterId::new(name).expect("a writer's name"),
            time,
            program: "simulation",
            entropy: &entropy,
            patience: PATIENCE,
            abort: &[],
            unfinished: Unfinished::Ended,
            condemn_at_most: 100,
            repack: RepackPolicy { max_unused, max_repack: None, worth: &|_| true },
            end: if self.world.inner().is_quiet { PruneEnd::All } else { end },
        };
        prune(&repository, &key, &job, &Quiet)
    }

    pub fn note_prune(&self, report: &PruneReport) {
        self.world.reach("a prune went as far as it could");
        let waits = |for_replica: bool| {
            let replicas = report.waiting.iter().map(|waiting| waiting.replica.is_some());
            replicas.into_iter().any(|waits| waits == for_replica)
        };
        let happened = [
            (report.deleted.packs > 0, "a prune deleted packs"),
            (report.rescued.packs > 0, "a prune rescued packs"),
            (report.deferred.packs > 0, "a prune deferred deletes"),
            (!report.aborted.is_empty(), "a prune aborted a session"),
            (waits(false), "a prune waited for a session"),
            (waits(true), "a prune waited for a replica"),
            (report.indexes_removed > 0, "a prune compacted indexes"),
        ];
        for (_, what) in happened.iter().filter(|(has, _)| *has) {
            self.world.reach(what);
        }
    }
}
