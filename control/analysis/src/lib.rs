//! Is the canary good? Thresholds as Flagger reads them, and evidence from the routing coin.
//!
//! Everything here is a function of integers that someone else counted: no clock, no randomness, no I/O.
//! What follows from a verdict (halting, rolling back, telling people) is decided elsewhere.
//!
//! - [`judge`] holds what was seen of the canary against its checks, one interval at a time.
//! - [`Evidence`] bets on which version met each failure; a [`Stake`] says when it has won enough to roll back.
//! - [`Scoring`] remembers how much of whose counts is in the evidence, over replicas and changes of leader.
//! - [`GuardReport`] and [`rate_interval`] put that evidence into words and ranges.
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]

mod bet;
mod check;
mod checkpoint;
mod guard;
mod logs;
mod rate;
mod scoring;
mod stake;
#[cfg(test)]
mod vectors;

pub use bet::{Evidence, Factors, R_GRID, Slice, factors};
pub use check::{Check, CheckKind, CheckOutcome, CheckResult, Range, Seen, Verdict, Window, judge};
pub use checkpoint::{Base, Checkpoint, EPOCHS_MAX};
pub use guard::{GuardMode, GuardReport};
pub use rate::rate_interval;
pub use scoring::{BOOTS_MAX, Count, Scoring};
pub use stake::{Stake, WARM_UP_TOLERANCE, failures_needed, tolerance_from_min};
