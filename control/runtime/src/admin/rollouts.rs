//! A rollout as JSON: what people ask when they look at one. The command line reads the same types.

use serde::{Deserialize, Serialize};
use serin_analysis::Stake;
use serin_measure::{Arm, CanaryKey, CheckCounts, EpochCounts, OutcomeClass, Snapshot};
use serin_rollout::{GuardMode, Judging, Strategy};

use crate::board::CanaryPosting;

/// All rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutList {
    /// By namespace and name.
    pub rollouts: Vec<RolloutView>,
    /// Problems of a configuration that was refused; the last good one is in force.
    #[serde(default)]
    pub refused_config: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// In words.
    pub error: String,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutView {
    /// The Canary's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The target as kind and name.
    pub target: String,
    /// Flagger's phase.
    pub phase: String,
    /// When the phase last changed, RFC 3339.
    pub phase_since: String,
    /// The canary's weight in percent.
    pub weight: u8,
    /// The weight that is followed by promotion, in percent.
    pub max_weight: u8,
    /// The number of the run, from 1; 0 before the first.
    pub rollout: u64,
    /// The epoch in force, from 1 when the Canary was made.
    pub epoch: u64,
    /// What the primary did in this run.
    pub primary: ArmView,
    /// What the canary did in this run.
    pub canary: ArmView,
    /// What users got in this run, both versions together.
    pub served: ServedView,
    /// Failed checks so far.
    pub failed_checks: u32,
    /// Failed checks that end the run.
    pub threshold: u32,
    /// Time between two steps, in milliseconds.
    pub interval_ms: u64,
    /// What the checks said last.
    pub checks: Vec<CheckView>,
    /// What the guard knows.
    pub evidence: EvidenceView,
    /// Why it does not move, if it does not.
    pub holds: Option<String>,
    /// What a person has to see to.
    pub alarm: Option<String>,
    /// Whether the state in force is saved.
    pub saved: bool,
    /// Newest events, oldest first.
    pub events: Vec<EventView>,
}

/// One version in this run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmView {
    /// The version.
    pub revision: Option<String>,
    /// Requests that ended there.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    pub p99_ms: Option<f64>,
}

/// What users got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedView {
    /// Answers.
    pub requests: u64,
    /// Those that were failures.
    pub failures: u64,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckView {
    /// Its name.
    pub name: String,
    /// Its last value, in percent or milliseconds.
    pub value: Option<f64>,
    /// `passed`, `failed` or `pending`.
    pub outcome: String,
}

/// What the guard knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceView {
    /// Whether it acts: `enforce`, `observe` or `off`.
    pub mode: String,
    /// `off`, `warm-up` or `full`.
    pub judging: String,
    /// ln E.
    pub ln_e: f64,
    /// ln E at which it acts.
    pub limit: f64,
    /// E against 1, cut off at 10^15.
    pub odds: f64,
    /// How much more often than the primary the canary may fail, as a share.
    pub tolerance: Option<f64>,
    /// Seconds of traffic judged.
    pub judged_seconds: f64,
    /// Why it rolled back, if it did.
    pub trip: Option<String>,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When, RFC 3339.
    pub at: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub level: String,
    /// The text.
    pub message: String,
}

