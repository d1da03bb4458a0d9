//! Plays the controllers a canary's controller depends on: Deployments and DaemonSets become ready, EndpointSlices
//! follow Services.
//!
//! There are no ReplicaSets and no pods behind it. A test switches on what it wants; without that nothing moves by
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::kinds::Kind;
use super::owners::{self, Operation, Owner};
use super::store::{Key, Store};
use super::write::{name_of, set, text};

/// When a workload is ready after its spec has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// In the same moment.
    AtOnce,
    /// That much later, by tokio's clock. Until then it is rolling out.
    After(Duration),
}

/// Which controllers run, and what they have begun.
#[derive(Debug, Default)]
pub(super) struct Controllers {
    pub(super) workloads: Option<Readiness>,
    pub(super) slices: bool,
    /// Names of workloads that stay unready.
    pub(super) held_back: BTreeSet<String>,
    /// By uid: the generation that is rolling out, and when it is ready.
    due: BTreeMap<String, (u64, Instant)>,
    /// By uid: the number that its fake addresses have in common.
    networks: BTreeMap<String, usize>,
}

const MANAGER: &str = "kube-controller-manager";

impl Controllers {
    /// Does what is to be done now, and says when there will be more.
    pub(super) fn settle(&mut self, store: &mut Store) -> Option<Instant> {
        if let Some(readiness) = self.workloads {
            for resource in ["deployments.apps", "daemonsets.apps"] {
                self.roll(store, resource, readiness);
            }
        }
        if self.slices {
            self.publish(store);
        }
        self.due.values().map(|(_, at)| *at).filter(|at| *at > Instant::now()).min()
    }

    fn roll(&mut self, store: &mut Store, resource: &str, readiness: Readiness) {
        let Some(kind) = store.kind(resource).cloned() else { return };
        for (key, object) in objects(store, &kind) {
            let generation = object["metadata"]["generation"].as_u64().unwrap_or(0);
            let held = self.held_back.contains(name_of(&object));
            let ready = match readiness {
                _ if held => false,
                Readiness::AtOnce => true,
                Readiness::After(delay) => {
                    let begun = (generation, Instant::now() + delay);
                    let due = self.due.entry(text(&object, "uid").to_owned()).or_insert(begun);
                    if due.0 != generation {
                        *due = begun;
                    }
                    due.1 <= Instant::now()
                }
            };
            if held
                && object["status"]["observedGeneration"] == generation
                && object["status"]["readyReplicas"].is_null()
            {
                // Said once, so that a test can say something worse about it.
                continue;
            }
            let mut next = object.clone();
            match resource {
                "daemonsets.apps" => daemon_status(&mut next, generation, ready),
                _ => deployment_status(&mut next, generation, ready),
            }
            save(store, &kind, key, &object, next, Some("status"));
        }
    }

    fn publish(&mut self, store: &mut Store) {
        let (Some(services), Some(slices)) = (store.kind("services").cloned(), store.kind("endpointslices").cloned())
        else {
            return;
        };
        for (key, service) in objects(store, &services) {
            if service["spec"]["selector"].as_object().is_none_or(|selector| selector.is_empty()) {
                continue;
            }
            let (endpoints, workload) = self.selected(store, &key.namespace, &service["spec"]["selector"]);
            let mut slice = slice(&service, endpoints, workload.as_ref());
            let key = Store::key(&slices, Some(&key.namespace), name_of(&slice));
            let there = store.objects.get(&key).map(|stored| Value::clone(&stored.object));
            let old = there.unwrap_or_else(
                || json!({"metadata": {"uid": store.uid(), "creationTimestamp": store.now(), "generation": 0}}),
            );
            for field in ["uid", "creationTimestamp", "generation", "resourceVersion", "managedFields"] {
                set(&mut slice["metadata"], field, old["metadata"].get(field));
            }
            save(store, &slices, key, &old, slice, None);
        }
    }

    /// An endpoint for each ready replica that a selector chooses, and one of the workloads they are of.
    fn selected(&mut self, store: &Store, namespace: &str, selector: &Value) -> (Vec<Value>, Option<Value>) {
        let mut endpoints = Vec::new();
        let mut workload = None;
        for kind in ["deployments.apps", "daemonsets.apps"].into_iter().filter_map(|resource| store.kind(resource)) {
            for (key, object) in objects(store, kind) {
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                let mut wanted = selector.as_object().into_iter().flatten();
                if key.namespace == namespace && wanted.all(|(name, value)| labels.get(name) == Some(value)) {
                    endpoints.extend(self.endpoints(kind, &object));
                    workload = Some(object);
                }
            }
        }
        (endpoints, workload)
    }

