//! The store in Azure Blob Storage, against Azurite.

mod rights;
mod service;
mod store;

#[path = "../world/mod.rs"]
mod world;
