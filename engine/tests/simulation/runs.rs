//! One seed from its beginning to its end.

use crate::actors::{Simulation, told};
use crate::copies::Seen;
use crate::disks::Disks;
use crate::faults::Counts;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::scenario::{Sabotage, Scenario, Source, Store};
use crate::scheduler::Turns;
use crate::world::World;
use keepstone_engine::store::MemoryStore;
use repo_format::{ChunkerName, ChunkerParams, Geometry};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

/// A task's stack; the compressor and the cipher put tables there.
const STACK_LEN: usize = 1 << 20;

/// What one seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Every call of the store, in order.
    pub log: Vec<String>,
    pub violations: Vec<String>,
    pub faults: Counts,
    pub reached: BTreeMap<&'static str, u64>,
}

/// A geometry whose limits small disks cross.
fn geometry() -> Geometry {
    Geometry {
        chunker: ChunkerParams { name: ChunkerName::FastCdc2020, min: 256, average: 1024, max: 4096 },
        region_len: 16 << 10,
        cell_len: 4 << 10,
        pack_len: 64 << 10,
    }
}

fn new_repository() -> MemoryStore {
    static EMPTY: OnceLock<MemoryStore> = OnceLock::new();
    let make = || {
        let store = MemoryStore::new();
        crate::lab::create(&store, geometry());
        store
    };
    EMPTY.get_or_init(make).copied()
}

/// Runs one seed to its end.
pub fn run(seed: u64, sabotage: Sabotage) -> Outcome {
    let mut config = Config::new();
    config.stack_size = STACK_LEN;
    config.max_steps = MaxSteps::None;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let mut random = Random::new(seed);
    let turns = Turns::new(random.fork());
    // Outside of the scheduler: it is the same for all seeds.
    let empty = new_repository();
    let world: Arc<Mutex<Option<Arc<World>>>> = Arc::default();
    let made = Arc::clone(&world);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(turns, config).run(move || {
            let simulation = Simulation::new(empty.copied(), random.clone(), sabotage);
            *made.lock().unwrap() = Some(Arc::clone(&simulation.world));
            Arc::new(simulation).run();
        })
    }));
    let world = world.lock().unwrap().take().expect("a simulation begins with its world");
    if let Err(panic) = ended {
        world.violated(&format!("panicked: {}", text_of(&*panic)));
    }
    let mut inner = world.inner();
    Outcome {
        log: std::mem::take(&mut inner.log),
        violations: std::mem::take(&mut inner.violations),
        faults: inner.faults.clone(),
        reached: std::mem::take(&mut inner.reached),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with something that is no text")
}

impl Simulation {
    fn new(store: MemoryStore, mut random: Random, sabotage: Sabotage) -> Self {
        let mut scenario = Scenario::draw(&mut random);
        scenario.sabotage = sabotage;
        if sabotage == Sabotage::LosesAPackOfTheCopy && scenario.store == Store::Honest {
            scenario.replicators = vec![1];
        }
        let disks = Arc::new(Disks::new(&mut random, scenario.vms));
        let oracle = Oracle::new(&disks);
        let world = Arc::new(World::new(store, random, crate::lab::NOW));
        world.inner().takes_back = scenario.store == Store::Destroys;
        world.inner().repacks = scenario.repacks;
        world.inner().states.are_of_copy = !scenario.replicators.is_empty();
        world.inner().states.are_of_source = scenario.is_registered;
        world.inner().states.are_removed_kept = scenario.source == Source::LostAndLate;
        let seen = Mutex::new(Some(Seen::default()));
        Self { world, disks, oracle, scenario, seen, late: None }
    }

    fn run(self: Arc<Self>) {
        if self.scenario.is_registered
            && let Err(error) = self.register()
        {
            self.world.violated(&format!("the copy cannot be registered: {}", told(&error)));
        }
        self.act();
        self.fail_over_if_lost();
        self.end();
    }

    /// Everybody does what the scenario says.
    pub fn act(self: &Arc<Self>) {
        let mut threads = Vec::new();
        let mut spawn = |act: Box<dyn FnOnce(&Self) + Send>| {
            let simulation = Arc::clone(self);
            self.world.enter();
            threads.push(shuttle::thread::spawn(move || {
                act(&simulation);
                simulation.world.leave();
            }));
        };
        for (name, vms) in self.scenario.writers.clone() {
            spawn(Box::new(move |simulation| simulation.writer(name, &vms)));
        }
        spawn(Box::new(Self::forgetter));
        for (name, times) in self.scenario.prunes.clone() {
            spawn(Box::new(move |simulation| simulation.pruner(name, times)));
        }
        spawn(Box::new(Self::harmer));
        if self.late.is_some() {
            spawn(Box::new(Self::arrivals));
        }
        for times in self.scenario.reads.clone() {
            spawn(Box::new(move |simulation| simulation.reader(times)));
        }
        if let Some((blobs, times)) = self.scenario.copies {
            spawn(Box::new(move |simulation| simulation.copier(blobs, times)));
        }
        for times in self.scenario.replicators.clone() {
            spawn(Box::new(move |simulation| simulation.replicator(times)));
        }
        for thread in threads {
            thread.join().expect("a panic ends the execution");
        }
    }
}
