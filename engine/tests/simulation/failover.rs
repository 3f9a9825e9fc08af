//! The source is lost: the copy is promoted as it is, and everybody goes on there.

use crate::actors::{Simulation, told};
use crate::client::Client;
use crate::copies::Seen;
use crate::late::{Late, whole_in};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::rights::Role;
use crate::scenario::Source;
use crate::world::World;
use keepstone_engine::observer::Quiet;
use keepstone_engine::promotion::{PromoteJob, declare_other_side_gone, promote};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::{EngineError, Entropy, Repository};
use repo_format::BlobName;
use std::sync::{Arc, Mutex};

/// Promotions that may fail, before one to which nothing happens.
const PROMOTIONS: usize = 2;

impl Simulation {
    /// What goes on at the copy once the source is lost, unless it is not.
    pub fn fail_over_if_lost(&self) {
        if self.scenario.source != Source::Stays
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
        let (late, whole) = if self.scenario.source == Source::LostAndLate {
            let (late, whole) = Late::draw(&self.world, &store)?;
            (Some(late), whole)
        } else {
            (None, whole_in(&store)?)
        };
        let random = self.world.draw(Random::fork);
        let world = Arc::new(World::new(store, random, self.world.now()));
        world.inner().repacks = self.scenario.repacks;
        let oracle = Oracle::new(&self.disks);
        let versions = whole.iter().map(|snapshot| (snapshot.session(), Oracle::version_of(snapshot)));
        oracle.known().acknowledged.extend(versions);
        let mut scenario = self.scenario.clone();
        scenario.replicators.clear();
        (scenario.is_registered, scenario.source) = (false, Source::Stays);
        let disks = Arc::clone(&self.disks);
        let seen = Mutex::new(Some(Seen::default()));
        let there = Arc::new(Self { world, disks, oracle, scenario, seen, late });
        there.world.enter();
        let promoted = there.promote();
        there.world.leave();
        promoted?;
        if let Some(late) = &there.late {
            there.look_at_late(late);
        }
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
        for set_aside in report.set_aside {
            if self.late.as_ref().is_some_and(|late| late.is_of(&set_aside.snapshot)) {
                self.world.reach("a restore point was set aside");
            } else {
                self.world.violated(&format!("what was copied was set aside: {set_aside:?}"));
            }
        }
        // Who awaits more gives the source up later.
        if self.late.is_none() {
            declare_other_side_gone(&repository, &key, &job)?;
        }
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
