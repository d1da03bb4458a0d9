//! Each way in which a Canary can be wrong, as a change to one that is right.

use super::*;
use crate::decode::decode;
use crate::document::read_documents;

/// A Canary that nothing is wrong with; `{spec}` and `{analysis}` take more fields.
const GOOD: &str = "\
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
{spec}
  analysis:
    interval: 30s
    threshold: 5
    stepWeight: 10
{analysis}
";

fn canary_of(text: &str) -> Canary {
    let reading = read_documents("canary.yaml", text);
    decode::<Canary>(&reading.documents[0]).expect("the text decodes").value
}

#[track_caller]
fn check_text(text: &str, expected: &[&str]) {
    let found: Vec<String> = canary_of(text)
        .validate()
        .into_iter()
        .map(|finding| {
            let help = finding.help.map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{:?} {}: {}{help}", finding.severity, finding.path, finding.message)
        })
        .collect();
    assert_eq!(found, expected, "of {text}");
}

#[track_caller]
fn check(change: &[(&str, &str)], expected: &[&str]) {
    let text = change.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is in the text");
        text.replace(from, to)
    });
    check_text(&text.replace("{spec}", "").replace("{analysis}", ""), expected);
}

#[track_caller]
fn check_analysis(fields: &str, expected: &[&str]) {
    check(&[("{analysis}", &format!("    {fields}"))], expected);
}

#[track_caller]
fn check_service(fields: &str, expected: &[&str]) {
    check(&[("{spec}", &format!("  service: {{port: 80, {fields}}}"))], expected);
}

#[test]
fn a_good_canary_has_no_findings() {
    check(&[], &[]);
}

#[test]
fn checklist_5_what_is_required_is_named_all_at_once() {
    check_text(
        "spec: {}",
        &[
            "Error metadata.name: is missing",
            "Error spec.targetRef: is missing (name the workload that is rolled out)",
            "Error spec.analysis: is missing (it needs interval, threshold and stepWeight at least)",
        ],
    );
    check_text(
        "{metadata: {name: a}, spec: {targetRef: {}, analysis: {}}}",
        &[
            "Error spec.targetRef.kind: is missing",
            "Error spec.targetRef.name: is missing",
            "Error spec.targetRef.apiVersion: is missing",
            "Error spec.analysis.interval: is missing (time between two checks, such as 30s)",
            "Error spec.analysis.threshold: is missing (failed checks before a rollback, such as 5)",
            "Error spec.analysis: has none of stepWeight, stepWeights, iterations (stepWeight and stepWeights move weights \
             step by step, iterations is for blue/green and A/B)",
        ],
    );
}

#[test]
fn checklist_6_a_canary_has_one_strategy() {
    let help = "(stepWeight and stepWeights move weights step by step, iterations is for blue/green and A/B)";
    check_analysis(
        "iterations: 5",
        &[&format!("Error spec.analysis.iterations: cannot stand beside stepWeight {help}")],
    );
    check_analysis(
        "stepWeights: [1]",
        &[&format!("Error spec.analysis.stepWeights: cannot stand beside stepWeight {help}")],
    );
    check(&[("stepWeight: 10", "iterations: 5")], &[]);
    check(&[("stepWeight: 10", "stepWeights: [10, 20, 60]")], &[]);
    check(&[("stepWeight: 10", "stepWeights: []")], &["Error spec.analysis.stepWeights: is empty"]);
}

#[test]
fn checklist_7_and_12_intervals_are_explained() {
    let refused = "is refused: an interval begins with whole minutes or seconds, such as 90s, 5m or 1m30s";
    check(&[("30s", "1h")], &[&format!("Error spec.analysis.interval: \"1h\" {refused} (write 60m)")]);
    check(&[("30s", "1m30s")], &[]);
    check(&[("30s", "10ms")], &["Warning spec.analysis.interval: 10ms is raised to 1s, the shortest interval"]);
    let minute = "\"5seconds\" cannot be read as a duration, so it counts as 1m, as it does in Flagger";
    check(&[("30s", "5seconds")], &[&format!("Warning spec.analysis.interval: {minute}")]);
    check_analysis(
        "metrics: [{name: request-duration, interval: 5seconds}, {name: a, interval: 5seconds}, {name: b, interval: 1h}]",
        &[
            &format!("Warning spec.analysis.metrics[0].interval: {minute}"),
            &format!("Error spec.analysis.metrics[2].interval: \"1h\" {refused} (write 60m)"),
        ],
    );
    check_analysis(
        "webhooks: [{name: a, url: \"http://a\", timeout: 1h}, {name: b, url: \"http://b\", timeout: 1s-5s}]",
        &[
            &format!("Error spec.analysis.webhooks[0].timeout: \"1h\" {refused} (write 60m)"),
            "Error spec.analysis.webhooks[1].timeout: \"1s-5s\" has the unit \"s-\", which is not one of ns, us, ms, s, m, h",
        ],
    );
}

