//! The metrics page: Flagger's series under Flagger's names, and Serin's own per version.
//!
//! Everything is read from what is posted and counted at the moment of the scrape; nothing is recorded twice. Flagger's
//! label `name` is the name of the target, not of the Canary (Flagger 1.44, `pkg/metrics/recorder.go`).

use std::collections::BTreeMap;

use prometheus::{Encoder, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use serin_analysis::CheckKind;
use serin_measure::{Arm, Buckets, CanaryKey, EpochCounts, OutcomeClass, Snapshot};
use serin_rollout::{Phase, Plan};

use super::Sources;
use crate::board::{CanaryPosting, Posting};
use crate::plane::DataPlane;

/// Upper bounds of the latency histogram in seconds: Prometheus' own ones, and two more for what runs into timeouts.
const BOUNDS_S: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The page as text.
pub(super) fn page<P: DataPlane>(sources: &Sources<P>) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    let posting = sources.board.read();
    flagger(&registry, &posting, sources.version)?;
    registry.register(Box::new(sources.board.tick_seconds().clone()))?;
    registry.register(Box::new(sources.board.api_calls().clone()))?;
    own(&registry, &posting)?;
    edge(&registry, sources)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    let mut text = String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))?;
    text.push_str(&requests(&sources.plane.snapshot(None)));
    Ok(text)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
    let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn flagger(registry: &Registry, posting: &Posting, version: &str) -> Result<(), prometheus::Error> {
    let info = gauge(registry, "flagger_info", "Version and provider.", &["version", "mesh_provider"])?;
    info.with_label_values(&[version, "serin"]).set(1.0);
    let total = gauge(registry, "flagger_canary_total", "Canaries per namespace.", &["namespace"])?;
    let status = gauge(
        registry,
        "flagger_canary_status",
        "0 while progressing, 2 after a failure, else 1.",
        &["name", "namespace"],
    )?;
    let weight = gauge(registry, "flagger_canary_weight", "Weight in percent.", &["workload", "namespace"])?;
    let analysis = gauge(
        registry,
        "flagger_canary_metric_analysis",
        "Last value of a check: percent, or seconds.",
        &["name", "namespace", "metric"],
    )?;
    let ends = ["name", "namespace", "deployment_strategy", "analysis_status"];
    let successes = counter(registry, "flagger_canary_successes_total", "Runs that were promoted.", &ends)?;
    let failures = counter(registry, "flagger_canary_failures_total", "Runs that were taken back.", &ends)?;
    for (key, posted) in &posting.canaries {
        let (name, namespace) = (posted.plan.target.name.as_str(), key.namespace());
        total.with_label_values(&[namespace]).inc();
        status.with_label_values(&[name, namespace]).set(status_of(posted.state.phase));
        let primary = format!("{name}-primary");
        weight.with_label_values(&[&primary, namespace]).set(posted.state.weight.rest().percent().into());
        weight.with_label_values(&[name, namespace]).set(posted.state.weight.percent().into());
        for check in &posted.checks {
            if let Some(value) = check.value {
                analysis.with_label_values(&[name, namespace, &check.name]).set(in_flaggers_unit(
                    &posted.plan,
                    &check.name,
                    value,
                ));
            }
        }
        if let Some(ended) = posting.tally.ended.get(key) {
            let with = |status| [name, namespace, "canary", status];
            successes.with_label_values(&with("completed")).inc_by(ended.promoted);
            successes.with_label_values(&with("skipped")).inc_by(ended.skipped);
            failures.with_label_values(&with("completed")).inc_by(ended.failed);
        }
    }
    Ok(())
}

fn status_of(phase: Phase) -> f64 {
    match phase {
        Phase::Progressing => 0.0,
        Phase::Failed => 2.0,
        Phase::Initializing
        | Phase::Initialized
        | Phase::Waiting
        | Phase::WaitingPromotion
        | Phase::Promoting
        | Phase::Finalising
        | Phase::Succeeded => 1.0,
    }
}

/// Flagger shows durations in seconds; the checks hold milliseconds.
fn in_flaggers_unit(plan: &Plan, check: &str, value: f64) -> f64 {
    match plan.checks.iter().find(|known| known.name == check).map(|known| known.kind) {
        Some(CheckKind::Duration) => value / 1_000.0,
        Some(CheckKind::SuccessRate) | None => value,
    }
}

