//! Turns serde's words into a sentence for the person who wrote the value.
//!
//! Serde's messages are the only channel that a derived type has; their wording has been the same since serde 1.0 and
//! is pinned by the tests of this crate. A message of another form is passed on as it is.

use crate::node::Shape;
use crate::problem::{not_one_of, quoted};

/// What is wrong with `given`, and help where there is any.
pub(super) fn sentence(message: &str, given: Option<&Shape>) -> (String, Option<String>) {
    if let Some(rest) = message.strip_prefix("unknown variant ")
        && let Some((variant, known)) = rest.split_once(", expected ")
    {
        return unknown_word(variant.trim_matches('`'), known);
    }
    let about_value = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match (about_value.and_then(|rest| rest.rsplit_once(", expected ")), given) {
        (Some((_, wanted)), Some(given)) => misfit(given, wanted),
        _ => (message.to_owned(), None),
    }
}

/// `known` is serde's list: "`a`", "`a` or `b`", "one of `a`, `b`, `c`".
fn unknown_word(given: &str, known: &str) -> (String, Option<String>) {
    let words: Vec<&str> = known.split('`').skip(1).step_by(2).filter(|word| !word.is_empty()).collect();
    let help = super::sibling::nearest(given, &words).map(|word| format!("did you mean {word}?"));
    (not_one_of(given, &words), help)
}

fn misfit(given: &Shape, wanted: &str) -> (String, Option<String>) {
    let wanted = match wanted {
        "a string" | "string or map" => "a string",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "f64" => "a number",
        wanted if wanted == "a map" || wanted.starts_with("struct ") => "a set of fields",
        wanted => wanted,
    };
    let (what, in_words) = match given {
        Shape::Null => ("nothing", "is given".to_owned()),
        Shape::List(_) => ("a list", "is given".to_owned()),
        Shape::Map(_) => ("a set of fields", "is given".to_owned()),
        Shape::Text(text) => return (format!("{} is a string; {wanted} is wanted", quoted(text)), None),
        Shape::Bool(yes) => (if *yes { "true" } else { "false" }, "is a yes-or-no value".to_owned()),
        Shape::Number(number) => {
            return (format!("{number} is {}; {wanted} is wanted", number_kind(number)), quotes(given, wanted));
        }
    };
    (format!("{what} {in_words}; {wanted} is wanted"), quotes(given, wanted))
}

fn quotes(given: &Shape, wanted: &str) -> Option<String> {
    let help = match given {
        Shape::Number(_) => "put it in quotes",
        Shape::Bool(_) => "put it in quotes; without them YAML takes y, n, yes, no, on and off for true and false",
        Shape::Null | Shape::Text(_) | Shape::List(_) | Shape::Map(_) => return None,
    };
    (wanted == "a string").then(|| help.to_owned())
}

fn number_kind(number: &serde_json::Number) -> &'static str {
    match number.as_f64() {
        Some(float) if float.fract() != 0.0 => "a number with a fraction",
        Some(float) if float.abs() > crate::whole::EXACT_MAX => "too large a number",
        Some(_) | None => "a number",
    }
}
