//! Flagger's thresholds: is what was seen of the canary inside the ranges its author wrote?
//!
//! Builtin checks only; a query to somebody else's metrics server is not answered here. Order, comparisons and texts are
//! those of Flagger 1.44 (`pkg/controller/scheduler_metrics.go`), with two differences. Bounds in fractions of a
//! millisecond are honoured, where Flagger cuts them (`max: 0.5` would mean 0). And a canary that fails
//! every request has a success rate of 0 %, where a Prometheus query finds no values; the verdict is the same.

use go_duration::GoDuration;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// What a value may be. Both ends are inclusive; an end that is missing admits everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The smallest value that passes, in the unit of the check.
    pub min: Option<f64>,
    /// The largest value that passes, in the unit of the check.
    pub max: Option<f64>,
}

/// Which of Flagger's builtin metrics a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// `request-success-rate`: requests without a 5xx among all, in percent.
    SuccessRate,
    /// `request-duration`: the 99th percentile over successes and failures, in milliseconds.
    Duration,
}

/// One entry of a canary's `analysis.metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The metric's name as written, `request-success-rate` or `request-duration`.
    pub name: String,
    /// What is measured.
    pub kind: CheckKind,
    /// What passes. Percent for a success rate, milliseconds for a duration.
    pub range: Range,
    /// The window looked at, in milliseconds.
    pub interval_ms: u64,
}

/// What was seen of the canary in a check's own window, as far as it belongs to the revision and step at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Requests that reached the canary.
    pub requests: u64,
    /// Those of them that failed, as Flagger counts: 5xx.
    pub failures: u64,
    /// The 99th percentile of their latency in microseconds, none without requests.
    pub p99_us: Option<u64>,
    /// Whether this process has watched the step for a full analysis interval. Before that, silence means nothing.
    pub complete: bool,
}

/// What was seen for all checks of a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// One window for each check, in the same order. A window that is missing counts as nothing seen yet.
    pub windows: Vec<Window>,
}

/// How one check came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The metric's name as written.
    pub name: String,
    /// What was measured: percent for a success rate, milliseconds for a duration. None without values.
    pub value: Option<f64>,
    /// What that means.
    pub outcome: CheckOutcome,
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckOutcome {
    /// The value is inside the range.
    Passed,
    /// The value is outside, or there was none in a full interval.
    Failed {
        /// The event to record, in Flagger's words.
        message: String,
    },
    /// No values yet, and the step is younger than a full interval: this neither passes nor fails.
    Pending,
}

/// What all checks together say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every check passed.
    Pass,
    /// A check failed: one more failed check, and no step forward.
    Halt {
        /// The event to record, in Flagger's words.
        message: String,
    },
    /// No check failed, but not every one has values yet.
    Wait {
        /// What is waited for.
        reason: String,
    },
}

/// Holds what was seen against the checks, in list order. The first failure ends it, and later checks are not evaluated
/// and not in the results. No checks pass.
///
/// `canary` and `target` are names with their namespace, `podinfo.test`; `provider` is the metrics provider as written.
pub fn judge(canary: &str, target: &str, provider: &str, checks: &[Check], seen: &Seen) -> (Verdict, Vec<CheckResult>) {
    let mut results = Vec::with_capacity(checks.len());
    let mut verdict = Verdict::Pass;
    for (at, check) in checks.iter().enumerate() {
        let window = seen.windows.get(at).copied().unwrap_or_default();
        let outcome = match check.problem(&window) {
            Some(Problem::NoValues) if !window.complete => CheckOutcome::Pending,
            Some(problem) => CheckOutcome::Failed { message: problem.told(check, canary, target, provider) },
            None => CheckOutcome::Passed,
        };
        results.push(CheckResult { name: check.name.clone(), value: check.value(&window), outcome: outcome.clone() });
        match outcome {
            CheckOutcome::Passed => {}
            CheckOutcome::Failed { message } => return (Verdict::Halt { message }, results),
            CheckOutcome::Pending if verdict == Verdict::Pass => verdict = check.wait(),
            CheckOutcome::Pending => {}
        }
    }
    (verdict, results)
}

