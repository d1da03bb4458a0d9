//! `spec.service`: the Services and routes that a Canary generates, and how requests are treated on the way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use super::traffic_policy::TrafficPolicy;
use crate::schema;

/// `Canary.spec.service`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["port"]))]
pub struct Service {
    /// Name of the service that clients use; the target's name where absent. `-primary` and `-canary` are appended.
    pub name: Option<String>,
    /// The service's port; required.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub port: Option<i64>,
    /// Name of that port.
    pub port_name: Option<String>,
    /// The container's port, by number or by name.
    pub target_port: Option<Port>,
    /// Application protocol of the port.
    pub app_protocol: Option<String>,
    /// Which endpoints a Service prefers.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Add the container's other ports.
    pub port_discovery: Option<bool>,
    /// Generate Services without a cluster IP.
    pub headless: Option<bool>,
    /// Time for a whole request, as the provider writes durations.
    pub timeout: Option<String>,
    /// Time for one attempt at a backend (Gateway API).
    pub backend_timeout: Option<String>,
    /// Istio gateways; `mesh` where absent.
    pub gateways: Option<Vec<String>>,
    /// Gateways that an HTTPRoute attaches to; 32 at most.
    #[schemars(length(max = 32))]
    pub gateway_refs: Option<Vec<GatewayRef>>,
    /// Host names.
    pub hosts: Option<Vec<String>>,
    /// Generate a VirtualService that another one delegates to.
    pub delegation: Option<bool>,
    /// Istio's settings for connections to the backends.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Conditions on the requests that are routed at all; one entry must match in full.
    #[serde(rename = "match")]
    pub matches: Option<Vec<HttpMatch>>,
    /// How the request line is rewritten.
    pub rewrite: Option<Rewrite>,
    /// When a request is tried again.
    pub retries: Option<Retries>,
    /// Headers to add, set and remove.
    pub headers: Option<HeaderOperations>,
    /// Backends that get a copy of every request. Not the canary's mirror.
    pub mirror: Option<Vec<Mirror>>,
    /// Cross-origin rules.
    pub cors_policy: Option<CorsPolicy>,
    /// App Mesh: the mesh.
    pub mesh_name: Option<String>,
    /// App Mesh: the backends.
    pub backends: Option<Vec<String>>,
    /// Labels and annotations for the service that clients use, and for routes.
    pub apex: Option<CustomMetadata>,
    /// Labels and annotations for the primary's Service.
    pub primary: Option<CustomMetadata>,
    /// Labels and annotations for the canary's Service.
    pub canary: Option<CustomMetadata>,
    /// Keys of generated Services that are left alone.
    pub unmanaged_metadata: Option<UnmanagedMetadata>,
}

impl Service {
    /// Name of the port; `http` where absent.
    pub fn port_name(&self) -> &str {
        self.port_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("http")
    }

    /// The host names; empty where absent.
    pub fn hosts(&self) -> &[String] {
        self.hosts.as_deref().unwrap_or_default()
    }

    /// The match conditions; empty where absent, which matches everything.
    pub fn matches(&self) -> &[HttpMatch] {
        self.matches.as_deref().unwrap_or_default()
    }

    /// The gateways of an HTTPRoute; empty where absent.
    pub fn gateway_refs(&self) -> &[GatewayRef] {
        self.gateway_refs.as_deref().unwrap_or_default()
    }

