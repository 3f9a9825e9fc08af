//! Benchmarks of Keepstone; see README.md beside this file.
