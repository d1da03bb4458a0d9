//! What a load saw: every request once, by status, version, fault and time. Pure; the load fills it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::StatusCode;

use crate::client::{Answer, Fault};

/// Failures kept one by one. Beyond this only the counts grow: a list longer than this is read by nobody.
const FAILURES_KEPT_MAX: usize = 10_000;

/// Versions counted apart. A body that names no version must not fill the memory; later names share [`OTHER_VERSIONS`].
const VERSIONS_MAX: usize = 32;

/// The name under which versions beyond the first [`VERSIONS_MAX`] are counted.
pub const OTHER_VERSIONS: &str = "(other)";

/// The longest body, in bytes, that is taken as the name of a version when there is no `x-version` header.
const NAME_BYTES_MAX: usize = 64;

/// The longest latency the histogram tells apart, in microseconds; longer ones count as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// When a request was due, sent and answered, counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When the schedule wanted it sent. In a closed loop, when it was sent.
    pub due: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When its answer or its fault was complete.
    pub done: Duration,
}

/// What one version answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Whole answers.
    pub requests: u64,
    /// Those of them that were failures, by [`failed`].
    pub failures: u64,
    /// When the first of them was sent, counted from the start of the load.
    pub first_sent: Duration,
    /// When the last of them was sent.
    pub last_sent: Duration,
}

/// One request that did not get what its user wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was sent, counted from the start of the load.
    pub sent: Duration,
    /// The version that answered, if one did and said so.
    pub version: Option<String>,
    /// What came instead.
    pub what: Failed,
}

/// What came instead of a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// A whole answer with this status.
    Status(StatusCode),
    /// No whole answer.
    Fault(Fault),
}

/// Everything a load saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that ended, one way or the other. Each was sent once.
    pub requests: u64,
    /// Requests that failed: no whole answer, or a status that [`failed`] calls a failure.
    pub failed: u64,
    /// Whole answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer, by fault.
    pub faults: BTreeMap<Fault, u64>,
    /// Whole answers by version.
    pub versions: BTreeMap<String, Tally>,
    /// Microseconds from when a request was *due* to the end of its answer, good or bad, so that a stall counts
    /// for every request that waited behind it (Tene, "How NOT to Measure Latency", on coordinated omission).
    pub latencies: Histogram<u64>,
    /// The first failures, in the order in which they ended; at most 10,000 of them.
    pub failures: Vec<Failure>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            requests: 0,
            failed: 0,
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            versions: BTreeMap::new(),
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds and precision are constants"),
            failures: Vec::new(),
        }
    }
}

impl Report {
    /// Counts one request.
    pub fn add(&mut self, outcome: &Result<Answer, Fault>, times: Times) {
        self.requests += 1;
        let waited_us = u64::try_from(times.done.saturating_sub(times.due).as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(waited_us);
        match outcome {
            Ok(answer) => self.add_answer(answer, times.sent),
            Err(fault) => {
                *self.faults.entry(*fault).or_default() += 1;
                self.add_failure(Failure { sent: times.sent, version: None, what: Failed::Fault(*fault) });
            }
        }
    }

    /// Adds what another load saw at the same time. Times stay counted from each load's own start.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
        other.faults.iter().for_each(|(fault, count)| *self.faults.entry(*fault).or_default() += count);
        for (version, tally) in &other.versions {
            let sum = self.versions.entry(version.clone()).or_insert_with(|| Tally {
                requests: 0,
                failures: 0,
                ..tally.clone()
            });
            sum.requests += tally.requests;
            sum.failures += tally.failures;
            sum.first_sent = sum.first_sent.min(tally.first_sent);
            sum.last_sent = sum.last_sent.max(tally.last_sent);
        }
        self.latencies.add(&other.latencies).expect("all reports have one geometry");
        let room = FAILURES_KEPT_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.iter().take(room).cloned());
    }

    fn add_answer(&mut self, answer: &Answer, sent: Duration) {
        *self.statuses.entry(answer.status.as_u16()).or_default() += 1;
        let version = version_of(answer);
        if let Some(name) = version {
            self.add_to_version(name, answer.status, sent);
        }
        if failed(answer.status) {
            let version = version.map(str::to_owned);
            self.add_failure(Failure { sent, version, what: Failed::Status(answer.status) });
        }
    }

    fn add_to_version(&mut self, name: &str, status: StatusCode, sent: Duration) {
        let known = self.versions.contains_key(name) || self.versions.len() < VERSIONS_MAX;
        let name = if known { name } else { OTHER_VERSIONS };
        let new = || Tally { requests: 0, failures: 0, first_sent: sent, last_sent: sent };
        let tally = self.versions.entry(name.to_owned()).or_insert_with(new);
        tally.requests += 1;
        tally.failures += u64::from(failed(status));
        tally.first_sent = tally.first_sent.min(sent);
        tally.last_sent = tally.last_sent.max(sent);
    }

    fn add_failure(&mut self, failure: Failure) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT_MAX {
            self.failures.push(failure);
        }
    }

    /// Whole answers of this version; 0 if it never answered.
    #[must_use]
    pub fn answered_by(&self, version: &str) -> u64 {
        self.versions.get(version).map_or(0, |tally| tally.requests)
    }

    /// The latency in milliseconds below which this share (0 to 1) of the requests ended; 0 before the first.
    #[must_use]
    pub fn latency_ms(&self, share: f64) -> f64 {
        Duration::from_micros(self.latencies.value_at_quantile(share)).as_secs_f64() * 1e3
    }
}

