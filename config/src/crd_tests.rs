use std::path::PathBuf;

use serde_json::{Value, json};

use super::crds;
use crate::admission::{admit, schema};
use crate::canary::{CanaryStatus, Percent};
use crate::canary_state::{CanaryState, CanaryStateSpec, StateEvent, Writer};
use crate::document::read_documents;
use crate::duration::GoDuration;
use crate::kind::Kind;

fn definition(kind: &str) -> Value {
    json!(crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect("the kind has a definition"))
}

/// A Canary that the server admits.
fn canary() -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": { "name": "podinfo" },
        "spec": {
            "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo" },
            "service": { "port": 80 },
            "analysis": { "interval": "30s", "threshold": 5, "stepWeight": 10 },
        },
    })
}

/// Puts a value where the pointer says; null takes out what is there.
fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let fields = object.pointer_mut(parent).and_then(Value::as_object_mut).expect("the pointer's parent is there");
        match value {
            Value::Null => fields.remove(name),
            value => fields.insert(name.to_owned(), value.clone()),
        };
    }
    object
}

#[track_caller]
fn check(changes: &[(&str, Value)], refusals: &[&str]) {
    let given = with(canary(), changes);
    let found = admit(&schema("Canary"), &given);
    if refusals.is_empty() {
        assert_eq!(found, Ok(given), "it is admitted as it is");
    } else {
        assert_eq!(found, Err(refusals.iter().map(|text| (*text).to_owned()).collect()));
    }
}

#[test]
fn checklist_1_the_three_kinds_bear_flaggers_names() {
    for (kind, plural) in
        [("Canary", "canaries"), ("MetricTemplate", "metrictemplates"), ("AlertProvider", "alertproviders")]
    {
        let crd = definition(kind);
        assert_eq!(crd["metadata"]["name"], format!("{plural}.flagger.app"));
        assert_eq!(crd["metadata"]["annotations"], json!({ "helm.sh/resource-policy": "keep" }));
        assert_eq!(crd["spec"]["scope"], "Namespaced");
        assert_eq!(crd["spec"]["names"]["plural"], plural);
        assert_eq!(crd["spec"]["names"]["singular"], kind.to_lowercase());
        assert_eq!(crd["spec"]["names"].get("shortNames"), None);
        let version = &crd["spec"]["versions"][0];
        assert_eq!(version["name"], "v1beta1");
        assert_eq!((&version["served"], &version["storage"]), (&json!(true), &json!(true)));
        assert_eq!(version["subresources"], json!({ "status": {} }));
    }
}

#[track_caller]
fn check_columns(kind: &str, expected: &str) {
    let crd = definition(kind);
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("it has columns").iter();
    let shown: Vec<String> = columns
        .map(|column| {
            let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
            let wide = if column["priority"] == 1 { " wide" } else { "" };
            format!("{} {} {}{wide}", text("name"), text("type"), text("jsonPath"))
        })
        .collect();
    assert_eq!(shown.join("\n"), expected);
}

#[test]
fn checklist_2_the_columns_of_a_canary() {
    check_columns(
        "Canary",
        "Status string .status.phase\n\
         Weight string .status.canaryWeight\n\
         Suspended boolean .spec.suspend wide\n\
         FailedChecks string .status.failedChecks wide\n\
         Interval string .spec.analysis.interval wide\n\
         Mirror boolean .spec.analysis.mirror wide\n\
         StepWeight string .spec.analysis.stepWeight wide\n\
         StepWeights string .spec.analysis.stepWeights wide\n\
         MaxWeight string .spec.analysis.maxWeight wide\n\
         LastTransitionTime string .status.lastTransitionTime",
    );
}

#[test]
fn checklist_3_the_columns_of_the_other_two() {
    check_columns("MetricTemplate", "Provider string .spec.provider.type");
    check_columns("AlertProvider", "Type string .spec.type");
}