    /// The static mirrors; empty where absent.
    pub fn mirrors(&self) -> &[Mirror] {
        self.mirror.as_deref().unwrap_or_default()
    }
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Port {
    /// By number.
    Number(i64),
    /// By the name that the container gives it.
    Name(String),
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::int_or_string()
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, because an untagged enum would answer a wrong value with a sentence about enums.
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port's number or name")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Port, E> {
        Ok(Port::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Port, E> {
        i64::try_from(number).map(Port::Number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Port, E> {
        Ok(Port::Name(name.to_owned()))
    }
}

/// Which endpoints a Service prefers (Kubernetes, `spec.trafficDistribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TrafficDistribution {
    /// Those in the caller's zone; the older name.
    PreferClose,
    /// Those in the caller's zone.
    PreferSameZone,
    /// Those on the caller's node.
    PreferSameNode,
}

/// A name of one part, as a namespace has (RFC 1123; Gateway API's `Namespace`).
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A name of parts between dots (RFC 1123; Gateway API's `SectionName`).
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// An API group; the core group's name is empty (Gateway API's `Group`).
const GROUP: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A kind (Gateway API's `Kind`).
const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// A Gateway that an HTTPRoute attaches to (Gateway API, `ParentReference`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub struct GatewayRef {
    /// API group; `gateway.networking.k8s.io` where absent.
    #[schemars(length(max = 253), regex(pattern = GROUP))]
    pub group: Option<String>,
    /// Kind; `Gateway` where absent.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND))]
    pub kind: Option<String>,
    /// Name; required.
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Namespace; the Canary's own where absent.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// One listener of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub section_name: Option<String>,
    /// One port of the Gateway.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// Istio's `HTTPMatchRequest`: every condition in it must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// A name for people.
    pub name: Option<String>,
    /// Condition on the path.
    pub uri: Option<StringMatch>,
    /// Condition on the scheme.
    pub scheme: Option<StringMatch>,
    /// Condition on the method.
    pub method: Option<StringMatch>,
    /// Condition on the host.
    pub authority: Option<StringMatch>,
    /// Conditions on request headers, by name.
    pub headers: Option<BTreeMap<String, StringMatch>>,
    /// The port that the request came in on.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub port: Option<i64>,
    /// Labels of the calling pod; known to a mesh only.
    pub source_labels: Option<BTreeMap<String, String>>,
    /// Gateways that the condition is limited to.
    pub gateways: Option<Vec<String>>,
    /// Conditions on query parameters, by name.
    pub query_params: Option<BTreeMap<String, StringMatch>>,
    /// Compare the path without regard to case.
    pub ignore_uri_case: Option<bool>,
    /// Conditions that must not hold, by header name.
    pub without_headers: Option<BTreeMap<String, StringMatch>>,
    /// Namespace of the calling pod; known to a mesh only.
    pub source_namespace: Option<String>,
}

/// Istio's `StringMatch`: at most one of the three; none is satisfied by any value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::one_at_most_of(&[&["exact"], &["prefix"], &["regex"]]))]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// How the value begins.
    pub prefix: Option<String>,
    /// A regular expression in RE2's syntax for the whole value.
    pub regex: Option<String>,
}

/// `service.rewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// What the path, or its matched prefix, becomes.
    pub uri: Option<String>,
    /// What the host becomes.
    pub authority: Option<String>,
    /// Gateway API: `ReplacePrefixMatch`; anything else replaces the full path.
    #[serde(rename = "type")]
    pub rewrite_type: Option<String>,
}

/// `service.retries`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Attempts after the first.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub attempts: Option<i64>,
    /// Time for one attempt.
    pub per_try_timeout: Option<String>,
    /// Conditions under which it is tried again, between commas, in Envoy's words.
    pub retry_on: Option<String>,
}

/// `service.headers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderOperations {
    /// Edits of the request on its way to the backend.
    pub request: Option<HeaderEdits>,
    /// Edits of the response on its way to the client.
    pub response: Option<HeaderEdits>,
}

/// Edits of a header block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdits {
    /// Values to append.
    pub add: Option<BTreeMap<String, String>>,
    /// Values that replace what is there.
    pub set: Option<BTreeMap<String, String>>,
    /// Names to take out.
    pub remove: Option<Vec<String>>,
}

/// One entry of `service.mirror`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where the copy goes.
    pub backend_ref: Option<BackendRef>,
}

/// A Service is reached by its port, other kinds may know better. `group` and `kind` are a Service's where absent.
const PORT_RULE: &str =
    "has(self.port) || (has(self.group) && self.group != '') || (has(self.kind) && self.kind != 'Service')";
/// What is said to who leaves the port out.
const PORT_MESSAGE: &str = "a Service is reached by its port, which is missing";

/// Gateway API's `BackendObjectReference`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"], "x-kubernetes-validations" = [{ "rule": PORT_RULE, "message": PORT_MESSAGE }]))]
pub struct BackendRef {
    /// API group; the core group where absent.
    #[schemars(length(max = 253), regex(pattern = GROUP))]
    pub group: Option<String>,
    /// Kind; `Service` where absent.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND))]
    pub kind: Option<String>,
    /// Name; required.
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Namespace; the Canary's own where absent.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// Port; required for a Service.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// `service.corsPolicy`, as in Istio.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Origins, word for word; deprecated.
    pub allow_origin: Option<Vec<String>>,
    /// Origins, by exactly one condition each.
    pub allow_origins: Option<Vec<StringMatch>>,
    /// Methods.
    pub allow_methods: Option<Vec<String>>,
    /// Request headers.
    pub allow_headers: Option<Vec<String>>,
    /// Response headers that scripts may read.
    pub expose_headers: Option<Vec<String>>,
    /// How long a browser may remember a preflight's answer.
    pub max_age: Option<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
}

/// Labels and annotations for a generated object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomMetadata {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// `service.unmanagedMetadata`: keys that are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnmanagedMetadata {
    /// Keys of annotations.
    pub annotations: Option<Vec<String>>,
    /// Keys of labels.
    pub labels: Option<Vec<String>>,
}
