//! The tests that cross crates, in one binary.

mod harness;
mod lock;