#[test]
fn checklist_4_the_three_kinds_are_in_the_category_all() {
    for kind in ["Canary", "MetricTemplate", "AlertProvider"] {
        assert_eq!(definition(kind)["spec"]["names"]["categories"], json!(["all"]));
    }
    assert_eq!(definition("CanaryState")["spec"]["names"].get("categories"), None, "it would only be in the way there");
}

#[test]
fn checklist_5_a_canary_needs_an_analysis_and_a_target() {
    check(&[], &[]);
    check(&[("/spec/analysis", Value::Null)], &[".spec: analysis missing"]);
    check(&[("/spec/targetRef", Value::Null)], &[".spec: targetRef missing"]);
    check(&[("/spec/targetRef/apiVersion", Value::Null)], &[".spec.targetRef: apiVersion missing"]);
    // As in Flagger; Serin tells in the status what is missing.
    check(&[("/spec", Value::Null)], &[]);
}

#[track_caller]
fn check_analysis(changes: &[(&str, Value)], admitted: bool) {
    let changes: Vec<(String, Value)> =
        changes.iter().map(|(name, value)| (format!("/spec/analysis/{name}"), value.clone())).collect();
    let changes: Vec<(&str, Value)> =
        changes.iter().map(|(pointer, value)| (pointer.as_str(), value.clone())).collect();
    let found = admit(&schema("Canary"), &with(canary(), &changes));
    assert_eq!(found.is_ok(), admitted, "{found:?}");
}

#[test]
fn checklist_6_an_analysis_has_exactly_one_strategy() {
    check_analysis(&[("iterations", json!(5))], false);
    check_analysis(&[("stepWeights", json!([1, 50]))], false);
    check_analysis(&[("stepWeight", Value::Null)], false);
    check_analysis(&[("stepWeight", Value::Null), ("iterations", json!(5))], true);
    check_analysis(&[("stepWeight", Value::Null), ("stepWeights", json!([1, 50]))], true);
    check_analysis(&[("threshold", Value::Null)], false);
    check_analysis(&[("interval", Value::Null)], false);
}

#[test]
fn checklist_6_a_null_is_no_second_strategy() {
    let mut given = canary();
    given["spec"]["analysis"]["iterations"] = Value::Null;
    assert_eq!(admit(&schema("Canary"), &given), Ok(canary()));
}

#[test]
fn checklist_7_an_interval_begins_with_whole_minutes_or_seconds() {
    for text in ["1m30s", "10ms", "1m", "5seconds"] {
        check_analysis(&[("interval", json!(text))], true);
    }
    for text in ["1h", "0.5m", "-1s", ""] {
        check_analysis(&[("interval", json!(text))], false);
        check_analysis(&[("metrics", json!([{ "name": "a", "interval": text }]))], false);
        check_analysis(&[("webhooks", json!([{ "name": "a", "url": "http://a", "timeout": text }]))], false);
    }
}

