//! EndpointSlices as the router needs them: which pods of a Service take requests, by the name of its port.
//!
//! The rules are those of kube-proxy (Kubernetes, "EndpointSlices", conditions): pods that are ready; if there are none, pods
//! that are on their way out and still serve.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::objects::Name;
use crate::site::Peer;

/// The label that says whose slice it is.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
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
    /// Takes requests. Always so where a Service publishes addresses of pods that are not ready.
    ready: bool,
    /// Its pod says that it is ready, also while it is on its way out.
    serving: bool,
    terminating: bool,
}

/// A Service's pods behind one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Those that are ready, in order.
    pub(crate) ready: Vec<SocketAddr>,
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
                serving,
                terminating: conditions.terminating.unwrap_or(false),
            }
        });
        Some(Self { service, ports: ports.collect(), endpoints: endpoints.collect() })
    }
}

impl Endpoints {
    /// The pods of a Service behind its port of this name, over all its slices.
    pub(crate) fn of<'a>(slices: impl Iterator<Item = &'a Slice>, port_name: &str) -> Self {
        let mut found = Self::default();
        for (endpoint, address) in behind(slices, port_name) {
            match endpoint {
                Endpoint { ready: true, .. } => found.ready.push(address),
                Endpoint { serving: true, terminating: true, .. } => found.lingering.push(address),
                Endpoint { .. } => {}
            }
        }
        for kind in [&mut found.ready, &mut found.lingering] {
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

/// The processes behind a Service that publishes them all, ready or not. Clients are sent to those that say they are ready and
/// are not on their way out.
pub(crate) fn peers<'a>(slices: impl Iterator<Item = &'a Slice>, port_name: &str) -> Vec<Peer> {
    let all = behind(slices, port_name);
    let peers = all.map(|(endpoint, address)| Peer { address, serves: endpoint.serving && !endpoint.terminating });
    let by_address: BTreeMap<SocketAddr, Peer> = peers.map(|peer| (peer.address, peer)).collect();
    by_address.into_values().take(ENDPOINTS_MAX).collect()
}

/// Every endpoint with each of its addresses, at the port of this name.
fn behind<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port_name: &str,
) -> impl Iterator<Item = (&'a Endpoint, SocketAddr)> {
    let with_port = slices.filter_map(move |slice| Some((*slice.ports.get(port_name)?, &slice.endpoints)));
    let endpoints = with_port.flat_map(|(port, endpoints)| endpoints.iter().map(move |endpoint| (port, endpoint)));
    endpoints.flat_map(|(port, endpoint)| {
        endpoint.addresses.iter().map(move |address| (endpoint, SocketAddr::new(*address, port)))
    })
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

    fn slice(endpoints: &serde_json::Value) -> Slice {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
            "metadata": {"name": "app-1", "labels": {SERVICE_LABEL: "app"}},
        }))
        .expect("a slice");
        Slice::of(&slice).expect("a Service's")
    }

    #[track_caller]
    fn check(endpoints: &serde_json::Value, expected: &[&str]) {
        let slice = slice(endpoints);
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

    #[test]
    fn of_a_fleet_whose_service_publishes_all_pods_those_serve_that_say_so_and_are_not_on_their_way_out() {
        let pod = |address: &str, serving: bool, terminating: bool| json!({"addresses": [address], "conditions": {"ready": true, "serving": serving, "terminating": terminating}});
        let slice = slice(&json!([
            pod("10.0.0.1", true, false),
            pod("10.0.0.2", false, false),
            pod("10.0.0.3", true, true),
            pod("10.0.0.4", false, true),
        ]));
        let found = peers([&slice, &slice].into_iter(), "http");
        assert_eq!(found.iter().map(|peer| peer.serves).collect::<Vec<_>>(), [true, false, false, false]);
    }
}
