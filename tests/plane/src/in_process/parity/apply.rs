//! Rows about server-side apply: who owns what, conflicts, force, and what goes when it is dropped.

use serde_json::{Value, json};

use super::step::{apply, create, get, merge};
use super::write::{canary, deployment};
use super::{Row, named, row};

fn data(data: Value) -> Value {
    json!({"metadata": named("@a"), "data": data})
}

pub(super) fn rows() -> Vec<Row> {
    [owning(), conflicts(), refusals(), lists()].into_iter().flatten().collect()
}

fn owning() -> Vec<Row> {
    vec![
        row(
            "an apply creates what is not there",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"})))
                    .with(&[("/data/a", "1"), ("managers", "serin/Apply")]),
            ],
        ),
        row(
            "the same apply again keeps the version",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))),
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))).with(&[("version", "of 0")]),
            ],
        ),
        row(
            "a field that is not applied any more is removed",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1", "b": "2"}))),
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))).with(&[("/data", "{\"a\":\"1\"}")]),
            ],
        ),
        row(
            "a field of two managers stays until both drop it",
            vec![
                apply("configmaps", "@a", "one", data(json!({"a": "1", "b": "2"}))),
                apply("configmaps", "@a", "two", data(json!({"a": "1", "b": "2"})))
                    .with(&[("managers", "one/Apply,two/Apply")]),
                apply("configmaps", "@a", "one", data(json!({"a": "1"})))
                    .with(&[("/data", "{\"a\":\"1\",\"b\":\"2\"}")]),
                apply("configmaps", "@a", "two", data(json!({"a": "1"}))).with(&[("/data", "{\"a\":\"1\"}")]),
            ],
        ),
        row(
            "an apply leaves alone what others wrote",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))),
                merge("configmaps", "@a", json!({"data": {"b": "2"}, "metadata": {"labels": {"more": "1"}}}))
                    .by("user"),
                apply("configmaps", "@a", "serin", data(json!({"a": "3"})))
                    .with(&[("/data", "{\"a\":\"3\",\"b\":\"2\"}"), ("/metadata/labels/more", "1")]),
            ],
        ),
        row(
            "an apply of nothing drops all it had and leaves the object",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))),
                apply("configmaps", "@a", "serin", json!({"metadata": {"name": "@a"}}))
                    .with(&[("/data", "-"), ("/metadata/labels", "-")]),
            ],
        ),
        row(
            "an apply of the main resource does not write status",
            vec![
                apply("canaries", "@a", "serin", canary(json!({"status": {"phase": "Failed"}})))
                    .with(&[("/status", "-"), ("/metadata/generation", "1")]),
                apply("canaries", "@a", "serin", canary(json!({"status": {"phase": "Failed"}})))
                    .with(&[("/status", "-"), ("version", "of 0")]),
            ],
        ),
        row(
            "status is applied through its subresource",
            vec![
                create("canaries", canary(json!({}))).by("user"),
                apply(
                    "canaries",
                    "@a",
                    "serin",
                    json!({"metadata": {"name": "@a"}, "status": {"phase": "Progressing"}}),
                )
                .on_status()
                .with(&[("/status/phase", "Progressing"), ("managers", "serin/Apply/status,user/Update")]),
                apply("canaries", "@a", "serin", json!({"metadata": {"name": "@a"}, "status": {"failedChecks": 1}}))
                    .on_status()
                    .with(&[("/status", "{\"failedChecks\":1}")]),
            ],
        ),
    ]
}