/// Why a check does not pass.
enum Problem {
    NoValues,
    /// The value is outside the range.
    Outside {
        /// Value, relation and bound as text, `97.50% < 99%`.
        comparison: String,
    },
}

impl Problem {
    /// The event, word for word as Flagger writes it.
    fn told(self, check: &Check, canary: &str, target: &str, provider: &str) -> String {
        match (self, check.kind) {
            (Self::NoValues, kind) => {
                let cause = match kind {
                    CheckKind::SuccessRate => ": running query failed: no values found",
                    CheckKind::Duration => "",
                };
                let name = &check.name;
                format!(
                    "Halt advancement no values found for {provider} metric {name} \
                     probably {target} is not receiving traffic{cause}"
                )
            }
            (Self::Outside { comparison }, CheckKind::SuccessRate) => {
                format!("Halt {canary} advancement success rate {comparison}")
            }
            (Self::Outside { comparison }, CheckKind::Duration) => {
                format!("Halt {canary} advancement request duration {comparison}")
            }
        }
    }
}

impl Check {
    /// What was measured, in the unit of the check.
    fn value(&self, window: &Window) -> Option<f64> {
        match self.kind {
            CheckKind::SuccessRate => success_rate(window),
            CheckKind::Duration => window.p99_us.map(|us| float(us) / 1_000.0),
        }
    }

    fn problem(&self, window: &Window) -> Option<Problem> {
        let comparison = match self.kind {
            CheckKind::SuccessRate => {
                let Some(rate) = success_rate(window) else {
                    return Some(Problem::NoValues);
                };
                let (relation, bound) = self.range.broken_end(|_| rate)?;
                format!("{rate:.2}% {relation} {}%", go_float(bound))
            }
            CheckKind::Duration => {
                let Some(p99_us) = window.p99_us else {
                    return Some(Problem::NoValues);
                };
                let (relation, bound) = self.range.broken_end(|bound| compared_ms(p99_us, bound))?;
                let value = go_duration(compared_ms(p99_us, bound));
                format!("{value} {relation} {}", go_duration(bound))
            }
        };
        Some(Problem::Outside { comparison })
    }

    fn wait(&self) -> Verdict {
        let interval = go_duration(float(self.interval_ms));
        let name = &self.name;
        Verdict::Wait { reason: format!("no values yet for {name}, and the step is younger than {interval}") }
    }
}

impl Range {
    /// The end that the value is beyond, and on which side; the minimum first, as Flagger asks. The value may depend on
    /// the bound it is compared with.
    fn broken_end(self, value_for: impl Fn(f64) -> f64) -> Option<(&'static str, f64)> {
        let below = self.min.filter(|&min| value_for(min) < min);
        let above = self.max.filter(|&max| value_for(max) > max);
        match (below, above) {
            (Some(min), _) => Some(("<", min)),
            (None, Some(max)) => Some((">", max)),
            (None, None) => None,
        }
    }
}

/// Requests that did not fail, in percent; none without requests.
fn success_rate(window: &Window) -> Option<f64> {
    let succeeded = window.requests.saturating_sub(window.failures);
    // Multiplied first, so that 999 of 1,000 is the very number that "99.9" is read as.
    (window.requests > 0).then(|| 100.0 * float(succeeded) / float(window.requests))
}

/// A duration as it is held against a bound: in whole milliseconds, as Flagger does, unless the bound itself has a
/// fraction. So 500.4 ms passes `max: 500` there and here, and `max: 0.5` means what it says.
fn compared_ms(us: u64, bound_ms: f64) -> f64 {
    if bound_ms.fract() == 0.0 { float(us / 1_000) } else { float(us) / 1_000.0 }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "requests, microseconds and milliseconds stay below 2^53, where doubles are exact"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// A duration as Go prints it, `1.5s` or `2m0s`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounded first; a float beyond the range of i64 becomes its end, which is 292 years"
)]
fn go_duration(ms: f64) -> GoDuration {
    GoDuration((ms * 1e6).round() as i64)
}

/// A number as Go's `%v` prints it: the shortest text, with an exponent of two digits when it is very small or large.
fn go_float(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-4..1e21).contains(&number.abs());
    if is_plain || !number.is_finite() {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').expect("scientific notation has an exponent");
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}
