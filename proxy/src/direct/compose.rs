//! Heads as they are sent on: the fields as they came, without those that concerned one connection alone.

use std::time::SystemTime;

use httparse::Header;

use super::framing::Body;
use super::request::{Request, is_hop_by_hop};
use super::response::Response;

/// What is said to a client about its connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It may ask again.
    KeepAlive,
    /// The connection is closed.
    Close,
}

/// The head that a backend gets.
pub(crate) fn request(out: &mut Vec<u8>, request: &Request<'_, '_>) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for header in request.headers {
        if !is_hop_by_hop(header.name) {
            field(out, header);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The head that a client gets. A body without a length is sent in chunks, so that its end is told from its being cut off.
pub(crate) fn response(out: &mut Vec<u8>, response: &Response<'_, '_>, afterwards: Afterwards) {
    status_line(out, response);
    for header in response.headers {
        if response.is_passed_on(header) {
            field(out, header);
        }
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
    out.extend_from_slice(match afterwards {
        Afterwards::KeepAlive => b"connection: keep-alive\r\n\r\n",
        Afterwards::Close => b"connection: close\r\n\r\n",
    });
}

/// A head before the final one.
pub(crate) fn interim(out: &mut Vec<u8>, response: &Response<'_, '_>) {
    status_line(out, response);
    for header in response.headers {
        if response.is_passed_on(header) {
            field(out, header);
        }
    }
    out.extend_from_slice(b"\r\n");
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

fn field(out: &mut Vec<u8>, header: &Header<'_>) {
    out.extend_from_slice(header.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(header.value);
    out.extend_from_slice(b"\r\n");
}