#[test]
fn checklist_8_a_stateful_set_is_no_target() {
    let kinds = r#"["DaemonSet","Deployment","Service","Backend"]"#;
    check(
        &[("/spec/targetRef/kind", json!("StatefulSet"))],
        &[&format!(".spec.targetRef.kind: \"StatefulSet\" breaks enum {kinds}")],
    );
    check(&[("/spec/targetRef/kind", json!("Backend"))], &[]);
    let autoscaler = |kind: &str| ("/spec/autoscalerRef", json!({ "apiVersion": "v1", "kind": kind, "name": "a" }));
    check(&[autoscaler("ScaledObject")], &[]);
    check(
        &[autoscaler("Ingress")],
        &[r#".spec.autoscalerRef.kind: "Ingress" breaks enum ["HorizontalPodAutoscaler","ScaledObject"]"#],
    );
}

#[test]
fn checklist_9_a_service_needs_a_port_if_it_is_there() {
    check(&[("/spec/service", Value::Null)], &[]);
    check(&[("/spec/service", json!({ "name": "a" }))], &[".spec.service: port missing"]);
    check(&[("/spec/service/targetPort", json!("http"))], &[]);
    check(&[("/spec/service/targetPort", json!(8080))], &[]);
}

#[test]
fn checklist_10_unknown_fields_are_dropped() {
    let given = with(canary(), &[("/spec/canaryAnalysis", json!({ "threshold": 1 }))]);
    assert_eq!(admit(&schema("Canary"), &given), Ok(canary()));
}

#[test]
fn checklist_11_a_fractional_weight_gets_as_far_as_serin() {
    check_analysis(&[("stepWeight", json!(2.5))], true);
}

#[test]
fn checklist_25_the_three_numbers_are_always_written_and_any_number_is_admitted() {
    let status = json!(CanaryStatus::default());
    assert_eq!(status, json!({ "phase": "", "failedChecks": 0, "canaryWeight": 0, "iterations": 0 }));
    check(&[("/status", status)], &[]);
    // Flagger counts back by one at the end of a weighted run.
    check(&[("/status", json!({ "phase": "WaitingPromotion", "iterations": -1 }))], &[]);
    check(
        &[("/status", json!({ "conditions": [{ "type": "Promoted" }] }))],
        &[".status.conditions[0]: reason, status missing"],
    );
}

#[test]
fn a_status_of_flagger_is_read_and_written_alike() {
    let status = json!({
        "phase": "Succeeded",
        "failedChecks": 1,
        "canaryWeight": 0,
        "iterations": 0,
        "trackedConfigs": { "configmap/a": "44136fa355b3678a" },
        "lastAppliedSpec": "v2:1",
        "lastPromotedSpec": "v2:1",
        "lastTransitionTime": "2025-01-02T03:04:05Z",
        "sessionAffinityCookie": "a",
        "primarySessionAffinityCookie": "b",
        "previousSessionAffinityCookie": "c",
        "conditions": [{
            "type": "Promoted",
            "status": "True",
            "reason": "Succeeded",
            "message": "done",
            "lastUpdateTime": "2025-01-02T03:04:05Z",
            "lastTransitionTime": "2025-01-02T03:04:05Z",
        }],
    });
    let read: CanaryStatus = serde_json::from_value(status.clone()).expect("a status can be read");
    assert_eq!(json!(read), status);
    check(&[("/status", status)], &[]);
}

#[test]
fn the_corpus_is_admitted_as_it_is() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    let mut admitted = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is part of the repository") {
        let path = entry.expect("the corpus can be listed").path();
        let text = std::fs::read_to_string(&path).expect("the corpus can be read");
        for document in read_documents(&path.display().to_string(), &text).documents {
            if Kind::of(&document) == Ok(Kind::Canary) {
                let given = document.to_json();
                assert_eq!(admit(&schema("Canary"), &given), Ok(given), "{}", path.display());
                admitted += 1;
            }
        }
    }
    assert_eq!(admitted, 3);
}

#[test]
fn what_serin_adds_is_admitted() {
    check(&[("/spec/provider", json!("serin"))], &[]);
    check_analysis(
        &[("webhooks", json!([{ "name": "a", "url": "http://a", "metadata": { "a": [1, { "b": null }] } }]))],
        true,
    );
    let guard = json!({
        "mode": "observe", "falseRollback": "0.1%", "tolerance": "10 %", "budget": 20, "warmup": "1m30s", "bakeTime": 0,
        "stickyKey": "cookie:session", "pace": "evidence",
    });
    check(&[("/spec/analysis/guard", guard)], &[]);
    // What becomes of a bare `off` on its way through YAML 1.1.
    check(&[("/spec/analysis/guard", json!({ "mode": false }))], &[]);
    for guard in [
        json!({ "mode": true }),
        json!({ "mode": "on" }),
        json!({ "tolerance": "0.5" }),
        json!({ "warmup": "30" }),
        json!({ "warmup": 30 }),
        json!({ "stickyKey": "ip:1" }),
        json!({ "pace": "fast" }),
    ] {
        check_analysis(&[("guard", guard)], false);
    }
}

