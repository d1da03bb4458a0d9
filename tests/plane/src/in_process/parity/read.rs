//! Rows about reading: lists, selectors, pages, and watches that continue.

use kube::api::{DeleteParams, ListParams, WatchParams};
use serde_json::{Value, json};

use super::step::{create, delete, get, list, list_metadata, merge, watch};
use super::write::canary;
use super::{Row, named, row};

fn labelled(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"row": "@r", "app": app}}})
}

fn mine() -> ListParams {
    ListParams::default().labels("row=@r")
}

fn watching() -> WatchParams {
    WatchParams::default().labels("row=@r")
}

pub(super) fn rows() -> Vec<Row> {
    [lists(), watches()].into_iter().flatten().collect()
}

fn three() -> Vec<super::Step> {
    ["@a", "@b", "@c"]
        .into_iter()
        .zip(["x", "y", "z"])
        .map(|(name, app)| create("configmaps", labelled(name, app)))
        .collect()
}

fn lists() -> Vec<Row> {
    let chosen =
        |labels: &str, names| list("configmaps", mine().labels(&format!("row=@r,{labels}"))).with(&[("names", names)]);
    let mut selected = three();
    selected.extend([
        chosen("app=x", "@a"),
        chosen("app!=x", "@b,@c"),
        chosen("app in (x,z)", "@a,@c"),
        chosen("app notin (x,z)", "@b"),
        chosen("app", "@a,@b,@c"),
        chosen("!app", ""),
        list("configmaps", mine().fields("metadata.name=@b")).with(&[("names", "@b")]),
    ]);
    let mut paged = three();
    paged.extend([
        list("configmaps", mine().limit(2)).with(&[("names", "@a,@b"), ("more", "true")]),
        delete("configmaps", "@c", DeleteParams::default()),
        list("configmaps", mine().limit(2).continue_token("{continue3}")).with(&[("names", "@c"), ("more", "false")]),
    ]);
    vec![
        row("what is not there is not found", vec![get("configmaps", "@a").gives("404 NotFound")]),
        row("lists are chosen by labels and names", selected),
        row("pages of a list show one moment", paged),
        row(
            "a token that is none is refused",
            vec![list("configmaps", mine().continue_token("nonsense")).gives("400 BadRequest")],
        ),
        row(
            "a list says a version at least as new as what it lists",
            vec![
                create("configmaps", labelled("@a", "x")),
                list("configmaps", mine()).with(&[("names", "@a")]),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})).with(&[("version", "newer")]),
            ],
        ),
        row(
            "items of a list say their kind for custom kinds only",
            vec![
                create("configmaps", labelled("@a", "x")),
                create("canaries", canary(json!({}))),
                list("configmaps", mine()).with(&[("/kind", "ConfigMapList"), ("/items/0/kind", "-")]),
                list("canaries", mine()).with(&[("/kind", "CanaryList"), ("/items/0/kind", "Canary")]),
            ],
        ),
        row(
            "a list of metadata alone has its own kind",
            vec![
                create("configmaps", labelled("@a", "x")),
                list_metadata("configmaps", mine()).with(&[
                    ("/kind", "PartialObjectMetadataList"),
                    ("/items/0/kind", "PartialObjectMetadata"),
                    ("/items/0/metadata/name", "@a"),
                ]),
            ],
        ),
    ]
}

fn watches() -> Vec<Row> {
    let with_list = || WatchParams { send_initial_events: true, ..watching() };
    let app = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    vec![
        row(
            "a watch continues from a version",
            vec![
                create("configmaps", labelled("@a", "x")),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})),
                create("configmaps", labelled("@b", "x")),
                delete("configmaps", "@a", DeleteParams::default()),
                watch("configmaps", watching(), "{version0}", 3)
                    .with(&[("events", "MODIFIED @a, ADDED @b, DELETED @a")]),
                watch("configmaps", watching(), "{version2}", 1).with(&[("events", "DELETED @a")]),
            ],
        ),
        row(
            "a watch from the version of a list misses nothing",
            vec![
                create("canaries", canary(json!({}))),
                list("canaries", mine()),
                merge("canaries", "@a", json!({"status": {"phase": "Failed"}})).on_status(),
                delete("canaries", "@a", DeleteParams::default()),
                watch("canaries", watching(), "{version1}", 2).with(&[("events", "MODIFIED @a, DELETED @a")]),
            ],
        ),
        row(
            "a watch tells when an object begins and ceases to be chosen",
            vec![
                create("configmaps", labelled("@a", "x")),
                merge("configmaps", "@a", app("y")),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})),
                merge("configmaps", "@a", app("x")),
                watch("configmaps", WatchParams::default().labels("row=@r,app=y"), "{version0}", 3)
                    .with(&[("events", "ADDED @a, MODIFIED @a, DELETED @a")]),
            ],
        ),
        row(
            // Without a version rather than from 0, which a real server may serve from a cache that lags behind.
            "a watch without a version begins with what is there, and says where that ends",
            vec![
                create("configmaps", labelled("@a", "x")),
                watch("configmaps", watching(), "", 2).with(&[("events", "ADDED @a, END OF LIST")]),
            ],
        ),
        row(
            "a watch can begin with a list and say where it ends",
            vec![
                create("configmaps", labelled("@a", "x")),
                watch("configmaps", with_list(), "{version0}", 2).with(&[("events", "ADDED @a, END OF LIST")]),
            ],
        ),
        row(
            "a watch of one name sees that one",
            vec![
                create("configmaps", labelled("@a", "x")),
                create("configmaps", labelled("@b", "x")),
                merge("configmaps", "@b", json!({"data": {"a": "1"}})),
                watch("configmaps", WatchParams::default().fields("metadata.name=@b"), "{version0}", 2)
                    .with(&[("events", "ADDED @b, MODIFIED @b")]),
            ],
        ),
        row(
            "a patch that changes nothing is no event",
            vec![
                create("configmaps", json!({"metadata": named("@a"), "data": {"a": "1"}})),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})),
                merge("configmaps", "@a", json!({"data": {"a": "2"}})),
                delete("configmaps", "@a", DeleteParams::default()),
                watch("configmaps", watching(), "{version0}", 2).with(&[("events", "MODIFIED @a, DELETED @a")]),
            ],
        ),
    ]
}
