//! What the guard says: the numbers behind a verdict, in words that claim no more than they show.
//!
//! Evidence says how rarely a good canary would look this bad. It does not say how probable it is that the canary is bad,
//! which would need to know how often canaries are; so no sentence here does. Plain ASCII, for logs, events and chats.

use serde::{Deserialize, Serialize};

use crate::rate::rate_interval;
use crate::stake::Stake;

/// The ranges of the failure rates hold with probability `1 − RANGE_BETA` each.
const RANGE_BETA: f64 = 0.05;

/// Whether the guard acts on what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardMode {
    /// Evidence beyond the limit rolls back.
    #[default]
    Enforce,
    /// Evidence is told and nothing is done.
    Observe,
}

/// What was counted of errors and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardReport {
    /// Requests drawn to the canary.
    pub canary_requests: u64,
    /// Those of them that failed.
    pub canary_failures: u64,
    /// Requests drawn to the primary in the same time.
    pub primary_requests: u64,
    /// Those of them that failed.
    pub primary_failures: u64,
    /// Tolerance as a rate: by so much the canary may fail more often.
    pub delta: f64,
    /// The canary's probability when this was found.
    pub w: f64,
    /// `ln E` of the judge.
    pub ln_e: f64,
    /// The judge's part of the probability of a false rollback.
    pub stake: Stake,
}

impl GuardReport {
    /// One clause, for an event: `12 of 31 canary requests failed (38.7 %), 0 of 120 on the primary; by chance in at most
    /// 1 of 21,800 rollouts`.
    pub fn short(&self) -> String {
        let (canary, primary) = (self.canary(), self.primary());
        format!(
            "{} canary requests failed{}, {} on the primary; by chance in at most 1 of {} rollouts",
            canary.counts(),
            canary.rate(),
            primary.counts(),
            self.rollouts()
        )
    }

    /// The whole finding with ranges, tolerance, limit and consequence, for a report.
    pub fn long(&self, mode: GuardMode) -> String {
        let (canary, primary) = (self.canary(), self.primary());
        let weight = trimmed(self.w * 100.0);
        let (headline, consequence) = match (self.stake.crossed(self.ln_e), mode) {
            (true, GuardMode::Enforce) => ("ROLLBACK", format!("Weight {weight} % -> 0.")),
            (true, GuardMode::Observe) => ("OBSERVED", format!("Weight stays at {weight} %: the guard only observes.")),
            (false, GuardMode::Enforce | GuardMode::Observe) => ("NOTE", format!("Weight stays at {weight} %.")),
        };
        format!(
            "{headline} errors. {} canary requests failed{}; in the same seconds {} on the primary{}. \
             If the canary were at most {} worse, evidence this strong would appear in at most 1 of {} rollouts \
             (limit 1 of {}). {consequence}",
            canary.counts(),
            canary.rate_and_range(),
            primary.counts(),
            primary.rate_and_range(),
            points(self.delta),
            self.rollouts(),
            rounded_down(1.0 / self.stake.alpha),
        )
    }

    fn canary(&self) -> Arm {
        Arm { requests: self.canary_requests, failures: self.canary_failures }
    }

    fn primary(&self) -> Arm {
        Arm { requests: self.primary_requests, failures: self.primary_failures }
    }

    /// In how many rollouts of a good canary evidence like this appears once at most. The judge's part of the stake is
    /// taken off first, so that the number is on the same scale as the limit.
    fn rollouts(&self) -> String {
        rounded_down((self.ln_e + (self.stake.share * self.stake.stake).ln()).exp())
    }
}

/// One version's counts.
#[derive(Clone, Copy)]
struct Arm {
    requests: u64,
    failures: u64,
}

impl Arm {
    fn counts(self) -> String {
        format!("{} of {}", grouped(self.failures), grouped(self.requests))
    }

    /// ` (4.9 %)`, nothing without requests.
    fn rate(self) -> String {
        self.percent().map_or_else(String::new, |rate| format!(" ({rate} %)"))
    }

    /// ` (4.9 %, 95 % range 1.00-13.5 %)`, nothing without requests.
    fn rate_and_range(self) -> String {
        let Some(rate) = self.percent() else {
            return String::new();
        };
        let (lower, upper) = rate_interval(self.failures, self.requests, RANGE_BETA);
        let (lower, upper) = (percent(lower), percent(upper));
        format!(" ({rate} %, {} % range {lower}-{upper} %)", trimmed((1.0 - RANGE_BETA) * 100.0))
    }

    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    fn percent(self) -> Option<String> {
        (self.requests > 0).then(|| percent(self.failures as f64 / self.requests as f64))
    }
}

/// A rate in percent, in as many digits as one reads: `38.7`, `4.9`, `0.11`, `0.004`.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent == 0.0 || percent == 100.0 {
        return percent.to_string();
    }
    /// Places after the point for rates below 0.01 %, where one digit is kept.
    const PLACES: [(f64, usize); 5] = [(1.0, 1), (0.01, 2), (0.001, 3), (0.000_1, 4), (0.000_01, 5)];
    let places = PLACES.iter().find(|(from, _)| percent >= *from).map_or(6, |&(_, places)| places);
    format!("{percent:.places$}")
}

