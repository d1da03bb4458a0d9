//! A request head where it lies: parsed without a copy, its meaning settled or refused.
//!
//! Whoever reads the same bytes behind this has to read the same request, so what two readers may take for two things is
//! refused (RFC 9112, sections 2.2, 3.2, 5.1, 6.3 and 11): by one rule for all, whichever adapter carries the rest.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use httparse::Header;
use serin_route::RequestView;

use super::framing::{Body, is_token};

/// Most header fields in a head; Pingora takes no more.
pub(crate) const HEADERS_MAX: usize = 256;

/// Room for the fields of a head, which are not made ready before they are needed.
pub(crate) type Room<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

/// A request head whose meaning is settled.
#[derive(Debug)]
pub(crate) struct Request<'h, 'b> {
    pub(crate) method: &'b str,
    /// As it was sent: a path with its query, an absolute URI, or `*`.
    pub(crate) target: &'b str,
    pub(crate) headers: &'h [Header<'b>],
    host: Option<&'b [u8]>,
    /// The scheme of the connection, which a head does not tell.
    pub(crate) scheme: &'static str,
    /// The other end of the connection, and how many proxies are trusted there.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) trusted_hops: u8,
    pub(crate) facts: Facts,
}

/// What a head says about the message and the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its length in bytes, with what came before the request line.
    pub(crate) length: usize,
    /// HTTP/1.0.
    pub(crate) is_old: bool,
    pub(crate) body: Body,
    /// Whether the client would send another request.
    pub(crate) keep_alive: bool,
    /// The client asks for another protocol on this connection.
    pub(crate) upgrades: bool,
    /// The client may wait for a word of the backend before it sends its body (RFC 9110 section 10.1.1).
    pub(crate) expects: bool,
}

/// A head that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Its syntax is wrong, or its meaning is disputed.
    Malformed,
    /// A transfer coding that is not chunked (RFC 9112 section 6.1: 501).
    Coding,
}

/// Reads a head; none if its end has not come yet.
///
/// # Errors
/// If it cannot be one.
pub(crate) fn parse<'h, 'b>(bytes: &'b [u8], room: &'h mut Room<'b>) -> Result<Option<Request<'h, 'b>>, Unusable> {
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unusable::Malformed),
    };
    let httparse::Request { method: Some(method), path: Some(target), version: Some(version), headers } = parsed else {
        return Err(Unusable::Malformed);
    };
    if !ends_lines_properly(&bytes[..length]) {
        return Err(Unusable::Malformed);
    }
    let is_old = version == 0;
    let authority = check_target(method, target)?;
    let (facts, host) = facts(headers, length, is_old, authority)?;
    Ok(Some(Request { method, target, headers, host, scheme: "http", peer: None, trusted_hops: 0, facts }))
}

/// Whether every line ends in CR LF. `httparse` takes a bare LF too, and other readers may not.
fn ends_lines_properly(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// The authority in a target, if it has one.
fn check_target<'b>(method: &str, target: &'b str) -> Result<Option<&'b str>, Unusable> {
    if target.contains('#') {
        return Err(Unusable::Malformed);
    }
    if target.starts_with('/') || method == "CONNECT" || (target == "*" && method == "OPTIONS") {
        return Ok(None);
    }
    let scheme_end = target.find("://").ok_or(Unusable::Malformed)?;
    let scheme = &target[..scheme_end];
    let rest = &target[scheme_end + 3..];
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if !is_http || !is_authority(authority.as_bytes()) || authority.is_empty() {
        return Err(Unusable::Malformed);
    }
    Ok(Some(authority))
}

fn facts<'b>(
    headers: &[Header<'b>],
    length: usize,
    is_old: bool,
    target: Option<&str>,
) -> Result<(Facts, Option<&'b [u8]>), Unusable> {
    let mut seen = Seen::default();
    for Header { name, value } in headers {
        seen.field(name, value)?;
    }
    match (seen.host, target) {
        // RFC 9112 section 3.2: one Host, and it says what the target says.
        (None, _) if !is_old => return Err(Unusable::Malformed),
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target.as_bytes()) => return Err(Unusable::Malformed),
        _ => {}
    }
    let body = match (seen.chunked, seen.content_length) {
        (true, Some(_)) => return Err(Unusable::Malformed),
        (true, None) if is_old => return Err(Unusable::Malformed),
        (true, None) => Body::chunked(),
        (false, length) => Body::Length(length.unwrap_or(0)),
    };
    if seen.nominates {
        check_nominated(headers)?;
    }
    let keep_alive = if is_old { seen.keep_alive && !seen.close } else { !seen.close };
    Ok((Facts { length, is_old, body, keep_alive, upgrades: seen.upgrades, expects: seen.expects }, seen.host))
}

