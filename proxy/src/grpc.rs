//! What gRPC has beside HTTP (gRPC, `PROTOCOL-HTTP2.md`): a status after the answer, a time limit in the request, and answers of our
//! own in its own form.

use std::time::Duration;

use http::HeaderMap;
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};

/// Digits of a time limit; the specification allows no more.
const TIMEOUT_DIGITS_MAX: usize = 8;
/// The status of gRPC for a time limit that has passed.
const DEADLINE_EXCEEDED: u16 = 4;

/// Whether a request is one of gRPC. gRPC-Web says its status in the body, where nobody looks here.
pub(crate) fn is_grpc(head: &RequestHeader) -> bool {
    head.headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| is_grpc_type(kind.as_bytes()))
}

fn is_grpc_type(kind: &[u8]) -> bool {
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Whether an answer is one of gRPC.
pub(crate) fn is_answer(head: &ResponseHeader) -> bool {
    head.headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| is_grpc_type(kind.as_bytes()))
}

/// The status that an answer ends with, in its head or after its body; one that is no number is UNKNOWN.
pub(crate) fn status(fields: &HeaderMap) -> Option<u16> {
    let written = fields.get("grpc-status")?;
    Some(written.to_str().ok().and_then(|digits| digits.parse().ok()).unwrap_or(2))
}

/// The time that a client gives a request.
pub(crate) fn timeout(head: &RequestHeader) -> Option<Duration> {
    parse_timeout(head.headers.get("grpc-timeout")?.to_str().ok()?)
}

fn parse_timeout(written: &str) -> Option<Duration> {
    let (digits, unit) = written.split_at_checked(written.len().checked_sub(1)?)?;
    let is_number =
        (1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The head of an answer without a body, for what an HTTP status says; `is_late` if the time of the request has passed.
pub(crate) fn answer(status: u16, message: &str, is_late: bool) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(3))?;
    set(&mut head, if is_late { DEADLINE_EXCEEDED } else { of_http(status) }, message)?;
    Ok(head)
}

/// Makes an answer of plain HTTP one of gRPC without a body, as clients would understand it.
pub(crate) fn translate(head: &mut ResponseHeader) -> Result<()> {
    let status = head.status.as_u16();
    head.set_status(200)?;
    head.remove_header(&http::header::CONTENT_LENGTH);
    head.remove_header(&http::header::CONTENT_ENCODING);
    head.remove_header(&http::header::TRANSFER_ENCODING);
    set(head, of_http(status), &format!("the backend answered with HTTP status {status}"))
}

fn set(head: &mut ResponseHeader, status: u16, message: &str) -> Result<()> {
    head.insert_header(http::header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header("grpc-status", status.to_string())?;
    // The messages here are plain text without percent signs, so they stand for themselves.
    head.insert_header("grpc-message", message.trim_end())
}

/// The status of gRPC for one of HTTP (gRPC, `http-grpc-status-mapping.md`).
const fn of_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_has_eight_digits_at_most_and_a_unit() {
        let read = parse_timeout;
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(
            [read("1S"), read("2M"), read("3u"), read("4n")],
            [
                Some(Duration::from_secs(1)),
                Some(Duration::from_secs(120)),
                Some(Duration::from_micros(3)),
                Some(Duration::from_nanos(4)),
            ]
        );
        for wrong in ["", "m", "1", "-1S", "+1S", "123456789S", "1s", "1 S", "ä", "1ä"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn grpc_is_told_from_its_kin_by_the_type() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc_type(kind.as_bytes()), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", "", "application/grpcx"]
        {
            assert!(!is_grpc_type(kind.as_bytes()), "{kind}");
        }
    }
}