#[test]
fn weights_are_percentages() {
    check(&[("stepWeight: 10", "stepWeight: 130")], &["Error spec.analysis.stepWeight: 130 is more than 100"]);
    check(&[("stepWeight: 10", "stepWeight: -1")], &["Error spec.analysis.stepWeight: -1 is less than 0"]);
    check(
        &[("stepWeight: 10", "stepWeights: [10, 101]")],
        &["Error spec.analysis.stepWeights[1]: 101 is more than 100"],
    );
    check_analysis(
        "{maxWeight: 101, mirrorWeight: -1, canaryReadyThreshold: 200}"
            .trim_matches(['{', '}'])
            .replace(", ", "\n    ")
            .as_str(),
        &[
            "Error spec.analysis.maxWeight: 101 is more than 100",
            "Error spec.analysis.mirrorWeight: -1 is less than 0",
            "Error spec.analysis.canaryReadyThreshold: 200 is more than 100",
        ],
    );
}

#[test]
fn steps_that_never_move_on_are_warned_of() {
    check(
        &[("stepWeight: 10", "stepWeight: 0")],
        &["Warning spec.analysis.stepWeight: a step of 0 never moves the canary on"],
    );
    check(
        &[("stepWeight: 10", "stepWeights: [10, 10]")],
        &[
            "Warning spec.analysis.stepWeights[1]: is not more than the weight before it (weights grow from step to step)",
        ],
    );
}

#[test]
fn checklist_9_a_service_needs_a_port_if_it_is_there() {
    check(
        &[("{spec}", "  service: {}")],
        &["Error spec.service.port: is missing (the port that clients use, such as 80)"],
    );
    check(&[("{spec}", "  service: {port: 0}")], &["Error spec.service.port: 0 is less than 1"]);
    check_service("targetPort: 70000", &["Error spec.service.targetPort: 70000 is more than 65535"]);
    check_service("targetPort: http", &[]);
}

#[test]
fn the_shape_of_a_service_is_checked() {
    let gateways = vec!["{name: g}"; 33].join(", ");
    check_service(
        &format!("gatewayRefs: [{gateways}]"),
        &["Error spec.service.gatewayRefs: has 33 entries, 32 are the most"],
    );
    check_service(
        "gatewayRefs: [{port: 0}]",
        &[
            "Error spec.service.gatewayRefs[0].name: is missing",
            "Error spec.service.gatewayRefs[0].port: 0 is less than 1",
        ],
    );
    check_service(
        "match: [{uri: {exact: a, prefix: b}, headers: {x-a: {prefix: a, regex: b}}}]",
        &[
            "Error spec.service.match[0].uri: has more than one of exact, prefix, regex",
            "Error spec.service.match[0].headers[\"x-a\"]: has more than one of exact, prefix, regex",
        ],
    );
    check_service(
        "mirror: [{backendRef: {name: b}}]",
        &["Error spec.service.mirror[0].backendRef.port: is missing (a Service is reached by its port)"],
    );
    check_service(
        "corsPolicy: {allowOrigins: [{}]}",
        &["Error spec.service.corsPolicy.allowOrigins[0]: has none of exact, prefix, regex"],
    );
    check_service(
        "trafficPolicy: {loadBalancer: {}}",
        &["Error spec.service.trafficPolicy.loadBalancer: has neither simple nor consistentHash"],
    );
    check_service(
        "trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
        &["Error spec.service.trafficPolicy.loadBalancer: has both simple and consistentHash"],
    );
    check_service(
        "trafficPolicy: {loadBalancer: {consistentHash: {}}}",
        &[
            "Error spec.service.trafficPolicy.loadBalancer.consistentHash: needs exactly one of httpHeaderName, httpCookie, \
         useSourceIp, httpQueryParameterName",
        ],
    );
}

