//! What a set means, and what is said when it means nothing.

use serin_analysis::CheckKind;
use serin_config::{SourceFile, read_files};

use super::*;

const BACKEND: &str = "
apiVersion: serin.dev/v1alpha1
kind: Backend
metadata: {name: podinfo}
spec:
  release: '2'
  versions:
  - {name: '1', endpoints: ['127.0.0.1:9001']}
  - {name: '2', endpoints: ['127.0.0.1:9002', '127.0.0.1:9003']}
";

fn canary(spec: &str, analysis: &str) -> String {
    let indent = |text: &str, by: &str| text.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
    format!(
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {{name: podinfo}}\nspec:\n  \
         targetRef: {{apiVersion: apps/v1, kind: Deployment, name: podinfo}}\n{}  \
         analysis:\n    interval: 10s\n    threshold: 3\n{}",
        indent(spec, "  "),
        indent(analysis, "    ")
    )
}

fn interpreted(documents: &[&str]) -> Interpreted {
    let bytes = documents.join("\n---\n").into_bytes();
    interpret(&read_files(&[SourceFile { name: "serin.yaml".to_owned(), bytes }]))
}

#[track_caller]
fn workload(spec: &str, analysis: &str) -> Workload {
    let interpreted = interpreted(&[BACKEND, &canary(spec, analysis)]);
    assert!(!interpreted.has_errors(), "{:?}", interpreted.problems);
    interpreted.workloads.into_iter().next().expect("one canary")
}

#[track_caller]
fn problems(spec: &str, analysis: &str, expected: &[&str]) {
    let found = interpreted(&[BACKEND, &canary(spec, analysis)]).problems;
    let found: Vec<_> =
        found.iter().map(|p| format!("{}: {}", p.path.clone().unwrap_or_default(), p.message)).collect();
    assert_eq!(found, expected);
}

const RATE: &str =
    "stepWeight: 20\nmaxWeight: 60\nmetrics:\n- name: request-success-rate\n  thresholdRange: {min: 99}\n";

#[test]
fn a_canary_and_its_backend_are_a_workload_and_a_deployment_is_taken_for_the_backend() {
    let workload = workload("progressDeadlineSeconds: 60\nservice: {port: 80, hosts: [App.Example.com]}", RATE);
    let plan = &workload.plan;
    assert_eq!(plan.canary, CanaryKey::new("default", "podinfo"));
    assert_eq!((plan.target_name(), plan.target.kind.as_str()), ("podinfo.default".to_owned(), "Deployment"));
    assert_eq!(plan.revision, Revision("2".to_owned()));
    assert_eq!((plan.interval_ms, plan.threshold, plan.progress_deadline_ms), (10_000, 3, 60_000));
    let weight = |percent| Weight::new(percent).expect("a weight");
    assert_eq!(plan.strategy, Strategy::Weighted(Steps::By { step: weight(20), max: weight(60) }));
    assert_eq!(
        (plan.checks[0].kind, plan.checks[0].range.min, plan.checks[0].interval_ms),
        (CheckKind::SuccessRate, Some(99.0), 60_000)
    );
    assert_eq!(workload.routing.hosts, [Host::Exact("app.example.com".into())]);
    let Reach::Versions(versions) = &workload.routing.reach else { panic!("a Backend lists versions") };
    assert_eq!(versions[&Revision("2".to_owned())].len(), 2);
}

#[test]
fn the_guard_follows_the_manifest_and_never_contradicts_it() {
    let guard = |analysis: &str| {
        let guard = workload("", analysis).plan.guard;
        (guard.mode, (guard.tolerance * 1e6).round() / 1e6, guard.warm_up_ms)
    };
    let with = |more: &str| guard(&format!("{RATE}{more}"));
    assert_eq!(with(""), (GuardMode::Enforce, 0.01, 10_000));
    assert_eq!(guard("stepWeight: 20\n"), (GuardMode::Observe, 0.001, 10_000));
    assert_eq!(guard("stepWeight: 20\nguard: {mode: enforce}\n"), (GuardMode::Enforce, 0.001, 10_000));
    assert_eq!(with("guard: {mode: observe}\n"), (GuardMode::Observe, 0.01, 10_000));
    assert_eq!(with("guard: {mode: off}\n").0, GuardMode::Off);
    assert_eq!(with("guard: {tolerance: 5%, warmup: 2s}\n"), (GuardMode::Enforce, 0.05, 2_000));
    assert_eq!(
        guard("stepWeight: 20\nmetrics:\n- {name: request-success-rate, threshold: 95}\n"),
        (GuardMode::Enforce, 0.05, 10_000)
    );
}

#[test]
fn checklist_172_the_older_threshold_is_a_minimum_for_rates_and_a_maximum_for_durations() {
    let analysis = "stepWeights: [1, 10, 100]\nmetrics:\n- {name: request-success-rate, threshold: 98}\n- {name: request-duration, threshold: 500, interval: 30s}\n- {name: request-duration}\n";
    let plan = workload("", analysis).plan;
    let ranges: Vec<_> =
        plan.checks.iter().map(|check| (check.range.min, check.range.max, check.interval_ms)).collect();
    assert_eq!(ranges, [(Some(98.0), None, 60_000), (None, Some(500.0), 30_000), (None, Some(0.0), 60_000)]);
}

