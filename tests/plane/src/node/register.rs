//! Makes the Node objects, so that controllers have something to put pods on.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::schedule::NodeSpec;
use crate::network;
use crate::objects::FIELD_MANAGER;

/// Pods that one Node says it has room for. Each is a process or more on this machine.
pub(super) const PODS_MAX: usize = 200;

/// Makes a Node that is ready.
pub(super) async fn register(client: &Client, node: &NodeSpec) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let object =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name, "labels": node.labels } });
    let ours = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&node.name, &ours, &Patch::Apply(object)).await.with_context(|| format!("making node {}", node.name))?;
    // The API server gives each new node a taint that the node lifecycle controller would take away.
    let untainted = json!({ "spec": { "taints": null } });
    api.patch(&node.name, &PatchParams::default(), &Patch::Merge(untainted)).await.context("taking a taint away")?;
    let room = json!({ "cpu": "64", "memory": "64Gi", "pods": PODS_MAX.to_string() });
    let now = Timestamp::now().to_string();
    let status = json!({ "status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [
            { "type": "InternalIP", "address": network::NODE.to_string() },
            { "type": "Hostname", "address": node.name },
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "pods are processes here",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    } });
    api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("making a node ready")?;
    Ok(())
}
