//! What has to hold whatever happens, as seen by somebody who sees everything at once.
//!
//! The simulation tells an [`Observer`] what was saved, published, bet, tripped and routed, at the moment it happens. Each
//! promise is kept by a file of its own; the first one that is broken ends the world.

mod books;
mod counts;
mod stakes;
mod trips;

use std::fmt;

use serin_measure::{BootId, CanaryKey};

pub(crate) use books::{Books, Commit};
pub(crate) use counts::Counts;
pub(crate) use stakes::Ledgers;
pub(crate) use trips::{Origin, Trips};

/// What has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    WeightIsSaved,
    TripHolds,
    StakeOnce,
    PromotedOnce,
    CountedOnce,
    ComesToRest,
}

impl Promise {
    /// The promise in words.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::WeightIsSaved => {
                "no table with an open coin is published before its run, epoch and weight are in the store"
            }
            Self::TripHolds => {
                "a run that was taken out of traffic is never promoted, and who took it out never sends a drawn request to it"
            }
            Self::StakeOnce => {
                "the stakes of a run add up to 1 at most, nobody has two, none is let out again, and no request is scored twice"
            }
            Self::PromotedOnce => {
                "a run is promoted once at most, runs and epochs only rise, and an epoch has one coin and one pair of versions"
            }
            Self::CountedOnce => "every drawn request is in exactly one cell, that of the epoch in which it was routed",
            Self::ComesToRest => "when all is well again, every rollout ends, and all replicas serve it alike",
        }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

impl Breach {
    /// The same of somebody.
    pub(crate) fn of(self, whose: &str) -> Self {
        Self { what: format!("{whose}: {}", self.what), ..self }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.promise, self.promise.sentence(), self.what)
    }
}

/// A look at one promise.
pub(crate) type Kept = Result<(), Breach>;

/// Holds a promise against what was seen.
pub(crate) fn hold(promise: Promise, is_kept: bool, what: impl FnOnce() -> String) -> Kept {
    if is_kept { Ok(()) } else { Err(Breach { promise, what: what() }) }
}

/// Which canary in which process.
pub(crate) type Seat = (BootId, CanaryKey);

/// Everything that is watched.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub(crate) books: Books,
    pub(crate) trips: Trips,
    pub(crate) ledgers: Ledgers,
    pub(crate) counts: Counts,
    /// The first promise that was broken.
    pub(crate) breach: Option<Breach>,
}

impl Observer {
    /// Takes note of how a look went.
    pub(crate) fn note(&mut self, kept: Kept) {
        if let Err(breach) = kept {
            self.breach.get_or_insert(breach);
        }
    }
}
