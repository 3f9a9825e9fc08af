//! Copies of the repository that asynchronous replication makes: any subset of its blobs, arriving in any order
//! (PROTOCOL 8).
//!
//! Which restore points are whole is a pure function of which blobs are there: what has arrived is listed, and maps tell
//! what is needed. Nothing is written to find out.

mod completeness;
mod offer;
mod presence;

pub(crate) use completeness::is_whole_by;
pub(crate) use presence::Presence;

pub use completeness::{Completeness, DamagedNode, Missing, MissingBlob, NAMES_TOLD, Whole};
pub use offer::{Doubt, Point, each, find, find_any};
pub(crate) use offer::{Looking, newest_whole, try_each};
