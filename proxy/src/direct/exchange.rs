//! One request and its answer, from a client's connection to a backend's and back.
//!
//! ```text
//!   head, begin of the body ──one write──▶ backend      (rest of the body: `upload`, beside what follows)
//!   client ◀──one write── head, begin of the body ◀── backend, read by read
//! ```
//!
//! What was decided and composed when the head was read comes in as [`Order`]; nothing here looks at fields of a request.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use serin_measure::{Arm, Outcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Lane;
use super::alarm::{Alarm, Rang};
use super::buffer::{BUFFER_BYTES, Buffer};
use super::compose::{self, Afterwards};
use super::framing::Body;
use super::request::HEADERS_MAX;
use super::response;
use crate::adapter::ENDPOINTS_TRIED_MAX;
use crate::attempt::Attempt;

/// Longest head of a response in bytes; nginx takes 4 or 8 KiB by default, and answers with many cookies are longer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a client may send ahead while its request is with the backend: they wait in memory. It can send as much again into the
/// kernel's own buffer.
const AHEAD_BYTES_MAX: usize = BUFFER_BYTES;
/// Room before the data of a chunk for its size, which is known only when the data was read.
const CHUNK_HEAD_BYTES: usize = 10;
/// How long, and how many bytes of, a body are read that nobody wants any more, so that the client reads the answer before its
/// connection is reset (RFC 9112 section 9.6).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// A request that was decided on.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) attempt: Attempt,
    pub(crate) arm: Arm,
    /// Where to try, from which on.
    pub(crate) endpoint: usize,
    /// What of its body has not come yet.
    pub(crate) body: Body,
    pub(crate) is_head: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) keep_alive: bool,
}

/// What becomes of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Next,
    Close,
}

/// Why a request has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The client went away.
    ClientGone,
    /// The client took too long.
    ClientSlow,
    /// What the client sent is no body.
    ClientMalformed,
    /// The backend, in this way.
    Backend(Outcome),
    /// The backend closed a kept connection before it answered anything.
    Stale,
}

impl Fault {
    /// The status for the client, if it is still there to be told.
    const fn status(self) -> Option<&'static str> {
        match self {
            Self::ClientGone => None,
            Self::ClientSlow => Some("408 Request Timeout"),
            Self::ClientMalformed => Some("400 Bad Request"),
            Self::Backend(Outcome::Timeout) => Some("504 Gateway Timeout"),
            Self::Backend(_) | Self::Stale => Some("502 Bad Gateway"),
        }
    }

    /// Whose failure that is, and which.
    const fn outcome(self, head: Option<u16>) -> Outcome {
        match (self, head) {
            // A server error was seen, whatever happened to its body afterwards.
            (_, Some(status @ 500..)) => Outcome::Status(status),
            (Self::ClientGone | Self::ClientSlow | Self::ClientMalformed, _) => Outcome::ClientAbort,
            (Self::Backend(Outcome::Reset), Some(_)) | (Self::Stale, Some(_)) => Outcome::Truncated,
            (Self::Backend(outcome), _) => outcome,
            (Self::Stale, None) => Outcome::Reset,
        }
    }
}

/// A connection to a backend.
struct Backend {
    stream: TcpStream,
    address: SocketAddr,
    is_reused: bool,
}

/// A client while its answer is awaited: its side is watched, so that nobody works for one who has left.
struct Client<'a> {
    stream: &'a mut Stream,
    buffer: &'a mut Buffer,
}

/// Where an answer goes.
trait Side: Unpin {
    type Write: AsyncWrite + Unpin + ?Sized;

    fn write(&mut self) -> &mut Self::Write;

    /// Looks whether the client is still there.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Fault>;

    /// Whether all of the request has been passed on.
    fn has_sent_all(&self) -> bool;
}

impl Side for Client<'_> {
    type Write = Stream;

    fn write(&mut self) -> &mut Stream {
        self.stream
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        while self.buffer.unused().len() < AHEAD_BYTES_MAX {
            match self.buffer.poll_read(self.stream, AHEAD_BYTES_MAX, context) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Fault::ClientGone),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    fn has_sent_all(&self) -> bool {
        true
    }
}

/// The writing half of a client whose body is still coming; the other half is read by the upload, which sees whether it leaves.
struct Uploading<'a, W> {
    write: W,
    has_sent_all: &'a AtomicBool,
}

