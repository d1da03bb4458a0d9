//! `Canary.status` as Flagger writes it, for what reads it from the cluster: `kubectl`, GitOps tools, dashboards.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Canary.status`. The three numbers are always written (checklist 25), as Go writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStatus {
    /// What the rollout is doing.
    pub phase: StatusPhase,
    /// Failed checks of this run; kept after a success.
    #[serde(deserialize_with = "crate::whole::or_zero")]
    #[schemars(with = "f64")]
    pub failed_checks: i64,
    /// The canary's share of the traffic, in percent.
    #[serde(deserialize_with = "crate::whole::or_zero")]
    #[schemars(with = "f64")]
    pub canary_weight: i64,
    /// Checks of a blue/green or A/B run so far.
    #[serde(deserialize_with = "crate::whole::or_zero")]
    #[schemars(with = "f64")]
    pub iterations: i64,
    /// Checksums of the ConfigMaps and Secrets that the target uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_configs: Option<BTreeMap<String, String>>,
    /// Checksum of the pod template that is rolled out, or was last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied_spec: Option<String>,
    /// Checksum of the pod template that was promoted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_promoted_spec: Option<String>,
    /// When this status was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// The cookie that keeps a user on the canary in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_cookie: Option<String>,
    /// The cookie that keeps a user on the primary in this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_session_affinity_cookie: Option<String>,
    /// The canary's cookie of the run before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_session_affinity_cookie: Option<String>,
    /// One condition, `Promoted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<CanaryCondition>>,
}

/// Flagger's phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StatusPhase {
    /// Not seen by a controller yet; written as an empty text.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// The primary is being made.
    Initializing,
    /// The primary serves; nothing has been rolled out yet.
    Initialized,
    /// A gate keeps a run from its start.
    Waiting,
    /// Traffic moves and is checked.
    Progressing,
    /// A gate keeps the canary from promotion.
    WaitingPromotion,
    /// The primary becomes what the canary is.
    Promoting,
    /// Traffic returns to the primary.
    Finalising,
    /// The canary was promoted.
    Succeeded,
    /// The canary was taken back.
    Failed,
    /// The Canary is being deleted and its target restored.
    Terminating,
    /// Restored; Flagger knows the word and never writes it.
    Terminated,
}

/// One entry of `status.conditions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryCondition {
    /// What it is about: `Promoted`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The phase.
    pub reason: String,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// When its status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}
