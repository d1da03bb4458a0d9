//! Serin's CanaryState: what is known of one rollout, kept in the cluster beside its Canary and under the same name.
//!
//! It is for Serin to read, and for people in as far as its columns go. What the state is made of is not told here: its
//! parts are JSON that the runtime writes and reads, so that their form can grow without a new version of the resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::AnyObject;

/// `CanaryState.spec`. There is no status: all of it is written by Serin, in one write, fenced by the resource version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "CanaryState",
    plural = "canarystates",
    singular = "canarystate",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep")
)]
pub struct CanaryStateSpec {
    /// The UID of the Canary that this is the state of. Another Canary that later gets the same name begins anew.
    pub canary_uid: String,
    /// Who saved it.
    pub writer: Writer,
    /// The state: phase, weight, run, epoch, evidence. An object; of a null the server says that it is missing.
    #[schemars(with = "AnyObject")]
    pub state: Value,
    /// The pod templates of the revisions that the state names, by revision. An object, or absent.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(with = "AnyObject")]
    pub templates: Value,
    /// What was told of late, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<StateEvent>,
}

/// Who saved a state: a process, and how often it has done so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// The process, by a name that no other start of it has.
    pub boot: String,
    /// The number of this save among the process's own, from 1.
    pub save: u64,
}

/// Something that was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateEvent {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// `Normal` or `Warning`, as Kubernetes has it.
    pub level: String,
    /// The text.
    pub message: String,
}
