//! What holds for any slices, and how often a good canary is accused.

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::mixture;
use super::*;
use crate::Stake;

/// Slices as a proxy might count them, failures seen late included.
fn any_slice() -> impl Strategy<Value = Slice> {
    let w = prop_oneof![0.001..0.999, Just(0.0), Just(1.0)];
    let delta = prop_oneof![Just(0.0), Just(0.001), Just(0.01), Just(0.2)];
    (w, delta, 0u64..5_000, 0u64..30, 0u64..30, 0u64..200).prop_map(|(w, delta, n, a, b, in_flight)| Slice {
        w,
        delta,
        n,
        a,
        b,
        in_flight,
    })
}

fn any_story() -> impl Strategy<Value = Vec<(Vec<Slice>, u64)>> {
    vec((vec(any_slice(), 0..4), 0u64..5_000_000), 0..6)
}

fn told(story: &[(Vec<Slice>, u64)]) -> Evidence {
    story.iter().fold(Evidence::new(), |evidence, (slices, dt_ms)| evidence.advance(slices, *dt_ms))
}

/// Not above, but for the last digits.
fn is_at_most(low: f64, high: f64) -> bool {
    low <= high + 1e-12 * high.abs().max(1.0)
}

proptest! {
    #[test]
    fn a_look_is_what_closing_the_slice_would_say(
        story in any_story(), open in vec(any_slice(), 0..4), dt_ms in 0u64..100_000,
    ) {
        let evidence = told(&story);
        let look = evidence.look(&open);
        prop_assert_eq!(look.to_bits(), evidence.advance(&open, dt_ms).ln_e().to_bits());
    }

    #[test]
    fn a_canary_failure_never_helps_the_canary(story in any_story(), slice in any_slice()) {
        let evidence = told(&story);
        let worse = Slice { a: slice.a + 1, ..slice };
        prop_assert!(is_at_most(evidence.look(&[slice]), evidence.look(&[worse])));
    }

    #[test]
    fn a_primary_failure_or_a_success_never_hurts_the_canary(story in any_story(), slice in any_slice()) {
        let evidence = told(&story);
        let before = evidence.look(&[slice]);
        for better in [Slice { b: slice.b + 1, ..slice }, Slice { n: slice.n + 1, ..slice }] {
            prop_assert!(is_at_most(evidence.look(&[better]), before));
        }
    }

    #[test]
    fn more_in_flight_is_never_more_evidence(story in any_story(), slice in any_slice()) {
        let evidence = told(&story);
        let more = Slice { in_flight: slice.in_flight + 1, ..slice };
        prop_assert!(is_at_most(evidence.look(&[more]), evidence.look(&[slice])));
    }

    #[test]
    fn the_order_of_slices_does_not_matter_to_one_bet(slices in vec(any_slice(), 1..6), cut in 0usize..6) {
        let mut turned = slices.clone();
        turned.rotate_left(cut % slices.len());
        turned.reverse();
        let (before, after) = (mixture(&slices), mixture(&turned));
        prop_assert!((before - after).abs() <= 1e-9 * before.abs().max(1.0), "{} and {}", before, after);
    }

    #[test]
    fn replicas_cells_add(slice in any_slice(), n in 0u64..5_000, a in 0u64..30, b in 0u64..30) {
        let other = Slice { n, a, b, in_flight: 0, ..slice };
        let sum = Slice { n: slice.n + n, a: slice.a + a, b: slice.b + b, ..slice };
        let (apart, merged) = (Evidence::new().look(&[slice, other]), Evidence::new().look(&[sum]));
        prop_assert!((apart - merged).abs() <= 1e-9 * merged.abs().max(1.0), "{} and {}", apart, merged);
    }

    #[test]
    fn however_time_is_cut_the_same_stake_is_left(cuts in vec(0u64..5_000_000, 0..8)) {
        let quiet = Slice { w: 0.3, delta: 0.001, n: 0, a: 0, b: 0, in_flight: 0 };
        let total: u64 = cuts.iter().sum();
        let cut = cuts.iter().fold(Evidence::new(), |evidence, &dt_ms| evidence.advance(&[quiet], dt_ms));
        prop_assert_eq!(cut.judged_ms(), total);
        // The slice that begins at the end takes its part of what is left.
        prop_assert_eq!(cut.advance(&[quiet], 1).cash(), left(total));
        // Nothing happened, so nothing is won or lost.
        let e = cuts.iter().fold(Evidence::new(), |evidence, &dt_ms| evidence.advance(&[quiet], dt_ms)).ln_e();
        prop_assert!(e.abs() < 1e-12, "ln E = {}", e);
    }

    #[test]
    fn evidence_stays_a_number(story in any_story(), judged_ms in 0u64..100_000_000) {
        let evidence = told(&story).resumed(judged_ms);
        prop_assert!(evidence.ln_e().is_finite());
        prop_assert!(is_at_most(evidence.cash().ln(), evidence.ln_e()));
        let text = serde_json::to_string(&evidence).unwrap();
        prop_assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
    }
}

/// Rollouts of a canary exactly at its tolerance, the worst that must not be rolled back, with a look at every failure
/// of the canary and at the end of every slice. Counts those that were rolled back.
fn false_rollbacks(rollouts: u32, stake: Stake, seed: u64) -> u32 {
    const SLICES: usize = 20;
    const REQUESTS: u64 = 40;
    const PRIMARY: f64 = 0.03;
    const DELTA: f64 = 0.01;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut is_rolled_back = || {
        let mut evidence = Evidence::new();
        for at in 0..SLICES {
            let w = [0.05, 0.1, 0.25, 0.5][at * 4 / SLICES];
            let mut slice = Slice { w, delta: DELTA, n: 0, a: 0, b: 0, in_flight: 0 };
            for _ in 0..REQUESTS {
                slice.n += 1;
                let is_canary = random.f64() < w;
                let is_failed = random.f64() < if is_canary { PRIMARY + DELTA } else { PRIMARY };
                slice.a += u64::from(is_canary && is_failed);
                slice.b += u64::from(!is_canary && is_failed);
                if is_canary && is_failed && stake.crossed(evidence.look(&[slice])) {
                    return true;
                }
            }
            evidence = evidence.advance(&[slice], 10_000);
        }
        false
    };
    (0..rollouts).map(|_| u32::from(is_rolled_back())).sum()
}

#[test]
fn a_good_canary_is_rolled_back_no_more_often_than_alpha() {
    const ROLLOUTS: u32 = 20_000;
    const ALPHA: f64 = 0.05;
    const SEED: u64 = 20_260_114;
    let stake = Stake { alpha: ALPHA, share: 1.0, stake: 1.0 };
    let seen = f64::from(false_rollbacks(ROLLOUTS, stake, SEED)) / f64::from(ROLLOUTS);
    let sigma = (ALPHA * (1.0 - ALPHA) / f64::from(ROLLOUTS)).sqrt();
    assert!(seen <= ALPHA + 3.0 * sigma, "seed {SEED}: {seen} of good canaries rolled back, at most {ALPHA} claimed");
    // A gate that nothing could ever reach would pass too.
    assert!(seen > 0.0, "seed {SEED}: no rollback at all");
}
