//! The format through its public API: round trips, damage, and what vectors cannot tell; rule by rule it is tested in
//! `specification`.
#![expect(clippy::unwrap_used, reason = "helpers are as much of a test as the functions that call them")]
#![expect(clippy::similar_names, reason = "encoder and encoded, move and moves are the words for it")]

mod damage;
mod map_rules;
mod names;
mod object_rules;
mod pack_rules;
mod primitives;
mod round_trips;
mod samples;
