//! Objects that several tests use.

use std::time::Duration;

use serde_json::{Value, json};

/// Things happen within a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A Deployment of the backend, which says its version.
pub(crate) fn web(version: &str, replicas: u32) -> Value {
    deployment("web", replicas, backend(version))
}

/// A Deployment called `name` whose pods have the label `app=NAME`.
pub(crate) fn deployment(name: &str, replicas: u32, pod: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": pod },
        },
    })
}

/// A Service for it, with a port that is called `http`.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    })
}

/// The spec of a pod that answers on port 8080 of its IP.
pub(crate) fn backend(version: &str) -> Value {
    json!({ "containers": [{
        "name": "app",
        "image": format!("backend:{version}"),
        "args": ["--listen=$(POD_IP):8080", format!("--version={version}")],
        "env": [{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "readinessProbe": { "httpGet": { "port": "http", "path": "/" }, "periodSeconds": 1 },
    }] })
}

/// The spec of a pod that runs a shell script.
pub(crate) fn script(script: &str) -> Value {
    json!({ "terminationGracePeriodSeconds": 1, "containers": [{ "name": "app", "image": "sh", "args": [script] }] })
}

/// A pod by itself.
pub(crate) fn pod(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } }, "spec": spec })
}

/// A pod in a network of its own.
pub(crate) fn apart(name: &str, spec: Value) -> Value {
    let mut pod = pod(name, spec);
    pod["metadata"]["annotations"] = json!({ "serin.dev/own-network": "true" });
    pod
}
