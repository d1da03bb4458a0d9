//! The Canary of `flagger.app/v1beta1` as Flagger 1.44 accepts it, and one optional object more: `spec.analysis.guard`.
//!
//! The types are the wire: every field is an `Option` and holds what was written. Methods give what Flagger makes of an
//! absent field. [`Canary::validate`] makes the checks that Flagger's CRD makes at the API server, so that a file is refused
//! where the cluster would refuse it; what a target or a provider means is not decided here.

mod affinity;
mod analysis;
mod guard;
mod service;
mod status;
mod traffic_policy;
mod validate;
mod validate_analysis;
mod validate_service;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use affinity::{SameSite, SessionAffinity};
pub use analysis::{
    Alert, AlertSeverity, Analysis, BUILTIN_METRICS, HeaderMatch, HookType, Metric, NamespacedRef, RequestMatch,
    ThresholdRange, Webhook,
};
pub use guard::{Guard, GuardMode, Pace, Percent, PercentError, StickyKey};
pub use service::{
    BackendRef, CorsPolicy, CustomMetadata, GatewayRef, HeaderEdits, HeaderOperations, HttpMatch, Mirror, Port,
    Retries, Rewrite, Service, StringMatch, TrafficDistribution, UnmanagedMetadata,
};
pub use status::{CanaryCondition, CanaryStatus, StatusPhase};
pub use traffic_policy::{
    ConnectionPool, ConsistentHash, HashCookie, HttpPool, LoadBalancer, LocalityDistribute, LocalityFailover,
    LocalitySetting, OutlierDetection, SimpleBalancer, TlsMode, TlsSettings, TrafficPolicy, UpgradePolicy,
};

use crate::object::Object;
use crate::problem::Finding;
use crate::schema;

/// A rollout's plan: what is rolled out, how traffic moves, and what must hold meanwhile.
pub type Canary = Object<CanarySpec>;

/// `Canary.spec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["targetRef", "analysis"]))]
pub struct CanarySpec {
    /// The routing provider, such as `istio` or `gatewayapi:v1`. Any text: Flagger's list is closed, ours is not, and what
    /// a name means depends on where Serin runs.
    pub provider: Option<String>,
    /// Address of the Prometheus that answers builtin and inline queries.
    pub metrics_server: Option<String>,
    /// How long a version may take to become ready, in seconds.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub progress_deadline_seconds: Option<i64>,
    /// The workload under control; required.
    pub target_ref: Option<TargetRef>,
    /// The autoscaler that is copied for the primary.
    #[schemars(transform = schema::kinds(&["HorizontalPodAutoscaler", "ScaledObject"]))]
    pub autoscaler_ref: Option<AutoscalerRef>,
    /// The Ingress to shift traffic with (nginx, skipper).
    #[schemars(transform = schema::kinds(&["Ingress"]))]
    pub ingress_ref: Option<ObjectRef>,
    /// The ApisixRoute to shift traffic with.
    #[schemars(transform = schema::kinds(&["ApisixRoute"]))]
    pub route_ref: Option<ObjectRef>,
    /// The Gloo Upstream whose settings are copied.
    #[schemars(transform = schema::kinds(&["Upstream"]))]
    pub upstream_ref: Option<ObjectRef>,
    /// The Services and routes to generate. May be absent for a Knative target.
    pub service: Option<Service>,
    /// How the canary is judged and traffic moved; required.
    pub analysis: Option<Analysis>,
    /// Promote without analysis.
    pub skip_analysis: Option<bool>,
    /// Restore the target when the Canary is deleted.
    pub revert_on_deletion: Option<bool>,
    /// Do nothing until this is false again.
    pub suspend: Option<bool>,
}

/// `targetRef`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["apiVersion", "kind", "name"]))]
pub struct TargetRef {
    /// API group and version of the target; required, but in a file it may be left out where the kind is `Backend`.
    pub api_version: Option<String>,
    /// What kind of workload it is; required.
    pub kind: Option<TargetKind>,
    /// The target's name, in the Canary's namespace; required.
    pub name: Option<String>,
}

