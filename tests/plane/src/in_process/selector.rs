//! Which objects a label or field selector chooses.
//!
//! Labels: equality and sets, as in `k8s.io/apimachinery/pkg/labels`. Fields: `metadata.name`, `metadata.namespace`
//! and, leniently, any other path to a string; the real server knows a few paths for each kind and refuses the rest.

use serde_json::Value;

use super::failure::Failure;

/// A parsed pair of selectors; the default chooses everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, Failure> {
        Ok(Self { labels: requirements(labels.unwrap_or(""))?, fields: requirements(fields.unwrap_or(""))? })
    }

    /// Whether nothing narrows the choice.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn chooses(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str).map(str::to_owned);
        let field = |key: &str| {
            let found = key.split('.').try_fold(object, |value, step| value.get(step));
            Some(found.and_then(Value::as_str).unwrap_or("").to_owned())
        };
        self.labels.iter().all(|requirement| requirement.met(label(&requirement.key)))
            && self.fields.iter().all(|requirement| requirement.met(field(&requirement.key)))
    }
}

impl Requirement {
    fn met(&self, value: Option<String>) -> bool {
        match (&self.test, value) {
            (Test::In(values), Some(value)) => values.contains(&value),
            (Test::NotIn(values), Some(value)) => !values.contains(&value),
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::In(_), None) => false,
            // As the real one: what lacks the label is not among the values.
            (Test::NotIn(_), None) => true,
        }
    }
}

fn requirements(text: &str) -> Result<Vec<Requirement>, Failure> {
    split_outside_parentheses(text).into_iter().map(requirement).collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, Failure> {
    let made = |key: &str, test| Ok(Requirement { key: key.trim().to_owned(), test });
    if let Some((left, values)) = text.split_once('(') {
        let values = values.trim_end().trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = left.split_whitespace();
        return match (words.next(), words.next()) {
            (Some(key), Some("in")) => made(key, Test::In(values)),
            (Some(key), Some("notin")) => made(key, Test::NotIn(values)),
            _ => Err(Failure::bad_request(format!("unable to parse requirement: {text}"))),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(key, Test::In(vec![value.trim().to_owned()]));
    }
    match text.strip_prefix('!') {
        Some(key) => made(key, Test::Absent),
        None if text.contains(char::is_whitespace) => {
            Err(Failure::bad_request(format!("unable to parse requirement: {text}")))
        }
        None => made(text, Test::Exists),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(selector: &str, expected: bool) {
        let object = json!({"metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}}});
        let selector = Selector::parse(Some(selector), None).expect("the selector is well formed");
        assert_eq!(selector.chooses(&object), expected);
    }

    #[test]
    fn labels_are_chosen_by_equality_and_by_sets() {
        check("", true);
        check("app=web", true);
        check("app==web,tier!=back", true);
        check("app in (web, api),tier", true);
        check("app notin (web)", false);
        check("!app", false);
        check("absent!=x", true);
        check("absent in (x)", false);
    }

    #[test]
    fn a_field_selector_chooses_by_name() {
        let selector = Selector::parse(None, Some("metadata.name=web")).expect("the selector is well formed");
        assert!(selector.chooses(&json!({"metadata": {"name": "web"}})));
        assert!(!selector.chooses(&json!({"metadata": {"name": "api"}})));
    }
}