fn own(registry: &Registry, posting: &Posting) -> Result<(), prometheus::Error> {
    let of_canary = ["namespace", "canary"];
    let evidence = gauge(
        registry,
        "serin_guard_evidence_ln",
        "ln E: evidence that the canary fails more than tolerated.",
        &of_canary,
    )?;
    let judged =
        gauge(registry, "serin_guard_judged_seconds", "Traffic that the evidence rests on, in seconds.", &of_canary)?;
    let alarm =
        gauge(registry, "serin_canary_alarm", "1 while a person has to see to the canary's state.", &of_canary)?;
    let epoch = gauge(registry, "serin_canary_epoch", "Number of the epoch in force.", &of_canary)?;
    for (key, posted) in &posting.canaries {
        let CanaryPosting { state, .. } = posted;
        let labels = [key.namespace(), key.name()];
        evidence.with_label_values(&labels).set(state.evidence.ln_e());
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
        let (judged_s, number) = (state.evidence.judged_ms() as f64 / 1_000.0, state.epoch.id.0 as f64);
        judged.with_label_values(&labels).set(judged_s);
        epoch.with_label_values(&labels).set(number);
        alarm.with_label_values(&labels).set(f64::from(u8::from(posted.alarm.is_some())));
    }
    let saves = counter(registry, "serin_state_save_failures_total", "Saves of states that failed.", &[])?;
    saves.with_label_values::<&str>(&[]).inc_by(posting.tally.save_failures);
    let refused = gauge(
        registry,
        "serin_config_refused",
        "1 while the configuration on disk is refused and an older one is in force.",
        &[],
    )?;
    refused.with_label_values::<&str>(&[]).set(f64::from(u8::from(!posting.refused_config.is_empty())));
    let generation = gauge(registry, "serin_table_generation", "Number of the routing table in force.", &[])?;
    #[expect(clippy::cast_precision_loss, reason = "tables are numbered from 1")]
    generation.with_label_values::<&str>(&[]).set(posting.generation as f64);
    Ok(())
}

fn edge<P: DataPlane>(registry: &Registry, sources: &Sources<P>) -> Result<(), prometheus::Error> {
    let edge = sources.plane.edge();
    let open = gauge(registry, "serin_connections_open", "Client connections open now.", &[])?;
    #[expect(clippy::cast_precision_loss, reason = "connections are far fewer than 2^53")]
    open.with_label_values::<&str>(&[]).set(edge.connections_open as f64);
    let total = counter(registry, "serin_connections_total", "Client connections since the start.", &[])?;
    total.with_label_values::<&str>(&[]).inc_by(edge.connections_total);
    let refused =
        counter(registry, "serin_refused_total", "What clients sent that was not routed, by reason.", &["reason"])?;
    for (reason, count) in edge.refused {
        refused.with_label_values(&[reason]).inc_by(count);
    }
    Ok(())
}

/// Serin's series per version. Written here because the client library cannot take a finished histogram.
fn requests(snapshot: &Snapshot) -> String {
    let mut by_canary: BTreeMap<&CanaryKey, EpochCounts> = BTreeMap::new();
    for (key, counts) in snapshot.iter() {
        by_canary.entry(&key.canary).or_default().merge(counts);
    }
    let per_class = |name: &str, help: &str, count: &dyn Fn(&EpochCounts, Arm, OutcomeClass) -> u64| {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} counter\n");
        for (labels, counts, arm) in arms(&by_canary) {
            for class in OutcomeClass::ALL {
                text += &format!("{name}{{{labels},class=\"{}\"}} {}\n", class.as_str(), count(counts, arm, class));
            }
        }
        text
    };
    let mut text = per_class(
        "serin_requests_total",
        "First attempts that ended at a version, by outcome.",
        &|counts, arm, class| counts.total(arm, class),
    );
    text += &per_class(
        "serin_served_total",
        "Answers that users got from a version, by outcome.",
        &|counts, arm, class| counts.arm(arm).served[class.index()],
    );
    text += &durations(&by_canary);
    text
}

fn durations(by_canary: &BTreeMap<&CanaryKey, EpochCounts>) -> String {
    let name = "serin_request_duration_seconds";
    let mut text =
        format!("# HELP {name} Time to the response head of first attempts, in seconds.\n# TYPE {name} histogram\n");
    for (labels, counts, arm) in arms(by_canary) {
        let latency = counts.latency(arm);
        for bound in BOUNDS_S {
            text += &format!("{name}_bucket{{{labels},le=\"{bound}\"}} {}\n", at_most(&latency, bound));
        }
        let count = latency.count();
        text += &format!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n");
        #[expect(clippy::cast_precision_loss, reason = "a sum for a page, exact to 15 digits")]
        let sum = latency.mean_us().unwrap_or(0.0) * count as f64 / 1e6;
        text += &format!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n");
    }
    text
}

/// Every canary and arm with its labels.
fn arms<'a>(by_canary: &'a BTreeMap<&CanaryKey, EpochCounts>) -> impl Iterator<Item = (String, &'a EpochCounts, Arm)> {
    by_canary.iter().flat_map(|(key, counts)| {
        Arm::ALL.into_iter().map(move |arm| {
            // Names of objects hold letters, digits, dots and dashes only, so there is nothing to escape.
            let labels =
                format!("namespace=\"{}\",canary=\"{}\",arm=\"{}\"", key.namespace(), key.name(), arm.as_str());
            (labels, counts, arm)
        })
    })
}

