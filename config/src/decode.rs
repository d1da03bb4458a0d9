//! Turns a document into a typed object, and says of each field that does not fit what would.
//!
//! `null` means absent, as it does to Kubernetes: every field of the wire types is an `Option`. Fields that a type does
//! not know are named, never refused; Kubernetes prunes them.

mod sentence;
mod sibling;

pub(crate) use sibling::distance;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::document::Document;
use crate::path::{FieldPath, Step};
use crate::problem::{Finding, Problem, Severity};

/// Misfits that are told of one document at a time. Whoever has twenty will come again for the rest.
const MISFITS_MAX: usize = 20;
/// Unknown fields that are named one by one for one document; more are only counted.
const UNKNOWN_MAX: usize = 20;

/// Fields that Kubernetes writes into every object, and that nobody needs to be told about. `status` is a report to
/// people, never an input.
const KUBERNETES_FIELDS: [&str; 12] = [
    "status",
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.finalizers",
    "metadata.generateName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "metadata.uid",
];

/// A typed object and the fields of its document that it has no place for.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<T> {
    /// The object.
    pub value: T,
    /// Paths of the unknown fields, in the order of their names.
    pub unknown: Vec<FieldPath>,
}

/// Decodes a document as `T`.
///
/// # Errors
///
/// One problem for each field whose value does not fit, twenty at most, in the order in which they were met.
pub fn decode<T: DeserializeOwned>(document: &Document) -> Result<Decoded<T>, Vec<Problem>> {
    let mut json = document.to_json();
    let mut problems = Vec::new();
    loop {
        let (path, message) = match attempt::<T>(&json) {
            Ok(decoded) if problems.is_empty() => return Ok(decoded),
            Ok(_) => return Err(problems),
            Err(misfit) => misfit,
        };
        problems.push(misfit(document, &path, &message));
        // Without the misfit the next attempt tells what else is wrong.
        if problems.len() == MISFITS_MAX || !remove(&mut json, path.steps()) {
            return Err(problems);
        }
    }
}

/// Decodes once; a failure is the field it is about and serde's words.
fn attempt<T: DeserializeOwned>(json: &Value) -> Result<Decoded<T>, (FieldPath, String)> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(json, &mut track);
    let decoded = serde_ignored::deserialize(deserializer, |path| unknown.push(FieldPath::from(&path)));
    match decoded {
        Ok(value) => {
            unknown.retain(|path| !KUBERNETES_FIELDS.contains(&path.to_string().as_str()));
            Ok(Decoded { value, unknown })
        }
        Err(error) => Err((FieldPath::from(&track.path()), error.to_string())),
    }
}

fn misfit(document: &Document, path: &FieldPath, message: &str) -> Problem {
    let given = document.root().find(path.steps());
    let (message, help) = sentence::sentence(message, given.map(|node| &node.shape));
    document.problem(Finding { path: path.to_string(), message, help, severity: Severity::Error })
}

/// Takes a field out of `json`, with the list around it where it is an item: without one item the others would be told
/// with the wrong number. False where there is nothing that can be taken out.
fn remove(json: &mut Value, steps: &[Step]) -> bool {
    let Some(at) = steps.iter().rposition(|step| matches!(step, Step::Key(_))) else { return false };
    let parent = steps[..at].iter().try_fold(json, |value, step| match (value, step) {
        (Value::Object(fields), Step::Key(key)) => fields.get_mut(key),
        (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    });
    match (parent, &steps[at]) {
        (Some(Value::Object(fields)), Step::Key(key)) => fields.remove(key).is_some(),
        _ => false,
    }
}

/// Warnings about the unknown fields of a document that was decoded as `T`, each with the known name it resembles.
pub fn unknown_fields<T: DeserializeOwned>(document: &Document, unknown: &[FieldPath]) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        unknown.iter().take(UNKNOWN_MAX).map(|path| unknown_field::<T>(document, path)).collect();
    if let Some(more) = unknown.len().checked_sub(UNKNOWN_MAX).filter(|more| *more > 0) {
        problems.push(document.warning("", format!("{more} more fields are unknown and ignored")));
    }
    problems
}

fn unknown_field<T: DeserializeOwned>(document: &Document, path: &FieldPath) -> Problem {
    let help = match path.steps().split_last() {
        // Flagger's v1alpha3 name: still in its Go type, pruned by its own schema.
        Some((Step::Key(last), _)) if last == "canaryAnalysis" => {
            Some("this name of an older Flagger API is pruned by Flagger's own schema too; write analysis".to_owned())
        }
        Some((Step::Key(last), parents)) => {
            sibling::nearest(last, sibling::names::<T>(parents)).map(|name| format!("did you mean {name}?"))
        }
        Some((Step::Index(_), _)) | None => None,
    };
    let message = "unknown field, ignored".to_owned();
    document.problem_of_key(Finding { path: path.to_string(), message, help, severity: Severity::Warning })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
