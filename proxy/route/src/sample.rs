//! A request as a value, for tests.

use crate::view::RequestView;

/// A request to the shop.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) scheme: &'static str,
    pub(crate) authority: Option<String>,
    /// The path, and the query if there is one.
    pub(crate) target: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Default for Request {
    fn default() -> Self {
        let authority = Some("app.example.com".to_owned());
        Self { method: "GET", scheme: "http", authority, target: "/", headers: Vec::new() }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }
    fn scheme(&self) -> &str {
        self.scheme
    }
    fn authority(&self) -> Option<&[u8]> {
        self.authority.as_deref().map(str::as_bytes)
    }
    fn path(&self) -> &[u8] {
        self.target.split_once('?').map_or(self.target, |(path, _)| path).as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.target.split_once('?').map(|(_, query)| query.as_bytes())
    }
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes())
    }
}

/// One with these headers.
pub(crate) fn request(headers: &[(&'static str, &str)]) -> Request {
    Request { headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(), ..Request::default() }
}

/// One to this path and query.
pub(crate) fn to(target: &'static str) -> Request {
    Request { target, ..Request::default() }
}
