//! The checks of Flagger's CRD and of its admission, for the spec as a whole and the references in it.
//!
//! Sources: `charts/flagger/crds/crd.yaml` of Flagger 1.44 for what is required and allowed, and `verifyCanary` in its
//! `pkg/controller/controller.go` for what the schema cannot say.

use super::{AutoscalerRef, Canary, ObjectRef, TargetKind, TargetRef, validate_analysis, validate_service};
use crate::problem::{Finding, Findings};

/// Everything that is wrong with a Canary.
pub(super) fn canary(canary: &Canary) -> Vec<Finding> {
    let mut findings = Findings::default();
    let spec = &canary.spec;
    canary.metadata.check(&mut findings);
    match &spec.target_ref {
        Some(target) => check_target(&mut findings, target),
        None => {
            findings.error("spec.targetRef", "is missing").help("name the workload that is rolled out");
        }
    }
    findings.within("spec.progressDeadlineSeconds", spec.progress_deadline_seconds, 0..=i64::MAX);
    if let Some(autoscaler) = &spec.autoscaler_ref {
        check_autoscaler(&mut findings, autoscaler);
    }
    for (field, reference, kind) in [
        ("ingressRef", &spec.ingress_ref, "Ingress"),
        ("routeRef", &spec.route_ref, "ApisixRoute"),
        ("upstreamRef", &spec.upstream_ref, "Upstream"),
    ] {
        if let Some(reference) = reference {
            check_reference(&mut findings, &format!("spec.{field}"), reference, &[kind]);
        }
    }
    if let Some(service) = &spec.service {
        validate_service::check(&mut findings, service);
    }
    match &spec.analysis {
        Some(analysis) => validate_analysis::check(&mut findings, analysis),
        None => {
            findings.error("spec.analysis", "is missing").help("it needs interval, threshold and stepWeight at least");
        }
    }
    check_knative(&mut findings, canary);
    findings.into_vec()
}

fn check_target(findings: &mut Findings, target: &TargetRef) {
    if target.kind.is_none() {
        findings.error("spec.targetRef.kind", "is missing");
    }
    findings.required("spec.targetRef.name", target.name.as_deref());
    // A Backend is found by its name alone; there is one kind of them.
    if target.kind != Some(TargetKind::Backend) {
        findings.required("spec.targetRef.apiVersion", target.api_version.as_deref());
    }
}

fn check_autoscaler(findings: &mut Findings, autoscaler: &AutoscalerRef) {
    let AutoscalerRef { api_version, kind, name, .. } = autoscaler.clone();
    let reference = ObjectRef { api_version, kind, name, namespace: None };
    check_reference(findings, "spec.autoscalerRef", &reference, &["HorizontalPodAutoscaler", "ScaledObject"]);
    if let Some(replicas) = &autoscaler.primary_scaler_replicas {
        let path = "spec.autoscalerRef.primaryScalerReplicas";
        findings.within(format!("{path}.minReplicas"), replicas.min_replicas, 1..=i64::from(i32::MAX));
        findings.within(format!("{path}.maxReplicas"), replicas.max_replicas, 1..=i64::from(i32::MAX));
    }
}

fn check_reference(findings: &mut Findings, path: &str, reference: &ObjectRef, kinds: &[&str]) {
    findings.required(format!("{path}.apiVersion"), reference.api_version.as_deref());
    findings.required(format!("{path}.kind"), reference.kind.as_deref());
    findings.required(format!("{path}.name"), reference.name.as_deref());
    findings.one_of(format!("{path}.kind"), reference.kind.as_deref().filter(|kind| !kind.is_empty()), kinds);
}

/// Checklist 31. Only `spec.provider` counts; a process-wide default does not make a target a Knative one.
fn check_knative(findings: &mut Findings, canary: &Canary) {
    let spec = &canary.spec;
    let is_target = spec.target_ref.as_ref().is_some_and(TargetRef::is_knative);
    let is_provider = spec.provider.as_deref() == Some("knative");
    match (is_target, is_provider) {
        (true, false) => {
            findings.error("spec.provider", "a Knative Service can only be rolled out by the provider knative");
        }
        (false, true) => {
            findings
                .error("spec.provider", "knative can only roll out a Knative Service")
                .help("the target must have kind Service and apiVersion serving.knative.dev/v1");
        }
        (true, true) if spec.autoscaler_ref.is_some() => {
            findings.error("spec.autoscalerRef", "can't use autoscaler with Knative Service");
        }
        (true, true) | (false, false) => {}
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
