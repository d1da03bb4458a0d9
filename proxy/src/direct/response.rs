//! A backend's response head where it lies, and how its body is framed (RFC 9112 section 6.3).

use std::mem::MaybeUninit;

use httparse::Header;

use super::framing::Body;
use super::request::{Room, content_length, is_hop_by_hop, tokens};

/// A response head whose meaning is settled.
#[derive(Debug)]
pub(crate) struct Response<'h, 'b> {
    pub(crate) status: u16,
    pub(crate) reason: &'b str,
    pub(crate) headers: &'h [Header<'b>],
    pub(crate) length: usize,
    pub(crate) body: Body,
    /// Whether the backend takes another request on this connection.
    pub(crate) keep_alive: bool,
    pub(crate) has_date: bool,
    /// A field of `Connection` names others.
    pub(crate) nominates: bool,
}

/// A head that is none, or whose meaning is disputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unusable;

/// Reads a head; none if its end has not come yet. `to_head` says that the request was a HEAD.
///
/// # Errors
/// If it cannot be one.
pub(crate) fn parse<'h, 'b>(
    bytes: &'b [u8],
    to_head: bool,
    room: &'h mut Room<'b>,
) -> Result<Option<Response<'h, 'b>>, Unusable> {
    let room: &mut [MaybeUninit<Header<'b>>] = room;
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unusable),
    };
    // Below 100 there is no status (RFC 9110 section 15), though it would look like three digits.
    let httparse::Response { version: Some(version), code: Some(status @ 100..), reason, headers } = parsed else {
        return Err(Unusable);
    };
    let mut seen = Seen::default();
    for Header { name, value } in headers.iter() {
        seen.field(name, value)?;
    }
    let is_bodiless = to_head || status < 200 || status == 204 || status == 304;
    let body = match (is_bodiless, seen.chunked, seen.content_length) {
        // Both is an attack on whoever reads only one (RFC 9112 section 6.3), and nginx refuses it too.
        (_, true, Some(_)) => return Err(Unusable),
        (true, _, _) => Body::Length(0),
        (false, true, None) => Body::chunked(),
        (false, false, Some(length)) => Body::Length(length),
        (false, false, None) => Body::ToEnd,
    };
    // Chunks in HTTP/1.0 are used once and not trusted again (RFC 9112 section 6.1).
    let keep_alive = if version == 0 { seen.keep_alive && !seen.chunked && !seen.close } else { !seen.close };
    let keep_alive = keep_alive && body != Body::ToEnd;
    let (has_date, nominates) = (seen.has_date, seen.nominates);
    Ok(Some(Response {
        status,
        reason: reason.unwrap_or_default(),
        headers,
        length,
        body,
        keep_alive,
        has_date,
        nominates,
    }))
}

#[derive(Default)]
struct Seen {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    has_date: bool,
    nominates: bool,
}

impl Seen {
    fn field(&mut self, name: &str, value: &[u8]) -> Result<(), Unusable> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("date") => self.has_date = true,
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in tokens(value) {
                    match option.len() {
                        5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                        10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        _ => self.nominates = true,
                    }
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = content_length(value).map_err(|_| Unusable)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Unusable);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                let is_first = !std::mem::replace(&mut self.chunked, true);
                return if is_first && value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err(Unusable) };
            }
            _ => {}
        }
        Ok(())
    }
}

impl Response<'_, '_> {
    /// Whether a field is passed on to the client.
    pub(crate) fn is_passed_on(&self, header: &Header<'_>) -> bool {
        let is_nominated = self.nominates && self.is_nominated(header.name);
        // What has no body by its status has no framing either (RFC 9110 section 8.6, RFC 9112 section 6.1).
        let is_bare = self.status < 200 || self.status == 204;
        let is_withheld = is_nominated || (is_bare && is_framing(header.name));
        !is_hop_by_hop(header.name) && !is_withheld
    }

    fn is_nominated(&self, name: &str) -> bool {
        let is_connection = |header: &&Header<'_>| header.name.eq_ignore_ascii_case("connection");
        let options = self.headers.iter().filter(is_connection).flat_map(|header| tokens(header.value));
        // What frames the message is not the backend's to take out.
        !is_framing(name) && options.into_iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Whether a field says how long the body is.
fn is_framing(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
}

#[cfg(test)]
mod tests {
    use super::super::request::HEADERS_MAX;
    use super::*;

    fn read<T>(text: &str, look: impl Fn(&Response<'_, '_>) -> T) -> Result<Option<T>, Unusable> {
        let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        parse(text.as_bytes(), false, &mut room).map(|found| found.as_ref().map(look))
    }

    #[test]
    fn what_is_no_status_or_no_length_is_no_head() {
        for (head, is_head) in [
            ("HTTP/1.1 100 x\r\n\r\n", true),
            ("HTTP/1.1 099 x\r\ncontent-length: 5\r\n\r\n", false),
            ("HTTP/1.1 000 x\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\ncontent-length: 9223372036854775807\r\n\r\n", true),
            ("HTTP/1.1 200 x\r\ncontent-length: 9223372036854775808\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\ncontent-length: +5\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\ntransfer-encoding: gzip\r\n\r\n", false),
            ("HTTP/1.1 200 x\r\na: b\r\n c\r\n\r\n", false),
        ] {
            assert_eq!(read(head, |_| ()), if is_head { Ok(Some(())) } else { Err(Unusable) }, "{head:?}");
        }
    }

    #[test]
    fn chunks_in_http_1_0_end_the_connection() {
        let keeps = |head| read(head, |found| found.keep_alive);
        assert_eq!(keeps("HTTP/1.0 200 x\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n"), Ok(Some(true)));
        let chunked = "HTTP/1.0 200 x\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(keeps(chunked), Ok(Some(false)));
    }

    #[test]
    fn an_answer_without_a_body_says_nothing_of_its_length() {
        let passed = |status: u16| {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 5\r\nserver: y\r\n\r\n");
            read(&head, |found| found.headers.iter().filter(|header| found.is_passed_on(header)).count())
        };
        assert_eq!([100, 103, 204].map(passed), [Ok(Some(1)); 3]);
        assert_eq!([200, 304, 404].map(passed), [Ok(Some(2)); 3]);
    }
}
