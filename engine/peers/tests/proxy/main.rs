//! The proxies between a client and a server, through what both of them see.

mod azurite;
mod client;
mod faults;
mod link;
mod passing;
mod plan;
mod server;
