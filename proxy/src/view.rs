//! Pingora's parsed request head, seen the way that routing sees it.

use std::net::IpAddr;

use pingora_http::RequestHeader;
use serin_route::RequestView;

use crate::forward::Origin;

pub(crate) struct HeaderView<'a> {
    pub(crate) head: &'a RequestHeader,
    pub(crate) origin: Origin,
    pub(crate) trusted_hops: u8,
}

impl RequestView for HeaderView<'_> {
    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn scheme(&self) -> &str {
        self.origin.scheme()
    }

    fn authority(&self) -> Option<&[u8]> {
        // An absolute-form target overrides Host (RFC 9112 §3.2.2).
        let target = self.head.uri.authority().map(|authority| authority.as_str().as_bytes());
        target.or_else(|| self.head.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes))
    }

    fn peer(&self) -> Option<IpAddr> {
        self.origin.peer
    }

    fn trusted_hops(&self) -> u8 {
        self.trusted_hops
    }

    fn path(&self) -> &[u8] {
        self.head.uri.path().as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.uri.query().map(str::as_bytes)
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }
}
