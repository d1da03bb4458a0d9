//! Whether a pod may run on a node: nodeSelector, and the required node affinity that DaemonSets use.
//!
//! No resources, taints or preferences: a plane has as much room as its tests need.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// A node, as a scheduler sees it.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeSpec {
    /// A node with the labels that every node has.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let labels = [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux")];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        Self { name: name.to_owned(), labels }
    }

    /// The same with another label.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Whether the pod may run here.
    pub(super) fn fits(&self, pod: &PodSpec) -> bool {
        let selected = pod.node_selector.iter().flatten().all(|(name, value)| self.labels.get(name) == Some(value));
        let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        // Any of the terms will do; within a term, all of it counts.
        selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| self.matches(term)))
    }

    fn matches(&self, term: &NodeSelectorTerm) -> bool {
        let labels = || term.match_expressions.iter().flatten();
        let fields = || term.match_fields.iter().flatten();
        // A term that says nothing matches nothing.
        labels().chain(fields()).next().is_some()
            && labels().all(|wanted| satisfies(wanted, self.labels.get(&wanted.key)))
            && fields().all(|wanted| satisfies(wanted, (wanted.key == "metadata.name").then_some(&self.name)))
    }
}

fn satisfies(wanted: &NodeSelectorRequirement, found: Option<&String>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.contains(found));
    let compared = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(|(found, wanted)| found > wanted),
        "Lt" => compared().is_some_and(|(found, wanted)| found < wanted),
        // The API server lets no other through.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::NodeSpec;

    #[track_caller]
    fn check(pod: Value, expected: bool) {
        let node = NodeSpec::named("node-0").with_label("disk", "ssd").with_label("cores", "8");
        let mut pod = pod;
        pod["containers"] = json!([]);
        assert_eq!(node.fits(&serde_json::from_value(pod.clone()).unwrap()), expected, "{pod}");
    }

    fn affinity(term: Value) -> Value {
        let required = json!({ "nodeSelectorTerms": [term] });
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } } })
    }

    #[test]
    fn a_selector_has_to_match_whole() {
        check(json!({}), true);
        check(json!({ "nodeSelector": { "disk": "ssd" } }), true);
        check(json!({ "nodeSelector": { "disk": "ssd", "zone": "a" } }), false);
        // How Flagger parks a DaemonSet.
        check(json!({ "nodeSelector": { "flagger.app/scale-to-zero": "true" } }), false);
    }

    #[test]
    fn a_daemon_set_names_its_node() {
        let on = |name: &str| {
            affinity(json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] }))
        };
        check(on("node-0"), true);
        check(on("node-1"), false);
    }

    #[test]
    fn operators_of_affinity_mean_what_they_say() {
        let label = |key: &str, operator: &str, values: &[&str]| {
            affinity(json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }))
        };
        check(label("disk", "In", &["hdd", "ssd"]), true);
        check(label("disk", "NotIn", &["ssd"]), false);
        check(label("zone", "Exists", &[]), false);
        check(label("zone", "DoesNotExist", &[]), true);
        check(label("cores", "Gt", &["4"]), true);
        check(label("cores", "Lt", &["4"]), false);
        check(affinity(json!({})), false);
    }
}
