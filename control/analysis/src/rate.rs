//! The range in which a version's failure rate lies, valid at every moment one cares to look.
//!
//! For display only: verdicts compare the versions, which two ranges side by side do poorly.

/// The range, as rates, that contains the true failure rate at all times together with probability `1 − beta`, after
/// `failures` among `n` requests. Nothing known is `(0, 1)`.
///
/// Robbins' mixture with the Jeffreys prior (Robbins 1970, "Statistical methods related to the law of the iterated
/// logarithm"): all `p` with `B(1/2 + S, 1/2 + n − S) / (B(1/2, 1/2) p^S (1 − p)^(n−S)) < 1/beta`.
#[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53, where doubles are exact")]
pub fn rate_interval(failures: u64, n: u64, beta: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let failed = failures.min(n) as f64;
    let passed = n as f64 - failed;
    let rate = failed / (failed + passed);
    let ln_limit = -beta.ln();
    let is_excluded = |p: f64| ln_mixture(failed, passed, p) >= ln_limit;
    let lower = if failed == 0.0 { 0.0 } else { boundary(rate, 0.0, is_excluded) };
    let upper = if passed == 0.0 { 1.0 } else { boundary(rate, 1.0, is_excluded) };
    (lower, upper)
}

/// Where the excluded rates begin, on the way from a rate inside to one outside.
fn boundary(mut inside: f64, mut outside: f64, is_excluded: impl Fn(f64) -> bool) -> f64 {
    /// Halvings. A double has 53 bits; the rest serves lower ends far below the rate itself.
    const STEPS: u32 = 100;
    for _ in 0..STEPS {
        let middle = f64::midpoint(inside, outside);
        if is_excluded(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    inside
}

/// The mixture's logarithm for `0 < p < 1`.
///
/// The obvious three log-gammas cancel to nothing at large counts. With Stirling's formula taken out of each, what is
/// left are two logarithms of ratios near 1 and three small corrections.
fn ln_mixture(failed: f64, passed: f64, p: f64) -> f64 {
    const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;
    let (a, b) = (failed + 0.5, passed + 0.5);
    let all = a + b;
    let likelihood = failed * (a / (all * p)).ln() + passed * ((b / all).ln() - (-p).ln_1p());
    let prior = HALF_LN_2PI - 0.5 * all.ln() - std::f64::consts::PI.ln();
    likelihood + prior + stirling_error(a) + stirling_error(b) - stirling_error(all)
}

/// `ln Γ(x) − ((x − 1/2) ln x − x + ln(2π)/2)` for `x >= 1/2`, by the series of DLMF 5.11.1, to about 1e-15.
fn stirling_error(x: f64) -> f64 {
    /// From here on six terms are enough.
    const SERIES_FROM: f64 = 10.0;
    if x < SERIES_FROM {
        // From Γ(x + 1) = x Γ(x); at most ten times.
        return stirling_error(x + 1.0) + (x + 0.5) * (1.0 / x).ln_1p() - 1.0;
    }
    let y = 1.0 / (x * x);
    let tail = 1.0 / 1_680.0 - y * (1.0 / 1_188.0 - y * 691.0 / 360_360.0);
    (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1_260.0 - y * tail))) / x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{assert_close, list, number, vectors};

    #[test]
    fn the_range_agrees_with_the_vectors() {
        for case in list(&vectors()["T6_conf_sequence"]) {
            let (failures, n) = (case["S"].as_u64().unwrap(), case["n"].as_u64().unwrap());
            let (lower, upper) = rate_interval(failures, n, number(&case["beta"]));
            assert_close(lower, number(&case["lower"]), &format!("lower end of {case}"));
            assert_close(upper, number(&case["upper"]), &format!("upper end of {case}"));
        }
    }

    #[test]
    fn the_mixture_agrees_with_the_vectors() {
        for case in list(&vectors()["T7_lnM"]) {
            let failed = number(&case["S"]);
            let mixture = ln_mixture(failed, number(&case["n"]) - failed, number(&case["p"]));
            assert_close(mixture, number(&case["lnM"]), &case.to_string());
        }
    }

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert_eq!(rate_interval(0, 0, 0.05), (0.0, 1.0));
    }

    #[test]
    fn the_range_closes_around_the_rate_as_requests_come_in() {
        let mut width = 1.0;
        for n in (1..=15).map(|digits| 10u64.pow(digits)) {
            let (lower, upper) = rate_interval(n / 10, n, 0.05);
            assert!(lower < 0.1 && 0.1 < upper, "{n}: {lower} to {upper}");
            assert!(upper - lower < width, "{n}: {lower} to {upper}");
            width = upper - lower;
        }
    }
}
