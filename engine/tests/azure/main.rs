//! The store in Azure Blob Storage, against Azurite.

mod campaign;
mod copying;
mod faults;
mod hostile;
mod replication;
mod requests;
mod rights;
mod service;
mod store;
mod strangers;

#[path = "../world/mod.rs"]
mod world;
