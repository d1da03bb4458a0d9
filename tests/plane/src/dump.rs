//! A namespace in text, for the reader of a failed test.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use crate::namespace::Namespace;

/// The end of a log that is told, in lines.
const LOG_LINES_TOLD: usize = 40;

/// The newest events and journal lines that are told. A rollout makes a few for each pod.
const LINES_TOLD: usize = 80;

/// The kinds that are told, and the part of each that says what is so. A kind that the API server does not know is left out.
const KINDS: [(&str, &str, &str, &str); 9] = [
    ("flagger.app", "v1beta1", "Canary", "/status"),
    ("apps", "v1", "Deployment", "/status"),
    ("apps", "v1", "DaemonSet", "/status"),
    ("apps", "v1", "ReplicaSet", "/status"),
    ("", "v1", "Pod", "/status"),
    ("", "v1", "Service", "/spec"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "/endpoints"),
    ("coordination.k8s.io", "v1", "Lease", "/spec"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "/status"),
];

/// Everything there is to know.
pub(crate) async fn dump(namespace: &Namespace) -> String {
    let mut text = format!("\n==== namespace {}\n", namespace.name());
    for (group, version, kind, part) in KINDS {
        objects(namespace, &GroupVersionKind::gvk(group, version, kind), part, &mut text).await;
    }
    events(namespace, &mut text).await;
    let node = namespace.plane().node();
    section(&mut text, "what the node did");
    last(node.journal(namespace.name()).iter().map(String::as_str), LINES_TOLD, &mut text);
    for (pod, container, log) in node.logs(namespace.name()) {
        section(&mut text, &format!("log of {pod} {container}"));
        last(log.lines(), LOG_LINES_TOLD, &mut text);
    }
    text
}

fn section(text: &mut String, title: &str) {
    let _written = writeln!(text, "---- {title}");
}

fn last<'a>(lines: impl Iterator<Item = &'a str>, count: usize, text: &mut String) {
    let lines: Vec<_> = lines.collect();
    for line in &lines[lines.len().saturating_sub(count)..] {
        let _written = writeln!(text, "{line}");
    }
}

async fn objects(namespace: &Namespace, kind: &GroupVersionKind, part: &str, text: &mut String) {
    let plane = namespace.plane();
    let Ok((resource, _)) = plane.applier.kind(kind).await else { return };
    let api: Api<DynamicObject> = Api::namespaced_with(plane.client(), namespace.name(), &resource);
    let found = match api.list(&ListParams::default()).await {
        Ok(found) => found.items,
        Err(error) => {
            let _written = writeln!(text, "{}: {error}", kind.kind);
            return;
        }
    };
    for object in found {
        let name = object.metadata.name.unwrap_or_default();
        let deleted = if object.metadata.deletion_timestamp.is_some() { ", being deleted" } else { "" };
        let _written =
            writeln!(text, "{} {name}{deleted}: {}", kind.kind, object.data.pointer(part).unwrap_or(&Value::Null));
    }
}

async fn events(namespace: &Namespace, text: &mut String) {
    section(text, "events");
    let mut events = match namespace.api::<Event>().list(&ListParams::default()).await {
        Ok(events) => events.items,
        Err(error) => {
            let _written = writeln!(text, "{error}");
            return;
        }
    };
    events.sort_by_key(|event| event.metadata.creation_timestamp.as_ref().map(|made| made.0));
    let lines = events.iter().map(|event| {
        let Event { type_, reason, message, involved_object, count, .. } = event;
        let told = |text: &Option<String>| text.clone().unwrap_or_default();
        let (kind, name) = (told(&involved_object.kind), told(&involved_object.name));
        format!("{} {} {kind} {name} ({}×): {}", told(type_), told(reason), count.unwrap_or(1), told(message))
    });
    let lines: Vec<_> = lines.collect();
    last(lines.iter().map(String::as_str), LINES_TOLD, text);
}
