//! Rows about creating and replacing.

use serde_json::{Value, json};

use super::step::{create, get, merge, replace};
use super::{Row, named, row};

pub(super) fn config(a: &str) -> Value {
    json!({"metadata": named("@a"), "data": {"a": a}})
}

pub(super) fn canary(fields: Value) -> Value {
    let mut canary = json!({
        "metadata": named("@a"),
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80},
            "analysis": {"interval": "10s", "threshold": 2, "stepWeight": 10},
        },
    });
    super::super::patch::merge(&mut canary, &fields);
    canary
}

pub(super) fn deployment(fields: Value) -> Value {
    let mut deployment = json!({
        "metadata": named("@a"),
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "@a"}},
            "template": {
                "metadata": {"labels": {"app": "@a"}},
                "spec": {"containers": [
                    {"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]},
                    {"name": "side", "image": "side:1"},
                ]},
            },
        },
    });
    super::super::patch::merge(&mut deployment, &fields);
    deployment
}

fn lease(holder: &str) -> Value {
    json!({"metadata": named("@a"), "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}})
}

fn versioned(mut body: Value, version: &str) -> Value {
    body["metadata"]["resourceVersion"] = json!(version);
    body
}

pub(super) fn rows() -> Vec<Row> {
    [creates(), replaces(), leases()].into_iter().flatten().collect()
}

fn creates() -> Vec<Row> {
    let event = json!({
        "metadata": named("@a"), "reason": "Synced", "message": "weight 10", "type": "Normal",
        "involvedObject": {"kind": "ConfigMap", "namespace": "{ns}", "name": "@a"},
    });
    let new_event = json!({
        "metadata": named("@a"), "reason": "Synced", "action": "Promote", "type": "Normal", "note": "weight 10",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "serin", "reportingInstance": "serin-0",
        "regarding": {"kind": "ConfigMap", "namespace": "{ns}", "name": "@a"},
    });
    let second = || config("2");
    vec![
        row(
            "what is created can be read",
            vec![
                create("configmaps", config("1")).with(&[("/data/a", "1"), ("/metadata/namespace", "NAMESPACE")]),
                get("configmaps", "@a").with(&[("/data/a", "1"), ("version", "of 0")]),
            ],
        ),
        row(
            "a second create of the same name is refused",
            vec![
                create("configmaps", config("1")),
                create("configmaps", second()).gives("409 AlreadyExists"),
                get("configmaps", "@a").with(&[("/data/a", "1")]),
            ],
        ),
        row(
            "a name can be generated",
            vec![
                create("configmaps", json!({"metadata": {"generateName": "@gen-"}}))
                    .with(&[("/metadata/generateName", "@gen-")]),
            ],
        ),
        row("a create needs a name", vec![create("configmaps", json!({"metadata": {}})).gives("422 Invalid")]),
        row(
            "a name has to be one",
            vec![create("configmaps", json!({"metadata": {"name": "@Not_A_Name"}})).gives("422 Invalid")],
        ),
        row(
            "a create in another namespace than its path is refused",
            vec![
                create("configmaps", json!({"metadata": {"name": "@a", "namespace": "elsewhere"}}))
                    .gives("400 BadRequest"),
            ],
        ),
        row("a create with a version is refused", vec![create("configmaps", versioned(config("1"), "1")).gives("500")]),
        row(
            "a dry run saves nothing",
            vec![
                create("configmaps", config("1")).dry_run().with(&[("/data/a", "1")]),
                get("configmaps", "@a").gives("404 NotFound"),
            ],
        ),
        row(
            "a create cannot set status where it has a subresource",
            vec![
                create("canaries", canary(json!({"status": {"phase": "Progressing"}})))
                    .with(&[("/status/phase", "-"), ("/metadata/generation", "1")]),
            ],
        ),
        row(
            "an event is created and counted up",
            vec![
                create("events", event).with(&[("/reason", "Synced")]),
                merge("events", "@a", json!({"count": 2})).with(&[("/count", "2")]),
            ],
        ),
        row(
            "an event of the new group is created",
            vec![create("events.events.k8s.io", new_event).with(&[("/note", "weight 10")])],
        ),
    ]
}

fn replaces() -> Vec<Row> {
    let with_uid = |mut body: Value, uid: &str| {
        body["metadata"]["uid"] = json!(uid);
        body
    };
    let stranger = "11111111-1111-4111-8111-111111111111";
    vec![
        row(
            "a replace with a stale version is a conflict",
            vec![
                create("configmaps", config("1")),
                replace("configmaps", "@a", versioned(config("2"), "{version0}")).with(&[("version", "newer")]),
                replace("configmaps", "@a", versioned(config("3"), "{version0}")).gives("409 Conflict"),
                get("configmaps", "@a").with(&[("/data/a", "2"), ("version", "of 1")]),
            ],
        ),
        row(
            "a replace without a version replaces whatever is there, for built-in kinds",
            vec![create("configmaps", config("1")), replace("configmaps", "@a", config("2")).with(&[("/data/a", "2")])],
        ),
        row(
            "a replace without a version is refused for custom kinds",
            vec![
                create("canaries", canary(json!({}))),
                replace("canaries", "@a", canary(json!({}))).gives("422 Invalid"),
            ],
        ),
        row(
            "a replace of what is not there is refused",
            vec![replace("configmaps", "@a", config("1")).gives("404 NotFound")],
        ),
        row(
            "a replace with another uid is a conflict",
            vec![
                create("configmaps", config("1")),
                replace("configmaps", "@a", with_uid(config("2"), stranger)).gives("409 Conflict"),
            ],
        ),
        row(
            "a replace under another name than its path is refused",
            vec![
                create("configmaps", config("1")),
                replace("configmaps", "@a", json!({"metadata": {"name": "@b"}})).gives("400 BadRequest"),
            ],
        ),
        row(
            "a replace that changes nothing keeps the version",
            vec![
                create("configmaps", config("1")),
                replace("configmaps", "@a", config("1")).with(&[("version", "of 0")]),
            ],
        ),
        row(
            "a replace keeps the uid and drops the labels it does not mention",
            vec![
                create("configmaps", config("1")),
                replace("configmaps", "@a", with_uid(json!({"metadata": {"name": "@a"}}), "{uid0}"))
                    .with(&[("/metadata/labels", "-"), ("/data", "-")]),
            ],
        ),
    ]
}

fn leases() -> Vec<Row> {
    vec![
        row(
            "of two who take a lease at the same version, one has it",
            vec![
                create("leases", lease("nobody")),
                replace("leases", "@a", versioned(lease("one"), "{version0}")).with(&[("/spec/holderIdentity", "one")]),
                replace("leases", "@a", versioned(lease("two"), "{version0}")).gives("409 Conflict"),
            ],
        ),
        row(
            "a lease is not replaced without a version",
            vec![create("leases", lease("one")), replace("leases", "@a", lease("two")).gives("422 Invalid")],
        ),
        row(
            "a replace of a lease that is not there creates it",
            vec![replace("leases", "@a", lease("one")).with(&[("/spec/holderIdentity", "one")])],
        ),
        row(
            "a replace of a lease that is gone creates it even with a version",
            vec![
                create("leases", lease("one")),
                super::step::delete("leases", "@a", kube::api::DeleteParams::default()),
                replace("leases", "@a", versioned(lease("two"), "{version0}")).with(&[("/spec/holderIdentity", "two")]),
            ],
        ),
        row(
            "a replace of a lease that is gone is a conflict with the uid of the old one",
            vec![
                create("leases", lease("one")),
                super::step::delete("leases", "@a", kube::api::DeleteParams::default()),
                replace(
                    "leases",
                    "@a",
                    json!({"metadata": {"name": "@a", "uid": "{uid0}"}, "spec": {"holderIdentity": "two"}}),
                )
                .gives("409 Conflict"),
            ],
        ),
    ]
}