/// Latencies whose bucket lies at or below a bound, to the resolution of the histogram (1 %).
fn at_most(latency: &Buckets, bound_s: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are between 5 ms and a minute")]
    let bound = serin_measure::bucket::index_of((bound_s * 1e6) as u64);
    latency.iter().take_while(|(index, _)| *index <= bound).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serin_analysis::{Check, CheckOutcome, CheckResult, Checkpoint, Range};
    use serin_measure::{BootId, Cell, CellKey, EpochId};
    use serin_rollout::{Guard, GuardMode, Revision, State, Steps, Strategy, Target, Weight};
    use serin_route::RouteTable;

    use super::*;
    use crate::board::{Board, Ended, Tally};
    use crate::plane::{EdgeView, Trip};
    use crate::store::Version;

    /// A data plane that has counted a few requests.
    struct Plane;

    impl DataPlane for Plane {
        fn boot(&self) -> BootId {
            BootId(1)
        }
        fn trip(&self, _: &Trip) {}
        fn trips(&self) -> Vec<Trip> {
            Vec::new()
        }
        fn publish(&self, _: RouteTable) {}
        fn arm(&self, _: &CanaryKey, _: Option<Checkpoint>) {}
        fn is_tripped(&self, _: &CanaryKey, _: u64) -> bool {
            false
        }
        fn cells(&self, _: &CanaryKey) -> Vec<(EpochId, Cell)> {
            Vec::new()
        }
        fn snapshot(&self, _: Option<&CanaryKey>) -> Snapshot {
            let mut counts = EpochCounts::default();
            counts.canary.evidence.classes[OutcomeClass::S2xx.index()] = 9;
            counts.canary.evidence.classes[OutcomeClass::S5xx.index()] = 1;
            counts.canary.served[OutcomeClass::S2xx.index()] = 9;
            counts.canary.latency_ok.record_n(20_000, 9);
            counts.canary.latency_failed.record_n(2_000_000, 1);
            let key =
                |epoch| CellKey { boot: BootId(1), canary: CanaryKey::new("test", "shop"), epoch: EpochId(epoch) };
            [(key(1), counts.clone()), (key(2), counts)].into_iter().collect()
        }
        fn edge(&self) -> EdgeView {
            EdgeView { connections_open: 2, connections_total: 5, refused: vec![("malformed", 3)] }
        }
    }

    fn posted() -> Posting {
        let weight = |percent| Weight::new(percent).expect("a weight");
        let check = |name: &str, kind| Check {
            name: name.to_owned(),
            kind,
            range: Range { min: None, max: None },
            interval_ms: 1,
        };
        let plan = Plan {
            canary: CanaryKey::new("test", "shop"),
            target: Target { kind: "Deployment".to_owned(), name: "shop-app".to_owned() },
            revision: Revision("2".to_owned()),
            strategy: Strategy::Weighted(Steps::by(weight(20), weight(60)).expect("steps")),
            skip_analysis: false,
            threshold: 5,
            interval_ms: 10_000,
            progress_deadline_ms: 600_000,
            checks: vec![
                check("request-success-rate", CheckKind::SuccessRate),
                check("request-duration", CheckKind::Duration),
            ],
            guard: Guard { mode: GuardMode::Enforce, tolerance: 0.01, warm_up_ms: 10_000 },
        };
        let state = State { phase: Phase::Progressing, weight: weight(20), ..State::new(0) };
        let value = |name: &str, value| CheckResult {
            name: name.to_owned(),
            value: Some(value),
            outcome: CheckOutcome::Passed,
        };
        let checks = vec![value("request-success-rate", 99.5), value("request-duration", 250.0)];
        let (key, run_from) = (plan.canary.clone(), EpochId(1));
        let (version, settled) = (Some(Version(1)), true);
        let events = Vec::new();
        let canary = CanaryPosting {
            plan,
            state,
            events,
            alarm: None,
            contested: None,
            checks,
            run_from,
            saved: true,
            version,
            settled,
        };
        let ended = Ended { promoted: 3, skipped: 1, failed: 2 };
        let tally = Tally { ended: [(key.clone(), ended)].into(), save_failures: 4 };
        let canaries = [(key, canary)].into();
        Posting { ready: true, leads: true, generation: 7, canaries, tally, ..Posting::default() }
    }

    #[test]
    fn flaggers_series_are_on_the_page_under_flaggers_names() {
        let board = Arc::new(Board::default());
        board.post(posted());
        board.tick_seconds().with_label_values(&["shop-app", "test"]).observe(0.02);
        let page = page(&Sources { board, plane: Arc::new(Plane), version: "0.0.0", seal: None }).expect("a page");
        // Counters of outcomes that did not happen are on the page too, and say nothing to a reader.
        let lines = page.lines().filter(|line| !line.starts_with("serin_") || !line.ends_with(" 0"));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    }
}