#[test]
fn what_is_listed_in_an_analysis_is_checked() {
    check_analysis(
        "match: [{headers: {a: {}, b: {exact: x, suffix: z}}}]",
        &[
            "Error spec.analysis.match[0].headers[\"a\"]: has none of exact, prefix, suffix, regex",
            "Error spec.analysis.match[0].headers[\"b\"]: has more than one of exact, prefix, suffix, regex",
        ],
    );
    check_analysis(
        "metrics: [{templateRef: {}, thresholdRange: {min: 5, max: 1}}]",
        &[
            "Error spec.analysis.metrics[0].name: is missing",
            "Error spec.analysis.metrics[0].templateRef.name: is missing",
            "Warning spec.analysis.metrics[0].thresholdRange: no value passes: min 5 is more than max 1",
        ],
    );
    check_analysis(
        "alerts: [{}, {name: a, providerRef: {}}]",
        &[
            "Error spec.analysis.alerts[0].name: is missing",
            "Error spec.analysis.alerts[0].providerRef: is missing",
            "Error spec.analysis.alerts[1].providerRef.name: is missing",
        ],
    );
    check_analysis(
        "webhooks: [{url: \"ftp://a\", retries: -1}]",
        &[
            "Error spec.analysis.webhooks[0].name: is missing",
            "Error spec.analysis.webhooks[0].url: \"ftp://a\" is not a URL of http or https",
            "Error spec.analysis.webhooks[0].retries: -1 is less than 0",
        ],
    );
}

#[test]
fn checklist_30_the_two_cookies_have_two_names() {
    check_analysis(
        "sessionAffinity: {cookieName: a, primaryCookieName: a}",
        &[
            "Error spec.analysis.sessionAffinity.primaryCookieName: can't use the same cookie name for both primary and cookie \
         name; please update them to be different",
        ],
    );
    check_analysis(
        "sessionAffinity: {cookieName: a b}",
        &[
            "Error spec.analysis.sessionAffinity.cookieName: \"a b\" cannot be a cookie's name (a name has letters, digits and \
         signs such as - and _, without blanks (RFC 6265, section 4.1.1))",
        ],
    );
    check_analysis("sessionAffinity: {}", &["Error spec.analysis.sessionAffinity.cookieName: is missing"]);
}

#[test]
fn checklist_31_knative_targets_and_the_knative_provider_need_each_other() {
    let knative = "{apiVersion: serving.knative.dev/v1, kind: Service";
    let deployment = "{apiVersion: apps/v1, kind: Deployment";
    check(
        &[(deployment, knative)],
        &["Error spec.provider: a Knative Service can only be rolled out by the provider knative"],
    );
    check(
        &[("{spec}", "  provider: knative")],
        &[
            "Error spec.provider: knative can only roll out a Knative Service (the target must have kind Service and apiVersion \
         serving.knative.dev/v1)",
        ],
    );
    check(&[(deployment, knative), ("{spec}", "  provider: knative")], &[]);
    let autoscaler = "  provider: knative\n  autoscalerRef: {apiVersion: v2, kind: HorizontalPodAutoscaler, name: a}";
    check(
        &[(deployment, knative), ("{spec}", autoscaler)],
        &["Error spec.autoscalerRef: can't use autoscaler with Knative Service"],
    );
}

#[test]
fn references_have_a_version_a_kind_and_a_name() {
    check(
        &[("{spec}", "  ingressRef: {kind: Route}\n  autoscalerRef: {apiVersion: v2, kind: VPA, name: a}")],
        &[
            "Error spec.autoscalerRef.kind: \"VPA\" is not one of HorizontalPodAutoscaler, ScaledObject",
            "Error spec.ingressRef.apiVersion: is missing",
            "Error spec.ingressRef.name: is missing",
            "Error spec.ingressRef.kind: \"Route\" is not Ingress",
        ],
    );
    check(&[("{apiVersion: apps/v1, kind: Deployment", "{kind: Backend")], &[]);
    check(
        &[("name: podinfo, namespace: test", "name: Pod_info, namespace: test")],
        &[
            "Error metadata.name: \"Pod_info\" is not a name (a name has lower-case letters, digits, - and ., and begins and ends \
         with a letter or digit)",
        ],
    );
}