#[test]
fn checklist_115_a_match_restricts_who_may_meet_the_canary() {
    let analysis = "stepWeight: 20\nmatch:\n- headers: {x-user: {exact: insider}}\n- headers: {cookie: {regex: '^(.*?;)?(type=insider)(;.*)?$'}}\n";
    assert!(matches!(workload("", analysis).routing.audience, Audience::Matching(entries) if entries.len() == 2));
    problems(
        "",
        "stepWeight: 20\nmatch:\n- headers: {x-user: {regex: '(unclosed'}}\n",
        &["spec.analysis.match[0].headers.x-user.regex: this pattern cannot be used: unclosed group"],
    );
}

#[test]
fn what_is_not_honoured_yet_is_refused_with_its_path() {
    problems(
        "suspend: true\nskipAnalysis: false\nservice: {port: 80, retries: {attempts: 3}, timeout: 5s, appProtocol: http}",
        "stepWeight: 20\nmirror: false\nstepWeightPromotion: 10\nmetrics:\n- {name: up, query: up}\n- {name: other, templateRef: {name: z}}\nwebhooks: []\n",
        &[
            "spec.suspend: not honoured by this version of Serin yet",
            "spec.service.retries: not honoured by this version of Serin yet",
            "spec.service.timeout: not honoured by this version of Serin yet",
            "spec.analysis.stepWeightPromotion: not honoured by this version of Serin yet",
            "spec.analysis.metrics[0].query: not honoured by this version of Serin yet",
            "spec.analysis.metrics[1].templateRef: not honoured by this version of Serin yet",
        ],
    );
}

#[test]
fn what_concerns_a_mesh_that_is_not_there_is_named_and_does_not_stop_anything() {
    let documents = canary(
        "provider: istio\nservice: {port: 80, gateways: [mesh], trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}",
        RATE,
    );
    let interpreted = interpreted(&[BACKEND, &documents]);
    assert_eq!((interpreted.has_errors(), interpreted.workloads.len()), (false, 1));
    let paths: Vec<_> = interpreted.problems.iter().filter_map(|problem| problem.path.as_deref()).collect();
    assert_eq!(paths, ["spec.provider", "spec.service.gateways", "spec.service.trafficPolicy.tls"]);
}

#[test]
fn a_metric_without_a_builtin_name_query_or_template_is_refused() {
    problems(
        "",
        "stepWeight: 20\nmetrics:\n- {name: my-metric, thresholdRange: {max: 1}}\n",
        &[
            "spec.analysis.metrics[0].name: \"my-metric\" is no builtin check, and the metric has no query and no template",
        ],
    );
}

#[test]
fn steps_have_to_arrive_somewhere() {
    let found = interpreted(&[BACKEND, &canary("", "stepWeights: [10, 50, 20]\n")]).problems;
    assert!(
        found.iter().any(|p| p.severity == Severity::Error && p.message == "20 comes after 50; weights have to rise"),
        "{found:?}"
    );
    let found = interpreted(&[BACKEND, &canary("", "stepWeight: 0\n")]).problems;
    assert!(
        found
            .iter()
            .any(|p| p.severity == Severity::Error && p.message.starts_with("a step or maximum of 0 never moves")),
        "{found:?}"
    );
}

#[test]
fn canaries_and_backends_have_to_go_together() {
    let lone = canary("", RATE);
    let found =
        |documents: &[&str]| interpreted(documents).problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        found(&[&lone]),
        [
            "serin.yaml:5:60: spec.targetRef.name: there is no Backend default/podinfo\n  help: add a document of kind Backend named podinfo that lists the versions and their endpoints"
        ]
    );
    let second = canary("", RATE).replacen("{name: podinfo}", "{name: second}", 1);
    assert_eq!(found(&[BACKEND, &lone, &second]).len(), 1);
    assert!(found(&[BACKEND, &lone, &second])[0].contains("is the target of canary default/podinfo already"));
    assert_eq!(
        found(&[BACKEND]),
        [
            "serin.yaml:4:18: warning: metadata.name: Backend default/podinfo has no Canary that targets it, so it gets no traffic"
        ]
    );
}

#[test]
fn a_backend_with_errors_is_not_said_to_be_missing_as_well() {
    let canary = canary("", RATE);
    let found = |backend: &str| {
        let problems = interpreted(&[backend, &canary]).problems;
        problems.iter().map(|problem| problem.path.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(found(&BACKEND.replace("127.0.0.1:9001", "127.0.0.1")), ["spec.versions[0].endpoints[0]"]);
    assert_eq!(found(&BACKEND.replace("serin.dev/v1alpha1", "serin.dev/v1")), ["apiVersion"]);
    assert_eq!(found(&BACKEND.replace("kind: Backend", "kind: [Backend")), [""]);
    // Somebody else's kind of this name forbids nothing, so the canary has to be told.
    assert_eq!(
        found(&BACKEND.replace("serin.dev/v1alpha1", "gateway.envoyproxy.io/v1alpha1")),
        ["", "spec.targetRef.name"]
    );
}

#[test]
fn an_endpoint_that_cannot_be_looked_up_is_named() {
    let backend = BACKEND.replace("127.0.0.1:9001", "no-such-host.invalid:9001");
    let found = interpreted(&[&backend, &canary("", RATE)]).problems;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path.as_deref(), Some("spec.versions[0].endpoints[0]"));
    assert_eq!(found[0].message, "\"no-such-host.invalid:9001\" cannot be looked up: no such host");
}

#[test]
fn two_canaries_that_answer_for_one_host_are_told_apart_or_refused() {
    let other_backend = BACKEND.replace("podinfo", "other");
    let other = canary("", RATE).replace("podinfo", "other");
    let found = interpreted(&[BACKEND, &canary("", RATE), &other_backend, &other]).problems;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].message.contains("answers for every host already")
            || found[0].message.contains("already; give each its own service.hosts")
    );
}