    fn endpoints(&mut self, kind: &Kind, object: &Value) -> Vec<Value> {
        let next = self.networks.len();
        let network = *self.networks.entry(text(object, "uid").to_owned()).or_insert(next);
        let field = if kind.plural == "daemonsets" { "numberReady" } else { "readyReplicas" };
        let ready = object["status"][field].as_u64().unwrap_or(0);
        (1..=ready)
            .map(|number| {
                json!({
                    "addresses": [format!("10.244.{network}.{number}")],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                })
            })
            .collect()
    }
}

fn objects(store: &Store, kind: &Kind) -> Vec<(Key, Value)> {
    store.all(kind).map(|(key, stored)| (key.clone(), Value::clone(&stored.object))).collect()
}

/// Saves what a controller wrote, if it wrote anything new.
fn save(store: &mut Store, kind: &Kind, key: Key, old: &Value, mut new: Value, subresource: Option<&str>) {
    if *old == new {
        return;
    }
    let writer = Owner {
        manager: MANAGER.to_owned(),
        operation: Operation::Update,
        subresource: subresource.map(str::to_owned),
        api_version: kind.api_version(),
        time: store.now(),
        paths: BTreeSet::new(),
    };
    let owners = store.objects.get(&key).map(|stored| stored.owners.clone()).unwrap_or_default();
    let owners = owners::updated(&owners, old, &new, writer, kind.rules.custom);
    if subresource.is_none() {
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
    new["metadata"]["managedFields"] = owners::rendered(&owners);
    store.save(key, new, owners);
}

fn deployment_status(object: &mut Value, generation: u64, ready: bool) {
    let replicas = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let status = &mut object["status"];
    status["observedGeneration"] = json!(generation);
    let counts = [
        ("replicas", replicas),
        ("updatedReplicas", replicas),
        ("readyReplicas", if ready { replicas } else { 0 }),
        ("availableReplicas", if ready { replicas } else { 0 }),
        ("unavailableReplicas", if ready { 0 } else { replicas }),
    ];
    count(status, &counts);
    let (available, why, progress) = if ready {
        ("True", "MinimumReplicasAvailable", "NewReplicaSetAvailable")
    } else {
        ("False", "MinimumReplicasUnavailable", "ReplicaSetUpdated")
    };
    status["conditions"] = json!([
        {"type": "Available", "status": available, "reason": why},
        {"type": "Progressing", "status": "True", "reason": progress},
    ]);
}

/// There is one node. A node selector matches none: that is how a DaemonSet is parked.
fn daemon_status(object: &mut Value, generation: u64, ready: bool) {
    let parked =
        object["spec"]["template"]["spec"]["nodeSelector"].as_object().is_some_and(|labels| !labels.is_empty());
    let wanted = u64::from(!parked);
    let there = if ready { wanted } else { 0 };
    let status = &mut object["status"];
    status["observedGeneration"] = json!(generation);
    // These four are required and so are there even at zero.
    for (field, number) in [
        ("currentNumberScheduled", wanted),
        ("desiredNumberScheduled", wanted),
        ("numberMisscheduled", 0),
        ("numberReady", there),
    ] {
        status[field] = json!(number);
    }
    count(
        status,
        &[("updatedNumberScheduled", wanted), ("numberAvailable", there), ("numberUnavailable", wanted - there)],
    );
}

/// Sets counts, which the wire leaves out at zero.
fn count(status: &mut Value, counts: &[(&str, u64)]) {
    for (field, number) in counts {
        let number = json!(number);
        set(status, field, Some(&number).filter(|number| **number != 0));
    }
}

/// The slice of a Service, without what only the server knows of it.
fn slice(service: &Value, endpoints: Vec<Value>, workload: Option<&Value>) -> Value {
    let name = name_of(service);
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-slice"), "namespace": text(service, "namespace"),
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": name, "uid": text(service, "uid"),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "endpoints": endpoints,
        "ports": ports(service, workload),
    })
}

/// The ports of a Service as its slice has them. A named target is looked up in the workload.
fn ports(service: &Value, workload: Option<&Value>) -> Vec<Value> {
    let containers = workload.and_then(|object| object["spec"]["template"]["spec"]["containers"].as_array());
    let named = |name: &Value| {
        let ports = containers.into_iter().flatten().filter_map(|container| container["ports"].as_array()).flatten();
        ports.into_iter().find(|port| port["name"] == *name).map(|port| port["containerPort"].clone())
    };
    let wanted = service["spec"]["ports"].as_array().into_iter().flatten();
    wanted
        .filter_map(|port| {
            let target = &port["targetPort"];
            let number = if target.is_string() { named(target)? } else { target.clone() };
            let name = port.get("name").cloned().unwrap_or_else(|| json!(""));
            let mut made = json!({"name": name, "port": number, "protocol": port["protocol"]});
            set(&mut made, "appProtocol", port.get("appProtocol"));
            Some(made)
        })
        .collect()
}
