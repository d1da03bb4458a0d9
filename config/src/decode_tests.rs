//! What a person is told about a field, word for word.

use crate::samples::{BACKEND, CANARY, check, check_change, read, rendered};

#[track_caller]
fn check_canary(from: &str, to: &str, problems: &str) {
    check_change(CANARY, from, to, problems);
}

#[test]
fn a_value_out_of_range_is_one_readable_error() {
    check_canary("stepWeight: 10", "stepWeight: 130", "a.yaml:15:17: spec.analysis.stepWeight: 130 is more than 100");
    check_canary(
        "interval: 30s",
        "interval: 1h",
        "a.yaml:13:15: spec.analysis.interval: \"1h\" is refused: an interval begins with whole minutes or seconds, such as \
         90s, 5m or 1m30s\n  help: write 60m",
    );
    check_canary(
        "interval: 30s",
        "interval: 5seconds",
        "a.yaml:13:15: warning: spec.analysis.interval: \"5seconds\" cannot be read as a duration, so it counts as 1m, as it \
         does in Flagger",
    );
}

#[test]
fn a_value_of_the_wrong_type_says_what_is_wanted() {
    let at = "a.yaml:14:16: spec.analysis.threshold: ";
    check_canary("threshold: 5", "threshold: x", &format!("{at}\"x\" is a string; a whole number is wanted"));
    check_canary("threshold: 5", "threshold: \"5\"", &format!("{at}\"5\" is a string; a whole number is wanted"));
    check_canary(
        "threshold: 5",
        "threshold: 2.5",
        &format!("{at}2.5 is a number with a fraction; a whole number is wanted"),
    );
    check_canary(
        "threshold: 5",
        "threshold: 1e300",
        &format!("{at}1e+300 is too large a number; a whole number is wanted"),
    );
    check_canary(
        "threshold: 5",
        "threshold: true",
        &format!("{at}true is a yes-or-no value; a whole number is wanted"),
    );
    check_canary(
        "threshold: 5",
        "threshold: [5]",
        "a.yaml:14:5: spec.analysis.threshold: a list is given; a whole number is wanted",
    );
    check_canary("threshold: 5", "threshold: 5.0", "");
    check_canary(
        "min: 99",
        "min: high",
        "a.yaml:19:16: spec.analysis.metrics[0].thresholdRange.min: \"high\" is a string; a number is wanted",
    );
    check_canary(
        "port: 80",
        "headless: 80",
        "a.yaml:11:15: spec.service.headless: 80 is a number; true or false is wanted",
    );
    check_canary(
        "name: podinfo",
        "name: 6",
        "a.yaml:4:9: metadata.name: 6 is a number; a string is wanted\n  help: put it in quotes",
    );
    check_canary(
        "name: podinfo",
        "name: y",
        "a.yaml:4:9: metadata.name: true is a yes-or-no value; a string is wanted\n  help: put it in quotes; without them \
         YAML takes y, n, yes, no, on and off for true and false",
    );
}

#[test]
fn a_value_of_the_wrong_shape_says_what_is_wanted() {
    check_canary(
        "port: 80",
        "hosts: {a: b}",
        "a.yaml:11:5: spec.service.hosts: a set of fields is given; a list is wanted",
    );
    check_canary(
        "port: 80",
        "targetPort: []",
        "a.yaml:11:5: spec.service.targetPort: a list is given; a port's number or name is wanted",
    );
    check_canary(
        "stepWeight: 10",
        "stepWeights: [1, x]",
        "a.yaml:15:22: spec.analysis.stepWeights[1]: \"x\" is a string; a whole number is wanted",
    );
    check(
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nspec: 5\n",
        "a.yaml:3:7: spec: 5 is a number; a set of fields is wanted",
    );
}

#[test]
fn checklist_8_a_word_that_is_not_known_names_those_that_are() {
    check_canary(
        "kind: Deployment",
        "kind: StatefulSet",
        "a.yaml:8:11: spec.targetRef.kind: \"StatefulSet\" is not one of DaemonSet, Deployment, Service, Backend",
    );
    check_canary(
        "kind: Deployment",
        "kind: deployment",
        "a.yaml:8:11: spec.targetRef.kind: \"deployment\" is not one of DaemonSet, Deployment, Service, Backend\n  help: did \
         you mean Deployment?",
    );
    check_canary("kind: Deployment", "kind: Backend", "");
    check_canary(
        "stepWeight: 10",
        "stepWeight: 10\n    webhooks: [{name: a, url: \"http://a\", type: pre-rolout}]",
        "a.yaml:16:49: spec.analysis.webhooks[0].type: \"pre-rolout\" is not one of confirm-rollout, pre-rollout, rollout, \
         confirm-traffic-increase, confirm-promotion, post-rollout, event, rollback\n  help: did you mean pre-rollout?",
    );
}

#[test]
fn every_misfit_of_a_document_is_told_at_once() {
    let text =
        CANARY.replace("threshold: 5", "threshold: x").replace("port: 80", "port: web").replace("min: 99", "min: z");
    check(
        &text,
        "a.yaml:11:11: spec.service.port: \"web\" is a string; a whole number is wanted\n\
         a.yaml:14:16: spec.analysis.threshold: \"x\" is a string; a whole number is wanted\n\
         a.yaml:19:16: spec.analysis.metrics[0].thresholdRange.min: \"z\" is a string; a number is wanted",
    );
}

