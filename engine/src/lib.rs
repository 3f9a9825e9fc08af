//! Backup, restore and verification of virtual machine disks in a Keepstone repository.
//!
//! A synchronous library over four object-safe traits: [`DiskSource`], [`DiskTarget`], [`BlobStore`] and
//! [`Observer`]. It prints nothing and reads no clock, environment or randomness: times and seeds are arguments.

pub mod amount;
pub mod backup;
pub mod barrier;
pub mod bench;
mod buffers;
mod cache;
pub mod chunker;
mod condemned;
pub mod contents;
pub mod diff;
mod direct;
mod directory;
pub mod entropy;
pub mod error;
pub mod extent;
pub mod forget;
mod frames;
mod generations;
pub mod guest;
pub mod import;
pub mod index;
pub mod lineage;
mod listing;
mod map;
mod moved;
pub mod nbd;
pub mod observer;
pub mod overlay;
mod pack;
mod pack_set;
pub mod pins;
pub mod promotion;
pub mod prune;
pub mod rechunk;
mod records;
pub mod region;
mod repack;
pub mod repair;
pub mod replica;
pub mod replicate;
pub mod repository;
pub mod restore;
mod session;
pub mod snapshots;
pub mod source;
pub mod stats;
pub mod store;
pub mod target;
mod threads;
pub mod tls;
mod unnamed;
pub mod verify;
pub mod view;
pub mod vsphere;

pub use entropy::Entropy;
pub use error::EngineError;
pub use extent::Extent;
pub use observer::{Event, Observer};
pub use repository::Repository;
pub use source::DiskSource;
pub use store::BlobStore;
pub use target::DiskTarget;
