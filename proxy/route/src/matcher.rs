//! Conditions on a request, compiled once and checked without allocating (but for split cookies and encoded parameters).
//!
//! The forms are those of Istio's `HTTPMatchRequest` and of Flagger's `analysis.match`, which Gateway API's `HTTPRouteMatch` is a
//! part of: entries are ORed, the conditions of an entry ANDed, and a regular expression has to match the whole value (RE2 syntax).

use regex::bytes::Regex;

use crate::view::RequestView;

/// Compiled size of one pattern in bytes. Patterns are configuration: one that needs more is a mistake.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// One entry: every condition in it has to hold. None at all matches every request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Match {
    /// On the path, without the query.
    pub path: Option<PathMatch>,
    /// On the method.
    pub method: Option<StringMatch>,
    /// On the scheme.
    pub scheme: Option<StringMatch>,
    /// On the authority, as the client sent it.
    pub authority: Option<StringMatch>,
    /// On headers, all of which must hold.
    pub headers: Vec<HeaderMatch>,
    /// On headers, none of which may hold.
    pub without_headers: Vec<HeaderMatch>,
    /// On query parameters, all of which must hold.
    pub parameters: Vec<ParameterMatch>,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq)]
pub struct PathMatch {
    form: PathForm,
    ignores_case: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum PathForm {
    Exact(Box<str>),
    Prefix(Box<str>),
    Elements(Box<str>),
    Regex(Pattern),
}

/// What of a path a condition leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest<'p> {
    /// Nothing: it was compared whole.
    Nothing,
    /// These bytes.
    Bytes(&'p [u8]),
    /// These elements, from a slash on.
    Elements(&'p [u8]),
}

/// A condition on one header.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    name: Box<str>,
    value: StringMatch,
}

/// A condition on one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterMatch {
    /// The parameter's name, decoded.
    pub name: Box<str>,
    /// What its first value, decoded, has to be.
    pub value: StringMatch,
}

/// How a value is compared. Bytes are compared with case.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatch {
    /// There is one, whatever it is.
    Present,
    /// The whole value.
    Exact(Box<str>),
    /// The value begins so.
    Prefix(Box<str>),
    /// The value ends so.
    Suffix(Box<str>),
    /// The whole value matches the pattern.
    Regex(Pattern),
}

/// A regular expression for a whole value.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// A pattern that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(Box<str>);

/// How narrow an entry is, as Gateway API ranks `HTTPRouteMatch`: what compares as greater is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Rank {
    /// Exact, then a pattern (whose place is ours to choose), then a prefix.
    path: u8,
    path_bytes: usize,
    has_method: bool,
    headers: usize,
    parameters: usize,
    /// Conditions that Gateway API does not have.
    others: usize,
}

impl Match {
    /// An entry of conditions on headers alone.
    pub fn on(headers: Vec<HeaderMatch>) -> Self {
        Self { headers, ..Self::default() }
    }

    /// An entry that no request meets: methods are not empty.
    pub fn nobody() -> Self {
        Self { method: Some(StringMatch::Exact("".into())), ..Self::default() }
    }

    /// Whether this request meets every condition.
    pub fn matches(&self, request: &impl RequestView) -> bool {
        let is = |condition: &Option<StringMatch>, value: &[u8]| condition.as_ref().is_none_or(|c| c.matches(value));
        self.path.as_ref().is_none_or(|path| path.matches(request.path()))
            && is(&self.method, request.method().as_bytes())
            && is(&self.scheme, request.scheme().as_bytes())
            && is(&self.authority, request.authority().unwrap_or_default())
            && self.headers.iter().all(|header| header.matches(request))
            && !self.without_headers.iter().any(|header| header.matches(request))
            && self.parameters.iter().all(|parameter| parameter.matches(request))
    }

