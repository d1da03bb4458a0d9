//! What is changed of a request on its way to a backend, and of a response on its way to a client. Compiled once; whoever carries a
//! request asks here what to leave out and what to add, and so does the same whether it has a raw head or a parsed one.

use std::collections::BTreeMap;

use crate::cors::Cors;
use crate::matcher::{Match, Rest};

/// Header fields and request lines that are changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// Of requests.
    pub request: HeaderEdits,
    /// Of responses, but for those before the final one.
    pub response: HeaderEdits,
    /// What the path becomes.
    pub path: Option<PathRewrite>,
    /// What the authority becomes, which the backend gets as `Host`.
    pub authority: Option<Box<str>>,
    /// Which other origins may use the route from a browser; none leaves that to the backends.
    pub cors: Option<Cors>,
}

/// What a path becomes. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// This, whatever it was (Gateway API's `ReplaceFullPath`).
    Full(Box<str>),
    /// What matched as a prefix becomes this; all of a path that was compared whole (Gateway API's `ReplacePrefixMatch`, and Istio's
    /// `rewrite.uri`).
    Prefix(Box<str>),
}

/// Edits of header fields: first what is left out, then what is added at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    dropped: Vec<Box<str>>,
    appended: Vec<(Box<str>, Box<str>)>,
}

/// An edit that cannot be made.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum EditError {
    /// No name of a field.
    #[error("{0:?} is not the name of a header field")]
    Name(Box<str>),
    /// It says where a message ends, or concerns one connection alone.
    #[error("{0} is set by the proxy itself: it says how a message is sent, not what it says")]
    Framing(Box<str>),
    /// No value of a field.
    #[error("the value for {0} cannot stand in a header field: it has control characters or spaces at its ends")]
    Value(Box<str>),
}

/// Fields that say how a message is sent (RFC 9110 section 7.6.1, RFC 9112 section 6).
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Edits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the path that a backend gets, for one that came with a request which this entry matched.
    pub fn path_to(&self, out: &mut Vec<u8>, path: &[u8], entry: Option<&Match>) {
        let (new, rest) = match &self.path {
            None => return out.extend_from_slice(path),
            Some(PathRewrite::Full(new)) => (new, Rest::Nothing),
            Some(PathRewrite::Prefix(new)) => {
                let condition = entry.and_then(|entry| entry.path.as_ref());
                (new, condition.map_or(Rest::Elements(path), |condition| condition.rest(path)))
            }
        };
        let begin = out.len();
        match rest {
            Rest::Nothing => out.extend_from_slice(new.as_bytes()),
            Rest::Bytes(rest) => out.extend([new.as_bytes(), rest].concat()),
            Rest::Elements(rest) => {
                out.extend_from_slice(new.trim_end_matches('/').as_bytes());
                out.extend_from_slice(rest);
            }
        }
        // A path has one slash at least (RFC 9112 section 3.2.1).
        if out.get(begin) != Some(&b'/') {
            out.insert(begin, b'/');
        }
    }
}

impl HeaderEdits {
    /// Compiles them: `remove` and `set` leave out what there is, `set` and then `add` append.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn new(
        add: &BTreeMap<String, String>,
        set: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<Self, EditError> {
        let dropped = set.keys().chain(remove).map(|name| field_name(name)).collect::<Result<_, _>>()?;
        let field = |(name, value): (&String, &String)| Ok((field_name(name)?, field_value(name, value)?));
        let appended = set.iter().chain(add).map(field).collect::<Result<_, _>>()?;
        Ok(Self { dropped, appended })
    }

    /// Edits of fields that the proxy itself names, and whose values came in a field.
    pub(crate) fn of(dropped: &[&str], appended: &[(&str, &str)]) -> Self {
        let dropped = dropped.iter().map(|name| (*name).into()).collect();
        Self { dropped, appended: appended.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect() }
    }

