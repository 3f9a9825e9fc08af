//! Every sequence of up to three operations, with a crash at every store call of the last one, in each of its three
//! outcomes: not applied; applied, the answer lost; applied when all has recovered, before or after prunes. Then the operation
//! is run again, or is not, prunes clean up, every acknowledged snapshot is restored and compared, and a verification finds
//! nothing.
//!
//! A process that ended leaves nothing but what is in the store. So a crash at a call that changes nothing leaves the
//! state of the call before, and states that are equal are settled once. One thread of the scheduler runs at a time, so
//! that the calls of an operation are the same ones each time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "it tells which state failed")]

#[expect(dead_code, reason = "the simulation uses all of it")]
#[path = "../simulation/disks.rs"]
mod disks;
#[path = "../world/mod.rs"]
mod lab;
mod operations;
#[expect(dead_code, reason = "the simulation uses all of it")]
#[path = "../simulation/random.rs"]
mod random;
mod recorded;
#[path = "../simulation/scheduler.rs"]
mod scheduler;
mod states;
