//! What deciding needs to see of a request. Both a raw HTTP/1.1 head and a parsed header map can give it.

/// A borrowed look at a request's head.
pub trait RequestView {
    /// The method, as sent (`GET`).
    fn method(&self) -> &str;

    /// The authority the client named: `Host` in HTTP/1.1, `:authority` in HTTP/2, port included.
    fn authority(&self) -> Option<&[u8]>;

    /// The path without the query, as sent.
    fn path(&self) -> &[u8];

    /// The values of a header, in order. `name` is in lower case; a view compares names without case (RFC 9110 §5.1).
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;
}