impl RolloutView {
    /// A posted canary with what was measured of its run.
    pub fn new(key: &CanaryKey, posted: &CanaryPosting, snapshot: &Snapshot) -> Self {
        let mut counts = EpochCounts::default();
        snapshot.iter().filter(|(key, _)| key.epoch >= posted.run_from).for_each(|(_, epoch)| counts.merge(epoch));
        let (plan, state) = (&posted.plan, &posted.state);
        let text = |revision: &serin_rollout::Revision| revision.0.clone();
        Self {
            name: key.name().to_owned(),
            namespace: key.namespace().to_owned(),
            target: format!("{}/{}", plan.target.kind, plan.target.name),
            phase: state.phase.to_string(),
            phase_since: rfc3339(state.phase_since_ms),
            weight: state.weight.percent(),
            max_weight: match &plan.strategy {
                Strategy::Weighted(steps) => steps.max().percent(),
                Strategy::Fixed(weight) => weight.percent(),
            },
            rollout: state.rollout,
            epoch: state.epoch.id.0 - state.numbered_after,
            primary: ArmView::new(state.primary.as_ref().map(text), &counts, Arm::Primary),
            canary: ArmView::new(state.applied.as_ref().filter(|_| state.rollout > 0).map(text), &counts, Arm::Canary),
            served: ServedView::new(&counts),
            failed_checks: state.failed_checks,
            threshold: plan.threshold,
            interval_ms: plan.interval_ms,
            checks: posted.checks.iter().map(CheckView::new).collect(),
            evidence: EvidenceView::new(posted),
            holds: state.hold.clone(),
            alarm: posted.alarm.clone(),
            saved: posted.saved,
            events: posted.events.iter().map(EventView::new).collect(),
        }
    }
}

impl ArmView {
    fn new(revision: Option<String>, counts: &EpochCounts, arm: Arm) -> Self {
        let CheckCounts { requests, failures } = counts.checks(arm);
        let latency = counts.latency(arm);
        #[expect(clippy::cast_precision_loss, reason = "a minute in microseconds is far below 2^53")]
        let quantile = |q| latency.quantile_us(q).map(|us| us as f64 / 1_000.0);
        Self { revision, requests, failures, p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
    }
}

impl ServedView {
    fn new(counts: &EpochCounts) -> Self {
        let sum = |wanted: fn(OutcomeClass) -> bool| {
            let of =
                |arm: Arm| OutcomeClass::ALL.into_iter().filter(|class| wanted(*class)).map(move |class| (arm, class));
            Arm::ALL.into_iter().flat_map(of).map(|(arm, class)| counts.arm(arm).served[class.index()]).sum()
        };
        Self { requests: sum(|_| true), failures: sum(OutcomeClass::is_check_failure) }
    }
}

impl CheckView {
    fn new(result: &serin_analysis::CheckResult) -> Self {
        let outcome = match result.outcome {
            serin_analysis::CheckOutcome::Passed => "passed",
            serin_analysis::CheckOutcome::Failed { .. } => "failed",
            serin_analysis::CheckOutcome::Pending => "pending",
        };
        Self { name: result.name.clone(), value: result.value, outcome: outcome.to_owned() }
    }
}

impl EvidenceView {
    fn new(posted: &CanaryPosting) -> Self {
        /// E grows without bound; what is beyond this is certain enough, and larger numbers are hard to print.
        const ODDS_MAX: f64 = 1e15;
        let (plan, state) = (&posted.plan, &posted.state);
        let ln_e = state.evidence.ln_e();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        let judged_seconds = state.evidence.judged_ms() as f64 / 1_000.0;
        Self {
            mode: match plan.guard.mode {
                GuardMode::Enforce => "enforce",
                GuardMode::Observe => "observe",
                GuardMode::Off => "off",
            }
            .to_owned(),
            judging: match state.epoch.judging {
                Judging::Off => "off",
                Judging::WarmUp(_) => "warm-up",
                Judging::Full(_) => "full",
            }
            .to_owned(),
            ln_e,
            limit: Stake::default().ln_limit(),
            odds: ln_e.exp().min(ODDS_MAX),
            tolerance: state.epoch.judging.tolerance(),
            judged_seconds,
            trip: state.trip.as_ref().map(|trip| trip.message.clone()),
        }
    }
}

impl EventView {
    fn new(event: &crate::store::Event) -> Self {
        Self { at: rfc3339(event.at_ms), level: event.level.clone(), message: event.message.clone() }
    }
}

/// A time as Kubernetes writes it, to the second.
pub(crate) fn rfc3339_seconds(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.0}")
}

/// A time as people and tools write it, to the millisecond.
fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}