impl<W: AsyncWrite + Unpin> Side for Uploading<'_, W> {
    type Write = W;

    fn write(&mut self) -> &mut W {
        &mut self.write
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Fault> {
        Poll::Pending
    }

    fn has_sent_all(&self) -> bool {
        self.has_sent_all.load(Ordering::Relaxed)
    }
}

/// What is known of an answer under way.
struct Answer<'a> {
    attempt: &'a mut Attempt,
    alarm: &'a Alarm,
    is_head: bool,
    keep_alive: bool,
    /// What was read from the backend and not passed on yet.
    read: Buffer,
    /// What is being written to the client.
    out: &'a mut Vec<u8>,
}

/// How an answer ended that is whole.
struct Whole {
    after: After,
    /// Whether the backend takes another request on its connection.
    reusable: bool,
}

impl Lane {
    /// Carries a request out. `out` has its head for the backend, and the begin of its body.
    pub(crate) async fn exchange(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        mut order: Order,
        out: &mut Vec<u8>,
    ) -> After {
        let carried = self.carry(stream, buffer, alarm, &mut order, out).await;
        match carried {
            Ok(after) => {
                order.attempt.end_whole();
                after
            }
            Err(fault) => {
                let head = order.attempt.status();
                order.attempt.end_as(fault.outcome(head));
                tracing::debug!(arm = order.arm.as_str(), ?fault, "request failed");
                if let (None, Some(status)) = (head, fault.status()) {
                    self.tell(stream, alarm, status).await;
                }
                After::Close
            }
        }
    }

