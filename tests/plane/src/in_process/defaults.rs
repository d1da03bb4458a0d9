//! Fills in the few defaults that a controller meets when it compares what it wants with what is there.
//!
//! Only these: replicas of a Deployment or ReplicaSet, the type, address, protocol and target port of a Service, the
//! protocol of a container's port, the phase of a new Pod or Namespace. Everything else the real server fills in stays
//! out.

use serde_json::{Value, json};

use super::kinds::Kind;

/// An object with its defaults. `address` is a number for the address of a new Service.
pub(super) fn completed(kind: &Kind, object: Value, address: Option<u64>) -> Value {
    let mut object = if kind.rules.custom { object } else { keys_of_ports(object) };
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("apps", "deployments" | "replicasets") if object["spec"].is_object() => {
            default(&mut object["spec"], "replicas", json!(1));
        }
        ("", "services") if object["spec"].is_object() => service(&mut object["spec"], address),
        ("", "pods") if address.is_some() => object["status"] = json!({"phase": "Pending"}),
        ("", "namespaces") if address.is_some() => object["status"] = json!({"phase": "Active"}),
        _ => {}
    }
    object
}

/// An object whose ports say their protocol, because it is part of what tells them apart.
pub(super) fn keys_of_ports(mut object: Value) -> Value {
    if !object["spec"].is_object() {
        return object;
    }
    if object["kind"] == "Service" {
        ports(object["spec"].get_mut("ports"));
    }
    let template = if object["kind"] == "Pod" { Some("/spec") } else { Some("/spec/template/spec") };
    for list in ["containers", "initContainers"] {
        let found = template.and_then(|path| object.pointer_mut(path)).and_then(|spec| spec.get_mut(list));
        for container in found.and_then(Value::as_array_mut).into_iter().flatten() {
            ports(container.get_mut("ports"));
        }
    }
    object
}

fn ports(ports: Option<&mut Value>) {
    for port in ports.and_then(Value::as_array_mut).into_iter().flatten() {
        default(port, "protocol", json!("TCP"));
    }
}

fn service(spec: &mut Value, address: Option<u64>) {
    default(spec, "type", json!("ClusterIP"));
    let routed = spec["type"] != "ExternalName" && spec["clusterIP"] != "None";
    if let Some(number) = address.filter(|_| routed) {
        default(spec, "clusterIP", json!(format!("10.96.{}.{}", number / 250 % 250, number % 250 + 1)));
    }
    if let Some(address) = spec.get("clusterIP").cloned().filter(Value::is_string) {
        default(spec, "clusterIPs", json!([address]));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if object.get(field).is_none_or(Value::is_null) && object.is_object() {
        object[field] = value;
    }
}