#[test]
fn a_missing_field_is_told_where_it_belongs() {
    check_canary(
        "    threshold: 5\n",
        "",
        "a.yaml:12:3: spec.analysis.threshold: is missing\n  help: failed checks before a rollback, such as 5",
    );
    check_canary("name: podinfo", "labels: {a: b}", "a.yaml:3:1: metadata.name: is missing");
}

#[test]
fn nothing_means_absent() {
    for (from, to) in [
        ("    metrics:\n", "    alerts:\n    webhooks: null\n    sessionAffinity: ~\n    metrics:\n"),
        ("port: 80", "port: 80\n    hosts:\n    headers:\n    targetPort:"),
        ("name: podinfo", "name: podinfo\n  labels:\n  annotations: null"),
    ] {
        check_canary(from, to, "");
    }
    let set = read(&[("a.yaml", &CANARY.replace("name: podinfo\nspec", "name: podinfo\nstatus: {phase: 3}\nspec"))]);
    assert_eq!(rendered(&set), "", "a status is not read");
}

#[test]
fn checklist_10_unknown_fields_are_named_and_ignored() {
    check_canary(
        "stepWeight: 10",
        "stepWeight: 10\n    maxWieght: 50",
        "a.yaml:16:5: warning: spec.analysis.maxWieght: unknown field, ignored\n  help: did you mean maxWeight?",
    );
    check_canary(
        "min: 99",
        "min: 99\n          foo: 1",
        "a.yaml:20:11: warning: spec.analysis.metrics[0].thresholdRange.foo: unknown field, ignored",
    );
    check_canary(
        "  analysis:\n",
        "  canaryAnalysis:\n    interval: 1m\n  analysis:\n",
        "a.yaml:12:3: warning: spec.canaryAnalysis: unknown field, ignored\n  help: this name of an older Flagger API is \
         pruned by Flagger's own schema too; write analysis",
    );
    check_canary("  name: podinfo", "  name: podinfo\n  uid: x\n  managedFields: []\n  finalizers: [a]", "");
    check_canary(
        "  name: podinfo",
        "  name: podinfo\n  namspace: x",
        "a.yaml:5:3: warning: metadata.namspace: unknown field, ignored\n  help: did you mean namespace?",
    );
    check_change(
        BACKEND,
        "release:",
        "versons: []\n  release:",
        "a.yaml:5:3: warning: spec.versons: unknown field, ignored\n  help: did you mean versions?",
    );
}

#[test]
fn a_flood_of_unknown_fields_is_counted() {
    let flood: String = (0..30).map(|n| format!("  x{n}: 1\n")).collect();
    let set = read(&[("a.yaml", &CANARY.replace("  analysis:\n", &format!("{flood}  analysis:\n")))]);
    assert_eq!(set.problems.len(), 21);
    assert_eq!(set.problems[0].message, "10 more fields are unknown and ignored");
    assert!(!set.has_errors());
}

#[test]
fn the_metadata_of_a_hook_is_any_json() {
    let hook = "stepWeight: 10\n    webhooks: [{name: a, url: \"http://a\", metadata: {list: [1, null], on: {b: 2}}}]";
    let set = read(&[("a.yaml", &CANARY.replace("stepWeight: 10", hook))]);
    assert_eq!(rendered(&set), "");
    let analysis = set.canaries[0].value.spec.analysis.as_ref().expect("the text has an analysis");
    let metadata = analysis.webhooks()[0].metadata.as_ref().expect("the hook has metadata");
    assert_eq!(metadata["list"], serde_json::json!([1, null]));
    assert_eq!(metadata["on"], serde_json::json!({"b": 2}));
}

#[test]
fn the_guards_words_are_explained() {
    let check = |guard: &str, problem: &str| {
        check_canary("stepWeight: 10", &format!("stepWeight: 10\n    guard: {{{guard}}}"), problem);
    };
    check("mode: off", "");
    check("mode: \"off\"", "");
    check(
        "mode: on",
        "a.yaml:16:19: spec.analysis.guard.mode: true is a yes-or-no value; enforce, observe or off is wanted",
    );
    check(
        "mode: enforced",
        "a.yaml:16:19: spec.analysis.guard.mode: \"enforced\" is not one of enforce, observe, off\n  help: did you mean enforce?",
    );
    check(
        "margin: 0.5",
        "a.yaml:16:21: spec.analysis.guard.margin: 0.5 is a number with a fraction; a percentage such as 0.5% is wanted",
    );
    check("margin: x%", "a.yaml:16:21: spec.analysis.guard.margin: \"x%\" is not a percentage such as 0.5%");
    check(
        "settle: 5",
        "a.yaml:16:21: spec.analysis.guard.settle: 5 is a number; a duration such as 30s or 1m30s is wanted",
    );
    check(
        "settle: 5d",
        "a.yaml:16:21: spec.analysis.guard.settle: \"5d\" has the unit \"d\", which is not one of ns, us, ms, s, m, h",
    );
    check(
        "stickyKey: x",
        "a.yaml:16:24: spec.analysis.guard.stickyKey: \"x\" is neither header:<name> nor cookie:<name>",
    );
}
