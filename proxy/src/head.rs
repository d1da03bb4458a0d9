//! Reads one HTTP/1 request head from a connection: complete, bounded in size and in time, or refused.
//!
//! It is read here and not by Pingora's session, so that what never becomes a request is counted and a slow or endless
//! head ends. The bytes are handed on as they came.

use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::counts::Refusal;

/// Longest request head in bytes. nginx allows 32 KiB in all by default; cookies of several applications fit in 64.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in a head; Pingora parses no more.
const HEADERS_MAX: usize = 256;
/// First size of the buffer: most heads fit.
const BUFFER_BYTES: usize = 4 * 1024;

/// How reading ended.
#[derive(Debug)]
pub(crate) enum Head {
    /// A whole head, with whatever came after it.
    Complete(BytesMut),
    /// The connection ended, or stayed idle too long, before the first byte.
    Idle,
    /// It is none.
    Refused(Refusal),
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the first byte.
    pub(crate) idle: Duration,
    /// For the rest, from the first byte on.
    pub(crate) head: Duration,
}

/// Reads a head.
pub(crate) async fn read_head(stream: &mut Stream, patience: Patience) -> Head {
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    match timeout(patience.idle, stream.read_buf(&mut buffer)).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) | Err(_) => return Head::Idle,
    }
    let deadline = Instant::now() + patience.head;
    loop {
        match examine(&buffer) {
            Examined::Complete => return Head::Complete(buffer),
            Examined::Malformed => return Head::Refused(Refusal::Malformed),
            Examined::Partial if buffer.len() >= HEAD_BYTES_MAX => return Head::Refused(Refusal::HeadTooLarge),
            Examined::Partial => {}
        }
        match timeout_at(deadline, stream.read_buf(&mut buffer)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Head::Refused(Refusal::HeadCut),
            Err(_) => return Head::Refused(Refusal::HeadTimeout),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Examined {
    Complete,
    Partial,
    Malformed,
}

fn examine(buffer: &[u8]) -> Examined {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::Request::new(&mut headers).parse(buffer) {
        Ok(httparse::Status::Complete(_)) => Examined::Complete,
        Ok(httparse::Status::Partial) => Examined::Partial,
        Err(_) => Examined::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    const PATIENCE: Patience = Patience { idle: Duration::from_secs(75), head: Duration::from_secs(60) };

    fn connection() -> (DuplexStream, Stream) {
        let (client, server) = tokio::io::duplex(1 << 20);
        (client, Box::new(server))
    }

    async fn read(bytes: &[u8], close: bool) -> String {
        let (mut client, mut server) = connection();
        client.write_all(bytes).await.expect("the pipe is large enough");
        let client = if close {
            drop(client);
            None
        } else {
            Some(client)
        };
        let read = match read_head(&mut server, PATIENCE).await {
            Head::Complete(bytes) => format!("complete {}", bytes.len()),
            Head::Idle => "idle".to_owned(),
            Head::Refused(why) => why.as_str().to_owned(),
        };
        drop(client);
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_complete_idle_or_refused() {
        let large = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(HEAD_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (bytes, close, expected) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", false, "complete 27"),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi", false, "complete 40"),
            ("", true, "idle"),
            ("", false, "idle"),
            ("GET / HT", true, "head_cut"),
            ("GET / HTTP/1.1\r\nhost: a\r\n", false, "head_timeout"),
            ("GET / HTTP/3.7\r\n\r\n", false, "malformed"),
            ("GET /\r\nhost: a\r\n\r\n", false, "malformed"),
            ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", false, "malformed"),
            ("\u{16}\u{3}\u{1}", false, "malformed"),
            (&large, false, "head_too_large"),
            (&many, false, "malformed"),
        ] {
            let shown = &bytes[..bytes.len().min(40)];
            assert_eq!(read(bytes.as_bytes(), close).await, expected, "{shown:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_a_second_does_not_hold_a_connection() {
        let (mut client, mut server) = connection();
        let drip = async {
            for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            head = read_head(&mut server, PATIENCE) => assert!(matches!(head, Head::Refused(Refusal::HeadTimeout))),
            () = drip => unreachable!("the drip is endless"),
        }
    }
}
