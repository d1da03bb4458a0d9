//! What happened? Outcomes of requests, counted per canary, epoch and arm while they pass, and read as plain values.
//!
//! Two halves that meet in one place:
//!
//! ```text
//!  a proxy thread ──▶ Shard  (atomics, one per thread)      cells.rs     the writing side
//!                       │
//!                  EpochMeter ──▶ Cell      look(), cut()   cells.rs     what the guard reads, integers only
//!                       └───────▶ Snapshot  snapshot()      snapshot.rs  what checks read, mergeable
//! ```
//!
//! The crate is pure: no clock, no randomness, no I/O. A latency is an argument, a boot id is an argument; so every
//! number in here can be replayed. It judges nothing: what a failure costs a canary is decided by its readers.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // a count that lost bits would be evidence that lies

pub mod bucket;
mod cells;
mod coin;
mod counts;
mod names;
mod outcome;
mod snapshot;

pub use crate::bucket::{Buckets, InvalidBuckets};
pub use crate::cells::{Cell, Cuts, EpochMeter, FailedUnits, Shard};
pub use crate::coin::{Coin, CoinOutOfRange};
pub use crate::counts::{ArmCounts, ArmRecord, CheckCounts, EpochCounts};
pub use crate::names::{Arm, Assignment, BootId, CanaryKey, EpochId, InvalidCanaryKey};
pub use crate::outcome::{Outcome, OutcomeClass};
pub use crate::snapshot::{CellKey, Snapshot};
