//! What deciding needs to see of a request. Both a raw HTTP/1.1 head and a parsed header map can give it.

use std::borrow::Cow;
use std::net::IpAddr;

/// A borrowed look at a request's head.
pub trait RequestView {
    /// The method, as sent (`GET`).
    fn method(&self) -> &str;

    /// The scheme that the client used: `http` or `https`.
    fn scheme(&self) -> &str;

    /// The authority the client named: `Host` in HTTP/1.1, `:authority` in HTTP/2, port included.
    fn authority(&self) -> Option<&[u8]>;

    /// The path without the query, as sent.
    fn path(&self) -> &[u8];

    /// The query without its question mark, as sent; none if there is no question mark.
    fn query(&self) -> Option<&[u8]>;

    /// The values of a header, in order. `name` is in lower case; a view compares names without case (RFC 9110 §5.1).
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;

    /// The first value of a query parameter, decoded (WHATWG URL, `application/x-www-form-urlencoded`). Gateway API wants the first
    /// where there are several.
    fn parameter<'a>(&'a self, name: &str) -> Option<Cow<'a, str>> {
        let mut pairs = form_urlencoded::parse(self.query()?);
        pairs.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The first value of a cookie, as sent (RFC 6265 section 5.4).
    fn cookie<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.cookies(name).next()
    }

    /// The values of a cookie, whether the cookies came in one field or several.
    fn cookies<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let pairs = self.header("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
        pairs.map(<[u8]>::trim_ascii).filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// The address at the other end of the connection; none where it has no address.
    fn peer(&self) -> Option<IpAddr> {
        None
    }

    /// Proxies in front whose word is taken.
    fn trusted_hops(&self) -> u8 {
        0
    }

    /// The client's address: the other end of the connection, or what the outermost of the trusted proxies has said of it in
    /// `X-Forwarded-For`. What stands before that in the field is anybody's word.
    fn client(&self) -> Option<IpAddr> {
        let hops = usize::from(self.trusted_hops());
        if hops == 0 {
            return self.peer();
        }
        let said = self.header("x-forwarded-for").flat_map(|value| value.split(|byte| *byte == b','));
        let said: Vec<&[u8]> = said.map(<[u8]>::trim_ascii).collect();
        let from = said.len().saturating_sub(hops);
        let address = said.get(from).and_then(|address| std::str::from_utf8(address).ok()?.parse::<IpAddr>().ok());
        address.map(|address| address.to_canonical()).or_else(|| self.peer())
    }
}
