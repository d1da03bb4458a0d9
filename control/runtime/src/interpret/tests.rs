//! What a set means, and what is said when it means nothing.

use serin_analysis::CheckKind;
use serin_config::{SourceFile, read_files};

use serin_route::{
    Audience, Conditions, HeaderMatch, Match, ParameterMatch, PathMatch, PathRewrite, Protocol, StringMatch,
};

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
fn checklist_113_parameters_are_conditions_and_labels_of_callers_match_nobody() {
    let audience = |analysis: &str| match workload("", &format!("stepWeight: 20\n{analysis}")).routing.audience {
        Audience::Matching(entries) => entries,
        Audience::Everyone => panic!("it is restricted"),
    };
    let exact = ParameterMatch { name: "beta".into(), value: StringMatch::Exact("1".into()) };
    let parameter = Match { parameters: vec![exact], ..Match::default() };
    assert_eq!(audience("match:\n- queryParams: {beta: {exact: '1'}}\n"), [parameter]);
    assert_eq!(audience("match:\n- headers: {x: {exact: a}}\n  sourceLabels: {app: b}\n"), []);
    problems(
        "",
        "stepWeight: 20\nmatch:\n- sourceLabels: {app: b}\n",
        &["spec.analysis.match[0].sourceLabels: callers have no labels here, so this entry matches no request"],
    );
}

#[test]
fn a_service_for_callers_with_labels_alone_is_for_nobody() {
    for entry in ["sourceLabels: {app: b}", "sourceNamespace: web"] {
        let service = format!("service: {{port: 80, match: [{{{entry}}}]}}");
        assert_eq!(workload(&service, RATE).routing.matches[..], [Match::nobody()], "{entry}");
    }
}

#[test]
fn checklist_114_conditions_of_service_and_analysis_are_combined() {
    let service = "service:\n  port: 80\n  match:\n  - uri: {prefix: /shop}\n    headers: {x-user: {regex: '.+'}}\n  - method: {exact: GET}\n";
    let routing = workload(service, "stepWeight: 20\nmatch:\n- headers: {x-user: {exact: insider}}\n").routing;
    let user = |value| vec![HeaderMatch::new("x-user", value)];
    let path = |headers| Match { path: Some(PathMatch::prefix("/shop")), ..Match::on(headers) };
    let get = |headers| Match { method: Some(StringMatch::Exact("GET".into())), ..Match::on(headers) };
    let insider = || user(StringMatch::Exact("insider".into()));
    let invited = [path(insider()), get(insider())];
    assert!(matches!(&routing.audience, Audience::Matching(entries) if *entries == invited), "{:?}", routing.audience);
    let served = [path(user(StringMatch::regex(".+").expect("a pattern"))), get(vec![])];
    assert_eq!(routing.matches[..], [&served[..], &invited[..]].concat());
    // Without conditions of its own the service is for all.
    let routing = workload("service: {port: 80}", "stepWeight: 20\nmatch:\n- headers: {x: {exact: z}}\n").routing;
    assert_eq!(routing.matches.len(), 0);
}

#[test]
fn a_prefix_means_what_it_means_to_the_provider() {
    let path = |provider: &str| {
        let spec = format!("provider: {provider}\nservice: {{port: 80, match: [{{uri: {{prefix: /api}}}}]}}");
        workload(&spec, RATE).routing.matches[0].path.clone()
    };
    assert_eq!(path("istio"), Some(PathMatch::prefix("/api")));
    assert_eq!(path("gatewayapi:v1"), Some(PathMatch::elements("/api")));
    let rewrite = |spec: &str| workload(&format!("{spec}}}}}"), RATE).routing.edits.path.clone();
    let full = Some(PathRewrite::Full("/v2".into()));
    let prefix = Some(PathRewrite::Prefix("/v2".into()));
    assert_eq!(rewrite("service: {port: 80, rewrite: {uri: /v2, type: ReplaceFullPath"), prefix);
    assert_eq!(rewrite("provider: gatewayapi:v1\nservice: {port: 80, rewrite: {uri: /v2"), full);
    assert_eq!(
        rewrite("provider: gatewayapi:v1\nservice: {port: 80, rewrite: {uri: /v2, type: ReplacePrefixMatch"),
        prefix
    );
}

#[test]
fn edits_are_taken_over_or_refused_with_their_place() {
    let service = "service:\n  port: 80\n  rewrite: {authority: other}\n  headers:\n    request: {add: {x-a: '50%%'}, remove: [X-B]}\n    response: {set: {x-c: d}}\n";
    let edits = workload(service, RATE).routing.edits;
    assert_eq!(edits.authority.as_deref(), Some("other"));
    assert_eq!(edits.request.appended().collect::<Vec<_>>(), [("x-a", "50%")]);
    assert!(edits.request.drops("x-b") && edits.response.drops("x-c"));
    problems(
        "service:\n  port: 80\n  rewrite: {uri: '/a b', authority: 'a/b'}\n  match: [{uri: {exact: api}, headers: {x: {regex: '('}}}]\n  headers:\n    request: {set: {Host: other}}\n    response: {add: {x-d: '%PROTOCOL%'}}\n",
        RATE,
        &[
            "spec.service.rewrite.uri: \"/a b\" is no path: it has spaces, a query, or characters that have to be encoded",
            "spec.service.rewrite.authority: \"a/b\" is no host, with or without a port",
            "spec.service.match[0].uri.exact: \"api\" does not begin with a slash, so it matches no path",
            "spec.service.match[0].headers[\"x\"].regex: this pattern cannot be used: unclosed group",
            "spec.service.headers.request: host is set by the proxy itself: it says how a message is sent, not what it says",
            "spec.service.headers.response.add[\"x-d\"]: \"%PROTOCOL%\" has a percent sign, which Envoy takes for one of its variables",
        ],
    );
}

