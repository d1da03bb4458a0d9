//! What the API server does with an object on its way in, as far as our schemas ask for it: it drops unknown fields and
//! nulls, and judges what is left. Rules in CEL are left to a real server. A keyword not known here ends the test.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::crd::crds;

/// The schema that objects of a kind are judged by.
pub(crate) fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect("the kind has a definition");
    let schema = crd.spec.versions.into_iter().next().and_then(|version| version.schema);
    json!(schema.and_then(|schema| schema.open_api_v3_schema))
}

/// The object as it would be kept, or everything that it would be refused for.
pub(crate) fn admit(schema: &Value, object: &Value) -> Result<Value, Vec<String>> {
    let mut kept = object.clone();
    prune(schema, &mut kept);
    let mut refusals = Vec::new();
    judge(schema, &kept, "", &mut refusals);
    if refusals.is_empty() { Ok(kept) } else { Err(refusals) }
}

fn prune(schema: &Value, value: &mut Value) {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    match value {
        // Of metadata the server knows all fields itself.
        Value::Object(fields) if schema != &json!({ "type": "object" }) => {
            let keep_unknown = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let of = |name: &str| properties.get(name).or_else(|| schema.get("additionalProperties"));
            fields.retain(|name, value| of(name).map_or(keep_unknown, |_| !value.is_null()));
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = of(name) {
                    prune(schema, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(&schema["items"], item)),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn judge(schema: &Value, value: &Value, path: &str, refusals: &mut Vec<String>) {
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in keywords {
        if let Some(why) = refusal(keyword, rule, value) {
            refusals.push(format!("{path}: {why}"));
        }
    }
    let (fields, items) = (value.as_object(), value.as_array());
    let known: BTreeMap<&String, &Value> =
        keywords.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
    for (name, value) in fields.into_iter().flatten() {
        if let Some(schema) = known.get(name).copied().or_else(|| keywords.get("additionalProperties")) {
            judge(schema, value, &format!("{path}.{name}"), refusals);
        }
    }
    for (index, item) in items.into_iter().flatten().enumerate() {
        judge(&keywords["items"], item, &format!("{path}[{index}]"), refusals);
    }
}

/// Why a value breaks one rule. A rule says nothing of values of other types than its own.
fn refusal(keyword: &str, rule: &Value, value: &Value) -> Option<String> {
    let fits = |schema: &Value| {
        let mut refusals = Vec::new();
        judge(schema, value, "", &mut refusals);
        refusals.is_empty()
    };
    let fitting = || rule.as_array().into_iter().flatten().filter(|schema| fits(schema)).count();
    let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let text_or = |otherwise: bool, holds: &dyn Fn(&str) -> bool| value.as_str().map_or(otherwise, holds);
    let within = |holds: &dyn Fn(f64, f64) -> bool, given: Option<f64>| {
        given.zip(rule.as_f64()).is_none_or(|(given, limit)| holds(given, limit))
    };
    let chars = value.as_str().map(|text| text.chars().count() as f64);
    let holds = match keyword {
        "type" => match rule.as_str().expect("a structural schema has one type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => is_whole,
            other => panic!("{other} is no type"),
        },
        "x-kubernetes-int-or-string" => is_whole || value.is_string(),
        "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
        "pattern" => {
            let pattern = Regex::new(rule.as_str().expect("a pattern is a text")).expect("a pattern can be read");
            text_or(true, &|text| pattern.is_match(text))
        }
        "minimum" => within(&|given, limit| given >= limit, value.as_f64()),
        "maximum" => within(&|given, limit| given <= limit, value.as_f64()),
        "minLength" => within(&|given, limit| given >= limit, chars),
        "maxLength" => within(&|given, limit| given <= limit, chars),
        "maxItems" => within(&|given, limit| given <= limit, value.as_array().map(|items| items.len() as f64)),
        "required" => {
            let names = || rule.as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing: Vec<&str> = names().filter(|name| value.get(name).is_none()).collect();
            return (!missing.is_empty() && value.is_object()).then(|| format!("{} missing", missing.join(", ")));
        }
        "oneOf" => fitting() == 1,
        "anyOf" => fitting() > 0,
        "not" => !fits(rule),
        "description" | "properties" | "additionalProperties" | "items" => true,
        // CEL, and what says how to prune.
        "x-kubernetes-validations" | "x-kubernetes-preserve-unknown-fields" => true,
        "format" => rule == "date-time",
        other => panic!("nobody has said what {other} means"),
    };
    (!holds).then(|| format!("{value} breaks {keyword} {rule}"))
}
