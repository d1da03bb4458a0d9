//! Reads the test vectors, which were computed with 50 digits by an independent program.

use serde_json::Value;

/// All vectors, by name.
pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("testdata/vectors.json")).expect("the vectors are JSON")
}

/// The elements of a JSON list.
#[track_caller]
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list in the vectors")
}

/// A number, which the vectors write as text where digits matter.
#[track_caller]
pub(crate) fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().expect("a number written as text"),
        other => other.as_f64().expect("a number"),
    }
}

/// Equal to nine digits.
#[track_caller]
pub(crate) fn assert_close(seen: f64, expected: f64, what: &str) {
    let difference = (seen - expected).abs();
    assert!(difference <= 1e-9 * expected.abs(), "{what}: {seen} is not {expected}");
}
