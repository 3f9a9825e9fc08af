//! Reading and writing disks over NBD: a client of our own, with structured replies and metadata contexts.
//!
//! Nothing is shared between connections but the list of those that are idle: whoever reads takes one, writes its
//! requests and reads their replies itself, straight to where the bytes belong. Whoever writes has connections of its
//! own.
//!
//! # Memory
//! Whatever a server says: for each connection 8 KiB of bytes read ahead, and for each of its 16 requests in flight the
//! ranges that came, of which there are as many as sectors at most; 64 KiB for a message; for each metadata context
//! what `status` keeps; for each read of blocks in part, two blocks of at most 64 KiB for each of 32 parts.

mod channel;
mod client;
mod connection;
mod error;
mod handshake;
mod place;
pub mod server;
mod settings;
mod status;
mod tls;
mod wire;
mod writer;

pub(crate) use channel::Closer;
pub(crate) use client::{Bitmap, Client, Told, Use};
pub(crate) use connection::Piece;
pub use error::{NbdError, Refusal, ServerError};
pub use place::{NbdPlace, PlaceError};
pub use settings::{Holes, NbdSettings};
pub use wire::WireError;
pub(crate) use writer::{Change, WRITES_IN_FLIGHT, Writer};
