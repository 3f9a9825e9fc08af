//! What the benchmarks of Keepstone have in common: their disks, their changes and their repositories.
//!
//! Everything follows from seeds, so that two runs measure the same work. README.md beside this crate tells how to
//! run them and what their numbers mean.

pub mod files;
pub mod meter;
pub mod repository;
pub mod table;

pub use keepstone_engine::bench::{changes, random, synthetic, tracked};
