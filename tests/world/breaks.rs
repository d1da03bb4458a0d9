//! Breaks that are made on purpose, at the seams: a promise that nobody could break proves nothing.

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The first replica's store says that it has saved, and has not.
    SaveSkipped,
    /// Data paths forget what they took out of traffic.
    TripForgotten,
    /// A state that is loaded has lost its ledger.
    StakeAgain,
}
