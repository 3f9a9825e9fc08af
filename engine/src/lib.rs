//! Backup, restore and verification of virtual machine disks in a Keepstone repository.
//!
//! A synchronous library over four object-safe traits: [`DiskSource`], [`DiskTarget`], [`BlobStore`] and
//! [`Observer`]. It prints nothing and reads no clock, environment or randomness: times and seeds are arguments.

pub mod chunker;
pub mod snapshots;
mod session;
pub mod restore;
pub mod repository;
mod pack;
mod map;
mod frames;
pub mod error;
pub mod entropy;
mod condemned;
pub mod backup;
pub mod extent;
pub mod index;
pub mod observer;
pub mod rechunk;
pub mod region;
pub mod source;
pub mod store;
pub mod target;

pub use entropy::Entropy;
pub use error::EngineError;
pub use extent::Extent;
pub use observer::{Event, Observer};
pub use repository::Repository;
pub use source::DiskSource;
pub use store::BlobStore;
pub use target::DiskTarget;
