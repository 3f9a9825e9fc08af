//! Virtual machines of a vCenter, against simulators of one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vcsim;
