//! HTTP/1 byte by byte, on either end of a connection: for what a proper client or server would not say.
//!
//! Nothing here waits longer than [`PATIENCE`]: a test that hangs says where instead.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Far longer than anything awaited here takes, also on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A whole request or response as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// First line and fields, with the empty line.
    pub(crate) head: String,
    /// The body without its framing; what of it came, if it is not whole.
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its framing announced.
    pub(crate) whole: bool,
    /// Statuses of the 1xx heads before.
    pub(crate) interim: Vec<u16>,
}

impl Message {
    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        status(&self.head)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Trailer fields that have come.
    pub(crate) trailers: Vec<String>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Wire {
    /// The client's end of a new connection.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("somebody listens");
        Self::new(stream, Arc::default())
    }

    /// The same, with as little room for what comes as the kernel allows.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the kernel takes its least");
        let stream = within("connecting", socket.connect(address)).await.expect("somebody listens");
        Self::new(stream, Arc::default())
    }

    fn new(stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> Self {
        stream.set_nodelay(true).expect("the socket is open");
        Self { stream, unread: Vec::new(), trailers: Vec::new(), heads }
    }

    /// Writes all of it. A peer that has gone is no fault here; what it did before is seen by reading.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sends(bytes).await;
    }

    /// The same; false if the peer has gone meanwhile.
    pub(crate) async fn sends(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("writing", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Sends a request and reads the answer; none if the connection ended before its head did.
    pub(crate) async fn ask(&mut self, request: &str) -> Option<Message> {
        self.send(request).await;
        self.answer(request.starts_with("HEAD ")).await
    }

    /// Reads a response, to a HEAD request or another one.
    pub(crate) async fn answer(&mut self, to_head: bool) -> Option<Message> {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head().await?;
            match status(&head) {
                status @ 100..=199 => interim.push(status),
                _ => break head,
            }
        };
        let (body, whole) = match status(&head) {
            204 | 304 => (Vec::new(), true),
            _ if to_head => (Vec::new(), true),
            _ if is_framed(&head) => self.body(&head).await,
            _ => self.rest().await,
        };
        Some(Message { head, body, whole, interim })
    }

    /// Reads a request; none if the connection ended before its head did.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let head = self.head().await?;
        let (body, whole) = self.body(&head).await;
        Some(Message { head, body, whole, interim: Vec::new() })
    }

    /// Reads a head, up to and with its empty line; none if the connection ended before.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = String::from_utf8(self.take(end)).expect("heads in tests are text");
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
        Some(head)
    }

    /// Reads a line, up to and with its end; none if the connection ended before.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let end = self.find(b"\r\n").await?;
        Some(String::from_utf8(self.take(end)).expect("lines in tests are text"))
    }

    /// Reads the body that a head announces; false if the connection ended before the body did.
    pub(crate) async fn body(&mut self, head: &str) -> (Vec<u8>, bool) {
        if let Some(length) = field(head, "content-length") {
            let length = length.parse().expect("a length is a number");
            let whole = self.fill(length).await;
            return (self.take(length), whole);
        }
        let mut body = Vec::new();
        if field(head, "transfer-encoding").is_none() {
            return (body, true);
        }
        loop {
            let Some(size) = self.line().await else { return (body, false) };
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).expect("a chunk's size is hexadecimal");
            if size == 0 {
                return (body, self.trailers().await);
            }
            let whole = self.fill(size + 2).await;
            body.extend(self.take(size));
            self.take(2);
            if !whole {
                return (body, false);
            }
        }
    }

    /// Reads what may follow the last chunk, up to the empty line; false if the connection ended before.
    async fn trailers(&mut self) -> bool {
        loop {
            match self.line().await.as_deref() {
                Some("\r\n") => return true,
                Some(field) => self.trailers.push(field.trim_end().to_owned()),
                None => return false,
            }
        }
    }

    /// Reads to the end of the connection; false if it was reset instead of closed.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, bool) {
        let read = within("the end of a connection", self.stream.read_to_end(&mut self.unread)).await;
        (std::mem::take(&mut self.unread), read.is_ok())
    }

    /// The address of the other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().expect("it is connected")
    }

    /// Closes with RST.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("the socket is open");
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    /// Waits for these bytes, and says where they end.
    async fn find(&mut self, wanted: &[u8]) -> Option<usize> {
        loop {
            let found = self.unread.windows(wanted.len()).position(|window| window == wanted);
            if let Some(start) = found {
                return Some(start + wanted.len());
            }
            self.read().await?;
        }
    }

    /// Waits for so many unread bytes; false if the connection ends first.
    async fn fill(&mut self, count: usize) -> bool {
        while self.unread.len() < count {
            if self.read().await.is_none() {
                return false;
            }
        }
        true
    }

    async fn read(&mut self) -> Option<()> {
        match within("reading", self.stream.read_buf(&mut self.unread)).await {
            Ok(1..) => Some(()),
            Ok(0) | Err(_) => None,
        }
    }
}

/// A server whose connections are served by a function of the test. Dropping it drops them all.
#[derive(Debug)]
pub(crate) struct WireBackend {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

/// What a scripted backend does after its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    /// Reads the next request.
    Keep,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Nothing, for ever.
    Silence,
}

impl WireBackend {
    /// Serves each connection by `serve`.
    pub(crate) async fn start<F>(serve: impl Fn(Wire) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let heads = Arc::default();
        let log = Arc::clone(&heads);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Wire::new(stream, Arc::clone(&log))));
            }
        });
        Self { address, heads, accepting }
    }

    /// Answers every request with these bytes.
    pub(crate) async fn saying(answer: impl Into<Vec<u8>>, then: Then) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut wire| {
            let answer = Arc::clone(&answer);
            async move {
                while wire.request().await.is_some() {
                    wire.send(&answer).await;
                    match then {
                        Then::Keep => {}
                        Then::Close => return,
                        Then::Reset => return wire.reset(),
                        Then::Silence => std::future::pending().await,
                    }
                }
            }
        })
        .await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads that have arrived, in order.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for WireBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A 200 with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Awaits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a response begins with a status line")
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn is_framed(head: &str) -> bool {
    field(head, "content-length").or_else(|| field(head, "transfer-encoding")).is_some()
}
