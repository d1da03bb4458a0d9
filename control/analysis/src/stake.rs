//! How much evidence is enough, and how it is counted in failures.
//!
//! A rollout may be rolled back by mistake with probability `alpha`, all judges together. Each judge holds a part of it
//! and acts alone, so the parts must add up to at most 1 (the union bound, whatever the judges share or see late).

use serde::{Deserialize, Serialize};

use crate::bet::{R_GRID, START, factors};
use crate::logs::{ln_add_exp, ln_mean_exp};

/// During the warm-up the canary may fail by this much more often before evidence counts: cold caches are no verdict.
pub const WARM_UP_TOLERANCE: f64 = 0.20;

/// The smallest tolerance, 0.1 percentage points. A limit of 100 % success would otherwise let one stray failure weigh
/// as if the primary could never have one.
const TOLERANCE_MIN: f64 = 0.001;

/// One judge's part of the probability of a false rollback: it acts when `share * stake * E >= 1/alpha`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stake {
    /// Probability of rolling back a good canary, for the whole rollout and all judges.
    pub alpha: f64,
    /// The part for this metric; the parts of all metrics add up to at most 1.
    pub share: f64,
    /// The part of the metric's for this judge, in a fleet where several look at it; 1 in a single process.
    pub stake: f64,
}

impl Default for Stake {
    /// One false rollback in 1,000 rollouts, half of it for errors (the other half is kept for latency), one judge.
    fn default() -> Self {
        Self { alpha: 0.001, share: 0.5, stake: 1.0 }
    }
}

impl Stake {
    /// Whether this much evidence, as `ln E`, rolls back.
    pub fn crossed(&self, ln_e: f64) -> bool {
        ln_e >= self.ln_limit()
    }

    /// `ln(1/(alpha * share * stake))`, the `ln E` at which this judge acts.
    pub fn ln_limit(&self) -> f64 {
        -(self.alpha * self.share * self.stake).ln()
    }
}

/// The tolerance that a limit on the success rate implies: `max(0.1 %, 1 − min/100)`, as a rate, for a minimum in percent.
///
/// A canary that keeps the limit, or is no worse than the primary, is then within what is tolerated, moment by moment.
/// So the guard cannot contradict what the user wrote.
pub fn tolerance_from_min(success_rate_min_percent: f64) -> f64 {
    ((100.0 - success_rate_min_percent) / 100.0).clamp(TOLERANCE_MIN, 1.0)
}

/// How many failures in a row roll back a canary that answers nothing else, beside a primary that does not fail, at the
/// canary's probability `w` and the tolerance `delta`. For displays: it counts the stake of the first slice only.
///
/// `u32::MAX` when no number would do, as with a coin that is certain or a tolerance of 100 %.
pub fn failures_needed(w: f64, delta: f64, stake: Stake) -> u32 {
    if !(0.0 < w && w < 1.0) {
        return u32::MAX;
    }
    // For each failure of the canary, 1/w requests are routed and all but one of them only pay the fee.
    let growth = R_GRID.map(|r| {
        let each = factors(w, r, 1.0, delta);
        each.ln_fc + (1.0 / w - 1.0) * each.ln_f0
    });
    let is_enough = |failures: u32| {
        let worth = ln_mean_exp(&growth.map(|ln_g| f64::from(failures) * ln_g));
        stake.crossed(ln_add_exp((1.0 - START).ln(), START.ln() + worth))
    };
    first_that(is_enough)
}

/// The first number from which `is_enough` holds, `u32::MAX` if none. A sum of exponentials that starts at 1 crosses a
/// limit above 1 once, so doubling and halving find the same number as counting.
fn first_that(is_enough: impl Fn(u32) -> bool) -> u32 {
    let (mut too_few, mut enough) = (0, 1);
    while !is_enough(enough) {
        if enough == u32::MAX {
            return u32::MAX;
        }
        too_few = enough;
        enough = enough.saturating_mul(2);
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if is_enough(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{assert_close, list, number, vectors};

    #[test]
    fn the_tolerance_is_what_the_manifests_limit_leaves() {
        for case in list(&vectors()["T18_default_tolerance"]["tolerance"]) {
            let min = number(&case["success_rate_min"]);
            assert_close(tolerance_from_min(min), number(&case["delta"]), &format!("min {min}"));
        }
    }

    #[test]
    fn a_limit_outside_0_to_100_percent_still_gives_a_rate() {
        assert_eq!(tolerance_from_min(101.0), 0.001);
        assert_eq!(tolerance_from_min(-5.0), 1.0);
    }

    #[test]
    fn a_dead_canary_is_gone_after_a_few_failures() {
        for case in list(&vectors()["T16_consecutive_failures"]) {
            let alphas = list(&case["alpha"]).iter().zip(list(&case["failures"]));
            for (alpha, expected) in alphas {
                let stake = Stake { alpha: number(alpha), share: number(&case["share"]), stake: 1.0 };
                let needed = failures_needed(number(&case["w"]), number(&case["delta"]), stake);
                assert_eq!(Some(u64::from(needed)), expected.as_u64(), "{case}, alpha {alpha}");
            }
        }
    }

    /// The failures a stake needs at every weight of a table.
    #[track_caller]
    fn check_table(table: &serde_json::Value, delta: f64, stake: Stake) {
        for (w, expected) in table.as_object().expect("a table by weight") {
            let needed = failures_needed(w.parse().expect("a weight"), delta, stake);
            assert_eq!(Some(u64::from(needed)), expected.as_u64(), "w {w}, delta {delta}, {stake:?}");
        }
    }

    #[test]
    fn a_smaller_stake_needs_more_failures() {
        for case in list(&vectors()["T19_stakes"]) {
            let of = |stake: f64| Stake { share: number(&case["omega"]), stake, ..Stake::default() };
            // The vectors print twelfths with fifteen digits, so the stake is worked out again.
            let replica = match number(&case["replicas"]) {
                1.0 => of(1.0),
                replicas => of(1.0 / (4.0 * replicas)),
            };
            assert_close(replica.stake, number(&case["replica"]), "stake of a replica");
            assert_close(replica.ln_limit(), number(&case["ln_threshold_replica"]), "limit of a replica");
            check_table(&case["failures_pooled"], 0.001, of(number(&case["pooled"])));
            check_table(&case["failures_replica"], 0.001, replica);
            check_table(&case["failures_replica_delta_0_01"], 0.01, replica);
        }
    }

    #[test]
    fn the_default_stake_acts_at_one_in_two_thousand() {
        let stake = Stake::default();
        assert_close(stake.ln_limit(), 2000f64.ln(), "limit");
        assert!(stake.crossed(stake.ln_limit()));
        assert!(!stake.crossed(1999f64.ln()));
    }

    #[test]
    fn no_number_of_failures_counts_when_the_coin_is_certain_or_everything_is_tolerated() {
        for (w, delta) in [(0.0, 0.001), (1.0, 0.001), (f64::NAN, 0.001), (0.5, 1.0)] {
            assert_eq!(failures_needed(w, delta, Stake::default()), u32::MAX, "w {w}, delta {delta}");
        }
    }

    #[test]
    fn the_warm_up_takes_more_than_twice_as_many_failures() {
        let needed = |delta| failures_needed(0.1, delta, Stake::default());
        assert_eq!((needed(0.001), needed(WARM_UP_TOLERANCE)), (5, 12));
    }
}
