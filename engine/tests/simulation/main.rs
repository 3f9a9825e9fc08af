//! Whole repositories under a scheduler, with one clock, one store and another one that restore points are copied to: many
//! writers, forgetters, pruners, readers and replicators, a copier, and everything that can go wrong between them and the store. All follows from a seed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "it tells what happened in how many seeds, and how to repeat one")]
#![expect(
    clippy::disallowed_methods,
    reason = "how many seeds are run is the environment's to say, not the engine's"
)]

#[path = "../world/mod.rs"]
mod lab;

mod actors;
mod arrivals;
mod client;
mod copies;
#[expect(dead_code, reason = "the crash states use a part of their own")]
mod disks;
mod ending;
mod failover;
mod faults;
mod harms;
mod late;
mod oracle;
mod random;
mod replicator;
mod retention;
mod rights;
mod runs;
mod scenario;
mod scheduler;
mod seeds;
mod states;
mod world;

use keepstone_engine::index::LocalIndex;
use keepstone_engine::{EngineError, Repository};
use lab::PASSWORD;

/// An empty local index.
fn world_index(repository: &Repository<'_>) -> Result<LocalIndex, EngineError> {
    let key = repository.keys().local_key("keepstone v0 local index");
    Ok(LocalIndex::open(None, repository.config().repository, key, 1 << 20)?)
}
