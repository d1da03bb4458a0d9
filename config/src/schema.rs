//! Makes schemas that a CustomResourceDefinition can carry out of the wire types.
//!
//! schemars derives what serde reads. The API server wants less (a structural schema: one type each, no references, no
//! choices between shapes) and acts on more: it persists what a `default` says and keeps a `null` where a field is
//! `nullable`. Both would change the objects that Flagger reads from the same cluster, and `iterations: null` beside
//! `stepWeight` would become a second strategy. So absence is the only way to say nothing, and defaults stay in methods.

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::core::schema::StructuralSchemaRewriter;
use schemars::generate::SchemaSettings;
use schemars::transform::{ReplaceConstValue, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The structural schema of a wire type.
pub(crate) fn of<T: JsonSchema>() -> JSONSchemaProps {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    // In this order: the rewriter takes a choice between a type and null for two shapes, and does not know `const`.
    let schema = settings
        .with_transform(without_null)
        .with_transform(ReplaceConstValue::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(plain)
        .into_generator()
        .into_root_schema_for::<T>();
    serde_json::from_value(schema.to_value()).expect("a structural schema has only what Kubernetes has a field for")
}

/// Takes out that a value may be null: [`Option`] means that it may be absent.
fn without_null(schema: &mut Schema) {
    transform_subschemas(&mut without_null, schema);
    let Some(keywords) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_mut_slice() {
            let only = only.take();
            keywords.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = keywords.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let some = match keywords.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(some), null]) if null["type"] == "null" => some.clone(),
        _ => return,
    };
    keywords.remove("anyOf");
    for (keyword, value) in some {
        // What the field says of itself goes before what its type says.
        keywords.entry(keyword).or_insert(value);
    }
}

/// Takes out what means nothing to the API server or the wrong thing, and lets a description wrap where it is read.
fn plain(schema: &mut Schema) {
    transform_subschemas(&mut plain, schema);
    let Some(keywords) = schema.as_object_mut() else { return };
    keywords.remove("default");
    keywords.remove("title");
    // Formats of numbers say how Rust holds them; the server warns of those that it does not know.
    keywords.retain(|keyword, value| keyword != "format" || value == "date-time");
    if let Some(Value::String(description)) = keywords.get_mut("description") {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
}

/// Any object: the server keeps what is in it, whatever that is.
pub(crate) struct AnyObject;

impl JsonSchema for AnyObject {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// A number or a text.
pub(crate) fn int_or_string() -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// A reference to one of these kinds and no other.
pub(crate) fn kinds(kinds: &[&str]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        let kind = properties.and_then(|properties| properties.get_mut("kind")).expect("a reference has a kind");
        kind["enum"] = json!(kinds);
    }
}

/// A word of an enum, or the empty text, which Flagger takes for an absent field.
pub(crate) fn or_empty(schema: &mut Schema) {
    let words = schema.get_mut("oneOf").and_then(Value::as_array_mut).expect("each word of the enum is documented");
    words.insert(0, json!({ "type": "string", "const": "" }));
}

/// Exactly one of these sets of fields must be there.
pub(crate) fn exactly_one_of(sets: &[&[&str]]) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("oneOf".into(), each_required(sets).collect());
    }
}

/// Not more than one of these sets of fields may be there.
pub(crate) fn one_at_most_of(sets: &[&[&str]]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let none = json!({ "not": { "anyOf": each_required(sets).collect::<Value>() } });
        schema.insert("oneOf".into(), std::iter::once(none).chain(each_required(sets)).collect());
    }
}

fn each_required(sets: &[&[&str]]) -> impl Iterator<Item = Value> {
    sets.iter().map(|fields| json!({ "required": fields }))
}
