//! Rows about merge, JSON and strategic patches.

use serde_json::json;

use super::step::{create, get, json_patch, merge, strategic};
use super::write::{canary, config, deployment};
use super::{Row, named, row};

pub(super) fn rows() -> Vec<Row> {
    [patches(), json_and_strategic()].into_iter().flatten().collect()
}

fn patches() -> Vec<Row> {
    let meta = |field: &str, value: &str| json!({"metadata": {field: value}, "data": {"a": "2"}});
    vec![
        row(
            "a merge patch removes with null and leaves the rest",
            vec![
                create("configmaps", json!({"metadata": named("@a"), "data": {"a": "1", "b": "2"}})),
                merge("configmaps", "@a", json!({"data": {"a": null, "c": "3"}}))
                    .with(&[("/data", "{\"b\":\"2\",\"c\":\"3\"}")]),
            ],
        ),
        row(
            "a patch of what is not there is refused",
            vec![merge("configmaps", "@a", json!({"data": {"a": "1"}})).gives("404 NotFound")],
        ),
        row(
            "a patch that changes nothing keeps the version",
            vec![
                create("configmaps", config("1")),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})).with(&[("version", "of 0")]),
            ],
        ),
        row(
            "a version in a merge patch is a precondition",
            vec![
                create("configmaps", config("1")),
                merge("configmaps", "@a", meta("resourceVersion", "{version0}"))
                    .with(&[("/data/a", "2"), ("version", "newer")]),
                merge("configmaps", "@a", meta("resourceVersion", "{version0}")).gives("409 Conflict"),
            ],
        ),
        row(
            "another uid in a merge patch is invalid",
            vec![
                create("configmaps", config("1")),
                merge("configmaps", "@a", meta("uid", "11111111-1111-4111-8111-111111111111")).gives("422 Invalid"),
                merge("configmaps", "@a", meta("uid", "{uid0}")).with(&[("/data/a", "2")]),
            ],
        ),
        row(
            "a patch cannot rename",
            vec![
                create("configmaps", config("1")),
                merge("configmaps", "@a", meta("name", "@b")).gives("400 BadRequest"),
            ],
        ),
        row(
            "a merge patch replaces lists as a whole",
            vec![
                create("deployments", deployment(json!({}))),
                merge(
                    "deployments",
                    "@a",
                    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}]}}}}),
                )
                .with(&[
                    ("/spec/template/spec/containers/0/image", "app:2"),
                    ("/spec/template/spec/containers/1/image", "-"),
                ]),
            ],
        ),
        row(
            "the selector of a deployment cannot change",
            vec![
                create("deployments", deployment(json!({}))),
                merge("deployments", "@a", json!({"spec": {"selector": {"matchLabels": {"app": "@b"}}}}))
                    .gives("422 Invalid"),
            ],
        ),
    ]
}

fn json_and_strategic() -> Vec<Row> {
    let containers =
        |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": image}]}}}});
    vec![
        row(
            "a JSON patch tests, adds, replaces and removes",
            vec![
                create("configmaps", json!({"metadata": named("@a"), "data": {"a": "1", "b": "2"}})),
                json_patch(
                    "configmaps",
                    "@a",
                    json!([
                        {"op": "test", "path": "/data/a", "value": "1"},
                        {"op": "replace", "path": "/data/a", "value": "3"},
                        {"op": "add", "path": "/data/c", "value": "4"},
                        {"op": "remove", "path": "/data/b"},
                    ]),
                )
                .with(&[("/data", "{\"a\":\"3\",\"c\":\"4\"}")]),
            ],
        ),
        row(
            "a JSON patch whose test fails changes nothing",
            vec![
                create("configmaps", config("1")),
                json_patch(
                    "configmaps",
                    "@a",
                    json!([
                        {"op": "replace", "path": "/data/a", "value": "3"},
                        {"op": "test", "path": "/data/a", "value": "1"},
                    ]),
                )
                .gives("422 Invalid"),
                get("configmaps", "@a").with(&[("/data/a", "1")]),
            ],
        ),
        row(
            "a JSON patch adds by replacing, but cannot remove what is not there",
            vec![
                create("configmaps", config("1")),
                json_patch("configmaps", "@a", json!([{"op": "replace", "path": "/data/b", "value": "3"}]))
                    .with(&[("/data/b", "3")]),
                json_patch("configmaps", "@a", json!([{"op": "remove", "path": "/data/c"}])).gives("422 Invalid"),
                json_patch("configmaps", "@a", json!([{"op": "replace", "path": "/absent/c", "value": "3"}]))
                    .gives("422 Invalid"),
            ],
        ),
        row(
            "a strategic patch finds a container by its name",
            vec![
                create("deployments", deployment(json!({}))),
                strategic("deployments", "@a", containers("side:2")).with(&[
                    ("/spec/template/spec/containers/0/image", "app:1"),
                    ("/spec/template/spec/containers/1/image", "side:2"),
                ]),
            ],
        ),
        row(
            "custom kinds know no strategic patch",
            vec![
                create("canaries", canary(json!({}))),
                strategic("canaries", "@a", json!({"spec": {"skipAnalysis": true}})).gives("415 UnsupportedMediaType"),
            ],
        ),
    ]
}
