//! What a canary did lately: cumulative counts of the present step, kept long enough for the longest check.

use std::collections::VecDeque;

use serin_analysis::{Check, Window};
use serin_measure::{Arm, Buckets, EpochId, Snapshot};

/// Readings kept per check interval: a window is exact to one part in a hundred of its length.
const READINGS_PER_INTERVAL: u64 = 100;

/// Readings of one step, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    readings: VecDeque<Reading>,
}

/// What the canary had done in this step at one moment.
#[derive(Debug, Clone, Default)]
struct Reading {
    at_ms: u64,
    requests: u64,
    failures: u64,
    latency: Buckets,
}

impl Reading {
    fn new(at_ms: u64, snapshot: &Snapshot, step_from: EpochId) -> Self {
        let mut reading = Self { at_ms, ..Self::default() };
        for (_, counts) in snapshot.iter().filter(|(key, _)| key.epoch >= step_from) {
            let checks = counts.checks(Arm::Canary);
            reading.requests += checks.requests;
            reading.failures += checks.failures;
            reading.latency.merge(&counts.latency(Arm::Canary));
        }
        reading
    }
}

impl History {
    /// Forgets the former step.
    pub(crate) fn clear(&mut self) {
        self.readings.clear();
    }

    /// Whether another reading is due for checks up to this interval.
    pub(crate) fn is_due(&self, now_ms: u64, longest_ms: u64) -> bool {
        self.readings.back().is_none_or(|last| now_ms.saturating_sub(last.at_ms) >= longest_ms / READINGS_PER_INTERVAL)
    }

    /// Keeps a reading of the epochs from `step_from` on, and drops what no check looks back to any more.
    pub(crate) fn read(&mut self, now_ms: u64, snapshot: &Snapshot, step_from: EpochId, longest_ms: u64) {
        self.readings.push_back(Reading::new(now_ms, snapshot, step_from));
        let oldest = now_ms.saturating_sub(longest_ms);
        // One reading before the window is its beginning, so it stays.
        while self.readings.get(1).is_some_and(|second| second.at_ms <= oldest) {
            self.readings.pop_front();
        }
    }

    /// What a check sees: its own interval, clipped to the step. `complete` if the step has been seen for `full_ms`.
    pub(crate) fn window(&self, now_ms: u64, check: &Check, seen_since_ms: u64, full_ms: u64) -> Window {
        let complete = now_ms.saturating_sub(seen_since_ms) >= full_ms;
        let Some(latest) = self.readings.back() else {
            return Window { requests: 0, failures: 0, p99_us: None, complete };
        };
        let begin_ms = now_ms.saturating_sub(check.interval_ms);
        // Without a reading that old the window begins with the step, where all counts were zero.
        let begin = self.readings.iter().rev().find(|reading| reading.at_ms <= begin_ms).cloned().unwrap_or_default();
        Window {
            requests: latest.requests.saturating_sub(begin.requests),
            failures: latest.failures.saturating_sub(begin.failures),
            p99_us: latest.latency.since(&begin.latency).quantile_us(0.99),
            complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_analysis::{CheckKind, Range};
    use serin_measure::{BootId, CanaryKey, CellKey, EpochCounts, OutcomeClass};

    fn snapshot(epochs: &[(u64, u64, u64)]) -> Snapshot {
        let counts = |ok, failed| {
            let mut counts = EpochCounts::default();
            counts.canary.other.classes[OutcomeClass::S2xx.index()] = ok;
            counts.canary.other.classes[OutcomeClass::S5xx.index()] = failed;
            counts.canary.latency_ok.record_n(1_000, ok);
            counts.canary.latency_failed.record_n(9_000, failed);
            counts
        };
        let key = |epoch| CellKey { boot: BootId(1), canary: CanaryKey::new("a", "b"), epoch: EpochId(epoch) };
        epochs.iter().map(|(epoch, ok, failed)| (key(*epoch), counts(*ok, *failed))).collect()
    }

    fn check(interval_ms: u64) -> Check {
        Check {
            name: "request-success-rate".into(),
            kind: CheckKind::SuccessRate,
            range: Range { min: None, max: None },
            interval_ms,
        }
    }

    #[test]
    fn a_window_is_the_checks_own_interval_clipped_to_the_step() {
        let mut history = History::default();
        let step = EpochId(5);
        for (at_ms, ok) in [(1_000, 10), (2_000, 20), (3_000, 40), (4_000, 80)] {
            // The epoch before belongs to the former step and does not count.
            history.read(at_ms, &snapshot(&[(4, 1_000, 1_000), (5, ok, 0), (6, 1, 1)]), step, 10_000);
        }
        let seen = |interval_ms| history.window(4_000, &check(interval_ms), 1_000, 3_000).requests;
        assert_eq!([seen(1_000), seen(2_000), seen(2_500), seen(60_000)], [40, 60, 70, 82]);
        assert!(history.window(4_000, &check(1_000), 1_000, 3_000).complete);
        assert!(!history.window(4_000, &check(1_000), 1_001, 3_000).complete);
    }

    #[test]
    fn readings_are_bounded_and_latency_is_of_the_window() {
        let mut history = History::default();
        for second in 0..1_000 {
            assert!(history.is_due(second * 1_000, 10_000));
            history.read(second * 1_000, &snapshot(&[(1, second, second)]), EpochId(1), 10_000);
            assert!(!history.is_due(second * 1_000, 10_000));
        }
        assert_eq!(history.readings.len(), 11);
        let window = history.window(999_000, &check(10_000), 0, 0);
        assert_eq!((window.requests, window.failures), (20, 10));
        assert_eq!(window.p99_us.map(|us| us / 1_000), Some(9));
    }
}