#[test]
fn the_guard_takes_what_can_be_shown() {
    check_analysis(
        "guard: {mode: off, falseRollback: 0.1%, tolerance: 0%, margin: 0.5%, latencyTolerance: 150%, budget: 20, slo: 99.9%, \
         warmup: 0, bakeTime: 1h, maxDuration: 30m, burstGuard: 1s, stickyKey: \"cookie:sid\", settle: 5s, pace: evidence}",
        &[],
    );
    check_analysis(
        "guard: {falseRollback: 0%, slo: 100%, budget: 0, warmup: -1s, maxDuration: 0s}",
        &[
            "Error spec.analysis.guard.falseRollback: 0% can never be shown (give a share above 0%)",
            "Error spec.analysis.guard.slo: 100% is not less than 100%",
            "Error spec.analysis.guard.budget: 0 is less than 1",
            "Error spec.analysis.guard.warmup: -1s is less than 0s",
            "Error spec.analysis.guard.maxDuration: 0s is no time at all (leave the field out instead)",
        ],
    );
}

#[test]
fn absent_fields_mean_what_they_mean_to_flagger() {
    use std::time::Duration;
    let canary = canary_of(&GOOD.replace("{spec}", "  service: {port: 80}").replace(
        "{analysis}",
        "    sessionAffinity: {cookieName: a}\n    webhooks: [{name: a, url: b, type: \"\"}]\n    \
         alerts: [{severity: \"\"}]\n    metrics: [{name: request-duration}, {name: x, templateRef: {name: t}}]",
    ));
    let spec = &canary.spec;
    let analysis = spec.analysis.as_ref().expect("the text has an analysis");
    assert_eq!(spec.progress_deadline(), Duration::from_secs(600), "checklist 14");
    assert_eq!(analysis.max_weight(), 100, "checklist 15");
    assert_eq!((analysis.primary_ready_threshold(), analysis.canary_ready_threshold()), (100, 100), "checklist 16");
    let affinity = analysis.session_affinity.as_ref().expect("the text has an affinity");
    assert_eq!(affinity.max_age_s(), 86_400, "checklist 17");
    let hook = &analysis.webhooks()[0];
    assert_eq!(hook.hook_type(), crate::canary::HookType::Rollout, "checklist 18");
    assert_eq!((hook.timeout(), hook.retries()), (Duration::from_secs(10), 0), "checklist 19");
    assert_eq!(analysis.alerts()[0].severity(), crate::canary::AlertSeverity::Info, "checklist 185");
    assert_eq!((analysis.mirror(), analysis.mirror_weight(), analysis.step_weight_promotion()), (false, 100, None));
    assert_eq!(analysis.metrics()[0].interval_text(), Some("1m"));
    assert_eq!(analysis.metrics()[1].interval_text(), None, "templates have no default");
    assert_eq!(spec.apex_name(), "podinfo");
    assert_eq!((canary.name(), canary.namespace()), ("podinfo", "test"));
}

#[test]
fn present_fields_are_brought_to_the_values_that_are_honoured() {
    let text = |analysis: &str| GOOD.replace("{spec}", "").replace("{analysis}", analysis);
    let analysis = |text: &str| canary_of(text).spec.analysis.expect("the text has an analysis");
    let zero = analysis(&text("    maxWeight: 0\n    mirrorWeight: 0").replace("threshold: 5", "threshold: 0"));
    assert_eq!(zero.threshold(), 1, "checklist 13");
    assert_eq!((zero.max_weight(), zero.mirror_weight()), (100, 100));
    let weights = analysis(&text("    maxWeight: 50").replace("stepWeight: 10", "stepWeights: [10, 60.0]"));
    assert_eq!(weights.max_weight(), 60, "the last of stepWeights wins over maxWeight");
    assert_eq!(analysis(&text("").replace("30s", "1m30s")).interval().as_secs(), 90);
}
