//! What may still be tried instead of a try that has failed.

use serin_measure::Outcome;
use serin_route::{TryEnd, Upstream};

use crate::attempt::Attempt;

/// What is left to a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    /// More tries in its arm.
    left: u32,
    /// The one at the primary, if the arm is the canary and the route wants that.
    may_replay: bool,
}

/// What is tried instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
    /// The same arm.
    Again,
    /// The primary.
    Replay,
}

impl Tries {
    /// At the begin of a request, all of which is at hand to be sent again.
    pub(crate) fn of(upstream: &Upstream) -> Self {
        Self { left: upstream.retries.attempts, may_replay: true }
    }

    /// It cannot be sent again from now on.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// What is tried instead of a try that ended so, if anything is. Then it is taken.
    pub(crate) fn take(
        &mut self,
        attempt: &Attempt,
        end: TryEnd,
        outcome: Outcome,
        is_idempotent: bool,
    ) -> Option<Instead> {
        let route = attempt.route();
        if self.left > 0 && route.upstream().retries.on.cover(end, is_idempotent) && route.budget.spend() {
            self.left -= 1;
            return Some(Instead::Again);
        }
        // Bounded without a budget: once for a request, and by the canary's share.
        let is_untouched = matches!(end, TryEnd::NotConnected | TryEnd::Refused);
        let is_fit = outcome.is_failure() && (is_idempotent || is_untouched);
        if self.may_replay && is_fit && attempt.may_be_replayed() {
            self.end();
            return Some(Instead::Replay);
        }
        None
    }
}

impl Instead {
    /// Counts the try that ended so, and begins the next one.
    pub(crate) fn begin(self, attempt: &mut Attempt, outcome: Outcome) {
        match self {
            Self::Again => attempt.try_again_after(outcome),
            Self::Replay => attempt.replay_after(outcome),
        }
    }
}
