//! What came of the demo's story: which of its claims are true, and a summary in plain words. Pure.

use std::fmt;
use std::time::Duration;

use crate::report::{Report, Tally};

/// The version people trust at first.
pub const OLD: &str = "6.0.0";
/// The release that deserves to be promoted.
pub const GOOD: &str = "6.0.1";
/// The release that fails from its first request.
pub const BAD: &str = "6.0.2";

/// Failed requests that the whole story may cost. During its warm-up the guard stops a dead canary after about 15 failures;
/// as many again may be in flight or come before the next look.
const FAILED_MAX: u64 = 30;

/// How long after the admin API has told a change a request may still go the old way: it may have been sent, though not
/// yet routed, when we looked.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// How the story's Canary is set, as far as Flagger's arithmetic needs it.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Seconds between two analyses.
    pub interval_s: u32,
    /// Failed checks before Flagger rolls back.
    pub threshold: u32,
    /// Percent of the traffic in a canary's first step.
    pub step_weight: u32,
    /// Requests a second.
    pub rate: u32,
}

impl Terms {
    /// Seconds for which Flagger leaves a dead canary in traffic. The first failed check comes one interval after the weight
    /// was set, the check that reaches the threshold only counts, and the rollback is the next tick (Flagger 1.44,
    /// `pkg/controller/scheduler.go`, `advanceCanary`).
    #[must_use]
    pub const fn flagger_s(self) -> u32 {
        (self.threshold + 1) * self.interval_s
    }

    /// Requests that fail in that time, if the canary answers none.
    #[must_use]
    pub const fn flagger_failures(self) -> u32 {
        self.flagger_s() * self.rate * self.step_weight / 100
    }
}

/// When things happened, counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// The good version was written into the Backend.
    pub good_released: Duration,
    /// The admin API first said that it was promoted.
    pub promoted: Duration,
    /// The bad version was written into the Backend.
    pub bad_released: Duration,
    /// The admin API first said that it was rolled back.
    pub rolled_back: Duration,
    /// The load ended.
    pub end: Duration,
}

/// All that is known after the story.
#[derive(Debug)]
pub struct Outcome {
    /// How the Canary was set.
    pub terms: Terms,
    /// What users saw.
    pub seen: Report,
    /// Requests that had failed when the bad version was released.
    pub failed_before: u64,
    /// When things happened.
    pub moments: Moments,
}

/// One thing that the story promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// In words.
    pub says: String,
    /// Whether it came true.
    pub holds: bool,
}

