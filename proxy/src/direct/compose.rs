//! Heads as they are sent on: the fields as they came, without those that concerned one connection alone.

use std::time::SystemTime;

use serin_route::{Edits, HeaderEdits, Match, RequestView};

use super::framing::Body;
use super::request::{Request, is_hop_by_hop};
use super::response::Response;
use crate::forward::{Forwarding, Passage};

/// What is said to a client about its connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It may ask again.
    KeepAlive,
    /// The connection is closed.
    Close,
}

impl Afterwards {
    /// The last field, and the end of the head.
    const fn line(self) -> &'static [u8] {
        match self {
            Self::KeepAlive => b"connection: keep-alive\r\n\r\n",
            Self::Close => b"connection: close\r\n\r\n",
        }
    }
}

/// What a head for a backend is made by.
pub(crate) struct Making<'a> {
    pub(crate) edits: &'a Edits,
    /// The entry by which the route was found.
    pub(crate) entry: Option<&'a Match>,
    pub(crate) forwarding: &'a Forwarding,
    pub(crate) passage: Passage,
}

/// What an answer is changed by.
pub(crate) struct AnswerEdits<'a> {
    pub(crate) of_route: &'a HeaderEdits,
    /// Of this answer alone.
    pub(crate) own: Option<&'a HeaderEdits>,
    /// A cookie that it sets.
    pub(crate) cookie: Option<&'a str>,
}

/// The head that a backend gets. Returns where in it the arm is told, if it is.
pub(crate) fn request(out: &mut Vec<u8>, request: &Request<'_, '_>, making: &Making<'_>) -> Option<usize> {
    let Making { edits, entry, forwarding, passage } = *making;
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    if edits.path.is_some() {
        edits.path_to(out, request.path(), entry);
        if let Some(query) = request.query() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    } else {
        out.extend_from_slice(request.target.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = &edits.authority {
        field(out, "host", authority.as_bytes());
    }
    for header in request.headers {
        let is_replaced = edits.authority.is_some() && header.name.eq_ignore_ascii_case("host");
        let is_left_out = edits.request.drops(header.name) || forwarding.replaces(header.name);
        if !is_hop_by_hop(header.name) && !is_replaced && !is_left_out {
            field(out, header.name, header.value);
        }
    }
    let mut arm_at = None;
    forwarding.tell(request, passage, |name, value| {
        if !edits.request.drops(name) {
            field(out, name, value);
            if forwarding.arm.as_deref() == Some(name) {
                arm_at = Some(out.len() - b"\r\n".len() - value.len());
            }
        }
    });
    appended(out, &edits.request);
    out.extend_from_slice(b"\r\n");
    arm_at
}

/// The head that a client gets. A body without a length is sent in chunks, so that its end is told from its being cut off.
pub(crate) fn response(
    out: &mut Vec<u8>,
    response: &Response<'_, '_>,
    afterwards: Afterwards,
    edits: &AnswerEdits<'_>,
) {
    let AnswerEdits { of_route: edits, own, cookie } = *edits;
    status_line(out, response);
    for header in response.headers {
        let is_left_out = edits.drops(header.name) || own.is_some_and(|own| own.drops(header.name));
        if response.is_passed_on(header) && !is_left_out {
            field(out, header.name, header.value);
        }
    }
    for (name, value) in edits.appended().filter(|(name, _)| own.is_none_or(|own| !own.drops(name))) {
        field(out, name, value.as_bytes());
    }
    if let Some(own) = own {
        appended(out, own);
    }
    if let Some(cookie) = cookie {
        field(out, "set-cookie", cookie.as_bytes());
    }
    if !response.has_date {
        // RFC 9110 section 6.6.1.
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if response.body == Body::ToEnd {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(afterwards.line());
}

/// A head before the final one.
pub(crate) fn interim(out: &mut Vec<u8>, response: &Response<'_, '_>) {
    status_line(out, response);
    for header in response.headers {
        if response.is_passed_on(header) {
            field(out, header.name, header.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer of the proxy's own without a body.
pub(crate) fn answer(status: &str, fields: &HeaderEdits, afterwards: Afterwards) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n").into_bytes();
    appended(&mut out, fields);
    out.extend_from_slice(afterwards.line());
    out
}

fn status_line(out: &mut Vec<u8>, response: &Response<'_, '_>) {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    let code = [digit(response.status / 100), digit(response.status / 10), digit(response.status)];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&code);
    out.push(b' ');
    out.extend_from_slice(response.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn appended(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.appended() {
        field(out, name, value.as_bytes());
    }
}