#[test]
fn a_cors_policy_is_taken_over() {
    let service = "service:\n  port: 80\n  corsPolicy: {allowOrigin: ['*'], allowOrigins: [{prefix: 'https://'}], allowMethods: [GET, PUT], maxAge: 24h, allowCredentials: true}\n";
    let cors = workload(service, RATE).routing.edits.cors.clone().expect("a policy");
    assert_eq!(cors.origins, [StringMatch::Present, StringMatch::Prefix("https://".into())]);
    assert_eq!((cors.methods.as_deref(), cors.max_age_s, cors.credentials), (Some("GET,PUT"), Some(86_400), true));
    assert_eq!(workload("service: {port: 80, corsPolicy: {allowMethods: [GET]}}", RATE).routing.edits.cors, None);
    problems(
        "service:\n  port: 80\n  corsPolicy: {allowOrigins: [{regex: '('}], allowHeaders: ['a, b'], maxAge: soon}\n",
        RATE,
        &[
            "spec.service.corsPolicy.allowOrigins[0].regex: this pattern cannot be used: unclosed group",
            "spec.service.corsPolicy.allowHeaders[0]: \"a, b\" is no method and no name of a header field",
            "spec.service.corsPolicy.maxAge: is no duration, or one below zero",
        ],
    );
}

#[test]
fn canaries_may_share_a_host_if_their_conditions_differ() {
    let other_backend = BACKEND.replace("podinfo", "other");
    let named = |name: &str, prefix: &str| {
        let spec = format!("service: {{port: 80, hosts: [shop], match: [{{uri: {{prefix: {prefix}}}}}]}}");
        canary(&spec, RATE).replace("podinfo", name)
    };
    let found = |one: &str, other: &str| {
        let documents = [BACKEND, &named("podinfo", one), &other_backend, &named("other", other)];
        interpreted(&documents).problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("/a", "/b"), [""; 0]);
    assert_eq!(
        found("/a", "/a"),
        ["canary podinfo.default answers for shop already; give each its own service.hosts or service.match"]
    );
}

#[test]
fn how_backends_are_spoken_to_is_taken_over_or_refused_with_its_place() {
    let upstream = |service: &str| workload(&format!("service: {{port: 80, {service}}}"), RATE).routing.upstream;
    for (service, protocol, is_tls) in [
        ("portName: web", Protocol::Http1, false),
        ("portName: grpc", Protocol::Http2, false),
        ("portName: http2-api", Protocol::Http2, false),
        ("portName: grpc, appProtocol: http", Protocol::Http1, false),
        ("appProtocol: kubernetes.io/h2c", Protocol::Http2, false),
        ("appProtocol: https", Protocol::Agreed, true),
        ("trafficPolicy: {tls: {mode: SIMPLE, sni: inside}}", Protocol::Http1, true),
        ("appProtocol: https, trafficPolicy: {tls: {mode: DISABLE}}", Protocol::Http1, false),
        ("trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}", Protocol::Http2, false),
    ] {
        let found = upstream(service);
        assert_eq!((found.protocol, found.tls.is_some()), (protocol, is_tls), "{service}");
    }
    let found = upstream("timeout: 15s, backendTimeout: 2s, retries: {attempts: 3, perTryTimeout: 3s}");
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!((found.timeout, found.retries.try_timeout, found.retries.attempts), (seconds(15), seconds(2), 3));
    assert_eq!(found.retries.on, Conditions::istio_default());
    problems(
        "service:\n  port: 80\n  appProtocol: mongo\n  timeout: soon\n  retries: {attempts: 11, retryOn: '5xx,often'}\n  trafficPolicy: {tls: {mode: MUTUAL, caCertificates: ca.pem}}\n",
        RATE,
        &[
            "spec.service.appProtocol: \"mongo\" is no protocol that Serin speaks to backends",
            "spec.service.timeout: \"soon\" is no duration, or one below zero",
            "spec.service.retries.attempts: 11 is not between 0 and 10",
            "spec.service.retries.retryOn: \"often\" is no condition for a retry",
            "spec.service.trafficPolicy.tls.mode: MUTUAL needs a certificate and a key to show",
            "spec.service.trafficPolicy.tls.caCertificates: \"ca.pem\" cannot be used: it is no whole path",
        ],
    );
}

#[test]
fn what_is_not_honoured_yet_is_refused_with_its_path() {
    problems(
        "suspend: true\nskipAnalysis: false\nservice: {port: 80, mirror: [{backendRef: {name: x, port: 80}}]}",
        "stepWeight: 20\nmirror: false\nstepWeightPromotion: 10\nmetrics:\n- {name: up, query: up}\n- {name: other, templateRef: {name: z}}\nwebhooks: []\n",
        &[
            "spec.suspend: not honoured by this version of Serin yet",
            "spec.service.mirror: not honoured by this version of Serin yet",
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
