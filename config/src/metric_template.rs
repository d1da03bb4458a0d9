//! Flagger's MetricTemplate: a query to a metrics provider, with places for a Canary's names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::Object;
use crate::problem::{Finding, Findings};

/// A query that Canaries refer to by name.
pub type MetricTemplate = Object<MetricTemplateSpec>;

/// `MetricTemplate.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["provider", "query"]))]
pub struct MetricTemplateSpec {
    /// Who answers the query; required.
    pub provider: Option<MetricProvider>,
    /// The query, a Go text template; required.
    pub query: Option<String>,
}

/// `MetricTemplate.spec.provider`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["type"]))]
pub struct MetricProvider {
    /// The kind of provider; required.
    #[serde(rename = "type")]
    pub provider_type: Option<MetricProviderType>,
    /// Its address.
    pub address: Option<String>,
    /// Headers of the request, by name.
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// The Secret with the credentials, in the template's namespace.
    pub secret_ref: Option<SecretRef>,
    /// The region, for providers that have regions.
    pub region: Option<String>,
    /// Do not verify the provider's certificate.
    pub insecure_skip_verify: Option<bool>,
}

/// Kinds of metrics providers that Flagger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricProviderType {
    /// Prometheus.
    Prometheus,
    /// InfluxDB.
    InfluxDb,
    /// Datadog.
    Datadog,
    /// Kubernetes' external metrics API.
    ExternalMetrics,
    /// Google Cloud Monitoring.
    Stackdriver,
    /// Amazon CloudWatch.
    CloudWatch,
    /// New Relic.
    NewRelic,
    /// Graphite.
    Graphite,
    /// Dynatrace.
    Dynatrace,
    /// Keptn.
    Keptn,
    /// Splunk Observability.
    Splunk,
}

/// A reference to a Secret in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub struct SecretRef {
    /// The Secret's name; required.
    pub name: Option<String>,
}

impl MetricTemplate {
    /// Everything that Flagger's CRD would refuse, at once.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.metadata.check(&mut findings);
        match &self.spec.provider {
            Some(provider) => {
                if provider.provider_type.is_none() {
                    findings.error("spec.provider.type", "is missing");
                }
                if let Some(secret) = &provider.secret_ref {
                    findings.required("spec.provider.secretRef.name", secret.name.as_deref());
                }
            }
            None => {
                findings.error("spec.provider", "is missing");
            }
        }
        findings.required("spec.query", self.spec.query.as_deref());
        findings.into_vec()
    }
}
