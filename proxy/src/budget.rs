//! How much may be tried again: a backend that is overloaded must not get more requests for every one that it fails.

use std::sync::atomic::{AtomicU32, Ordering};

/// What each request adds to the budget, and what each further try takes, in hundredths: one request in five may be tried again, as
/// Envoy and Linkerd have it.
const EARNED: u32 = 20;
const SPENT: u32 = 100;
/// What there is at first, and at most: ten tries, so that a route with little traffic has some, and a burst after quiet hours is small.
const MOST: u32 = 10 * SPENT;

/// The budget of one route in one thread.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST))
    }
}

impl Budget {
    /// A request is under way. Only one thread writes here.
    pub(crate) fn earn(&self) {
        let had = self.0.load(Ordering::Relaxed);
        self.0.store((had + EARNED).min(MOST), Ordering::Relaxed);
    }

    /// Takes what a further try costs, if it is there.
    pub(crate) fn spend(&self) -> bool {
        let had = self.0.load(Ordering::Relaxed);
        let left = had.checked_sub(SPENT);
        self.0.store(left.unwrap_or(had), Ordering::Relaxed);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_tried_again_and_a_few_more() {
        let budget = Budget::default();
        let tried = (0..1_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        // The first request adds nothing: there is the most already.
        assert_eq!(tried.count(), 10 + 999 / 5);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }
}
