//! The pod template is what a release is: its revision, and the templates of the revisions that are in play.
//!
//! A revision is a digest of the template as the API server returns it, with its keys in order. Replicas, the Deployment's own
//! metadata and its strategy are no part of it (checklist 58, 59).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use serin_measure::CanaryKey;
use serin_rollout::{Revision, State};

/// Bytes of the digest that make a revision: 40 bits tell any number of releases of one target apart, and are short enough to
/// be read aloud.
const REVISION_BYTES: usize = 5;

/// The revision of a pod template.
pub(crate) fn revision(template: &Value) -> Revision {
    let mut text = String::new();
    write_canonical(&mut text, template);
    let digest = digest(&SHA256, text.as_bytes());
    let mut name = String::with_capacity(2 * REVISION_BYTES);
    for byte in &digest.as_ref()[..REVISION_BYTES] {
        write!(name, "{byte:02x}").expect("a String takes every write");
    }
    Revision(name)
}

/// JSON with the keys of every object in order, whatever order they came in.
fn write_canonical(text: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (index, (key, value)) in ordered.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write!(text, "{}:", Value::String(key.clone())).expect("a String takes every write");
                write_canonical(text, value);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(text, item);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write!(text, "{value}").expect("a String takes every write");
        }
    }
}

/// The templates of the revisions that a Canary may still need: the one that its target has, and those that its state names.
///
/// What was analysed is promoted, even if the target has moved on since, and a broken promotion goes back to what served before.
/// So templates are saved with the state, and found here by whoever copies them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Library {
    shelves: Arc<Mutex<BTreeMap<CanaryKey, Shelf>>>,
}

#[derive(Debug, Default)]
struct Shelf {
    target: Option<Revision>,
    templates: BTreeMap<Revision, Arc<Value>>,
}

impl Library {
    /// Keeps the target's present template.
    pub(crate) fn keep_target(&self, canary: &CanaryKey, revision: &Revision, template: &Value) {
        let mut shelves = self.shelves.lock();
        let shelf = shelves.entry(canary.clone()).or_default();
        shelf.target = Some(revision.clone());
        shelf.templates.entry(revision.clone()).or_insert_with(|| Arc::new(template.clone()));
    }

    /// Keeps the templates that were saved with a state.
    pub(crate) fn keep_saved(&self, canary: &CanaryKey, templates: BTreeMap<Revision, Value>) {
        let mut shelves = self.shelves.lock();
        let shelf = shelves.entry(canary.clone()).or_default();
        for (revision, template) in templates {
            shelf.templates.entry(revision).or_insert_with(|| Arc::new(template));
        }
    }

    /// Forgets the templates of canaries that are gone.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&CanaryKey) -> bool) {
        self.shelves.lock().retain(|canary, _| is_there(canary));
    }

    /// The template of a revision, if it is known.
    pub(crate) fn template(&self, canary: &CanaryKey, revision: &Revision) -> Option<Arc<Value>> {
        self.shelves.lock().get(canary)?.templates.get(revision).cloned()
    }

    /// The templates that a state names. All others but the target's are forgotten.
    pub(crate) fn of_state(&self, canary: &CanaryKey, state: &State) -> BTreeMap<Revision, Arc<Value>> {
        let mut shelves = self.shelves.lock();
        let shelf = shelves.entry(canary.clone()).or_default();
        let named = [&state.applied, &state.promoted, &state.primary];
        let is_named = |revision: &Revision| named.iter().any(|name| name.as_ref() == Some(revision));
        let target = shelf.target.clone();
        shelf.templates.retain(|revision, _| is_named(revision) || target.as_ref() == Some(revision));
        let of_state = shelf.templates.iter().filter(|(revision, _)| is_named(revision));
        of_state.map(|(revision, template)| (revision.clone(), template.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_revision_is_the_template_and_not_the_order_of_its_fields() {
        let one: Value = serde_json::from_str(r#"{"spec":{"a":1,"b":["x",{"c":null,"d":"\""}]}}"#).expect("JSON");
        let same: Value = serde_json::from_str(r#"{"spec":{"b":["x",{"d":"\"","c":null}],"a":1}}"#).expect("JSON");
        let other: Value = serde_json::from_str(r#"{"spec":{"b":[{"d":"\"","c":null},"x"],"a":1}}"#).expect("JSON");
        assert_eq!(revision(&one), revision(&same));
        assert_ne!(revision(&one), revision(&other));
        assert_eq!(revision(&json!({})).0, "44136fa355", "the digest of two braces, for ever");
    }

    #[test]
    fn a_library_keeps_what_a_state_names_and_what_the_target_has() {
        let (library, canary) = (Library::default(), CanaryKey::new("shop", "cart"));
        for name in ["1", "2", "3", "4"] {
            library.keep_target(&canary, &Revision(name.to_owned()), &json!({"name": name}));
        }
        let mut state = State::new(0);
        state.promoted = Some(Revision("1".to_owned()));
        state.applied = Some(Revision("3".to_owned()));
        let kept: Vec<_> = library.of_state(&canary, &state).into_keys().map(|revision| revision.0).collect();
        assert_eq!(kept, ["1", "3"]);
        assert!(library.template(&canary, &Revision("2".to_owned())).is_none());
        assert!(library.template(&canary, &Revision("4".to_owned())).is_some());
    }
}
