//! What the objects around one Canary are called, and what selects their pods: Flagger's rules (1.44, `pkg/router`,
//! `pkg/canary`).

use serde_json::Value;
use serin_config::Canary;

use super::objects::{Name, field, number, text};

/// Labels that can tell the primary's pods from the canary's, in the order in which they are looked for (Flagger's default
/// of `-selector-labels`).
const SELECTOR_LABELS: [&str; 3] = ["app", "name", "app.kubernetes.io/name"];

/// The objects around one Canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) canary: Name,
    /// The Deployment that people write.
    pub(crate) target: Name,
    /// The copy of it that is the primary.
    pub(crate) primary: Name,
    /// The Service that clients use.
    pub(crate) apex: Name,
    pub(crate) apex_primary: Name,
    pub(crate) apex_canary: Name,
    /// The name of the Services' port.
    pub(crate) port_name: String,
}

/// The one label that tells the primary's pods from the target's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) label: String,
    /// Its value on the target's pods; the primary's have `-primary` appended.
    pub(crate) value: String,
}

impl Names {
    pub(crate) fn of(canary: &Canary) -> Self {
        let namespace = canary.namespace();
        let name = |name: &str| Name::new(namespace, name);
        let target = canary.spec.target_ref.as_ref().and_then(|target| target.name.as_deref()).unwrap_or_default();
        let apex = canary.spec.apex_name();
        Self {
            canary: name(canary.name()),
            target: name(target),
            primary: name(&format!("{target}-primary")),
            apex: name(apex),
            apex_primary: name(&format!("{apex}-primary")),
            apex_canary: name(&format!("{apex}-canary")),
            port_name: canary.spec.service.as_ref().map_or("http", |service| service.port_name()).to_owned(),
        }
    }
}

impl Selector {
    /// The first of the known labels that the target's selector has (checklist 36), or Flagger's sentence (checklist 37).
    pub(crate) fn of(target: &Value, name: &Name) -> Result<Self, String> {
        let labels = field(target, &["spec", "selector", "matchLabels"]);
        let found = SELECTOR_LABELS.iter().find_map(|label| Some((*label, labels?.get(*label)?.as_str()?)));
        found.map(|(label, value)| Self { label: label.to_owned(), value: value.to_owned() }).ok_or_else(|| {
            let labels = SELECTOR_LABELS.join(" ");
            format!("deployment {name} spec.selector.matchLabels must contain one of [{labels}]")
        })
    }

    pub(crate) fn primary_value(&self) -> String {
        format!("{}-primary", self.value)
    }
}

/// The replicas that a Deployment asks for; one where it says nothing (Kubernetes' default).
pub(crate) fn replicas(deployment: &Value) -> i64 {
    number(deployment, &["spec", "replicas"]).unwrap_or(1)
}

/// The revision that was last copied to a primary.
pub(crate) fn copied_revision(primary: &Value) -> Option<&str> {
    text(primary, &["metadata", "annotations", super::REVISION_ANNOTATION])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(labels: Value, expected: Result<(&str, &str), &str>) {
        let target = json!({"spec": {"selector": {"matchLabels": labels}}});
        let found = Selector::of(&target, &Name::new("shop", "cart"));
        let expected = expected.map(|(label, value)| Selector { label: label.to_owned(), value: value.to_owned() });
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn checklist_36_37_the_first_known_label_of_the_selector_is_taken() {
        check(json!({"name": "n", "app": "a"}), Ok(("app", "a")));
        check(json!({"app.kubernetes.io/name": "k", "tier": "x"}), Ok(("app.kubernetes.io/name", "k")));
        let sentence =
            "deployment cart.shop spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name]";
        check(json!({"tier": "x"}), Err(sentence));
        check(json!(null), Err(sentence));
    }
}
