//! What people and tools may see of the control loop, published as a whole and never waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use serin_analysis::CheckResult;
use serin_measure::{CanaryKey, EpochId, Snapshot};
use serin_rollout::{Phase, Plan, State};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::{Event, Version};

/// The newest posting, and counters that only rise.
#[derive(Debug)]
pub struct Board {
    posting: watch::Sender<Arc<Posting>>,
    draining: AtomicBool,
    drained: AtomicBool,
    told_finally: Notify,
    sight: Mutex<Sight>,
    tick_seconds: HistogramVec,
    api_calls: IntCounterVec,
}

/// What is known of the surroundings.
#[derive(Debug, Clone, Copy)]
enum Sight {
    /// What is so. It was not always: others who look at it may need until this time to see it too.
    Sees { settled_at: Option<Instant> },
    /// What was so until this time.
    Blind { since: Instant },
}

impl Default for Sight {
    fn default() -> Self {
        Self::Sees { settled_at: None }
    }
}

/// After an outage a Kubernetes controller looks again within four times its length, and within a minute: client-go's reflector waits
/// twice as long after each failure, up to 30 s, and as much again by chance (`tools/cache/reflector.go`).
const OTHERS_FACTOR: u32 = 4;
const OTHERS_MAX: Duration = Duration::from_secs(60);

/// What the control loop last posted.
#[derive(Debug, Clone, Default)]
pub struct Posting {
    /// Whether the first table is in force.
    pub ready: bool,
    /// Whether this process judges and steps; in a fleet one does.
    pub leads: bool,
    /// Whether everybody who serves answers, and sees the cluster as it is: then pods may be taken down.
    pub all_see: bool,
    /// What the other processes of the fleet have counted, those that have gone included, as far as they told this one while it
    /// led. Most of them speak for themselves.
    pub others: Arc<Snapshot>,
    /// The number of the table in force.
    pub generation: u64,
    /// Every canary.
    pub canaries: BTreeMap<CanaryKey, CanaryPosting>,
    /// Problems of the configuration that was refused, if one was; the last good one is in force.
    pub refused_config: Vec<String>,
    /// Finished runs and the like, since the start.
    pub tally: Tally,
}

/// One canary, posted.
#[derive(Debug, Clone)]
pub struct CanaryPosting {
    /// What the user asked for.
    pub plan: Plan,
    /// What is in force.
    pub state: State,
    /// Newest events, oldest first.
    pub events: Vec<Event>,
    /// What a person has to see to.
    pub alarm: Option<String>,
    /// Who else writes this Canary's status, in a sentence, if somebody does; then nothing advances.
    pub contested: Option<String>,
    /// What the checks said last.
    pub checks: Vec<CheckResult>,
    /// First epoch of the run, as far as this process has seen it.
    pub run_from: EpochId,
    /// Whether the state in force is saved.
    pub saved: bool,
    /// The version of the saved state, if there is one.
    pub version: Option<Version>,
    /// Whether everybody who carries traffic follows it; then what it leaves without traffic may be taken down.
    pub settled: bool,
}

/// Counts since the start of the process.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Runs that ended, by canary.
    pub ended: BTreeMap<CanaryKey, Ended>,
    /// Saves that failed.
    pub save_failures: u64,
}

/// How runs of one canary ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// Promoted after analysis.
    pub promoted: u64,
    /// Promoted without analysis.
    pub skipped: u64,
    /// Taken back.
    pub failed: u64,
}

impl Default for Board {
    fn default() -> Self {
        let options =
            HistogramOpts::new("flagger_canary_duration_seconds", "Time that an analysed tick took, in seconds.");
        let tick_seconds =
            HistogramVec::new(options, &["name", "namespace"]).expect("the name and the labels are valid");
        let (draining, drained) = (AtomicBool::new(false), AtomicBool::new(false));
        let options =
            Opts::new("serin_api_server_calls_total", "Calls to the Kubernetes API server, watches included.");
        let api_calls =
            IntCounterVec::new(options, &["method", "resource"]).expect("the name and the labels are valid");
        let (posting, told_finally) = (watch::Sender::default(), Notify::new());
        let sight = Mutex::default();
        Self { posting, draining, drained, told_finally, sight, tick_seconds, api_calls }
    }
}

impl Board {
    /// How long analysed ticks took, by name of the target and namespace.
    pub(crate) fn tick_seconds(&self) -> &HistogramVec {
        &self.tick_seconds
    }

    /// Calls to the API server since the start, by method and resource.
    pub(crate) fn api_calls(&self) -> &IntCounterVec {
        &self.api_calls
    }

