//! The Keepstone repository format: bytes to values and back, as SPEC.md tells.
//!
//! Nothing here does I/O, reads a clock or an environment, or makes random numbers: salts, seeds and ids are
//! arguments. No function panics on bytes from outside, and nothing is allocated from a length that has not been
//! checked against a limit and against the bytes that are there.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![expect(
    clippy::missing_panics_doc,
    reason = "panics that a caller can cause are documented, invariants are not"
)]

mod aead;
mod barrier;
mod bytes;
mod codec;
mod config;
mod decision;
mod directory;
mod error;
mod frame;
mod gc;
mod geometry;
mod ids;
mod index;
mod intent;
mod json;
mod keys;
pub mod limits;
mod lineage;
mod marker;
mod name;
mod node;
mod pack;
mod page;
mod pin;
mod repack;
mod retention;
mod seal;
mod slot;
mod table;
mod tombstone;

pub use barrier::{Barrier, BarrierFact};
pub use codec::{Decoder, Encoder};
pub use config::{Config, UncheckedConfig};
pub use decision::{Abort, AbortBy, Commit, Decision, Disk, DiskMode, Repacked, Totals};
pub use directory::{
    FrameEntry, PackHeader, directory_stored_len, encode_directory, find_directory, open_directory,
    parse_directory,
};
pub use error::{FormatError, JsonError, NameError};
pub use frame::{Codec, FrameKind, Location, PackRef};
pub use gc::{Awaited, Condemned, GcResult, GenerationSeal};
pub use geometry::{ChunkerName, ChunkerParams, Geometry};
pub use ids::{
    ChunkId, LineageId, PayloadId, ReplicaName, RepositoryId, SessionId, SlotName, VmTag, WriterId,
    check_disk_key, check_tag, check_vm_name,
};
pub use index::{Index, IndexEntry};
pub use intent::Intent;
pub use keys::{
    DataKeys, InventoryKey, Keys, PublicKeys, RootKey, SealedSessionKey, SessionKey, seal_session_key,
};
pub use limits::{PACK_HEADER_LEN, TAG_LEN};
pub use lineage::{Lineage, LineageStep};
pub use marker::ReplicaMarker;
pub use name::{
    BlobKind, BlobName, CANARY, DecisionName, PREFIX_BARRIER, PREFIX_DATA, PREFIX_DECISIONS, PREFIX_GC,
    PREFIX_INDEX, PREFIX_INTENTS, PREFIX_KEYS, PREFIX_LINEAGE, PREFIX_MAP, PREFIX_PINS, PREFIX_REPACK,
    PREFIX_TOMBSTONES, PackKind, PackName, barrier_prefix, decisions_prefix, indexes_prefix, intents_prefix,
    packs_prefix, pins_prefix, tombstones_prefix,
};
pub use node::{Child, Node, child_count, child_span, root_level};
pub use pack::{PackBase, PackOpener, PackSeal, seal_pack, verify_pack};
pub use page::{Entry, Page, PageBounds};
pub use pin::Pin;
pub use repack::{Lead, RepackRecord};
pub use retention::{RetentionKey, open_signed, seal_signed};
pub use seal::{SealedKind, open, seal};
pub use slot::{KdfParams, Slot, SlotInfo, SlotKey, SlotKind, seal_slot};
pub use tombstone::Tombstone;
