//! Sums of numbers that are kept as their logarithms.
//!
//! Evidence runs from e^-1000000 to beyond what a double can hold, so it is never formed before it is compared.

/// `ln(e^x + e^y)`; negative infinity stands for zero.
pub(crate) fn ln_add_exp(x: f64, y: f64) -> f64 {
    let (low, high) = if x < y { (x, y) } else { (y, x) };
    if low == f64::NEG_INFINITY {
        // Also keeps zero plus zero from becoming "infinity minus infinity".
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// `ln` of the mean of ten numbers given by their logarithms.
pub(crate) fn ln_mean_exp(logs: &[f64; 10]) -> f64 {
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high == f64::NEG_INFINITY {
        return high;
    }
    let sum: f64 = logs.iter().map(|ln_x| (ln_x - high).exp()).sum();
    high + sum.ln() - std::f64::consts::LN_10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(x: f64, y: f64, expected: f64) {
        for sum in [ln_add_exp(x, y), ln_add_exp(y, x)] {
            assert!(sum == expected || (sum - expected).abs() < 1e-12, "ln(e^{x} + e^{y}) = {sum}, not {expected}");
        }
    }

    #[test]
    fn sums_hold_where_the_numbers_themselves_would_not() {
        check(0.0, 0.0, std::f64::consts::LN_2);
        check(5000.0, 5000.0, 5000.0 + std::f64::consts::LN_2);
        check(-1e6, 3.0, 3.0);
        check(f64::NEG_INFINITY, -1e6, -1e6);
        check(f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
    }

    #[test]
    fn the_mean_of_ten_equal_numbers_is_that_number() {
        for ln_x in [f64::NEG_INFINITY, -1e6, 0.0, 5000.0] {
            let mean = ln_mean_exp(&[ln_x; 10]);
            assert!(mean == ln_x || (mean - ln_x).abs() < 1e-9, "{mean} is not {ln_x}");
        }
    }
}