    /// Counts a call to the API server by its method and path.
    pub fn count_api_call(&self, method: &str, path: &str) {
        self.api_calls.with_label_values(&[method, resource_of(path)]).inc();
    }

    /// The newest posting.
    pub fn read(&self) -> Arc<Posting> {
        self.posting.borrow().clone()
    }

    /// Replaces the posting.
    pub fn post(&self, posting: Posting) {
        self.posting.send_replace(Arc::new(posting));
    }

    /// Every posting from now on; what is missed in between is of no interest.
    pub fn watch(&self) -> watch::Receiver<Arc<Posting>> {
        self.posting.subscribe()
    }

    /// Says that no request is under way any more: what is counted now is final.
    pub fn emptied(&self) {
        self.drained.store(true, Ordering::Relaxed);
    }

    /// Whether the counts are final.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Says whether what is known of the cluster is what is so: every watch works, and the table follows it.
    pub(crate) fn sees_the_cluster(&self, sees: bool) {
        let (mut sight, now) = (self.sight.lock(), Instant::now());
        *sight = match (*sight, sees) {
            (Sight::Sees { .. }, false) => Sight::Blind { since: now },
            (Sight::Blind { since }, true) => {
                let others = ((now - since) * OTHERS_FACTOR).min(OTHERS_MAX);
                Sight::Sees { settled_at: Some(now + others) }
            }
            (same, _) => same,
        };
    }

    /// Whether what is known of the surroundings is up to date.
    pub(crate) fn is_current(&self) -> bool {
        matches!(*self.sight.lock(), Sight::Sees { .. })
    }

    /// The same, and Kubernetes' own controllers may be trusted to see it too. Until then pods may be replaced whose addresses nobody
    /// writes down.
    pub(crate) fn is_settled(&self) -> bool {
        match *self.sight.lock() {
            Sight::Sees { settled_at } => settled_at.is_none_or(|at| Instant::now() >= at),
            Sight::Blind { .. } => false,
        }
    }

    /// The final counts were told to who asked.
    pub(crate) fn told_finally(&self) {
        self.told_finally.notify_one();
    }

    /// Waits until somebody has asked for the final counts.
    pub async fn until_told_finally(&self) {
        self.told_finally.notified().await;
    }

    /// Says that the process is ending; readiness follows at once.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is ending.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The resource in a path of the Kubernetes API: the first part that is neither group nor version nor namespace. Serin calls a
/// handful of them, so the label has a handful of values.
fn resource_of(path: &str) -> &str {
    let mut parts = path.trim_start_matches('/').split('/');
    let skipped = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts = parts.skip(skipped);
    match parts.next() {
        Some("namespaces") => match (parts.next(), parts.next()) {
            (_, Some(resource)) => resource,
            (_, None) => "namespaces",
        },
        Some(resource) => resource,
        None => "other",
    }
}

impl Ended {
    /// Counts a run that has come to this phase.
    pub(crate) fn count(&mut self, phase: Phase, skipped: bool) {
        match phase {
            Phase::Succeeded if skipped => self.skipped += 1,
            Phase::Succeeded => self.promoted += 1,
            Phase::Failed => self.failed += 1,
            Phase::Initializing
            | Phase::Initialized
            | Phase::Waiting
            | Phase::Progressing
            | Phase::WaitingPromotion
            | Phase::Promoting
            | Phase::Finalising => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_others_are_given_time_to_see_what_is_so() {
        let board = Board::default();
        assert!(board.is_current() && board.is_settled());
        for (outage_s, others_s) in [(2, 8), (600, 60)] {
            board.sees_the_cluster(false);
            tokio::time::advance(Duration::from_secs(outage_s)).await;
            board.sees_the_cluster(false);
            assert!(!board.is_current() && !board.is_settled());
            board.sees_the_cluster(true);
            tokio::time::advance(Duration::from_millis(others_s * 1_000 - 1)).await;
            board.sees_the_cluster(true);
            assert!(board.is_current() && !board.is_settled(), "{outage_s} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(board.is_settled());
        }
    }

    #[test]
    fn the_resource_of_a_call_is_found_in_its_path() {
        for (path, expected) in [
            ("/api/v1/namespaces/shop/services/cart", "services"),
            ("/apis/apps/v1/deployments", "deployments"),
            ("/apis/flagger.app/v1beta1/namespaces/shop/canaries/cart/status", "canaries"),
            ("/api/v1/namespaces/shop", "namespaces"),
            ("/version", "other"),
        ] {
            assert_eq!(resource_of(path), expected, "{path}");
        }
    }
}
