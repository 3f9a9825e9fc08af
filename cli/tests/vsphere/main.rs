//! Backups of virtual machines in vSphere through the command line: against a fake vCenter, and against vcsim.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod bad_input;
mod chain;
mod check;
mod cleaning;
mod doubts;
mod faults;
mod hotadd;
mod interrupted;
mod killed;
mod nbd;
mod quiescing;
mod restoring;
mod scene;
mod several;
mod simulator;
#[path = "../world/mod.rs"]
mod world;
