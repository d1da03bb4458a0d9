//! Holds our definitions against Flagger's: what its schema accepts, ours accepts.
//!
//! Flagger's is kept as facts, one line for each field: path, tab, keywords as JSON. With SERIN_FLAGGER_CRD set to Flagger's
//! crd.yaml the facts are read from there, and the kept ones must be the same; with SERIN_BLESS=1 as well they are rewritten.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::crds;
use crate::document::read_documents;

/// Flagger's facts, of version 1.44.0.
const KEPT: &str = include_str!("flagger_crd.facts");

type Facts = BTreeMap<String, Value>;

/// What there is to know of a definition: one entry for it as a whole, one for each field.
fn learn(facts: &mut Facts, crd: &Value) {
    let kind = crd["spec"]["names"]["kind"].as_str().expect("a definition names its kind");
    let version = &crd["spec"]["versions"][0];
    let definition = json!({
        "name": crd["metadata"]["name"],
        "annotations": crd["metadata"]["annotations"],
        "group": crd["spec"]["group"],
        "names": crd["spec"]["names"],
        "scope": crd["spec"]["scope"],
        "version": version["name"],
        "served": version["served"],
        "storage": version["storage"],
        "subresources": version["subresources"],
        "columns": version["additionalPrinterColumns"],
    });
    facts.insert(format!("{kind} definition"), definition);
    learn_schema(facts, kind.to_owned(), &version["schema"]["openAPIV3Schema"]);
}

fn learn_schema(facts: &mut Facts, path: String, schema: &Value) {
    let mut keywords = schema.as_object().expect("a schema is an object").clone();
    keywords.remove("description");
    if let Some(Value::Object(properties)) = keywords.remove("properties") {
        properties.iter().for_each(|(name, inner)| learn_schema(facts, format!("{path}.{name}"), inner));
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = keywords.remove(keyword) {
            learn_schema(facts, format!("{path}{suffix}"), &inner);
        }
    }
    let mut keywords = Value::Object(keywords);
    sort_required(&mut keywords);
    facts.insert(path, keywords);
}

/// The order of required fields means nothing.
fn sort_required(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("required", Value::Array(names)) = (name.as_str(), &mut *value) {
                    names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                }
                sort_required(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_required),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn kept() -> Facts {
    let line = |line: &str| {
        let (path, keywords) = line.split_once('\t').expect("a line has a tab");
        (path.to_owned(), serde_json::from_str(keywords).expect("what follows the tab is JSON"))
    };
    KEPT.lines().map(line).collect()
}

fn read(path: &str) -> Facts {
    let text = std::fs::read_to_string(path).expect("SERIN_FLAGGER_CRD names a file that can be read");
    let reading = read_documents(path, &text);
    let mut facts = Facts::new();
    reading.documents.iter().for_each(|document| learn(&mut facts, &document.to_json()));
    facts
}

/// Why a field of Flagger's could be refused by ours.
fn narrower(ours: &Map<String, Value>, theirs: &Value) -> Vec<String> {
    let their = |keyword: &str| theirs.get(keyword);
    let contains = |list: &Value, item: &Value| list.as_array().is_some_and(|items| items.contains(item));
    let all_in = |some: Option<&Value>, list: &Value| {
        some.and_then(Value::as_array).is_some_and(|items| items.iter().all(|item| contains(list, item)))
    };
    let beyond = |keyword: &str, ours: &Value, holds: fn(&f64, &f64) -> bool| {
        their(keyword).and_then(Value::as_f64).zip(ours.as_f64()).is_some_and(|(theirs, ours)| holds(&theirs, &ours))
    };
    let accepts = |keyword: &str, ours: &Value| match keyword {
        "type" => their("type") == Some(ours) || (ours == "number" && theirs["type"] == "integer"),
        "enum" => all_in(their("enum"), ours),
        "required" => ours.as_array().is_some_and(|names| names.iter().all(|name| contains(&theirs["required"], name))),
        "pattern" | "format" | "x-kubernetes-int-or-string" => their(keyword) == Some(ours),
        // The same choice, or the same and none of it.
        "oneOf" => their("oneOf").and_then(Value::as_array).is_some_and(|choices| {
            let none = json!({ "not": { "anyOf": choices } });
            ours == &json!(choices) || ours == &Value::Array([&[none], choices.as_slice()].concat())
        }),
        "minimum" | "minLength" => beyond(keyword, ours, f64::ge),
        "maximum" | "maxLength" | "maxItems" => beyond(keyword, ours, f64::le),
        "x-kubernetes-preserve-unknown-fields" => true,
        // Whether one rule in CEL follows from another is for people to say; that there is one is not ours alone.
        "x-kubernetes-validations" => their(keyword).is_some(),
        _ => false,
    };
    let refused = ours.iter().filter(|(keyword, ours)| !accepts(keyword, ours));
    refused.map(|(keyword, ours)| format!("{keyword} is {ours}, Flagger has {theirs}")).collect()
}

/// Whether a field lies in an object that keeps whatever there is.
fn is_kept_anyway(path: &str, ours: &Facts) -> bool {
    let ends = path.char_indices().filter(|(_, c)| matches!(c, '.' | '{' | '[')).map(|(at, _)| at);
    ends.filter_map(|at| ours.get(&path[..at])).any(|parent| parent["x-kubernetes-preserve-unknown-fields"] == true)
}

#[test]
fn what_flaggers_definitions_accept_ours_accept() {
    let flagger = match std::env::var("SERIN_FLAGGER_CRD") {
        Ok(path) => read(&path),
        Err(_) => kept(),
    };
    let mut ours = Facts::new();
    crds().iter().for_each(|crd| learn(&mut ours, &json!(crd)));
    let mut narrow = Vec::new();
    for (path, theirs) in &flagger {
        match ours.get(path) {
            Some(ours) if path.ends_with(" definition") => assert_eq!(ours, theirs, "{path}"),
            Some(Value::Object(ours)) => {
                narrow.extend(narrower(ours, theirs).into_iter().map(|why| format!("{path}: {why}")));
            }
            Some(_) | None if is_kept_anyway(path, &ours) => {}
            Some(_) | None => narrow.push(format!("{path}: Flagger has it, we do not")),
        }
    }
    assert!(flagger.len() > 250, "{} fields of Flagger's are known", flagger.len());
    assert_eq!(narrow, Vec::<String>::new());
}

#[test]
fn the_facts_that_are_kept_are_flaggers() {
    let Ok(path) = std::env::var("SERIN_FLAGGER_CRD") else { return };
    let facts = read(&path);
    if std::env::var_os("SERIN_BLESS").is_some() {
        let lines: String = facts.iter().map(|(path, keywords)| format!("{path}\t{keywords}\n")).collect();
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/src/flagger_crd.facts");
        std::fs::write(kept, lines).expect("the facts can be written");
        return;
    }
    assert_eq!(kept(), facts, "SERIN_BLESS=1 beside SERIN_FLAGGER_CRD takes over what has changed");
}