/// A tolerance in percentage points: `0.1 points`, `1 point`.
fn points(delta: f64) -> String {
    match trimmed(delta * 100.0).as_str() {
        "1" => "1 point".to_owned(),
        points => format!("{points} points"),
    }
}

/// Four places at most and no idle zeros: the exact coin of 5 % is 4.99999998 %, and nobody wants to read that.
fn trimmed(number: f64) -> String {
    format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Three digits, rounded down so that "at most 1 of" stays true; beyond a million million a power of ten.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10^12, and meant to be cut")]
fn rounded_down(number: f64) -> String {
    const POWERS_FROM: f64 = 1e12;
    // A limit of 1 in 1,000 comes back from its logarithm as 999.9999999999998.
    const SLACK: f64 = 1.0 + 1e-9;
    let number = (number * SLACK).max(1.0);
    if number >= POWERS_FROM {
        return format!("10^{}", number.log10().floor());
    }
    let whole = number as u64;
    let dropped = 10u64.pow(whole.ilog10().saturating_sub(2));
    grouped(whole / dropped * dropped)
}

/// Thousands apart: `21,800`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seven failures at 5 %, judged by the default stake: half of E, 43,643, is 21,821.
    const EXAMPLE: GuardReport = GuardReport {
        canary_requests: 142,
        canary_failures: 7,
        primary_requests: 2_698,
        primary_failures: 3,
        delta: 0.001,
        w: 0.05,
        ln_e: 10.683_804,
        stake: Stake { alpha: 0.001, share: 0.5, stake: 1.0 },
    };

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text, expected);
        assert!(text.is_ascii());
    }

    #[test]
    fn a_rollback_is_told_with_its_numbers_its_tolerance_and_its_limit() {
        check(
            &EXAMPLE.long(GuardMode::Enforce),
            "ROLLBACK errors. 7 of 142 canary requests failed (4.9 %, 95 % range 1.00-13.5 %); \
             in the same seconds 3 of 2,698 on the primary (0.11 %, 95 % range 0.004-0.56 %). \
             If the canary were at most 0.1 points worse, evidence this strong would appear \
             in at most 1 of 21,800 rollouts (limit 1 of 1,000). Weight 5 % -> 0.",
        );
    }

    #[test]
    fn the_example_is_a_real_evaluation() {
        let slice = crate::Slice { w: 0.05, delta: 0.001, n: 2_840, a: 7, b: 3, in_flight: 0 };
        let ln_e = crate::Evidence::new().look(&[slice]);
        assert!((ln_e - EXAMPLE.ln_e).abs() < 1e-5, "{ln_e}");
    }

    #[test]
    fn an_event_is_one_clause() {
        let report = GuardReport {
            canary_requests: 31,
            canary_failures: 12,
            primary_requests: 120,
            primary_failures: 0,
            ..EXAMPLE
        };
        check(
            &report.short(),
            "12 of 31 canary requests failed (38.7 %), 0 of 120 on the primary; \
             by chance in at most 1 of 21,800 rollouts",
        );
    }

    #[test]
    fn an_observer_says_what_it_found_and_that_nothing_follows() {
        let text = EXAMPLE.long(GuardMode::Observe);
        assert!(text.starts_with("OBSERVED errors. "), "{text}");
        assert!(text.ends_with(" Weight stays at 5 %: the guard only observes."), "{text}");
    }

    #[test]
    fn evidence_below_the_limit_is_a_note() {
        let report = GuardReport { ln_e: 46f64.ln(), delta: 0.01, w: 214_748_364.0 / 2f64.powi(32), ..EXAMPLE };
        for mode in [GuardMode::Enforce, GuardMode::Observe] {
            let text = report.long(mode);
            assert!(text.starts_with("NOTE errors. "), "{text}");
            assert!(text.contains("at most 1 point worse"), "{text}");
            assert!(text.ends_with("in at most 1 of 23 rollouts (limit 1 of 1,000). Weight stays at 5 %."), "{text}");
        }
    }

    #[test]
    fn a_judge_with_part_of_the_stake_reaches_the_limit_when_it_acts() {
        for stake in [Stake::default(), Stake { stake: 1.0 / 12.0, ..Stake::default() }] {
            let report = GuardReport { ln_e: stake.ln_limit(), stake, ..EXAMPLE };
            let text = report.long(GuardMode::Enforce);
            assert!(text.contains("in at most 1 of 1,000 rollouts (limit 1 of 1,000)"), "{text}");
        }
    }

    #[test]
    fn a_version_without_requests_has_no_rate() {
        let report = GuardReport { primary_requests: 0, primary_failures: 0, ..EXAMPLE };
        let text = report.long(GuardMode::Enforce);
        assert!(text.contains("in the same seconds 0 of 0 on the primary. If"), "{text}");
    }

    #[test]
    fn numbers_are_short_and_never_overstate() {
        let rates = [(0.0, "0"), (1.0, "100"), (0.387, "38.7"), (0.049, "4.9"), (0.0011, "0.11"), (0.000_04, "0.004")];
        for (rate, expected) in rates {
            check(&percent(rate), expected);
        }
        let odds = [(0.2, "1"), (21_899.0, "21,800"), (999.0, "999"), (1e12, "10^12"), (3.75e52, "10^52")];
        for (number, expected) in odds {
            check(&rounded_down(number), expected);
        }
        check(&grouped(1_234_567), "1,234,567");
        check(&grouped(123), "123");
    }
}