/// Whether a user would call this status a failure. The load asks only for what exists, so a 404 is one as well.
#[must_use]
pub fn failed(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The version that answered: its `x-version` header, else the short body of a good answer.
fn version_of(answer: &Answer) -> Option<&str> {
    if answer.version.is_some() {
        return answer.version.as_deref();
    }
    if failed(answer.status) || answer.body.len() > NAME_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(&answer.body).ok().map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(status: u16, version: Option<&str>, body: &'static str) -> Result<Answer, Fault> {
        Ok(Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            version: version.map(str::to_owned),
            body: Bytes::from_static(body.as_bytes()),
        })
    }

    /// Adds one outcome per millisecond, each answered after another millisecond.
    fn report(outcomes: &[Result<Answer, Fault>]) -> Report {
        let mut report = Report::default();
        for (at, outcome) in (0..).zip(outcomes) {
            let sent = Duration::from_millis(at);
            report.add(outcome, Times { due: sent, sent, done: sent + Duration::from_millis(1) });
        }
        report
    }

    #[track_caller]
    fn check(outcome: Result<Answer, Fault>, version: Option<&str>, failed: u64) {
        let report = report(&[outcome]);
        assert_eq!(report.requests, 1);
        assert_eq!(report.versions.keys().next().map(String::as_str), version);
        assert_eq!(report.failed, failed);
        assert_eq!(report.failures.len() as u64, failed);
    }

    #[test]
    fn an_answer_is_counted_for_the_version_it_names() {
        check(answer(200, Some("6.0.1"), "hello"), Some("6.0.1"), 0);
        check(answer(200, None, "6.0.1\n"), Some("6.0.1"), 0);
        check(answer(200, None, ""), None, 0);
        check(answer(500, Some("6.0.2"), ""), Some("6.0.2"), 1);
        check(answer(502, None, "no backend"), None, 1);
        check(answer(404, None, "no route"), None, 1);
        check(Err(Fault::Timeout), None, 1);
    }

    #[test]
    fn a_version_knows_when_it_was_first_and_last_asked() {
        let seen = report(&[
            answer(200, Some("a"), ""),
            answer(200, Some("b"), ""),
            answer(500, Some("b"), ""),
            answer(200, Some("a"), ""),
        ]);
        let ms = Duration::from_millis;
        let expected = Tally { requests: 2, failures: 1, first_sent: ms(1), last_sent: ms(2) };
        assert_eq!(seen.versions["b"], expected);
    }

    #[test]
    fn a_late_start_counts_as_latency() {
        let mut report = Report::default();
        let ms = Duration::from_millis;
        report.add(&answer(200, None, ""), Times { due: ms(0), sent: ms(500), done: ms(501) });
        let seen = report.latency_ms(0.5);
        assert!((500.0..502.0).contains(&seen), "{seen} ms");
    }

    #[test]
    fn names_without_end_do_not_fill_the_memory() {
        let mut report = Report::default();
        for n in 0..1000 {
            let sent = Duration::ZERO;
            report.add(&answer(200, Some(&n.to_string()), ""), Times { due: sent, sent, done: sent });
        }
        assert_eq!(report.versions.len(), VERSIONS_MAX + 1);
        assert_eq!(report.answered_by(OTHER_VERSIONS), 1000 - VERSIONS_MAX as u64);
    }
}