    /// Whether it matches every request.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn rank(&self) -> Rank {
        let (path, path_bytes) = match self.path.as_ref().map(|path| &path.form) {
            None => (0, 0),
            Some(PathForm::Prefix(path) | PathForm::Elements(path)) => (1, path.len()),
            Some(PathForm::Regex(pattern)) => (2, pattern.0.as_str().len()),
            Some(PathForm::Exact(path)) => (3, path.len()),
        };
        Rank {
            path,
            path_bytes,
            has_method: self.method.is_some(),
            headers: self.headers.len() + self.without_headers.len(),
            parameters: self.parameters.len(),
            others: usize::from(self.scheme.is_some()) + usize::from(self.authority.is_some()),
        }
    }
}

impl PathMatch {
    /// The whole path.
    pub fn exact(path: &str) -> Self {
        PathForm::Exact(path.into()).into()
    }

    /// A path that begins so, in the middle of a name too: `/app` matches `/apple` (Istio).
    pub fn prefix(path: &str) -> Self {
        PathForm::Prefix(path.into()).into()
    }

    /// A path that begins with these names: `/app` and `/app/` match `/app` and `/app/x`, and not `/apple` (Gateway API,
    /// `PathPrefix`).
    pub fn elements(path: &str) -> Self {
        PathForm::Elements(path.trim_end_matches('/').into()).into()
    }

    /// A pattern that has to match the whole path.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Ok(PathForm::Regex(Pattern::new(pattern)?).into())
    }

    /// The same without regard to case; patterns say themselves how they compare (`(?i)`).
    #[must_use]
    pub fn ignoring_case(self) -> Self {
        Self { ignores_case: true, ..self }
    }

    /// What follows the prefix in a path that matches.
    pub(crate) fn rest<'p>(&self, path: &'p [u8]) -> Rest<'p> {
        match &self.form {
            PathForm::Prefix(prefix) => Rest::Bytes(path.get(prefix.len()..).unwrap_or_default()),
            PathForm::Elements(prefix) => Rest::Elements(path.get(prefix.len()..).unwrap_or_default()),
            PathForm::Exact(_) | PathForm::Regex(_) => Rest::Nothing,
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let begins = |prefix: &str| match path.get(..prefix.len()) {
            Some(begin) if self.ignores_case => begin.eq_ignore_ascii_case(prefix.as_bytes()),
            Some(begin) => begin == prefix.as_bytes(),
            None => false,
        };
        match &self.form {
            PathForm::Exact(whole) => path.len() == whole.len() && begins(whole),
            PathForm::Prefix(prefix) => begins(prefix),
            PathForm::Elements(prefix) => begins(prefix) && matches!(path.get(prefix.len()), None | Some(b'/')),
            PathForm::Regex(pattern) => pattern.0.is_match(path),
        }
    }
}

impl From<PathForm> for PathMatch {
    fn from(form: PathForm) -> Self {
        Self { form, ignores_case: false }
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
        let mut values = [first, second].into_iter().chain(values);
        if &*self.name != "cookie" {
            return values.any(|value| self.value.matches(value));
        }
        // HTTP/2 may split one Cookie header into several; patterns are written for the joined form (RFC 9113 §8.2.3).
        let joined = values.collect::<Vec<_>>().join(&b"; "[..]);
        self.value.matches(&joined)
    }
}

impl ParameterMatch {
    fn matches(&self, request: &impl RequestView) -> bool {
        request.parameter(&self.name).is_some_and(|value| self.value.matches(value.as_bytes()))
    }
}

impl StringMatch {
    /// Compiles a regular expression that has to match the whole value.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Pattern::new(pattern).map(Self::Regex)
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(wanted) => value == wanted.as_bytes(),
            Self::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            Self::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
            Self::Regex(pattern) => pattern.0.is_match(value),
        }
    }
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map(Self)
            .map_err(|error| PatternError(reason(&error)))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// The reason alone: the crate draws the pattern with a pointer over several lines, and the caller names the place.
fn reason(error: &regex::Error) -> Box<str> {
    let text = error.to_string();
    text.rsplit("error: ").next().unwrap_or(&text).trim().into()
}

#[cfg(test)]
mod tests;
