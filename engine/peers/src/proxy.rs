//! What stands between a client and a server in a test: a network that is far, or one that fails.
//!
//! [`link`] carries bytes with a delay and counts them. [`fault_proxy`] knows HTTP/1.1 and does to each request what a
//! [`plan`] says, one of the [`fault`]s. Both listen on the loopback interface and end when they are dropped.

mod answer;
mod exchange;
pub mod fault;
pub mod fault_proxy;
mod http;
mod inbound;
mod late;
pub mod link;
pub mod plan;
mod sockets;

pub use fault::{Fault, Kind, Refusal, Request};
pub use fault_proxy::{Applied, Counts, Proxy};
pub use link::{Link, LinkCounts, LinkSettings};
pub use plan::{Plan, RandomPlan};
