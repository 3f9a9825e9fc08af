//! Backups of virtual machines in vSphere through the command line, against a fake vCenter.

mod chain;
mod scene;
#[path = "../world/mod.rs"]
mod world;
