//! The store in Azure Blob Storage, against Azurite.

mod rights;
mod store;
mod service;

#[path = "../world/mod.rs"]
mod world;
