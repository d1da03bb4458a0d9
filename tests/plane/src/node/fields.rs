//! What a pod can be told about itself: the downward API.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::network;

/// The value of a `fieldPath`; none if there is no such field.
pub(super) fn field(path: &str, pod: &Pod, address: Ipv4Addr) -> Option<String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = map_of(map, pod)?;
        // A label that is not there is an empty string, as in Kubernetes.
        return Some(map.get(key).cloned().unwrap_or_default());
    }
    if let Some(map) = map_of(path, pod) {
        return Some(lines(map));
    }
    let spec = pod.spec.as_ref();
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "spec.nodeName" => spec?.node_name.clone(),
        "spec.serviceAccountName" => spec?.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => Some(address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(network::NODE.to_string()),
        _ => None,
    }
}

fn map_of<'a>(path: &str, pod: &'a Pod) -> Option<&'a BTreeMap<String, String>> {
    match path {
        "metadata.labels" => Some(pod.labels()),
        "metadata.annotations" => Some(pod.annotations()),
        _ => None,
    }
}

/// As `fieldpath.FormatMap` of Kubernetes writes them.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().fold(String::new(), |mut lines, (name, value)| {
        let _written = writeln!(lines, "{name}={value:?}");
        lines
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::field;

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        let pod = json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u-1", "labels": { "app": "web", "b.io/c": "\"d\"" } },
            "spec": { "containers": [], "nodeName": "node-0", "serviceAccountName": "default" },
        });
        let pod = serde_json::from_value(pod).unwrap();
        assert_eq!(field(path, &pod, Ipv4Addr::new(10, 244, 0, 7)).as_deref(), expected, "{path}");
    }

    #[test]
    fn a_pod_is_told_its_names_addresses_and_labels() {
        check("metadata.name", Some("web"));
        check("metadata.namespace", Some("shop"));
        check("metadata.uid", Some("u-1"));
        check("metadata.labels['b.io/c']", Some("\"d\""));
        check("metadata.labels['none']", Some(""));
        check("metadata.labels", Some("app=\"web\"\nb.io/c=\"\\\"d\\\"\"\n"));
        check("spec.nodeName", Some("node-0"));
        check("spec.serviceAccountName", Some("default"));
        check("status.podIP", Some("10.244.0.7"));
        check("status.hostIP", Some("10.244.255.253"));
        check("spec.hostname", None);
    }
}