#[test]
fn a_pattern_takes_whatever_can_be_parsed() {
    for text in ["0.1%", "10 %", "5.%", ".5%", "+1%", "1e2%", "1e-2%", "-0%"] {
        assert!(text.parse::<Percent>().is_ok(), "{text}");
        check_analysis(&[("guard", json!({ "slo": text }))], true);
    }
    for text in ["0", "-0", "5s", "+5s", "5.6s", "5.s", ".5s", "12µs", "12μs", "10.5s4m", "1h2m3s4ms5us6ns", "-1s"] {
        assert!(text.parse::<GoDuration>().is_ok(), "{text}");
        check_analysis(&[("guard", json!({ "settle": text }))], true);
    }
}

#[test]
fn an_alert_provider_has_one_address() {
    let check = |spec: Value, admitted: bool| {
        let found = admit(&schema("AlertProvider"), &json!({ "spec": spec }));
        assert_eq!(found.is_ok(), admitted, "{found:?}");
    };
    check(json!({ "type": "slack", "address": "http://a" }), true);
    check(json!({ "type": "slack", "secretRef": { "name": "a" } }), true);
    check(json!({ "type": "slack", "secretRef": { "name": "a" }, "address": "http://a" }), false);
    check(json!({ "type": "slack" }), false);
    check(json!({ "address": "http://a" }), false);
    check(json!({ "type": "pager", "address": "http://a" }), false);
}

/// Calls `see` with each schema that there is, and where it is.
fn walk(path: &str, schema: &Value, see: &mut dyn FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, see);
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(keyword) {
            walk(&format!("{path}{suffix}"), inner, see);
        }
    }
}

#[test]
fn nothing_is_added_to_what_people_wrote() {
    for crd in crds() {
        let kind = crd.spec.names.kind;
        walk(&kind, &schema(&kind), &mut |path, schema| {
            assert_eq!((schema.get("default"), schema.get("nullable")), (None, None), "of {path}");
        });
    }
}

#[test]
fn descriptions_are_for_people_without_the_source() {
    for crd in crds() {
        let kind = crd.spec.names.kind;
        walk(&kind, &schema(&kind), &mut |path, schema| {
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(!description.contains("[`") && !description.contains("::"), "{path}: {description}");
            assert!(
                !description.is_empty() || path.ends_with([']', '}']) || path.ends_with(".metadata"),
                "{path} has none"
            );
        });
    }
}

#[test]
fn a_canary_state_keeps_what_the_runtime_puts_in() {
    let spec = CanaryStateSpec {
        canary_uid: "a".into(),
        writer: Writer { boot: "b".into(), save: 1 },
        state: json!({ "phase": "Progressing", "epoch": { "id": 7 }, "hold": null }),
        templates: json!({ "primary": { "spec": {} } }),
        events: vec![StateEvent { at: 1, level: "Normal".into(), message: "c".into() }],
    };
    let state = json!(CanaryState::new("podinfo", spec.clone()));
    assert_eq!(state["apiVersion"], "serin.dev/v1alpha1");
    assert_eq!(admit(&schema("CanaryState"), &state), Ok(state.clone()));
    let read: CanaryState = serde_json::from_value(state).expect("a state can be read");
    assert_eq!(read.spec, spec);
    check_columns(
        "CanaryState",
        "Phase string .spec.state.phase\n\
         Weight integer .spec.state.weight\n\
         Run integer .spec.state.rollout\n\
         Epoch integer .spec.state.epoch.id\n\
         Age date .metadata.creationTimestamp",
    );
    assert_eq!(definition("CanaryState")["spec"]["versions"][0].get("subresources"), None);
}