/// What was seen of the fields that matter here.
#[derive(Default)]
struct Seen<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrades: bool,
    expects: bool,
    nominates: bool,
}

impl<'b> Seen<'b> {
    fn field(&mut self, name: &str, value: &'b [u8]) -> Result<(), Unusable> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                settled(self.host.replace(value).is_none() && is_authority(value))?;
            }
            6 if name.eq_ignore_ascii_case("expect") => self.expects = true,
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrades = true,
            10 if name.eq_ignore_ascii_case("connection") => self.options(value)?,
            14 if name.eq_ignore_ascii_case("content-length") => {
                // Twice the same is refused too: it is what an attack tries first, and nobody needs it.
                settled(self.content_length.replace(content_length(value)?).is_none())?;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                settled(!std::mem::replace(&mut self.chunked, true))?;
                check_coding(value)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn options(&mut self, value: &[u8]) -> Result<(), Unusable> {
        for option in tokens(value) {
            settled(option.iter().copied().all(is_token))?;
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ => self.nominates = true,
            }
        }
        Ok(())
    }
}

/// `Connection` may name fields that concern this connection alone, and they are taken out. It must not take out what the backend
/// is to see: then it would not get what was matched and measured.
fn check_nominated(headers: &[Header<'_>]) -> Result<(), Unusable> {
    let options = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection"));
    for option in options.flat_map(|header| tokens(header.value)) {
        let is_named = |header: &&Header<'_>| header.name.as_bytes().eq_ignore_ascii_case(option);
        if headers.iter().find(is_named).is_some_and(|header| !is_hop_by_hop(header.name)) {
            return Err(Unusable::Malformed);
        }
    }
    Ok(())
}

/// Refuses what is not settled.
fn settled(is_settled: bool) -> Result<(), Unusable> {
    if is_settled { Ok(()) } else { Err(Unusable::Malformed) }
}

/// Whether a field concerns one connection alone (RFC 9110 section 7.6.1, and what is used like that).
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name.eq_ignore_ascii_case("te"),
        7 => name.eq_ignore_ascii_case("upgrade"),
        10 => name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive"),
        14 => name.eq_ignore_ascii_case("http2-settings"),
        16 => name.eq_ignore_ascii_case("proxy-connection"),
        18 => name.eq_ignore_ascii_case("proxy-authenticate"),
        19 => name.eq_ignore_ascii_case("proxy-authorization"),
        _ => false,
    }
}

/// The entries of a list (RFC 9110 section 5.6.1).
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Digits alone, without sign, space or list; as many as fit into a signed number too, which is what other readers may use.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Unusable> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number);
    text.and_then(|text| text.parse::<i64>().ok()?.try_into().ok()).ok_or(Unusable::Malformed)
}

fn check_coding(value: &[u8]) -> Result<(), Unusable> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = tokens(value);
    let is_list_of_tokens = codings.all(|coding| coding.iter().copied().all(is_token));
    let ends_chunked = tokens(value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let chunked = tokens(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    // Compressed and then chunked is proper, and not for us; anything else is nobody's.
    Err(if is_list_of_tokens && ends_chunked && chunked == 1 { Unusable::Coding } else { Unusable::Malformed })
}

/// Bytes of a host (RFC 3986 section 3.2.2), to be looked up: each request has a dozen or two.
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"-._~%!$&'()*+,;=:";
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// A host with an optional port (RFC 3986 section 3.2, without user information). An empty one is allowed: it says that the
/// client knows no name.
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        _ => {
            let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
            (&value[..end], &value[end..])
        }
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host.iter().all(|byte| IN_HOST[usize::from(*byte)]) && is_port
}

impl RequestView for Request<'_, '_> {
    fn method(&self) -> &str {
        self.method
    }

    fn authority(&self) -> Option<&[u8]> {
        // The target's, if it has one, says the same.
        self.host
    }

    fn scheme(&self) -> &str {
        self.scheme
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    fn trusted_hops(&self) -> u8 {
        self.trusted_hops
    }

    fn path(&self) -> &[u8] {
        self.target.split_once('?').map_or(self.target, |(path, _)| path).as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.target.split_once('?').map(|(_, query)| query.as_bytes())
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }
}

/// Whether a request may be sent once more if nobody answered it (RFC 9110 section 9.2.2).
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}