/// Kinds that can be rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A DaemonSet.
    DaemonSet,
    /// A Deployment; outside a cluster, the Backend of that name.
    Deployment,
    /// A Service, or a Knative Service where the apiVersion says so.
    Service,
    /// Serin's own Backend: versions and endpoints from a file.
    Backend,
}

/// The apiVersion that makes a target of kind `Service` a Knative one.
const KNATIVE_API_VERSION: &str = "serving.knative.dev/v1";

impl TargetRef {
    /// Whether the target is a Knative Service: kind `Service` and exactly `serving.knative.dev/v1`.
    pub fn is_knative(&self) -> bool {
        self.kind == Some(TargetKind::Service) && self.api_version.as_deref() == Some(KNATIVE_API_VERSION)
    }
}

/// `autoscalerRef`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["apiVersion", "kind", "name"]))]
pub struct AutoscalerRef {
    /// API group and version; required, not interpreted.
    pub api_version: Option<String>,
    /// `HorizontalPodAutoscaler` or `ScaledObject`; required.
    pub kind: Option<String>,
    /// The autoscaler's name; required.
    pub name: Option<String>,
    /// Queries for the primary's triggers, by trigger name (ScaledObject only).
    pub primary_scaler_queries: Option<BTreeMap<String, String>>,
    /// Replica bounds of the primary's autoscaler, where they differ from the target's.
    pub primary_scaler_replicas: Option<ScalerReplicas>,
}

/// `autoscalerRef.primaryScalerReplicas`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalerReplicas {
    /// Fewest replicas, at least 1.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(range(min = 1))]
    pub min_replicas: Option<i64>,
    /// Most replicas, at least 1.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(range(min = 1))]
    pub max_replicas: Option<i64>,
}

/// A reference to an object of a fixed kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["apiVersion", "kind", "name"]))]
pub struct ObjectRef {
    /// API group and version; required.
    pub api_version: Option<String>,
    /// The kind; required.
    pub kind: Option<String>,
    /// The name; required.
    pub name: Option<String>,
    /// The namespace, read for `upstreamRef` only.
    pub namespace: Option<String>,
}

/// Flagger's progress deadline where none is given (checklist 14), in seconds.
const PROGRESS_DEADLINE_DEFAULT: u64 = 600;

impl CanarySpec {
    /// How long a version may take to become ready: 600 s where the field is absent.
    pub fn progress_deadline(&self) -> Duration {
        let seconds =
            self.progress_deadline_seconds.map_or(PROGRESS_DEADLINE_DEFAULT, |s| u64::try_from(s).unwrap_or(0));
        Duration::from_secs(seconds)
    }

    /// The service's name that clients use: `service.name`, else the target's.
    pub fn apex_name(&self) -> &str {
        let from_service = self.service.as_ref().and_then(|service| service.name.as_deref());
        let from_target = || self.target_ref.as_ref().and_then(|target| target.name.as_deref());
        from_service.filter(|name| !name.is_empty()).or_else(from_target).unwrap_or_default()
    }

    /// Whether to promote without analysis; false where absent.
    pub fn skip_analysis(&self) -> bool {
        self.skip_analysis.unwrap_or(false)
    }

    /// Whether to restore the target on deletion; false where absent.
    pub fn revert_on_deletion(&self) -> bool {
        self.revert_on_deletion.unwrap_or(false)
    }

    /// Whether the Canary is suspended; false where absent.
    pub fn is_suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }
}

impl Canary {
    /// Everything that Flagger's CRD or its own admission would refuse (errors), and what it accepts but hardly can be meant
    /// (warnings). All of it at once.
    pub fn validate(&self) -> Vec<Finding> {
        validate::canary(self)
    }
}
