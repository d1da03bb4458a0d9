//! A backend: it answers each request with as many bytes as its path says, in one write.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;

/// Most bytes of a request that wait here: a head, or a body that nobody looks at.
const WAITING_MAX: usize = 64 * 1024;
/// Longest answer.
pub(crate) const BODY_MAX: usize = 1 << 20;

/// Who answers.
const NAMES: [&str; 2] = ["primary", "canary"];
static BODY: [u8; BODY_MAX] = [b'x'; BODY_MAX];

/// What became of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It waits for an event.
    Waiting,
    /// It waits until it is told to answer.
    Delayed,
    /// The connection is closed.
    Over,
}

/// One connection from a proxy.
pub(crate) struct Backend {
    stream: TcpStream,
    /// 0 is the primary, 1 the canary.
    which: usize,
    come: Vec<u8>,
    /// What of a request's body is still to come.
    upload: usize,
    answer: Vec<u8>,
    /// How much of the answer is written; none while there is nothing to write.
    written: Option<usize>,
}

impl Backend {
    pub(crate) fn new(stream: TcpStream, which: usize) -> Self {
        Self { stream, which, come: Vec::new(), upload: 0, answer: Vec::new(), written: None }
    }

    /// Reads what is there, and answers a request that is whole.
    pub(crate) fn read_on(&mut self, scratch: &mut [u8], canary_delay: Duration) -> Served {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Served::Over,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Served::Waiting,
                Err(_) => return Served::Over,
            };
            let Some(is_whole) = self.take(&scratch[..count]) else { return Served::Over };
            if is_whole && self.which == 1 && !canary_delay.is_zero() {
                return Served::Delayed;
            }
            if is_whole && self.answer() == Served::Over {
                return Served::Over;
            }
            if count < scratch.len() {
                return Served::Waiting;
            }
        }
    }

    /// Whether a request is whole now; none if it is no request.
    fn take(&mut self, bytes: &[u8]) -> Option<bool> {
        if self.upload > 0 {
            self.upload = self.upload.checked_sub(bytes.len())?;
            return Some(self.upload == 0);
        }
        self.come.extend_from_slice(bytes);
        let mut room = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut room);
        let httparse::Status::Complete(length) = request.parse(&self.come).ok()? else {
            return (self.come.len() < WAITING_MAX).then_some(false);
        };
        let asked: usize = request.path?.strip_prefix('/')?.parse().ok()?;
        let body = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let body: usize = body.map_or(Some(0), |header| std::str::from_utf8(header.value).ok()?.parse().ok())?;
        self.upload = (length + body).checked_sub(self.come.len())?;
        self.come.clear();
        self.compose(asked.min(BODY_MAX));
        Some(self.upload == 0)
    }

    fn compose(&mut self, bytes: usize) {
        self.answer.clear();
        let from = NAMES[self.which];
        let head = write!(
            self.answer,
            "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
             Content-Length: {bytes}\r\nX-From: {from}\r\n\r\n"
        );
        // Memory takes everything.
        drop(head);
        self.answer.extend_from_slice(&BODY[..bytes]);
    }

    /// Sends the answer.
    pub(crate) fn answer(&mut self) -> Served {
        self.written = Some(0);
        self.write_on()
    }

    /// Goes on with an answer that had no room.
    pub(crate) fn write_on(&mut self) -> Served {
        while let Some(written) = &mut self.written {
            if *written == self.answer.len() {
                self.written = None;
                break;
            }
            match self.stream.write(&self.answer[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Served::Waiting,
                Err(_) => return Served::Over,
            }
        }
        Served::Waiting
    }
}
