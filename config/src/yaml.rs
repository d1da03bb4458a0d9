//! Reads one YAML document into a [`Node`]: the only module that knows the parser behind it.
//!
//! Duplicate keys are refused, as Kubernetes does in strict mode: of two values for one field the writer meant only one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use crate::node::{Entry, Node, Position, Shape};

/// Lists and maps inside each other. A Canary needs a dozen; each level costs stack in a recursive reader.
const DEPTH_MAX: usize = 64;
/// Values in one document, those that aliases repeat included. The largest manifests seen in the wild have a few
/// thousand; a YAML bomb has millions.
const NODES_MAX: usize = 200_000;
/// Aliases in one document; hand-written manifests use a handful.
const ALIASES_MAX: usize = 1_000;

/// Why a text is not YAML that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) help: Option<&'static str>,
}

/// Reads `text`, usually one document; empty documents are left out.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, SyntaxError> {
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| syntax_error(&error))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 3 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
        },
        with_snippet: false,
    }
}

fn syntax_error(error: &Error) -> SyntaxError {
    let (message, help) = match innermost(error) {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the field {key} appears twice"), Some("keep the one that is meant"))
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            ("the document is too large or too deeply nested".to_owned(), None)
        }
        Error::UnknownAnchor { .. } => (
            "an alias (*name) names no anchor (&name) above it".to_owned(),
            Some("text that begins with * needs quotes"),
        ),
        Error::NonFiniteFloat { value, .. } => (format!("{value} is not a finite number"), None),
        other => (format!("not valid YAML: {}", UserMessageFormatter.format_message(other)), None),
    };
    SyntaxError { at: error.location().map(position).unwrap_or_default(), message, help }
}

/// The mistake itself, where it was met while an alias was followed.
fn innermost(error: &Error) -> &Error {
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => innermost(error),
        other => other,
    }
}

fn position(location: Location) -> Position {
    // The parser counts in u64 and the file is bounded to a mebibyte.
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: small(location.line()), column: small(location.column()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Shape>::deserialize(deserializer)?;
        Ok(Self { at: position(referenced), shape: value })
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Shape, E> {
        Ok(Shape::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Shape, E> {
        Ok(Shape::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Shape, E> {
        Number::from_f64(number).map(Shape::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Shape, E> {
        Ok(Shape::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        // A key is taken as text, as it is spelled: `1.10` and `on` stay what they look like.
        while let Some(key) = fields.next_key::<Spanned<String>>()? {
            entries.push(Entry { key: key.value, key_at: position(key.referenced), value: fields.next_value()? });
        }
        Ok(Shape::Map(entries))
    }
}
