//! The source is lost: the copy is promoted as it is, and everybody goes on there.

use crate::actors::{Simulation, told};
use crate::client::Client;
use crate::copies::Seen;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::rights::Role;
use crate::world::World;
use keepstone_engine::observer::Quiet;
use keepstone_engine::promotion::{PromoteJob, declare_other_side_gone, promote};
use keepstone_engine::replica::Completeness;
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::{EngineError, Entropy, Repository};
use repo_format::BlobName;
use std::sync::{Arc, Mutex};

/// Promotions that may fail, before one to which nothing happens.
const PROMOTIONS: usize = 2;

impl Simulation {
    /// What goes on at the copy once the source is lost, unless it is not.
    pub fn fail_over_if_lost(&self) {
        if self.scenario.is_lost
            && let Err(error) = self.fail_over()
        {
            self.world.violated(&format!("the copy cannot be promoted: {}", told(&error)));
        }
    }

    /// What is whole at the copy now restores for ever, whatever happens there after it was promoted.
    fn fail_over(&self) -> Result<(), EngineError> {
        let store = self.world.copy.copied();
        if !store.names().contains(&BlobName::config()) {
            return Ok(());
        }
        let whole = whole(&Repository::open(&store, crate::PASSWORD)?)?;
        let random = self.world.draw(Random::fork);
        let world = Arc::new(World::new(store, random, self.world.now()));
        world.inner().repacks = self.scenario.repacks;
        let oracle = Oracle::new(&self.disks);
        let versions = whole.iter().map(|snapshot| (snapshot.session(), Oracle::version_of(snapshot)));
        oracle.known().acknowledged.extend(versions);
        let mut scenario = self.scenario.clone();
        scenario.replicators.clear();
        (scenario.is_registered, scenario.is_lost) = (false, false);
        let disks = Arc::clone(&self.disks);
        let there =
            Arc::new(Self { world, disks, oracle, scenario, seen: Mutex::new(Some(Seen::default())) });
        there.world.enter();
        let promoted = there.promote();
        there.world.leave();
        promoted?;
        there.act();
        there.end();
        self.take_over(&there.world);
        if !whole.is_empty() {
            self.world.reach("a copy with restore points was promoted");
        }
        Ok(())
    }

    fn promote(&self) -> Result<(), EngineError> {
        for _ in 0..PROMOTIONS {
            let client = Client::new(&self.world, self.process(Role::Retention));
            match self.promote_once(&client) {
                Err(error) if client.process.is_untouched() => return Err(error),
                Err(_) => self.world.reach("a promotion failed"),
                Ok(()) => {}
            }
        }
        self.promote_once(&Client::new(&self.world, self.safe_process(Role::Retention)))
    }

    fn promote_once(&self, client: &Client) -> Result<(), EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let key = unlock_retention(&repository, crate::PASSWORD)?;
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let job = PromoteJob { time: self.world.now(), program: "simulation", entropy: &entropy };
        let report = promote(&repository, &key, &job, &Quiet)?;
        if !report.set_aside.is_empty() {
            self.world.violated(&format!("what was copied was set aside: {:?}", report.set_aside));
        }
        declare_other_side_gone(&repository, &key, &job)?;
        Ok(())
    }

    /// Takes over what happened in another world.
    fn take_over(&self, other: &World) {
        let mut other = other.inner();
        let mut inner = self.world.inner();
        inner.log.append(&mut other.log);
        inner.faults.add(&other.faults);
        let violations = std::mem::take(&mut other.violations);
        inner
            .violations
            .extend(violations.into_iter().map(|violation| format!("once promoted, {violation}")));
        for (what, times) in std::mem::take(&mut other.reached) {
            *inner.reached.entry(what).or_default() += times;
        }
    }
}

fn whole(repository: &Repository<'_>) -> Result<Vec<Snapshot>, EngineError> {
    let list = snapshots::list(repository, None)?.snapshots;
    let found = Completeness::of_everything(repository)?.of(&list)?;
    let of_whole = list.into_iter().zip(found).filter(|(_, found)| found.is_whole());
    Ok(of_whole.map(|(snapshot, _)| snapshot).collect())
}
