//! Rows about status apart from the rest, and about what raises a generation.

use serde_json::json;

use super::step::{create, merge, replace};
use super::write::{canary, config, deployment};
use super::{Row, named, row};

pub(super) fn rows() -> Vec<Row> {
    [parts(), generations()].into_iter().flatten().collect()
}

fn parts() -> Vec<Row> {
    let both = || json!({"spec": {"skipAnalysis": true}, "status": {"phase": "Progressing"}});
    vec![
        row(
            "the main resource does not write status",
            vec![
                create("canaries", canary(json!({}))),
                merge("canaries", "@a", both()).with(&[("/spec/skipAnalysis", "true"), ("/status/phase", "-")]),
            ],
        ),
        row(
            "the status subresource writes nothing but status",
            vec![
                create("canaries", canary(json!({}))),
                merge("canaries", "@a", both())
                    .on_status()
                    .with(&[("/spec/skipAnalysis", "-"), ("/status/phase", "Progressing")]),
                merge("canaries", "@a", json!({"metadata": {"annotations": {"a": "1"}}}))
                    .on_status()
                    .with(&[("/metadata/annotations", "-"), ("version", "of 1")]),
            ],
        ),
        row(
            "a replace of status with a stale version is a conflict",
            vec![
                create("canaries", canary(json!({}))),
                replace(
                    "canaries",
                    "@a",
                    canary(json!({"metadata": {"resourceVersion": "{version0}"}, "status": {"phase": "Progressing"}})),
                )
                .on_status()
                .with(&[("/status/phase", "Progressing")]),
                replace(
                    "canaries",
                    "@a",
                    canary(json!({"metadata": {"resourceVersion": "{version0}"}, "status": {"phase": "Failed"}})),
                )
                .on_status()
                .gives("409 Conflict"),
            ],
        ),
        row(
            "a replace of status without a version is refused for custom kinds",
            vec![
                create("canaries", canary(json!({}))),
                replace("canaries", "@a", canary(json!({"status": {"phase": "Failed"}})))
                    .on_status()
                    .gives("422 Invalid"),
            ],
        ),
        row(
            "a replace of the main resource keeps the status",
            vec![
                create("canaries", canary(json!({}))),
                merge("canaries", "@a", both()).on_status(),
                replace("canaries", "@a", canary(json!({"metadata": {"resourceVersion": "{version1}"}})))
                    .with(&[("/status/phase", "Progressing")]),
            ],
        ),
        row(
            "a kind without a status subresource has no path to it",
            vec![
                create("configmaps", config("1")),
                merge("configmaps", "@a", json!({"data": {"a": "2"}})).on_status().gives("404 NotFound"),
            ],
        ),
        row(
            "who wrote status is told from who wrote the rest",
            vec![
                create("canaries", canary(json!({}))).by("author"),
                merge("canaries", "@a", both())
                    .on_status()
                    .by("controller")
                    .with(&[("managers", "author/Update,controller/Update/status")]),
            ],
        ),
    ]
}

fn generations() -> Vec<Row> {
    let label = || json!({"metadata": {"labels": {"more": "1"}}});
    let annotation = || json!({"metadata": {"annotations": {"more": "1"}}});
    let slice = json!({
        "metadata": named("@a"), "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
        "endpoints": [{"addresses": ["10.244.1.1"]}],
    });
    vec![
        row(
            "spec raises the generation of a custom kind, metadata and status do not",
            vec![
                create("canaries", canary(json!({}))).with(&[("/metadata/generation", "1")]),
                merge("canaries", "@a", annotation()).with(&[("/metadata/generation", "1")]),
                merge("canaries", "@a", json!({"status": {"phase": "Failed"}}))
                    .on_status()
                    .with(&[("/metadata/generation", "1")]),
                merge("canaries", "@a", json!({"spec": {"skipAnalysis": true}})).with(&[("/metadata/generation", "2")]),
                merge("canaries", "@a", json!({"metadata": {"generation": 9}})).with(&[("/metadata/generation", "2")]),
            ],
        ),
        row(
            "spec and annotations raise the generation of a deployment, labels do not",
            vec![
                create("deployments", deployment(json!({}))).with(&[("/metadata/generation", "1")]),
                merge("deployments", "@a", label()).with(&[("/metadata/generation", "1")]),
                merge("deployments", "@a", annotation()).with(&[("/metadata/generation", "2")]),
                merge("deployments", "@a", json!({"spec": {"minReadySeconds": 1}}))
                    .with(&[("/metadata/generation", "3")]),
            ],
        ),
        row(
            "a slice counts its labels and endpoints",
            vec![
                create("endpointslices", slice).with(&[("/metadata/generation", "1")]),
                merge("endpointslices", "@a", annotation()).with(&[("/metadata/generation", "1")]),
                merge("endpointslices", "@a", label()).with(&[("/metadata/generation", "2")]),
                merge("endpointslices", "@a", json!({"endpoints": []})).with(&[("/metadata/generation", "3")]),
            ],
        ),
        row(
            "a config map has no generation",
            vec![create("configmaps", config("1")).with(&[("/metadata/generation", "-")])],
        ),
    ]
}