    async fn carry(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
    ) -> Result<After, Fault> {
        let is_repeatable = order.is_idempotent && order.body.is_over();
        let mut may_reuse = true;
        loop {
            let mut backend = self.reach(alarm, order, may_reuse).await?;
            let sent = match alarm.within(self.settings.upstream_write_timeout, backend.stream.write_all(out)).await {
                Ok(Ok(())) => Ok(()),
                // It may have answered before it closed, so its answer is looked for all the same.
                Ok(Err(_)) if !backend.is_reused => Ok(()),
                Ok(Err(_)) => Err(Fault::Stale),
                Err(Rang) => Err(Fault::Backend(Outcome::Timeout)),
            };
            let answered = match sent {
                Ok(()) => self.answer(stream, buffer, alarm, order, out, &mut backend).await,
                Err(fault) => Err(fault),
            };
            match answered {
                Ok(Whole { after, reusable }) => {
                    if reusable {
                        self.pool.give_back(backend.address, backend.stream);
                    }
                    return Ok(after);
                }
                // Once more in the same arm, on a connection that is new; that is its outcome then.
                Err(Fault::Stale) if is_repeatable && may_reuse => may_reuse = false,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// A connection to one of the arm's endpoints. While nothing was sent, another one may be tried.
    async fn reach(&self, alarm: &Alarm, order: &mut Order, may_reuse: bool) -> Result<Backend, Fault> {
        let endpoints = order.attempt.route().addresses(order.arm).len();
        let mut tried = 0;
        loop {
            let address = order.attempt.route().addresses(order.arm)[order.endpoint];
            if may_reuse && let Some(stream) = self.pool.take(address) {
                return Ok(Backend { stream, address, is_reused: true });
            }
            let fault = match alarm.within(self.settings.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Heads go out in one write each, and wait for nothing.
                    let _ = stream.set_nodelay(true);
                    return Ok(Backend { stream, address, is_reused: false });
                }
                Ok(Err(_)) => Fault::Backend(Outcome::ConnectFailed),
                Err(Rang) => Fault::Backend(Outcome::Timeout),
            };
            tried += 1;
            if tried >= ENDPOINTS_TRIED_MAX.min(endpoints) {
                return Err(fault);
            }
            order.endpoint = (order.endpoint + 1) % endpoints;
        }
    }

    async fn answer(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
        backend: &mut Backend,
    ) -> Result<Whole, Fault> {
        let Order { attempt, is_head, keep_alive, body, .. } = order;
        let answer =
            Answer { attempt, alarm, is_head: *is_head, keep_alive: *keep_alive, read: Buffer::default(), out };
        if body.is_over() {
            let client = Client { stream, buffer };
            return self.pass_on(answer, client, &mut backend.stream, backend.is_reused).await;
        }
        let has_sent_all = AtomicBool::new(false);
        let answered = {
            let (mut from_client, to_client) = tokio::io::split(&mut *stream);
            let (mut from_backend, mut to_backend) = backend.stream.split();
            let upload = self.upload(buffer, body, &mut from_client, &mut to_backend, &has_sent_all);
            let client = Uploading { write: to_client, has_sent_all: &has_sent_all };
            let pass_on = self.pass_on(answer, client, &mut from_backend, backend.is_reused);
            let (mut upload, mut pass_on) = (pin!(upload), pin!(pass_on));
            let mut is_uploading = true;
            std::future::poll_fn(|context| {
                if is_uploading {
                    match upload.as_mut().poll(context) {
                        Poll::Ready(Ok(())) => is_uploading = false,
                        Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                        Poll::Pending => {}
                    }
                }
                pass_on.as_mut().poll(context)
            })
            .await
        }?;
        if has_sent_all.load(Ordering::Relaxed) {
            return Ok(answered);
        }
        self.drain(stream, alarm).await;
        Ok(Whole { after: After::Close, reusable: false })
    }

    /// Passes the rest of a body on. A backend that takes no more may still answer, so that is no fault; when all is sent, it goes on to
    /// look whether the client leaves.
    async fn upload<R, W>(
        &self,
        buffer: &mut Buffer,
        body: &mut Body,
        from: &mut R,
        to: &mut W,
        has_sent_all: &AtomicBool,
    ) -> Result<(), Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let alarm = self.watchman.alarm();
        while !body.is_over() {
            match alarm.within(self.settings.downstream_read_timeout, buffer.read(from, BUFFER_BYTES)).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => return Err(Fault::ClientGone),
                Err(Rang) => return Err(Fault::ClientSlow),
            }
            let taken = body.take(buffer.unused()).map_err(|_| Fault::ClientMalformed)?;
            let sent = to.write_all(&buffer.unused()[..taken]);
            match alarm.within(self.settings.upstream_write_timeout, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(Rang) => return Err(Fault::Backend(Outcome::Timeout)),
            }
            buffer.consume(taken);
        }
        has_sent_all.store(true, Ordering::Relaxed);
        while buffer.unused().len() < AHEAD_BYTES_MAX {
            match buffer.read(from, AHEAD_BYTES_MAX).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(Fault::ClientGone),
            }
        }
        Ok(())
    }

    /// Passes an answer on, head and body, as it comes.
    async fn pass_on<C: Side, R: AsyncRead + Unpin>(
        &self,
        mut answer: Answer<'_>,
        mut client: C,
        backend: &mut R,
        is_reused: bool,
    ) -> Result<Whole, Fault> {
        let mut has_begun = false;
        let (mut body, after, reusable, is_counted_off) = loop {
            match self.head(&mut answer, &client)? {
                Head::Final { body, after, reusable, chunk } => break (body, after, reusable, !chunk),
                Head::Interim => {
                    has_begun = true;
                    write(&mut answer, &mut client, self.settings.downstream_write_timeout).await?;
                }
                Head::Partial => {
                    let is_silent = !has_begun && answer.read.unused().is_empty();
                    match self.fill(&mut answer, &mut client, backend, HEAD_BYTES_MAX).await {
                        Ok(Some(_)) => {}
                        Ok(None) | Err(Fault::Backend(Outcome::Reset)) if is_silent && is_reused => {
                            return Err(Fault::Stale);
                        }
                        Ok(None) => return Err(Fault::Backend(Outcome::Reset)),
                        Err(fault) => return Err(fault),
                    }
                }
            }
        };
        // The head and what has come of the body, in one write; then the rest, read by read.
        loop {
            let came = answer.read.unused();
            let taken = body.take(came).map_err(|_| Fault::Backend(Outcome::Truncated))?;
            if !is_counted_off {
                chunk(answer.out, &came[..taken]);
            } else if !answer.out.is_empty() {
                answer.out.extend_from_slice(&came[..taken]);
            } else {
                let data = &came[..taken];
                write_to(client.write(), data, answer.alarm, self.settings.downstream_write_timeout).await?;
            }
            answer.read.consume(taken);
            write(&mut answer, &mut client, self.settings.downstream_write_timeout).await?;
            if body.is_over() {
                break;
            }
            let is_end = self.fill(&mut answer, &mut client, backend, BUFFER_BYTES).await?.is_none();
            if is_end && body == Body::ToEnd {
                answer.out.extend_from_slice(b"0\r\n\r\n");
                write(&mut answer, &mut client, self.settings.downstream_write_timeout).await?;
                break;
            }
            if is_end {
                return Err(Fault::Backend(Outcome::Truncated));
            }
        }
        // A backend that says more than its answer is not trusted with another request.
        let reusable = reusable && answer.read.unused().is_empty() && client.has_sent_all();
        let after = if client.has_sent_all() { after } else { After::Close };
        Ok(Whole { after, reusable })
    }

    /// Reads on from the backend, as long as the client is there. None at the end.
    async fn fill<C: Side, R: AsyncRead + Unpin>(
        &self,
        answer: &mut Answer<'_>,
        client: &mut C,
        backend: &mut R,
        limit: usize,
    ) -> Result<Option<usize>, Fault> {
        let alarm = answer.alarm;
        let read = &mut answer.read;
        let filled = std::future::poll_fn(|context| match read.poll_read(backend, limit, context) {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Backend(Outcome::Reset))),
            Poll::Pending => client.poll_gone(context).map(Err),
        });
        alarm.within(self.settings.upstream_read_timeout, filled).await.unwrap_or(Err(Fault::Backend(Outcome::Timeout)))
    }

    /// Looks whether a whole head has come, and composes what the client gets of it.
    fn head<C: Side>(&self, answer: &mut Answer<'_>, client: &C) -> Result<Head, Fault> {
        let broken = Fault::Backend(Outcome::Reset);
        let mut room = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
        let bytes = answer.read.unused();
        if bytes.is_empty() {
            return Ok(Head::Partial);
        }
        let Some(found) = response::parse(bytes, answer.is_head, &mut room).map_err(|_| broken)? else {
            return if bytes.len() < HEAD_BYTES_MAX { Ok(Head::Partial) } else { Err(broken) };
        };
        answer.out.clear();
        let (length, status) = (found.length, found.status);
        let head = match status {
            // Nobody asked for another protocol.
            101 => return Err(broken),
            100..=199 => {
                compose::interim(answer.out, &found);
                Head::Interim
            }
            _ => {
                let stays = answer.keep_alive && client.has_sent_all() && !self.is_draining();
                let afterwards = if stays { Afterwards::KeepAlive } else { Afterwards::Close };
                compose::response(answer.out, &found, afterwards);
                let after = if stays { After::Next } else { After::Close };
                let chunk = found.body == Body::ToEnd;
                Head::Final { reusable: found.keep_alive, body: found.body, after, chunk }
            }
        };
        if let Head::Final { .. } = head {
            answer.attempt.head(status);
        }
        answer.read.consume(length);
        Ok(head)
    }

    /// Reads and forgets what a client still sends, for a while.
    async fn drain(&self, stream: &mut Stream, alarm: &Alarm) {
        let mut left = DRAIN_BYTES_MAX;
        let drained = async {
            let _ = stream.flush().await;
            let mut buffer = Buffer::default();
            while left > 0 {
                match buffer.read(stream, BUFFER_BYTES).await {
                    Ok(Some(count)) => {
                        left = left.saturating_sub(count);
                        buffer.consume(count);
                    }
                    Ok(None) | Err(_) => return,
                }
            }
        };
        let _ = alarm.within(DRAIN_TIMEOUT, drained).await;
    }

    /// Tells a client that there is no answer, and why.
    async fn tell(&self, stream: &mut Stream, alarm: &Alarm, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let told = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await
        };
        // The connection is closed whether or not the client reads this.
        let _ = alarm.within(self.settings.downstream_write_timeout, told).await;
    }
}

