//! Asks a running container how it is: started? ready? alive?
//!
//! As kubelet does, but for one thing: until a probe has succeeded for the first time it is repeated every 50 ms rather than once a
//! period, so that a test does not wait a second for each pod. Failures are still counted once a period.

use std::future::pending;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::action::Action;
use super::container::Run;
use super::sources::Problem;

/// How often a probe is repeated that has not succeeded yet.
const EAGER: Duration = Duration::from_millis(50);

/// One probe.
#[derive(Clone, Debug)]
struct Question {
    action: Action,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    tally: Tally,
}

/// Successes and failures in a row, and how many of them count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tally {
    successes: u32,
    successes_needed: u32,
    failures: u32,
    failures_allowed: u32,
}

impl Tally {
    /// Counts one answer. Says what is so if there were enough of that kind in a row.
    const fn count(&mut self, good: bool) -> Option<bool> {
        if good {
            (self.successes, self.failures) = (self.successes + 1, 0);
            if self.successes >= self.successes_needed { Some(true) } else { None }
        } else {
            (self.successes, self.failures) = (0, self.failures + 1);
            if self.failures >= self.failures_allowed { Some(false) } else { None }
        }
    }
}

impl Question {
    fn of(probe: &Probe, container: &Container, address: std::net::Ipv4Addr) -> Result<Self, Problem> {
        let at_least_one = |given: Option<i32>, default| {
            given.and_then(|given| u32::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
        };
        let seconds = |given, default| Duration::from_secs(at_least_one(given, default).into());
        Ok(Self {
            action: Action::of_probe(probe, container, address)?,
            delay: Duration::from_secs(
                probe.initial_delay_seconds.and_then(|delay| u64::try_from(delay).ok()).unwrap_or(0),
            ),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            tally: Tally {
                successes: 0,
                successes_needed: at_least_one(probe.success_threshold, 1),
                failures: 0,
                failures_allowed: at_least_one(probe.failure_threshold, 3),
            },
        })
    }

    async fn ask(&self, run: &Run) -> Result<(), String> {
        match timeout(self.timeout, self.action.perform(run)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// Asks for ever, and tells each time what is so (if enough answers say it) and why.
    async fn keep_asking(mut self, run: &Run, mut tell: impl FnMut(bool, &str) -> bool) {
        sleep(self.delay).await;
        let (mut eager, mut counted) = (true, None::<Instant>);
        loop {
            let began = Instant::now();
            let answer = self.ask(run).await;
            if let (true, Err(why)) = (counted.is_none(), &answer) {
                run.note("first probe", why);
            }
            eager &= answer.is_err();
            if answer.is_ok() || counted.is_none_or(|counted| began >= counted + self.period) || !eager {
                counted = Some(began);
                let why = answer.as_ref().err().map_or("", String::as_str);
                if self.tally.count(answer.is_ok()).is_some_and(|good| tell(good, why)) {
                    return;
                }
            }
            sleep_until(began + if eager { EAGER.min(self.period) } else { self.period }).await;
        }
    }
}

/// The probes of one container.
#[derive(Clone, Debug)]
pub(super) struct Health {
    startup: Option<Question>,
    readiness: Option<Question>,
    liveness: Option<Question>,
}

impl Health {
    /// The probes, as they are written in the pod.
    pub(super) fn of(container: &Container, address: std::net::Ipv4Addr) -> Result<Self, Problem> {
        let question =
            |probe: &Option<Probe>| probe.as_ref().map(|probe| Question::of(probe, container, address)).transpose();
        Ok(Self {
            startup: question(&container.startup_probe)?,
            readiness: question(&container.readiness_probe)?,
            liveness: question(&container.liveness_probe)?,
        })
    }

    /// Waits until the container has to be killed, and says why. `started` becomes true on the way.
    pub(super) async fn fatal(&self, run: &Run, started: &watch::Sender<bool>) -> String {
        if let Some(startup) = self.startup.clone() {
            let mut failed = None;
            startup
                .keep_asking(run, |good, why| {
                    failed = (!good).then(|| why.to_owned());
                    true
                })
                .await;
            if let Some(why) = failed {
                return format!("startup probe failed: {why}");
            }
        }
        run.slot.update(|view| view.started = true);
        started.send_replace(true);
        let Some(liveness) = self.liveness.clone() else { return pending().await };
        let mut failed = String::new();
        liveness
            .keep_asking(run, |good, why| {
                failed = format!("liveness probe failed: {why}");
                !good
            })
            .await;
        failed
    }

    /// Keeps the container's readiness up to date, for ever.
    pub(super) async fn readiness(&self, run: &Run, mut started: watch::Receiver<bool>) {
        if started.wait_for(|started| *started).await.is_err() {
            return pending().await;
        }
        let Some(readiness) = self.readiness.clone() else {
            run.slot.update(|view| view.ready = true);
            return pending().await;
        };
        readiness
            .keep_asking(run, |ready, why| {
                if run.slot.view().ready != ready {
                    run.note(if ready { "is ready" } else { "is not ready" }, why);
                    run.slot.update(|view| view.ready = ready);
                }
                false
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn only_answers_in_a_row_count() {
        let mut tally = Tally { successes: 0, successes_needed: 2, failures: 0, failures_allowed: 3 };
        let said: Vec<_> = [true, true, false, false, true, false, false, false].map(|good| tally.count(good)).into();
        let expected = [None, Some(true), None, None, None, None, None, Some(false)];
        assert_eq!(said, expected);
    }
}
