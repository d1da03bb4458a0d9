//! Who has taken which run out of traffic, who has heard of it, and what must not follow.
//!
//! A trip is owed an answer by whoever can know of it. So a run may be promoted although it was tripped in three cases: the
//! tripped process has died with what it knew; it was not among those to whom clients are sent, as far as the leader was told;
//! or the trip fell within [`NEWS_MS`] of the save, as a leader acts on counts of that age.

use std::collections::BTreeMap;

use serin_measure::{BootId, CanaryKey};
use serin_rollout::{Phase, State, Weight};

use super::{Kept, Promise, Seat, hold};

/// How old what a leader knows of the others may be when it promotes, in milliseconds: after three seconds of silence it
/// waits, and a question takes a second at most; the beat and the wait for facts are in the fifth.
const NEWS_MS: u64 = 5_000;

/// Who took a run out of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Its own tripwire.
    Tripwire,
    /// Whoever leads.
    Order,
}

/// A run that is out of traffic in one process.
#[derive(Debug, Clone, Copy)]
struct Trip {
    rollout: u64,
    at_ms: u64,
}

/// A trip that a leader has heard of.
#[derive(Debug, Clone, Copy)]
struct Heard {
    rollout: u64,
    at_ms: u64,
    term: u64,
}

/// All trips.
#[derive(Debug, Default)]
pub(crate) struct Trips {
    /// Flags of data paths, of the living.
    flags: BTreeMap<Seat, Trip>,
    /// Runs that are taken back in a living process, whatever was saved.
    taken_back: BTreeMap<Seat, Trip>,
    heard: BTreeMap<Seat, Heard>,
    /// Runs that a tripwire took out somewhere, ever.
    by_tripwire: BTreeMap<CanaryKey, Vec<u64>>,
    /// When a process was last left out of the list by which a leader asks, by leader and process.
    unlisted: BTreeMap<(BootId, BootId), u64>,
}

impl Trips {
    /// A run was taken out of traffic in one process.
    pub(crate) fn tripped(&mut self, seat: Seat, rollout: u64, origin: Origin, now_ms: u64) {
        if origin == Origin::Tripwire {
            self.by_tripwire.entry(seat.1.clone()).or_default().push(rollout);
        }
        later(&mut self.flags, seat, rollout, now_ms);
    }

    /// A process is gone with all it knew.
    pub(crate) fn died(&mut self, boot: BootId) {
        self.flags.retain(|seat, _| seat.0 != boot);
        self.taken_back.retain(|seat, _| seat.0 != boot);
        self.heard.retain(|seat, _| seat.0 != boot);
    }

    /// Whether a tripwire ever took this run out.
    pub(crate) fn by_tripwire(&self, canary: &CanaryKey, rollout: u64) -> bool {
        self.by_tripwire.get(canary).is_some_and(|runs| runs.contains(&rollout))
    }

    /// What is in force in a process.
    pub(crate) fn in_force(&mut self, seat: &Seat, state: &State, now_ms: u64) {
        if state.phase == Phase::Failed && state.weight == Weight::ZERO && state.rollout > 0 {
            let is_known = self.taken_back.get(seat).is_some_and(|trip| trip.rollout >= state.run());
            if !is_known {
                later(&mut self.taken_back, seat.clone(), state.run(), now_ms);
            }
        }
    }

    /// A leader was told of a trip, while it had that run under analysis.
    pub(crate) fn heard(&mut self, leader: Seat, rollout: u64, term: u64, now_ms: u64) {
        let heard = self.heard.entry(leader).or_insert(Heard { rollout, at_ms: now_ms, term });
        if heard.rollout != rollout || heard.term != term {
            *heard = Heard { rollout, at_ms: now_ms, term };
        }
    }

    /// By whom a leader goes now: those to whom clients are sent, among the living.
    pub(crate) fn listed(&mut self, leader: BootId, living: &[BootId], listed: &[BootId], now_ms: u64) {
        for boot in living.iter().filter(|boot| !listed.contains(boot) && **boot != leader) {
            self.unlisted.insert((leader, *boot), now_ms);
        }
    }

    /// A drawn request goes to the canary.
    pub(crate) fn drawn_to_canary(&self, seat: &Seat, rollout: u64) -> Kept {
        let is_out = |trips: &BTreeMap<Seat, Trip>| trips.get(seat).is_some_and(|trip| trip.rollout == rollout);
        hold(Promise::TripHolds, !is_out(&self.flags) && !is_out(&self.taken_back), || {
            format!("{} sends a drawn request of {} to the canary of run {rollout}, which it took out", seat.0, seat.1)
        })
    }

    /// A leader sends a state to the store.
    pub(crate) fn saving(&self, leader: &Seat, state: &State, before: Option<&State>, term: u64, now_ms: u64) -> Kept {
        let is_promotion = matches!(state.phase, Phase::Promoting | Phase::Finalising | Phase::Succeeded);
        let is_first = before.is_some_and(|before| before.run() == state.run() && before.is_analysing());
        let rises = before.is_some_and(|before| before.run() == state.run() && before.weight < state.weight);
        if !(rises || is_promotion) || !is_first {
            return Ok(());
        }
        let heard = self.heard.get(leader).filter(|heard| heard.rollout == state.run() && heard.term == term);
        hold(Promise::TripHolds, heard.is_none_or(|heard| heard.at_ms >= now_ms), || {
            let Heard { rollout, at_ms, .. } = heard.expect("looked at just now");
            format!(
                "{} has heard at {at_ms} ms that run {rollout} of {} is out, and goes on with it",
                leader.0, leader.1
            )
        })?;
        if is_promotion { self.promoting(leader, state.run(), now_ms) } else { Ok(()) }
    }

    fn promoting(&self, leader: &Seat, rollout: u64, now_ms: u64) -> Kept {
        for (seat, trip) in self.flags.iter().chain(&self.taken_back) {
            let is_owed = seat.1 == leader.1 && trip.rollout == rollout && trip.at_ms + NEWS_MS < now_ms;
            let unlisted = self.unlisted.get(&(leader.0, seat.0));
            let is_excused = unlisted.is_some_and(|at_ms| at_ms + NEWS_MS >= now_ms);
            hold(Promise::TripHolds, !is_owed || is_excused, || {
                let (boot, at_ms) = (seat.0, trip.at_ms);
                format!("{} promotes run {rollout} of {}, which {boot} took out at {at_ms} ms", leader.0, leader.1)
            })?;
        }
        Ok(())
    }

    /// The living who have taken this run of the canary out.
    pub(crate) fn of_run(&self, canary: &CanaryKey, rollout: u64) -> Vec<BootId> {
        let trips = self.flags.iter().filter(|(seat, trip)| seat.1 == *canary && trip.rollout == rollout);
        trips.map(|(seat, _)| seat.0).collect()
    }
}

/// Runs only rise: an older one says nothing any more.
fn later(trips: &mut BTreeMap<Seat, Trip>, seat: Seat, rollout: u64, at_ms: u64) {
    let known = trips.entry(seat).or_insert(Trip { rollout, at_ms });
    if known.rollout < rollout {
        *known = Trip { rollout, at_ms };
    }
}
