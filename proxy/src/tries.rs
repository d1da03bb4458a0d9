//! How often a request may still be tried.

use serin_route::{TryEnd, Upstream};

use crate::thread::ThreadRoute;

/// What is left to a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// At the begin of a request, all of which is at hand to be sent again.
    pub(crate) fn of(upstream: &Upstream) -> Self {
        Self(upstream.retries.attempts)
    }

    /// It cannot be sent again from now on.
    pub(crate) fn end(&mut self) {
        self.0 = 0;
    }

    /// Whether there is another try after one that ended so. If there is, it is taken.
    pub(crate) fn take(&mut self, route: &ThreadRoute, end: TryEnd, is_idempotent: bool) -> bool {
        if self.0 == 0 || !route.upstream().retries.on.cover(end, is_idempotent) || !route.budget.spend() {
            return false;
        }
        self.0 -= 1;
        true
    }
}
