//! Conditions on a request's headers, compiled once and checked without allocating (but for split cookies).
//!
//! The forms are those of Flagger's `analysis.match`: entries are ORed, the headers of an entry ANDed, and a
//! regular expression has to match the whole value (RE2 syntax, as Istio applies it).

use regex::bytes::Regex;

use crate::view::RequestView;

/// Compiled size of one pattern in bytes. Patterns are configuration: one that needs more is a mistake.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// One entry: every header in it has to match.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Conditions on headers, all of which must hold. None at all matches every request.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on one header.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    name: Box<str>,
    value: StringMatch,
}

/// How a value is compared. Bytes are compared with case.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The whole value.
    Exact(Box<str>),
    /// The value begins so.
    Prefix(Box<str>),
    /// The value ends so.
    Suffix(Box<str>),
    /// The whole value matches the pattern.
    Regex(Regex),
}

/// A pattern that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(Box<str>);

/// The reason alone: the crate draws the pattern with a pointer over several lines, and the caller names the place.
fn reason(error: &regex::Error) -> Box<str> {
    let text = error.to_string();
    text.rsplit("error: ").next().unwrap_or(&text).trim().into()
}

impl Match {
    /// Whether this request meets every condition.
    pub fn matches(&self, request: &impl RequestView) -> bool {
        self.headers.iter().all(|header| header.matches(request))
    }
}

impl HeaderMatch {
    /// A condition on the header `name`, whatever its case.
    pub fn new(name: &str, value: StringMatch) -> Self {
        Self { name: name.to_ascii_lowercase().into(), value }
    }

    fn matches(&self, request: &impl RequestView) -> bool {
        let mut values = request.header(&self.name);
        let Some(first) = values.next() else { return false };
        let Some(second) = values.next() else { return self.value.matches(first) };
        if &*self.name != "cookie" {
            return self.value.matches(first) || self.value.matches(second) || values.any(|v| self.value.matches(v));
        }
        // HTTP/2 may split one Cookie header into several; patterns are written for the joined form (RFC 9113 §8.2.3).
        let joined = [first, second].into_iter().chain(values).collect::<Vec<_>>().join(&b"; "[..]);
        self.value.matches(&joined)
    }
}

impl StringMatch {
    /// Compiles a regular expression that has to match the whole value.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map(Self::Regex)
            .map_err(|error| PatternError(reason(&error)))
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted.as_bytes(),
            Self::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            Self::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
            Self::Regex(pattern) => pattern.is_match(value),
        }
    }
}
