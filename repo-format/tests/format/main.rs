//! The format through its public API: round trips, the rules of SPEC.md, damage, and bytes that must not change.
#![expect(clippy::unwrap_used, reason = "helpers are as much of a test as the functions that call them")]
#![expect(clippy::similar_names, reason = "encoder and encoded, move and moves are the words for it")]
#![expect(clippy::needless_pass_by_value, reason = "spoilt values are made for one call")]

mod damage;
mod golden;
mod json_rules;
mod map_rules;
mod names;
mod object_rules;
mod pack_rules;
mod primitives;
mod raw;
mod round_trips;
mod samples;
