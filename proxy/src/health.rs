//! How endpoints are doing, as all threads have seen it: since when one is there, and whether it is left out because it failed.
//!
//! Who leaves an endpoint out moves its requests to the others of its arm. What it has failed stays in the arm's record, and some of an
//! arm always stays in, so that a bad version is not hidden by having fewer pods.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serin_route::Ejection;

/// How many times longer an endpoint is left out at most, one time after the other.
const TIMES_MAX: u32 = 10;

/// One endpoint of an arm.
#[derive(Debug)]
pub(crate) struct Health {
    /// When a table had it first.
    made: Instant,
    /// Failures in a row.
    row: AtomicU32,
    /// How often it was left out without a success in between.
    times: AtomicU32,
    /// Until when it is left out, in milliseconds since it was made; 0 is not at all.
    out_until_ms: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        let (row, times, out_until_ms) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        Self { made: Instant::now(), row, times, out_until_ms }
    }
}

impl Health {
    /// Whether it is left out now.
    pub(crate) fn is_out(&self) -> bool {
        let until = self.out_until_ms.load(Ordering::Relaxed);
        until != 0 && self.age_ms() < until
    }

    /// The share of its requests that it gets by now, in percent: it grows with its age.
    pub(crate) fn warmth(&self, warm_up: Option<Duration>) -> u32 {
        let Some(warm_up) = warm_up.filter(|warm_up| !warm_up.is_zero()) else { return 100 };
        let percent = self.made.elapsed().as_millis() * 100 / warm_up.as_millis().max(1);
        u32::try_from(percent.clamp(1, 100)).unwrap_or(100)
    }

    /// It has answered, and not with a server's error.
    pub(crate) fn succeeded(&self) {
        // Read first: a store would take the line from all other threads.
        if self.row.load(Ordering::Relaxed) != 0 {
            self.row.store(0, Ordering::Relaxed);
        }
        if self.times.load(Ordering::Relaxed) != 0 && !self.is_out() {
            self.times.store(0, Ordering::Relaxed);
        }
    }

    /// It has failed; `arm` are all endpoints of its arm. It is left out if that was once too often.
    pub(crate) fn failed<'a>(&self, rule: &Ejection, arm: impl ExactSizeIterator<Item = &'a Self>) {
        let row = self.row.fetch_add(1, Ordering::Relaxed) + 1;
        if row < rule.failures || self.is_out() {
            return;
        }
        let (count, out) = (arm.len(), arm.filter(|other| other.is_out()).count());
        let most =
            (count * usize::try_from(rule.most_percent).unwrap_or(100) / 100).max(1).min(count.saturating_sub(1));
        if out >= most {
            return;
        }
        self.row.store(0, Ordering::Relaxed);
        let times = (self.times.fetch_add(1, Ordering::Relaxed) + 1).min(TIMES_MAX);
        let time_ms = u64::try_from((rule.time * times).as_millis()).unwrap_or(u64::MAX);
        self.out_until_ms.store(self.age_ms().saturating_add(time_ms).max(1), Ordering::Relaxed);
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Ejection = Ejection { failures: 3, time: Duration::from_secs(3_600), most_percent: 50 };

    fn fail(arm: &[Health], place: usize, times: usize) {
        (0..times).for_each(|_| arm[place].failed(&RULE, arm.iter()));
    }

    fn out(arm: &[Health]) -> Vec<bool> {
        arm.iter().map(Health::is_out).collect()
    }

    #[test]
    fn who_fails_in_a_row_is_left_out_and_a_share_of_the_arm_stays_in() {
        let arm: Vec<Health> = (0..4).map(|_| Health::default()).collect();
        fail(&arm, 0, 2);
        arm[0].succeeded();
        fail(&arm, 0, 2);
        assert_eq!(out(&arm), [false; 4]);
        fail(&arm, 0, 1);
        (1..4).for_each(|place| fail(&arm, place, 10));
        assert_eq!(out(&arm), [true, true, false, false]);
    }

    #[test]
    fn of_two_one_may_be_left_out_and_of_one_none() {
        let rule = Ejection { most_percent: 10, ..RULE };
        for (count, expected) in [(1, 0), (2, 1), (3, 1)] {
            let arm: Vec<Health> = (0..count).map(|_| Health::default()).collect();
            for health in &arm {
                (0..5).for_each(|_| health.failed(&rule, arm.iter()));
            }
            assert_eq!(out(&arm).iter().filter(|is_out| **is_out).count(), expected, "of {count}");
        }
    }

    #[test]
    fn its_time_passes_and_warmth_comes_with_age() {
        let health = Health::default();
        let short = Ejection { time: Duration::ZERO, ..RULE };
        let arm = [&health, &Health::default()];
        (0..3).for_each(|_| health.failed(&short, arm.into_iter()));
        assert!(health.out_until_ms.load(Ordering::Relaxed) > 0, "it was left out, for no time");
        let past = Health { made: Instant::now() - Duration::from_secs(30), ..Health::default() };
        let warm_up = Some(Duration::from_secs(60));
        assert!((50..=51).contains(&past.warmth(warm_up)), "{}", past.warmth(warm_up));
        assert_eq!((past.warmth(None), health.warmth(warm_up)), (100, 1));
        assert_eq!(past.warmth(Some(Duration::from_secs(10))), 100);
    }
}
