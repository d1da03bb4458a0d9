//! Rows about deleting: preconditions, finalizers, and what goes with its owner.

use kube::api::{DeleteParams, ListParams, Preconditions, WatchParams};
use serde_json::{Value, json};

use super::step::{create, delete, delete_collection, get, list, merge, watch};
use super::write::canary;
use super::{Row, named, row};

fn plain() -> DeleteParams {
    DeleteParams::default()
}

fn only_if(uid: Option<&str>, version: Option<&str>) -> DeleteParams {
    let preconditions = Preconditions { uid: uid.map(str::to_owned), resource_version: version.map(str::to_owned) };
    DeleteParams::default().preconditions(preconditions)
}

fn held(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["serin.dev/test"]);
    object
}

fn free() -> Value {
    json!({"metadata": {"finalizers": null}})
}

fn owned_by(name: &str, owners: &[(&str, &str)]) -> Value {
    let owner = |(name, uid): &(&str, &str)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let owners: Vec<Value> = owners.iter().map(owner).collect();
    json!({"metadata": {"name": name, "ownerReferences": owners}})
}

pub(super) fn rows() -> Vec<Row> {
    [plainly(), finalizers(), owners()].into_iter().flatten().collect()
}

fn plainly() -> Vec<Row> {
    let object = || json!({"metadata": named("@a")});
    let service = json!({"metadata": named("@a"), "spec": {"ports": [{"port": 80}]}});
    vec![
        row(
            "what is deleted is gone",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", plain()).with(&[
                    ("/kind", "Status"),
                    ("/status", "Success"),
                    ("/details/name", "@a"),
                ]),
                get("configmaps", "@a").gives("404 NotFound"),
                delete("configmaps", "@a", plain()).gives("404 NotFound"),
            ],
        ),
        row(
            "a deleted service is answered as it was",
            vec![
                create("services", service),
                delete("services", "@a", plain()).with(&[("/kind", "Service"), ("/spec/ports/0/port", "80")]),
            ],
        ),
        row(
            "a delete can be bound to a uid",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", only_if(Some("11111111-1111-4111-8111-111111111111"), None))
                    .gives("409 Conflict"),
                delete("configmaps", "@a", only_if(Some("{uid0}"), None)),
                get("configmaps", "@a").gives("404 NotFound"),
            ],
        ),
        row(
            "a delete can be bound to a version",
            vec![
                create("configmaps", object()),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})),
                delete("configmaps", "@a", only_if(None, Some("{version0}"))).gives("409 Conflict"),
                delete("configmaps", "@a", only_if(None, Some("{version1}"))),
                get("configmaps", "@a").gives("404 NotFound"),
            ],
        ),
        row(
            "a name can be used again, under another uid",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", plain()),
                create("configmaps", object()).with(&[("version", "newer")]),
                merge("configmaps", "@a", json!({"metadata": {"uid": "{uid0}"}})).gives("422 Invalid"),
            ],
        ),
        row(
            "a selection is deleted at once",
            vec![
                create("configmaps", object()),
                create("configmaps", json!({"metadata": named("@b")})),
                create("configmaps", json!({"metadata": {"name": "@c"}})),
                delete_collection("configmaps", ListParams::default().labels("row=@r")),
                list("configmaps", ListParams::default().labels("row=@r")).with(&[("names", "")]),
                get("configmaps", "@c"),
            ],
        ),
    ]
}

fn finalizers() -> Vec<Row> {
    let object = || held(json!({"metadata": named("@a")}));
    vec![
        row(
            "a finalizer holds what is deleted until it is taken off",
            vec![
                create("canaries", held(canary(json!({})))).with(&[("/metadata/generation", "1")]),
                delete("canaries", "@a", plain()).with(&[
                    ("/kind", "Canary"),
                    ("/metadata/deletionGracePeriodSeconds", "0"),
                    ("/metadata/generation", "2"),
                ]),
                get("canaries", "@a").with(&[("version", "of 1")]),
                merge("canaries", "@a", free()).with(&[("/metadata/finalizers", "-")]),
                get("canaries", "@a").gives("404 NotFound"),
                watch("canaries", WatchParams::default().labels("row=@r"), "{version0}", 2)
                    .with(&[("events", "MODIFIED @a, DELETED @a")]),
            ],
        ),
        row(
            "the name of what is being deleted is still taken",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", plain()),
                create("configmaps", object()).gives("409 AlreadyExists"),
                merge("configmaps", "@a", free()),
            ],
        ),
        row(
            "what is being deleted takes no new finalizer, but other changes",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", plain()),
                merge("configmaps", "@a", json!({"metadata": {"finalizers": ["serin.dev/test", "serin.dev/more"]}}))
                    .gives("422 Invalid"),
                merge("configmaps", "@a", json!({"data": {"a": "1"}})).with(&[("/data/a", "1")]),
                merge("configmaps", "@a", json!({"metadata": {"deletionTimestamp": null}}))
                    .with(&[("/metadata/deletionGracePeriodSeconds", "0")]),
                merge("configmaps", "@a", free()),
                get("configmaps", "@a").gives("404 NotFound"),
            ],
        ),
        row(
            "a second delete of what is being deleted changes nothing",
            vec![
                create("configmaps", object()),
                delete("configmaps", "@a", plain()),
                delete("configmaps", "@a", plain()).with(&[("version", "of 1")]),
                merge("configmaps", "@a", free()),
            ],
        ),
        row(
            "status can be written while a finalizer holds",
            vec![
                create("canaries", held(canary(json!({})))),
                delete("canaries", "@a", plain()),
                merge("canaries", "@a", json!({"status": {"phase": "Terminating"}}))
                    .on_status()
                    .with(&[("/status/phase", "Terminating"), ("/metadata/generation", "2")]),
                merge("canaries", "@a", free()),
            ],
        ),
    ]
}

fn owners() -> Vec<Row> {
    vec![
        row(
            "what is owned goes with its owner, and what that owns too",
            vec![
                create("configmaps", json!({"metadata": {"name": "@owner"}})),
                create("configmaps", owned_by("@a", &[("@owner", "{uid0}")])),
                create("configmaps", owned_by("@b", &[("@a", "{uid1}")])),
                delete("configmaps", "@owner", DeleteParams::background()),
                get("configmaps", "@a").eventually().gives("404 NotFound"),
                get("configmaps", "@b").eventually().gives("404 NotFound"),
            ],
        ),
        row(
            "what another still owns stays",
            vec![
                create("configmaps", json!({"metadata": {"name": "@one"}})),
                create("configmaps", json!({"metadata": {"name": "@two"}})),
                create("configmaps", owned_by("@a", &[("@one", "{uid0}"), ("@two", "{uid1}")])),
                delete("configmaps", "@one", DeleteParams::background()),
                get("configmaps", "@a")
                    .eventually()
                    .with(&[("/metadata/ownerReferences/0/name", "@two"), ("/metadata/ownerReferences/1/name", "-")]),
            ],
        ),
    ]
}
