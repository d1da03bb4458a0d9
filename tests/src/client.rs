//! One HTTP/1.1 connection that sends each request exactly once, and says precisely how an answer failed.
//!
//! It has no retry, no pool and no redirect: those would hide what a user sees.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The longest answer that is read, in bytes. The harness's own backends answer with a line; the admin pages stay far below.
const BODY_BYTES_MAX: usize = 8 << 20;

/// How a request ended without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No connection could be made; the request was never written.
    Connect,
    /// The connection ended, or what came was not HTTP, before the head of an answer.
    NoAnswer,
    /// The head came, the body ended early or was longer than is read.
    CutBody,
    /// The caller's time limit passed first.
    Timeout,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The `x-version` header, by which the harness's backends say who they are.
    pub version: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// A kept-alive connection to one address, opened when it is first needed.
#[derive(Debug)]
pub struct Client {
    target: SocketAddr,
    open: Option<Open>,
}

/// An open connection: hyper's sender, and the task that moves its bytes.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// A client that will connect to `target`.
    #[must_use]
    pub const fn new(target: SocketAddr) -> Self {
        Self { target, open: None }
    }

    /// Sends one request and reads its whole answer.
    ///
    /// A connection that the other side has closed meanwhile is replaced *before* the request is written; once a byte of
    /// it may have left, its fate is reported and nothing is sent again.
    ///
    /// # Errors
    /// The [`Fault`]; after one the connection is closed, and the next request opens another.
    pub async fn send(&mut self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Answer, Fault> {
        let sent = match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(sent) => sent,
            Err(_elapsed) => Err(Fault::Timeout),
        };
        if sent.is_err() {
            self.open = None;
        }
        sent
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Fault> {
        let reused = self.open.is_some();
        let unsent = match self.connection().await?.sender.try_send_request(request).await {
            Ok(response) => return read(response).await,
            // hyper hands a request back only if none of it was written.
            Err(mut failed) => failed.take_message().filter(|_| reused).ok_or(Fault::NoAnswer)?,
        };
        self.open = None;
        let response = self.connection().await?.sender.send_request(unsent).await.map_err(|_| Fault::NoAnswer)?;
        read(response).await
    }

    /// The open connection if it still takes requests, else a new one.
    async fn connection(&mut self) -> Result<&mut Open, Fault> {
        let usable = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(connect(self.target).await?)),
        }
    }
}

async fn connect(target: SocketAddr) -> Result<Open, Fault> {
    let stream = TcpStream::connect(target).await.map_err(|_| Fault::Connect)?;
    stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Fault::Connect)?;
    let driver = tokio::spawn(async move {
        // Its error is also the request's, and is reported there.
        let _ended = connection.await;
    });
    Ok(Open { sender, driver })
}

async fn read(response: Response<Incoming>) -> Result<Answer, Fault> {
    let status = response.status();
    let version = response.headers().get("x-version").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body =
        Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| Fault::CutBody)?.to_bytes();
    Ok(Answer { status, version, body })
}

/// One `GET` on a connection of its own, with the address as `Host`.
///
/// # Errors
/// As [`Client::send`].
///
/// # Panics
/// If `path` is not a path.
pub async fn get(target: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, Fault> {
    let request = Request::get(path)
        .header(HOST, target.to_string())
        .body(Full::default())
        .expect("the caller gives a path, and an address is a valid host");
    Client::new(target).send(request, timeout).await
}
