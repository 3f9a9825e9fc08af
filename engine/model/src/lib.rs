//! The commit and prune protocol as models that `stateright` checks exhaustively.
//!
//! [`core`] is the protocol of one repository: sessions, generations, repacks, a replica. [`twins`] is one session whose
//! answers are lost and whose host is resumed twice. [`failover`] is a source and a promoted replica. See the README beside this
//! crate for what is modelled, how large the checked models are and what was seen.

mod check;
pub mod core;
pub mod failover;
pub mod runs;
mod set;
pub mod twins;

pub use check::{Outcome, Search, check};
pub use set::{Entries, Packs, Sessions, Set};
