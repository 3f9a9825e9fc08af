//! Virtual machines of a vCenter: the client with answers that a test wrote, and against simulators.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod changes;
mod faults;
mod folder;
mod guard;
mod identity;
mod peer;
mod sessions;
mod tasks;
mod transport;
mod vcenter;
mod vcsim;