/// What has come of a head.
enum Head {
    Partial,
    Interim,
    Final { body: Body, after: After, reusable: bool, chunk: bool },
}

/// Writes what has been composed, and is ready for more.
async fn write<C: Side>(answer: &mut Answer<'_>, client: &mut C, limit: Duration) -> Result<(), Fault> {
    if answer.out.is_empty() {
        return Ok(());
    }
    let written = write_to(client.write(), answer.out, answer.alarm, limit).await;
    answer.out.clear();
    written
}

/// Writes to a client. The flush costs nothing where the stream keeps nothing back.
async fn write_to<W: AsyncWrite + Unpin + ?Sized>(
    to: &mut W,
    data: &[u8],
    alarm: &Alarm,
    limit: Duration,
) -> Result<(), Fault> {
    let written = async {
        to.write_all(data).await?;
        to.flush().await
    };
    match alarm.within(limit, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::ClientGone),
        Err(Rang) => Err(Fault::ClientSlow),
    }
}

/// Appends data as a chunk, if there is any.
fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut head = [0; CHUNK_HEAD_BYTES];
    let mut at = CHUNK_HEAD_BYTES - 2;
    head[at..].copy_from_slice(b"\r\n");
    let mut left = data.len();
    while left > 0 && at > 0 {
        at -= 1;
        head[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    out.extend_from_slice(&head[at..]);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
