//! `service.trafficPolicy`: Istio's settings for connections to the backends, as Flagger copies them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `service.trafficPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Bounds on connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// How a backend is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// When a backend is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the backends.
    pub tls: Option<TlsSettings>,
}

/// `trafficPolicy.connectionPool`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    /// Bounds for HTTP.
    pub http: Option<HttpPool>,
}

/// `trafficPolicy.connectionPool.http`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPool {
    /// Whether HTTP/1.1 is raised to HTTP/2.
    pub h2_upgrade_policy: Option<UpgradePolicy>,
    /// Requests that may wait for a connection.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub http1_max_pending_requests: Option<i64>,
    /// Requests to a backend at one time.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub http2_max_requests: Option<i64>,
    /// Time after which an idle connection is closed.
    pub idle_timeout: Option<String>,
    /// Requests on one connection.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub max_requests_per_connection: Option<i64>,
    /// Retries at one time.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub max_retries: Option<i64>,
}

/// Whether HTTP/1.1 is raised to HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UpgradePolicy {
    /// As the mesh says.
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// `trafficPolicy.loadBalancer`: `simple` or `consistentHash`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// An algorithm by name.
    pub simple: Option<SimpleBalancer>,
    /// The same backend for the same key.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference by locality.
    pub locality_lb_setting: Option<LocalitySetting>,
    /// Time in which a new backend's share grows.
    pub warmup_duration_secs: Option<String>,
}

/// Algorithms without settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// In turn.
    RoundRobin,
    /// Fewest requests; the older name.
    LeastConn,
    /// At random.
    Random,
    /// Wherever the caller was going.
    Passthrough,
    /// Fewest requests.
    LeastRequest,
}

/// `loadBalancer.consistentHash`: exactly one source of the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsistentHash {
    /// The value of a header.
    pub http_header_name: Option<String>,
    /// The value of a cookie, set where it is absent.
    pub http_cookie: Option<HashCookie>,
    /// The client's address.
    pub use_source_ip: Option<bool>,
    /// The value of a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Fewest points on the ring.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub minimum_ring_size: Option<i64>,
}

/// `consistentHash.httpCookie`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashCookie {
    /// The cookie's name.
    pub name: Option<String>,
    /// Its `Path`.
    pub path: Option<String>,
    /// Its lifetime.
    pub ttl: Option<String>,
}

/// `loadBalancer.localityLbSetting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalitySetting {
    /// Shares by locality.
    pub distribute: Option<Vec<LocalityDistribute>>,
    /// Where to go when a region fails.
    pub failover: Option<Vec<LocalityFailover>>,
    /// Whether locality counts at all.
    pub enabled: Option<bool>,
}

/// One entry of `localityLbSetting.distribute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalityDistribute {
    /// The caller's locality.
    pub from: Option<String>,
    /// Shares by locality, in percent.
    pub to: Option<BTreeMap<String, i64>>,
}

/// One entry of `localityLbSetting.failover`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalityFailover {
    /// The region that failed.
    pub from: Option<String>,
    /// The region that takes over.
    pub to: Option<String>,
}

/// `trafficPolicy.outlierDetection`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Shortest time that a backend is left out.
    pub base_ejection_time: Option<String>,
    /// 5xx answers in a row.
    #[serde(rename = "consecutive5xxErrors", default, deserialize_with = "crate::whole::option")]
    pub consecutive_5xx_errors: Option<i64>,
    /// Errors in a row; the older name.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub consecutive_errors: Option<i64>,
    /// 502, 503 and 504 in a row.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub consecutive_gateway_errors: Option<i64>,
    /// Failures of the connection in a row.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub consecutive_local_origin_failures: Option<i64>,
    /// Time between two looks.
    pub interval: Option<String>,
    /// Share of the backends that may be left out, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub max_ejection_percent: Option<i64>,
    /// Share of healthy backends below which none is left out, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub min_health_percent: Option<i64>,
    /// Count failures of the connection apart.
    pub split_external_local_origin_errors: Option<bool>,
}

/// `trafficPolicy.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSettings {
    /// Whether and how TLS is used.
    pub mode: Option<TlsMode>,
    /// File of the CA certificates.
    pub ca_certificates: Option<String>,
    /// File of the client's certificate.
    pub client_certificate: Option<String>,
    /// File of the client's key.
    pub private_key: Option<String>,
    /// Server name to ask for.
    pub sni: Option<String>,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Option<Vec<String>>,
}

/// Whether and how TLS is used towards the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// The server shows a certificate.
    Simple,
    /// Both show one.
    Mutual,
    /// Both show the mesh's own.
    IstioMutual,
}
