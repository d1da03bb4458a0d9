//! The objects that Serin makes for a Canary: the primary, which is a copy of the target, and three Services. Flagger's rules
//! (1.44, `pkg/canary/deployment_controller.go`, `pkg/router/kubernetes_default.go`).

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use serin_config::{Canary, CustomMetadata, Port, Service};
use serin_rollout::Revision;

use super::REVISION_ANNOTATION;
use super::names::{Names, Selector};
use super::objects::{Name, field, text};

/// Keys of Flux are never copied: it would take the copy for its own.
const FLUX: &str = "toolkit.fluxcd.io";
/// What keeps Flux from undoing what Serin does to a Service.
const FLUX_MARKERS: [(&str, &str); 2] =
    [("kustomize.toolkit.fluxcd.io/reconcile", "disabled"), ("helm.toolkit.fluxcd.io/driftDetection", "disabled")];

/// One Canary and what it owns.
#[derive(Debug, Clone)]
pub(crate) struct Owner<'a> {
    pub(crate) canary: &'a Canary,
    pub(crate) uid: &'a str,
    pub(crate) names: &'a Names,
    pub(crate) selector: &'a Selector,
}

impl Owner<'_> {
    fn references(&self) -> Value {
        json!([{
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": self.names.canary.name, "uid": self.uid,
            "controller": true, "blockOwnerDeletion": true,
        }])
    }

    /// The primary: the target with this template, under a name and a selector of its own.
    pub(crate) fn primary(&self, target: &Value, template: &Value, revision: &Revision, replicas: i64) -> Value {
        let Name { namespace, name } = &self.names.primary;
        let mut annotations = without_flux(field(target, &["metadata", "annotations"]));
        annotations.remove("deployment.kubernetes.io/revision");
        annotations.insert(REVISION_ANNOTATION.to_owned(), json!(revision.0));
        let mut spec = Map::new();
        for key in ["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"] {
            if let Some(value) = field(target, &["spec", key]) {
                spec.insert(key.to_owned(), value.clone());
            }
        }
        let labels = json!({self.selector.label.clone(): self.selector.primary_value()});
        spec.insert("replicas".to_owned(), json!(replicas));
        spec.insert("selector".to_owned(), json!({"matchLabels": labels}));
        spec.insert("template".to_owned(), self.primary_template(template, revision));
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "namespace": namespace, "name": name, "labels": labels, "annotations": annotations,
                "ownerReferences": self.references(),
            },
            "spec": spec,
        })
    }

    fn primary_template(&self, template: &Value, revision: &Revision) -> Value {
        let mut labels = without_flux(field(template, &["metadata", "labels"]));
        labels.insert(self.selector.label.clone(), json!(self.selector.primary_value()));
        let mut annotations = without_flux(field(template, &["metadata", "annotations"]));
        annotations.insert("flagger-id".to_owned(), json!(uuid_of(self.uid, revision)));
        let mut spec = field(template, &["spec"]).cloned().unwrap_or_default();
        let terms = [
            &["affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"][..],
            &["affinity", "podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution"][..],
            &["topologySpreadConstraints"][..],
        ];
        for path in terms {
            for term in items_mut(&mut spec, path) {
                let term = if term.get("podAffinityTerm").is_some() { &mut term["podAffinityTerm"] } else { term };
                self.rename_in(&mut term["labelSelector"]);
            }
        }
        json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
    }

    /// Pods that keep apart from the target's keep apart from the primary's in the copy (checklist 42).
    fn rename_in(&self, selector: &mut Value) {
        let (target, primary) = (&self.names.target.name, &self.names.primary.name);
        for requirement in items_mut(selector, &["matchExpressions"]) {
            if requirement["key"] != json!(self.selector.label) {
                continue;
            }
            let values = requirement["values"].as_array_mut().into_iter().flatten();
            if let Some(value) = values.into_iter().find(|value| value.as_str() == Some(target)) {
                *value = json!(primary);
            }
        }
        if let Some(value) =
            selector.pointer_mut("/matchLabels").and_then(|labels| labels.get_mut(&self.selector.label))
            && value.as_str() == Some(target)
        {
            *value = json!(primary);
        }
    }

    /// The Service of one arm, which Serin owns.
    pub(crate) fn arm_service(&self, name: &Name, value: &str) -> Value {
        let service = self.service();
        let custom = if *name == self.names.apex_primary { &service.primary } else { &service.canary };
        self.service_object(name, value, custom.as_ref())
    }

    /// The Service that clients use, where there was none.
    pub(crate) fn apex_service(&self) -> Value {
        self.service_object(&self.names.apex, &self.selector.primary_value(), self.service().apex.as_ref())
    }

    /// What is changed in a Service that clients use already: where it points, and what keeps Flux away (checklist 46).
    pub(crate) fn apex_change(&self, service: &Value) -> Value {
        let markers: Map<String, Value> = FLUX_MARKERS.iter().map(|(key, on)| ((*key).to_owned(), json!(on))).collect();
        let selector = self.selector_change(service, &self.selector.primary_value());
        json!({"metadata": {"annotations": markers}, "spec": {"selector": selector}})
    }

    /// What is changed in somebody's Service of an arm's name: where it points, and its port.
    pub(crate) fn arm_change(&self, service: &Value, value: &str) -> Value {
        json!({"spec": {"selector": self.selector_change(service, value), "ports": [self.port()]}})
    }

    /// The change that makes a selector this one label alone: a merge would leave the others, and select nothing.
    fn selector_change(&self, service: &Value, value: &str) -> Value {
        let others = field(service, &["spec", "selector"]).and_then(Value::as_object).into_iter().flatten();
        let mut change: Map<String, Value> = others.map(|(label, _)| (label.clone(), Value::Null)).collect();
        change.insert(self.selector.label.clone(), json!(value));
        change.into()
    }

    /// Whether a Service points at the pods with this value of the label, and at no others.
    pub(crate) fn points_at(&self, service: &Value, value: &str) -> bool {
        field(service, &["spec", "selector"]) == Some(&self.pods(value))
    }

    /// Whether a Service has the port that it should.
    pub(crate) fn has_port(&self, service: &Value) -> bool {
        let wanted = self.port();
        let ports = field(service, &["spec", "ports"]).and_then(Value::as_array).into_iter().flatten();
        let mut same = ports.filter(|port| {
            let same = |key: &str| wanted.get(key).is_none_or(|value| port.get(key) == Some(value));
            ["name", "port", "targetPort", "appProtocol"].into_iter().all(same)
        });
        same.next().is_some()
    }

    fn service(&self) -> Service {
        self.canary.spec.service.clone().unwrap_or_default()
    }

    fn pods(&self, value: &str) -> Value {
        json!({self.selector.label.clone(): value})
    }

    fn port(&self) -> Value {
        let service = self.service();
        let number = service.port.unwrap_or(80);
        let target = match &service.target_port {
            Some(Port::Number(number)) => json!(number),
            Some(Port::Name(name)) => json!(name),
            None => json!(number),
        };
        let mut port = json!({"name": self.names.port_name, "protocol": "TCP", "port": number, "targetPort": target});
        if let Some(protocol) = service.app_protocol.filter(|protocol| !protocol.is_empty()) {
            port["appProtocol"] = json!(protocol);
        }
        port
    }

    fn service_object(&self, name: &Name, value: &str, custom: Option<&CustomMetadata>) -> Value {
        let of = |keys: Option<&std::collections::BTreeMap<String, String>>| {
            let keys = keys.into_iter().flatten();
            keys.map(|(key, value)| (key.clone(), json!(value))).collect::<Map<String, Value>>()
        };
        let mut labels = of(custom.and_then(|custom| custom.labels.as_ref()));
        labels.insert(self.selector.label.clone(), json!(name.name));
        let mut annotations = of(custom.and_then(|custom| custom.annotations.as_ref()));
        annotations.extend(FLUX_MARKERS.iter().map(|(key, on)| ((*key).to_owned(), json!(on))));
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": name.namespace, "name": name.name, "labels": labels, "annotations": annotations,
                "ownerReferences": self.references(),
            },
            "spec": {"type": "ClusterIP", "selector": self.pods(value), "ports": [self.port()]},
        })
    }
}

/// Labels or annotations as they are, but for Flux's.
fn without_flux(keys: Option<&Value>) -> Map<String, Value> {
    let keys = keys.and_then(Value::as_object).into_iter().flatten();
    let kept =
        keys.filter(|(key, _)| !key.contains(FLUX) && *key != "kubectl.kubernetes.io/last-applied-configuration");
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The items of a list inside, if it is there.
fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> {
    let list = path.iter().try_fold(value, |value, key| value.get_mut(*key));
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Flagger gives each promotion a random `flagger-id`. Here it follows from what is promoted, so that copying twice changes
/// nothing; it has a UUID's form (RFC 9562, version 8).
fn uuid_of(uid: &str, revision: &Revision) -> String {
    let digest = digest(&SHA256, format!("{uid}/{}", revision.0).as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// Whether an object was made for this Canary.
pub(crate) fn is_owned_by(object: &Value, uid: &str) -> bool {
    let references = field(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    references.into_iter().flatten().any(|reference| text(reference, &["uid"]) == Some(uid))
}

#[cfg(test)]
mod tests;