impl Outcome {
    /// What was promised, and what of it came true.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        let Self { seen, moments, failed_before, .. } = self;
        let claim = |says: String, holds| Claim { says, holds };
        let took = seconds(moments.promoted.saturating_sub(moments.good_released));
        vec![
            claim(
                format!("the good release, {GOOD}, was promoted after {took}, and from then on nobody got {OLD}"),
                seen.answered_by(GOOD) > 0 && self.gone_after(OLD, moments.promoted),
            ),
            claim(format!("no request failed before the bad release ({failed_before} did)"), *failed_before == 0),
            claim(
                format!("the bad release, {BAD}, got real traffic and was rolled back"),
                seen.answered_by(BAD) > 0 && moments.rolled_back > moments.bad_released,
            ),
            claim(format!("at most {FAILED_MAX} requests failed ({} did)", seen.failed), seen.failed <= FAILED_MAX),
            claim(format!("no request reached {BAD} after its rollback"), self.gone_after(BAD, moments.rolled_back)),
        ]
    }

    /// Whether no request sent after this moment was answered by this version, and enough time passed to tell.
    fn gone_after(&self, version: &str, moment: Duration) -> bool {
        let settled = moment + SETTLED_AFTER;
        let last = self.seen.versions.get(version).map_or(Duration::ZERO, |tally| tally.last_sent);
        last <= settled && settled < self.moments.end
    }

    /// Whether every claim came true.
    #[must_use]
    pub fn came_true(&self) -> bool {
        self.claims().iter().all(|claim| claim.holds)
    }

    fn bad_in_traffic(&self) -> Duration {
        let span = |tally: &Tally| tally.last_sent.saturating_sub(tally.first_sent);
        self.seen.versions.get(BAD).map_or(Duration::ZERO, span)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { terms, seen, failed_before, moments } = self;
        writeln!(f, "What users saw")?;
        writeln!(f, "  {} requests in {}, of which {} failed;", seen.requests, seconds(moments.end), seen.failed)?;
        writeln!(f, "  {} of those failures came during the bad release.", seen.failed.saturating_sub(*failed_before))?;
        writeln!(
            f,
            "  Half of the answers came within {:.1} ms, 99 % within {:.1} ms.",
            seen.latency_ms(0.5),
            seen.latency_ms(0.99)
        )?;
        writeln!(
            f,
            "  {BAD} answered {} requests; from the first to the last of them passed {}.",
            seen.answered_by(BAD),
            seconds(self.bad_in_traffic())
        )?;
        writeln!(f, "With Flagger (computed, not measured)")?;
        writeln!(
            f,
            "  (threshold + 1) × interval = ({} + 1) × {} s = {} s in traffic;",
            terms.threshold,
            terms.interval_s,
            terms.flagger_s()
        )?;
        writeln!(
            f,
            "  that × {} % canary × {} requests/s = {} failed requests.",
            terms.step_weight,
            terms.rate,
            terms.flagger_failures()
        )?;
        writeln!(f, "Did the story come true?")?;
        for Claim { says, holds } in self.claims() {
            writeln!(f, "  {} {says}", if holds { "yes" } else { "NO " })?;
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::StatusCode;

    use super::*;
    use crate::client::{Answer, Fault};
    use crate::report::Times;

    const TERMS: Terms = Terms { interval_s: 5, threshold: 5, step_weight: 20, rate: 200 };

    /// A story in which these answers came, each `(version, status, second it was sent)`, after the usual ones.
    fn story(further: &[(&str, u16, u64)]) -> Outcome {
        let usual = [
            (OLD, 200, 1),
            (GOOD, 200, 5),
            (OLD, 200, 29),
            (GOOD, 200, 31),
            (BAD, 500, 40),
            (BAD, 500, 41),
            (GOOD, 200, 49),
        ];
        let mut seen = Report::default();
        let mut failed_before = 0;
        for &(version, status, second) in usual.iter().chain(further) {
            let sent = Duration::from_secs(second);
            let status = StatusCode::from_u16(status).expect("a status");
            let answer: Result<_, Fault> = Ok(Answer { status, version: Some(version.to_owned()), body: Bytes::new() });
            seen.add(&answer, Times { due: sent, sent, done: sent + Duration::from_millis(2) });
            failed_before += u64::from(second < 35 && status.is_server_error());
        }
        let [good_released, promoted, bad_released, rolled_back, end] = [2, 30, 35, 41, 50].map(Duration::from_secs);
        let moments = Moments { good_released, promoted, bad_released, rolled_back, end };
        Outcome { terms: TERMS, seen, failed_before, moments }
    }

    #[track_caller]
    fn check(further: &[(&str, u16, u64)], untrue: &[usize]) {
        let claims = story(further).claims();
        let found: Vec<usize> = (0..claims.len()).filter(|n| !claims[*n].holds).collect();
        assert_eq!(found, untrue, "{claims:#?}");
    }

    #[test]
    fn a_story_that_came_true_is_told_in_plain_words() {
        check(&[], &[]);
        insta::assert_snapshot!(story(&[]).to_string(), @"
        What users saw
          7 requests in 50.0 s, of which 2 failed;
          2 of those failures came during the bad release.
          Half of the answers came within 2.0 ms, 99 % within 2.0 ms.
          6.0.2 answered 2 requests; from the first to the last of them passed 1.0 s.
        With Flagger (computed, not measured)
          (threshold + 1) × interval = (5 + 1) × 5 s = 30 s in traffic;
          that × 20 % canary × 200 requests/s = 1200 failed requests.
        Did the story come true?
          yes the good release, 6.0.1, was promoted after 28.0 s, and from then on nobody got 6.0.0
          yes no request failed before the bad release (0 did)
          yes the bad release, 6.0.2, got real traffic and was rolled back
          yes at most 30 requests failed (2 did)
          yes no request reached 6.0.2 after its rollback
        ");
    }

    #[test]
    fn each_broken_promise_is_found() {
        check(&[(OLD, 200, 45)], &[0]);
        check(&[(OLD, 500, 20)], &[1]);
        check(&[(BAD, 500, 40); 30], &[3]);
        check(&[(BAD, 500, 45)], &[4]);
    }

    #[test]
    fn a_story_without_the_bad_release_did_not_come_true() {
        let mut outcome = story(&[]);
        outcome.seen.versions.remove(BAD);
        assert!(!outcome.came_true());
    }

    #[test]
    fn flaggers_arithmetic_is_its_own() {
        assert_eq!(TERMS.flagger_s(), 30);
        assert_eq!(TERMS.flagger_failures(), 1200);
    }
}