    /// Whether a field that came is left out, whatever the case of its name.
    pub fn drops(&self, name: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
    }

    /// Names that are left out, in lower case.
    pub fn dropped(&self) -> impl Iterator<Item = &str> {
        self.dropped.iter().map(AsRef::as_ref)
    }

    /// Fields that are added at the end, with their names in lower case.
    pub fn appended(&self) -> impl Iterator<Item = (&str, &str)> {
        self.appended.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn field_name(written: &str) -> Result<Box<str>, EditError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if written.is_empty() || !written.bytes().all(is_token) {
        return Err(EditError::Name(written.into()));
    }
    let name = written.to_ascii_lowercase();
    if FRAMING.contains(&&*name) { Err(EditError::Framing(name.into())) } else { Ok(name.into()) }
}

fn field_value(name: &str, written: &str) -> Result<Box<str>, EditError> {
    let is_text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    if written.bytes().all(is_text) && written.trim_ascii() == written {
        Ok(written.into())
    } else {
        Err(EditError::Value(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PathMatch;

    #[track_caller]
    fn check(path: &str, condition: Option<PathMatch>, rewrite: PathRewrite, expected: &str) {
        let edits = Edits { path: Some(rewrite), ..Edits::default() };
        let mut out = b"> ".to_vec();
        edits.path_to(&mut out, path.as_bytes(), Some(&Match { path: condition, ..Match::default() }));
        assert_eq!(String::from_utf8_lossy(&out), format!("> {expected}"), "{path}");
    }

    #[test]
    fn a_prefix_is_replaced_as_gateway_api_has_it() {
        // The table of HTTPPathModifier.replacePrefixMatch.
        for (path, prefix, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            check(path, Some(PathMatch::elements(prefix)), PathRewrite::Prefix(new.into()), expected);
        }
    }

    #[test]
    fn a_path_is_replaced_as_far_as_it_was_compared() {
        let prefix = |new: &str| PathRewrite::Prefix(new.into());
        check("/apiv2/x", Some(PathMatch::prefix("/api")), prefix("/"), "/v2/x");
        check("/apiv2/x", Some(PathMatch::prefix("/api")), prefix(""), "/v2/x");
        check("/API/x", Some(PathMatch::prefix("/api/").ignoring_case()), prefix("/b/"), "/b/x");
        check("/a", Some(PathMatch::exact("/a")), prefix("/b"), "/b");
        check("/a/1", Some(PathMatch::regex("/a/.").expect("it compiles")), prefix("/b"), "/b");
        check("/a/1", None, prefix("/b"), "/b/a/1");
        check("/a/1", Some(PathMatch::elements("/a")), PathRewrite::Full("/b".into()), "/b");
        check("/a/1", None, PathRewrite::Full(String::new().into()), "/");
    }

    #[test]
    fn fields_are_left_out_and_added_and_framing_is_not_touched() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let edits = HeaderEdits::new(&map(&[("X-A", "1")]), &map(&[("x-b", "2")]), &["X-C".to_owned()]);
        let edits = edits.expect("they can be made");
        assert!(edits.drops("X-B") && edits.drops("x-c") && !edits.drops("x-a"));
        assert_eq!(edits.appended().collect::<Vec<_>>(), [("x-b", "2"), ("x-a", "1")]);
        for (name, value, expected) in [
            ("Content-Length", "1", EditError::Framing("content-length".into())),
            ("x y", "1", EditError::Name("x y".into())),
            ("", "1", EditError::Name("".into())),
            ("x", "a\r\nb: c", EditError::Value("x".into())),
            ("x", " a", EditError::Value("x".into())),
        ] {
            let given = map(&[(name, value)]);
            assert_eq!(HeaderEdits::new(&given, &map(&[]), &[]), Err(expected.clone()), "{name:?}");
            assert_eq!(HeaderEdits::new(&map(&[]), &given, &[]), Err(expected), "{name:?}");
        }
    }
}
