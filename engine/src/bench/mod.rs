//! What benchmarks are made of: disks that are the same on every machine, parts of real ones, changes of disks, and the
//! stages of a backup and a restore one by one.
//!
//! Nothing here looks at a clock: whoever measures does.

pub mod changes;
mod nothing;
pub mod random;
mod sampled;
pub mod stages;
pub mod synthetic;
pub mod tracked;

pub use nothing::Nothing;
pub use sampled::SampledDisk;
