//! Fields of a Canary that this build does not honour yet, and fields that mean nothing without a mesh or a cluster.
//!
//! Two reviewed lists. A field leaves the first one when it is honoured.

use serde_json::Value;
use serin_config::{Canary, FieldPath, Located, Problem, Severity};

use super::Ground;

/// Refused where they are set to anything that would change what happens. A segment `[]` stands for every item.
const NOT_YET: &[&str] = &[
    "spec.revertOnDeletion",
    "spec.suspend",
    "spec.analysis.iterations",
    "spec.analysis.mirror",
    "spec.analysis.stepWeightPromotion",
    "spec.analysis.primaryReadyThreshold",
    "spec.analysis.canaryReadyThreshold",
    "spec.analysis.sessionAffinity",
    "spec.analysis.webhooks",
    "spec.analysis.alerts",
    "spec.analysis.metrics[].templateRef",
    "spec.analysis.metrics[].query",
    "spec.analysis.guard.falseRollback",
    "spec.analysis.guard.margin",
    "spec.analysis.guard.latencyTolerance",
    "spec.analysis.guard.budget",
    "spec.analysis.guard.slo",
    "spec.analysis.guard.bakeTime",
    "spec.analysis.guard.maxDuration",
    "spec.analysis.guard.burstGuard",
    "spec.analysis.guard.stickyKey",
    "spec.analysis.guard.settle",
    "spec.analysis.guard.pace",
    "spec.service.match[].port",
    "spec.service.mirror",
    "spec.service.trafficPolicy.connectionPool.http.http1MaxPendingRequests",
    "spec.service.trafficPolicy.connectionPool.http.http2MaxRequests",
    "spec.service.trafficPolicy.connectionPool.http.idleTimeout",
    "spec.service.trafficPolicy.connectionPool.http.maxRequestsPerConnection",
    "spec.service.trafficPolicy.connectionPool.http.maxRetries",
    "spec.service.trafficPolicy.loadBalancer",
    "spec.service.trafficPolicy.outlierDetection",
];

/// Named in a notice: they concern a mesh, a cluster or a metrics server, and there is none here.
const ELSEWHERE: &[&str] = &[
    "spec.metricsServer",
    "spec.autoscalerRef",
    "spec.ingressRef",
    "spec.routeRef",
    "spec.upstreamRef",
    "spec.service.gateways",
    "spec.service.gatewayRefs",
    "spec.service.match[].gateways",
    "spec.service.delegation",
    "spec.service.headless",
    "spec.service.portDiscovery",
    "spec.service.trafficDistribution",
    "spec.service.trafficPolicy.tls",
    "spec.service.meshName",
    "spec.service.backends",
    "spec.service.apex",
    "spec.service.primary",
    "spec.service.canary",
    "spec.service.unmanagedMetadata",
];

/// Nobody meets them: callers come from outside a mesh, where they have no labels. The entry is left out, and that is told.
const OF_CALLERS: &[&str] = &[
    "spec.analysis.match[].sourceLabels",
    "spec.service.match[].sourceLabels",
    "spec.service.match[].sourceNamespace",
];

/// Honoured in no cluster yet, on top of [`NOT_YET`]: they change which objects are made, or how.
const NOT_YET_IN_A_CLUSTER: &[&str] = &[
    "spec.autoscalerRef",
    "spec.service.headless",
    "spec.service.portDiscovery",
    "spec.service.trafficDistribution",
    "spec.service.unmanagedMetadata",
];

/// What has to be said about a canary's fields.
pub(super) fn refusals(canary: &Located<Canary>, ground: Ground) -> Vec<Problem> {
    let document = canary.document.to_json();
    let mut problems = Vec::new();
    let (not_yet, elsewhere) = match ground {
        Ground::Files => (&[][..], ELSEWHERE),
        // What concerns a mesh is refused with its provider, or taken over with it.
        Ground::Cluster => (NOT_YET_IN_A_CLUSTER, &[][..]),
    };
    for path in NOT_YET.iter().chain(not_yet).flat_map(|pattern| set_paths(&document, pattern)) {
        let message = "not honoured by this version of Serin yet".to_owned();
        let help = "remove it, or wait for a version that honours it; it is never ignored in silence".to_owned();
        problems.push(canary.problem_at(&path, message, Some(help)));
    }
    for path in elsewhere.iter().flat_map(|pattern| set_paths(&document, pattern)) {
        let message = "has no effect here: it concerns a mesh or a cluster, and Serin runs without one".to_owned();
        problems.push(Problem { severity: Severity::Warning, ..canary.problem_at(&path, message, None) });
    }
    for path in OF_CALLERS.iter().flat_map(|pattern| set_paths(&document, pattern)) {
        let message = "callers have no labels here, so this entry matches no request".to_owned();
        problems.push(Problem { severity: Severity::Warning, ..canary.problem_at(&path, message, None) });
    }
    if ground == Ground::Files && canary.value.spec.provider.as_deref().is_some_and(|provider| provider != "serin") {
        let message = "every provider means Serin's own routing here: it shifts the traffic itself".to_owned();
        problems.push(Problem { severity: Severity::Warning, ..canary.problem_at("spec.provider", message, None) });
    }
    for (index, metric) in canary.value.spec.analysis.iter().flat_map(|analysis| analysis.metrics()).enumerate() {
        if !metric.is_builtin() && metric.template_ref.is_none() && metric.query.is_none() {
            let name = metric.name.as_deref().unwrap_or_default();
            let path = format!("spec.analysis.metrics[{index}].name");
            let message = format!("{name:?} is no builtin check, and the metric has no query and no template");
            let help = "builtin are request-success-rate and request-duration".to_owned();
            problems.push(canary.problem_at(&path, message, Some(help)));
        }
    }
    problems
}

/// The paths that a pattern finds in a document, where the value would change anything.
fn set_paths(document: &Value, pattern: &str) -> Vec<String> {
    let Some((before, after)) = pattern.split_once("[]") else {
        let path = FieldPath::parse(pattern);
        return value_at(document, &path)
            .filter(|value| is_set(pattern, value))
            .map(|_| pattern.to_owned())
            .into_iter()
            .collect();
    };
    let items = value_at(document, &FieldPath::parse(before)).and_then(Value::as_array).map_or(0, Vec::len);
    (0..items).flat_map(|index| set_paths(document, &format!("{before}[{index}]{after}"))).collect()
}

fn value_at<'a>(document: &'a Value, path: &FieldPath) -> Option<&'a Value> {
    path.steps().iter().try_fold(document, |value, step| match step {
        serin_config::Step::Key(name) => value.get(name.as_str()),
        serin_config::Step::Index(index) => value.get(*index),
    })
}

/// Whether a value asks for anything: neither absent nor what is meant when it is absent.
fn is_set(path: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        // These two are spoken by Serin itself; the others are the mesh's, or none.
        Value::Object(fields) if path.ends_with("trafficPolicy.tls") => {
            !matches!(fields.get("mode").and_then(Value::as_str), Some("SIMPLE" | "MUTUAL"))
        }
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(number) if path.ends_with("ReadyThreshold") => number.as_f64() != Some(100.0),
        Value::Number(number) => number.as_f64() != Some(0.0),
        // The pace `interval` is Flagger's own.
        Value::String(text) => {
            !matches!((path, text.to_ascii_lowercase().as_str()), ("spec.analysis.guard.pace", "interval") | (_, ""))
        }
        Value::Bool(true) => true,
    }
}
