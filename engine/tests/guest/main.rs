//! The files of guests: real file systems, made by the tools that make them, and what no tool would make.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copying;
mod ext;
mod fat;
mod hostile;
mod images;
mod ntfs;
mod partitions;
mod xfs;
