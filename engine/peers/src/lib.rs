//! Test support: starts the servers that Keepstone talks to, as real ones as can be had, and ends them with the test.
//!
//! There is a module for each peer, and [`proxy`] for what may stand before one. All of it is synchronous, and panics
//! with a message that says what to do: a test whose peer cannot be started has failed, and is never skipped.

pub mod annotated;
pub mod azure_cli;
pub mod azurite;
pub mod certificates;
pub mod copying;
pub mod entra;
pub mod http;
pub mod imds;
pub mod nbd;
pub mod proxy;
pub mod sas;
pub mod scripted;
mod server;
pub mod token;
pub mod vcenter;
pub mod vcsim;