fn conflicts() -> Vec<Row> {
    vec![
        row(
            "a differing value of another manager is a conflict",
            vec![
                apply("configmaps", "@a", "one", data(json!({"a": "1"}))),
                apply("configmaps", "@a", "two", data(json!({"a": "2"}))).gives("409 Conflict"),
                get("configmaps", "@a").with(&[("/data/a", "1"), ("version", "of 0")]),
            ],
        ),
        row(
            "force takes the field from its owner",
            vec![
                apply("configmaps", "@a", "one", json!({"metadata": {"name": "@a"}, "data": {"a": "1"}})),
                apply("configmaps", "@a", "two", json!({"metadata": {"name": "@a"}, "data": {"a": "2"}}))
                    .force()
                    .with(&[("/data/a", "2"), ("managers", "two/Apply")]),
                apply("configmaps", "@a", "one", json!({"metadata": {"name": "@a"}, "data": {"b": "1"}}))
                    .with(&[("/data", "{\"a\":\"2\",\"b\":\"1\"}")]),
            ],
        ),
        row(
            "what a patch changed is its author's, and a conflict for who applied it",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))),
                merge("configmaps", "@a", json!({"data": {"a": "2"}}))
                    .by("user")
                    .with(&[("managers", "serin/Apply,user/Update")]),
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))).gives("409 Conflict"),
                apply("configmaps", "@a", "serin", data(json!({"a": "2"}))).with(&[("/data/a", "2")]),
            ],
        ),
        row(
            "a manager conflicts with itself when it created by a POST",
            vec![
                create("configmaps", data(json!({"a": "1"}))).by("serin"),
                apply("configmaps", "@a", "serin", data(json!({"a": "2"}))).gives("409 Conflict"),
            ],
        ),
        row(
            "a stale version in an apply is a conflict",
            vec![
                apply("configmaps", "@a", "serin", data(json!({"a": "1"}))),
                apply("configmaps", "@a", "serin", data(json!({"a": "2"}))),
                apply(
                    "configmaps",
                    "@a",
                    "serin",
                    json!({"metadata": {"name": "@a", "resourceVersion": "{version0}"}, "data": {"a": "3"}}),
                )
                .gives("409 Conflict"),
            ],
        ),
        row(
            "an apply with a uid does not create",
            vec![
                apply(
                    "configmaps",
                    "@a",
                    "serin",
                    json!({"metadata": {"name": "@a", "uid": "11111111-1111-4111-8111-111111111111"}}),
                )
                .gives("409 Conflict"),
            ],
        ),
    ]
}

fn refusals() -> Vec<Row> {
    vec![
        row(
            "an apply needs a manager",
            vec![apply("configmaps", "@a", "", data(json!({}))).without_manager().gives("422 Invalid")],
        ),
        row(
            "an apply cannot bring managed fields",
            vec![
                apply(
                    "configmaps",
                    "@a",
                    "serin",
                    json!({"metadata": {"name": "@a", "managedFields": [{"manager": "x", "operation": "Apply"}]}}),
                )
                .gives("400 BadRequest"),
            ],
        ),
        row(
            "an apply of another kind than its path is refused",
            vec![
                apply("configmaps", "@a", "serin", json!({"kind": "Secret", "metadata": {"name": "@a"}}))
                    .gives("400 BadRequest"),
            ],
        ),
        row(
            "status of what is not there cannot be applied",
            vec![
                apply("canaries", "@a", "serin", json!({"metadata": {"name": "@a"}, "status": {"phase": "Failed"}}))
                    .on_status()
                    .gives("404 NotFound"),
            ],
        ),
    ]
}

fn lists() -> Vec<Row> {
    let finalizers = |name: &str| json!({"metadata": {"name": "@a", "finalizers": [name]}});
    let bare = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
    vec![
        row(
            "a container that is not applied any more goes, one that another added stays",
            vec![
                apply("deployments", "@a", "serin", deployment(json!({}))),
                apply("deployments", "@a", "serin", deployment(bare)).with(&[
                    ("/spec/template/spec/containers/0/image", "app:1"),
                    ("/spec/template/spec/containers/1/image", "-"),
                ]),
            ],
        ),
        row(
            "two managers apply finalizers of their own",
            vec![
                apply("configmaps", "@a", "one", finalizers("serin.dev/one")),
                apply("configmaps", "@a", "two", finalizers("serin.dev/two"))
                    .with(&[("/metadata/finalizers", "[\"serin.dev/one\",\"serin.dev/two\"]")]),
                apply("configmaps", "@a", "one", json!({"metadata": {"name": "@a"}}))
                    .with(&[("/metadata/finalizers", "[\"serin.dev/two\"]")]),
                merge("configmaps", "@a", json!({"metadata": {"finalizers": null}})),
            ],
        ),
        row(
            "a scaler and an apply without replicas live together",
            vec![
                create("deployments", deployment(json!({}))).by("user"),
                merge("deployments", "@a", json!({"spec": {"minReadySeconds": 3}})).by("scaler"),
                apply("deployments", "@a", "serin", json!({"metadata": {"name": "@a", "labels": {"mine": "1"}}}))
                    .with(&[("/spec/minReadySeconds", "3"), ("/metadata/labels/mine", "1")]),
                apply(
                    "deployments",
                    "@a",
                    "serin",
                    json!({"metadata": {"name": "@a"}, "spec": {"minReadySeconds": 4}}),
                )
                .gives("409 Conflict"),
            ],
        ),
    ]
}
