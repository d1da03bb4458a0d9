//! EndpointSlices as the router needs them: which pods of a Service take requests, by the name of its port.
//!
//! The rules are those of kube-proxy (Kubernetes, "EndpointSlices", conditions): pods that are ready; if there are none, pods
//! that are on their way out and still serve.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::objects::Name;

/// The label that says whose slice it is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Addresses of one Service in the table. Ten slices of a hundred, which is what the endpoint controller makes of a
/// thousand pods; a canary of more is behind another load balancer.
pub(crate) const ENDPOINTS_MAX: usize = 1_000;

/// What is kept of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) service: String,
    /// Port numbers by name.
    ports: BTreeMap<String, u16>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    addresses: Vec<IpAddr>,
    ready: bool,
    /// It answers although it is about to end.
    lingers: bool,
}

/// A Service's pods behind one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Those that are ready, in order.
    pub(crate) ready: Vec<SocketAddr>,
    /// Those that are not.
    pub(crate) unready: Vec<SocketAddr>,
    lingering: Vec<SocketAddr>,
}

impl Slice {
    /// The part of a slice that matters here; none if it is no Service's.
    pub(crate) fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?.clone();
        let ports = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?)));
        let endpoints = slice.endpoints.iter().map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // Absent means unknown, which is to be read as true (API reference, EndpointConditions).
            let ready = conditions.ready.unwrap_or(true);
            let serving = conditions.serving.unwrap_or(ready);
            Endpoint {
                addresses: endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
                ready,
                lingers: !ready && serving && conditions.terminating.unwrap_or(false),
            }
        });
        Some(Self { service, ports: ports.collect(), endpoints: endpoints.collect() })
    }
}

impl Endpoints {
    /// The pods of a Service behind its port of this name, over all its slices.
    pub(crate) fn of<'a>(slices: impl Iterator<Item = &'a Slice>, port_name: &str) -> Self {
        let mut found = Self::default();
        for slice in slices {
            let Some(port) = slice.ports.get(port_name) else { continue };
            for endpoint in &slice.endpoints {
                let kind = match endpoint {
                    Endpoint { ready: true, .. } => &mut found.ready,
                    Endpoint { lingers: true, .. } => &mut found.lingering,
                    Endpoint { .. } => &mut found.unready,
                };
                kind.extend(endpoint.addresses.iter().map(|address| SocketAddr::new(*address, *port)));
            }
        }
        for kind in [&mut found.ready, &mut found.unready, &mut found.lingering] {
            // An endpoint that moves from one slice to another is in both for a moment.
            kind.sort_unstable();
            kind.dedup();
            kind.truncate(ENDPOINTS_MAX);
        }
        found
    }

    /// Where requests go.
    pub(crate) fn serving(self) -> Vec<SocketAddr> {
        if self.ready.is_empty() { self.lingering } else { self.ready }
    }
}

/// The slices of one Service.
pub(crate) fn of_service<'a>(
    slices: &'a BTreeMap<Name, Slice>,
    namespace: &'a str,
    service: &'a str,
) -> impl Iterator<Item = &'a Slice> {
    let first = Name::new(namespace, "");
    let of_namespace = slices.range(first..).take_while(move |(name, _)| name.namespace == namespace);
    of_namespace.map(|(_, slice)| slice).filter(move |slice| slice.service == service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(endpoints: &serde_json::Value, expected: &[&str]) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
            "metadata": {"name": "app-1", "labels": {SERVICE_LABEL: "app"}},
        }))
        .expect("a slice");
        let slice = Slice::of(&slice).expect("a Service's");
        let serving = Endpoints::of([&slice, &slice].into_iter(), "http").serving();
        assert_eq!(serving.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        assert_eq!(Endpoints::of([&slice].into_iter(), "metrics"), Endpoints::default());
    }

    #[test]
    fn ready_pods_get_requests_and_those_on_their_way_out_only_if_there_are_no_others() {
        let leaving =
            json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let starting = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": false}});
        let ready = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": true, "serving": true}});
        let unknown = json!({"addresses": ["10.0.0.4"]});
        check(&json!([leaving, starting, ready, unknown]), &["10.0.0.3:8080", "10.0.0.4:8080"]);
        check(&json!([leaving, starting]), &["10.0.0.1:8080"]);
        check(&json!([starting]), &[]);
        check(&json!(null), &[]);
    }
}
