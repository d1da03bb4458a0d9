//! The checks of Flagger's CRD for `spec.service`.

use std::collections::BTreeMap;

use super::service::{BackendRef, GatewayRef, HttpMatch, Port, Service, StringMatch};
use super::traffic_policy::{ConsistentHash, LoadBalancer};
use crate::problem::Findings;

/// The range of TCP ports that can be named.
const PORTS: std::ops::RangeInclusive<i64> = 1..=65_535;
/// Gateways of one HTTPRoute (Gateway API: `parentRefs`, maxItems).
const GATEWAY_REFS_MAX: usize = 32;

pub(super) fn check(findings: &mut Findings, service: &Service) {
    let path = "spec.service";
    if service.port.is_none() {
        findings.error(format!("{path}.port"), "is missing").help("the port that clients use, such as 80");
    }
    findings.within(format!("{path}.port"), service.port, PORTS);
    // 0 is how Flagger's own type says that the field is not set.
    if let Some(Port::Number(number)) = service.target_port {
        findings.within(format!("{path}.targetPort"), Some(number), 0..=*PORTS.end());
    }
    check_gateways(findings, service.gateway_refs());
    for (index, matched) in service.matches().iter().enumerate() {
        check_match(findings, &format!("{path}.match[{index}]"), matched);
    }
    if let Some(retries) = &service.retries {
        findings.within(format!("{path}.retries.attempts"), retries.attempts, 0..=i64::from(i32::MAX));
    }
    for (index, mirror) in service.mirrors().iter().enumerate() {
        // Flagger's schema puts its `required` on the list, so an entry without a backendRef passes it; nothing is mirrored then.
        if let Some(backend) = &mirror.backend_ref {
            check_backend(findings, &format!("{path}.mirror[{index}].backendRef"), backend);
        }
    }
    let origins = service.cors_policy.as_ref().and_then(|cors| cors.allow_origins.as_deref()).unwrap_or_default();
    for (index, origin) in origins.iter().enumerate() {
        let path = format!("{path}.corsPolicy.allowOrigins[{index}]");
        check_string_match(findings, &path, origin);
        if *origin == StringMatch::default() {
            findings.error(path, "has none of exact, prefix, regex");
        }
    }
    if let Some(balancer) = service.traffic_policy.as_ref().and_then(|policy| policy.load_balancer.as_ref()) {
        check_balancer(findings, &format!("{path}.trafficPolicy.loadBalancer"), balancer);
    }
}

fn check_gateways(findings: &mut Findings, gateways: &[GatewayRef]) {
    let path = "spec.service.gatewayRefs";
    if gateways.len() > GATEWAY_REFS_MAX {
        findings.error(path, format!("has {} entries, {GATEWAY_REFS_MAX} are the most", gateways.len()));
    }
    for (index, gateway) in gateways.iter().enumerate() {
        findings.required(format!("{path}[{index}].name"), gateway.name.as_deref());
        findings.within(format!("{path}[{index}].port"), gateway.port, PORTS);
    }
}

fn check_match(findings: &mut Findings, path: &str, matched: &HttpMatch) {
    for (field, condition) in [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ] {
        if let Some(condition) = condition {
            check_string_match(findings, &format!("{path}.{field}"), condition);
        }
    }
    check_string_matches(findings, &format!("{path}.headers"), matched.headers.as_ref());
    check_string_matches(findings, &format!("{path}.withoutHeaders"), matched.without_headers.as_ref());
    check_string_matches(findings, &format!("{path}.queryParams"), matched.query_params.as_ref());
    findings.within(format!("{path}.port"), matched.port, PORTS);
}

/// Reports the entries of a map of conditions that hold more than one each.
pub(super) fn check_string_matches(
    findings: &mut Findings,
    path: &str,
    conditions: Option<&BTreeMap<String, StringMatch>>,
) {
    for (name, condition) in conditions.into_iter().flatten() {
        check_string_match(findings, &format!("{path}[\"{name}\"]"), condition);
    }
}

fn check_string_match(findings: &mut Findings, path: &str, condition: &StringMatch) {
    let StringMatch { exact, prefix, regex } = condition;
    if [exact, prefix, regex].into_iter().flatten().count() > 1 {
        findings.error(path, "has more than one of exact, prefix, regex");
    }
}

fn check_backend(findings: &mut Findings, path: &str, backend: &BackendRef) {
    findings.required(format!("{path}.name"), backend.name.as_deref());
    findings.within(format!("{path}.port"), backend.port, PORTS);
    let is_service = backend.group.as_deref().unwrap_or_default().is_empty()
        && backend.kind.as_deref().unwrap_or("Service") == "Service";
    if is_service && backend.port.is_none() {
        findings.error(format!("{path}.port"), "is missing").help("a Service is reached by its port");
    }
}

fn check_balancer(findings: &mut Findings, path: &str, balancer: &LoadBalancer) {
    match (&balancer.simple, &balancer.consistent_hash) {
        (Some(_), Some(_)) => {
            findings.error(path, "has both simple and consistentHash");
        }
        (None, None) => {
            findings.error(path, "has neither simple nor consistentHash");
        }
        (Some(_), None) => {}
        (None, Some(hash)) => check_hash(findings, &format!("{path}.consistentHash"), hash),
    }
}

fn check_hash(findings: &mut Findings, path: &str, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|given| *given).count() != 1 {
        findings.error(path, "needs exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName");
    }
}
