//! One client connection: within its limits, one head after the other, each carried out directly or handed to Pingora with the
//! bytes that came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::adapter::Adapter;
use crate::counts::{Counting, Refusal};
use crate::direct::alarm::{Alarm, Rang};
use crate::direct::buffer::{BUFFER_BYTES, Buffer, give_back, spare};
use crate::direct::compose::{self, Afterwards};
use crate::direct::{Admission, After, HEAD_BYTES_MAX, Lane};
use crate::forward::Origin;
use crate::limits;
use crate::settings::Settings;
use crate::streams::Streams;
use crate::transport::Over;

/// How long a client is read that was answered before it had sent all, and between two reads: as nginx's `lingering_time` and
/// `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_READ: Duration = Duration::from_secs(5);
/// What a client of HTTP/2 says first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Carries connections: directly where that can be done, else by Pingora's proxy. It is no `HttpServerApp` itself.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) lane: Arc<Lane>,
    pub(crate) proxy: Arc<HttpProxy<Adapter>>,
    /// The same proxy, for connections of HTTP/2.
    pub(crate) streams: Arc<Streams>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counting: Arc<Counting>,
    /// Woken whenever a connection of this thread ends.
    pub(crate) ended: Arc<Notify>,
    /// Set where TLS is spoken.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Whether Pingora took a head for a request. It asks more of one than its syntax, and answers 400 without telling anybody; the
/// hook that it calls for every other head sets this.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Arc<AtomicBool>);

impl Taken {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One open connection; counts it while it lives.
struct Open<'a>(&'a Connections);

impl<'a> Open<'a> {
    fn enter(of: &'a Connections) -> Option<Self> {
        let limit = of.settings.connections_max as u64;
        of.counting.total.fetch_add(1, Ordering::Relaxed);
        let open = Self(of);
        (of.counting.open.fetch_add(1, Ordering::Relaxed) < limit).then_some(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counting.open.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }
}

/// A connection and what is kept with it.
pub(crate) struct Connection {
    /// None while Pingora has it, and when it has ended.
    stream: Option<Stream>,
    origin: Origin,
    /// What has come and is not used.
    buffer: Buffer,
    alarm: Alarm,
    /// What Pingora keeps from one request to the next.
    persistent: Option<HttpPersistentSettings>,
    taken: Taken,
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // A task of our own: the one that this runs in has room for a TLS handshake, and would keep it as long as it lives.
        tokio::spawn(self.clone().serve(stream, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.proxy).await;
    }
}

impl Connections {
    /// Serves a connection to its end.
    async fn serve(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch) {
        let Some(_open) = Open::enter(&self) else {
            self.counting.refuse(Refusal::TooManyConnections);
            return;
        };
        let stream = match &self.tls {
            None => stream,
            // What comes before a request is boxed: an idle connection needs no room for it.
            Some(acceptor) => match Box::pin(self.secure(acceptor, stream)).await {
                Some(stream) => stream,
                None => return self.counting.refuse(Refusal::Handshake),
            },
        };
        let agreed_on_http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
        let mut connection = self.connection(stream);
        match (self.preface(&mut connection).await, agreed_on_http2) {
            (Preface::Http2, _) => {
                let Connection { stream: Some(stream), buffer, .. } = connection else { return };
                let first = Bytes::copy_from_slice(buffer.unused());
                // Boxed, as other connections have no need of its room.
                let served = ServerApp::process_new(&self.streams, Box::new(Over::Read(first, stream)), &shutdown);
                return drop(served.await);
            }
            (Preface::Nothing, _) => return,
            (Preface::Other, true) => return self.counting.refuse(Refusal::Malformed),
            (Preface::Other, false) => {}
        }
        while self.one_request(&mut connection, &shutdown).await == After::Next {}
        if let Connection { stream: Some(mut stream), origin: Origin { is_tls: true, .. }, alarm, .. } = connection {
            // So that the client can tell an end from a cut (RFC 8446 section 6.1).
            let _ = alarm.within(self.settings.downstream_write_timeout, stream.shutdown()).await;
        }
    }

    /// The connection with TLS, if that comes about in time.
    async fn secure(&self, acceptor: &TlsAcceptor, stream: Stream) -> Option<Stream> {
        let alarm = self.lane.watchman.alarm();
        match alarm.within(self.settings.downstream_read_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Box::new(Over::tls(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                None
            }
            Err(Rang) => None,
        }
    }

    /// Reads the begin of a connection, as far as it may be that of HTTP/2: with TLS both sides know, and without it a client may know by
    /// itself (RFC 9113 section 3.3). No request begins like that.
    async fn preface(&self, connection: &mut Connection) -> Preface {
        connection.alarm.set(self.settings.keep_alive_timeout);
        let mut is_begun = false;
        loop {
            match self.read_on(connection, is_begun).await {
                Read::More => {}
                Read::Over | Read::Late if !is_begun => return Preface::Nothing,
                Read::Over | Read::Late => return Preface::Other,
            }
            if !std::mem::replace(&mut is_begun, true) {
                connection.alarm.set(self.settings.downstream_read_timeout);
            }
            let come = connection.buffer.unused();
            if come.starts_with(HTTP2_PREFACE) {
                return Preface::Http2;
            }
            if !HTTP2_PREFACE.starts_with(come) {
                return Preface::Other;
            }
        }
    }

    /// A connection that was just accepted.
    pub(crate) fn connection(&self, stream: Stream) -> Connection {
        Connection {
            origin: Origin::of(&stream),
            stream: Some(stream),
            buffer: Buffer::default(),
            alarm: self.lane.watchman.alarm(),
            persistent: None,
            taken: Taken::default(),
        }
    }

    /// Serves one request, and says what becomes of the connection.
    pub(crate) async fn one_request(&self, connection: &mut Connection, shutdown: &ShutdownWatch) -> After {
        let mut out = Vec::new();
        let mut is_begun = false;
        let mut looked_at = 0;
        // Once: an empty line now and then is no reason to wait longer.
        connection.alarm.set(self.settings.keep_alive_timeout);
        let origin = connection.origin;
        let admission = loop {
            skip_empty_lines(&mut connection.buffer);
            let come = connection.buffer.unused();
            // The first half of an empty line is no request either.
            if !come.is_empty() && come != b"\r" {
                if out.capacity() == 0 {
                    out = spare();
                }
                if is_worth_a_look(come, looked_at) {
                    looked_at = come.len();
                    match self.lane.admit(come, origin, &mut out) {
                        Admission::Partial => {}
                        admission => break admission,
                    }
                }
                if !std::mem::replace(&mut is_begun, true) {
                    connection.alarm.set(self.settings.downstream_read_timeout);
                }
            }
            match self.read_on(connection, is_begun).await {
                Read::More => {}
                Read::Over | Read::Late if !is_begun => return After::Close,
                end => {
                    // What came last was perhaps not looked at, and may say more.
                    let why = if end == Read::Over { Refusal::HeadCut } else { Refusal::HeadTimeout };
                    break match self.lane.admit(connection.buffer.unused(), origin, &mut out) {
                        Admission::Refused(why) => Admission::Refused(why),
                        _ => Admission::Refused(why),
                    };
                }
            }
        };
        let after = self.follow(admission, connection, &mut out, shutdown).await;
        if out.capacity() > 0 {
            give_back(out);
        }
        after
    }

    /// Reads once, until the alarm rings that was set before.
    async fn read_on(&self, connection: &mut Connection, is_begun: bool) -> Read {
        let Connection { stream: Some(stream), buffer, alarm, .. } = connection else { return Read::Over };
        let read = std::future::poll_fn(|context| match buffer.poll_read(stream, HEAD_BYTES_MAX, context) {
            // What has already arrived is served, also when the process is ending.
            Poll::Pending if !is_begun && alarm.watchman().is_stopping() => Poll::Ready(Ok(None)),
            other => other,
        });
        match alarm.wait(read).await {
            Ok(Ok(Some(_))) => Read::More,
            Ok(Ok(None) | Err(_)) => Read::Over,
            Err(Rang) => Read::Late,
        }
    }

    async fn follow(
        &self,
        admission: Admission,
        connection: &mut Connection,
        out: &mut Vec<u8>,
        shutdown: &ShutdownWatch,
    ) -> After {
        match admission {
            Admission::Direct(order, used) => {
                let Connection { stream: Some(stream), buffer, alarm, .. } = connection else { return After::Close };
                buffer.consume(used);
                match self.lane.exchange(stream, buffer, alarm, order, out).await {
                    After::Close if !connection.buffer.unused().is_empty() => self.linger(connection).await,
                    After::Linger => self.linger(connection).await,
                    after => after,
                }
            }
            // Boxed, so that a connection that never needs Pingora's session has no room for it.
            Admission::HandOver => Box::pin(self.hand_over(connection, shutdown)).await,
            Admission::Preflight { answer, used } => {
                let used = used.filter(|_| !self.lane.is_draining());
                let afterwards = if used.is_some() { Afterwards::KeepAlive } else { Afterwards::Close };
                let answer = compose::answer("200 OK", &answer, afterwards);
                self.answer(connection, &answer, used).await
            }
            Admission::Unrouted { why, used, is_head } => self.turn_away(connection, why, used, is_head).await,
            Admission::BadBody(mut order) => {
                order.attempt.end_as(serin_measure::Outcome::ClientAbort);
                self.tell(connection, "400 Bad Request").await;
                self.linger(connection).await
            }
            Admission::Refused(why) => self.refuse(connection, why).await,
            // It was waited for.
            Admission::Partial => After::Close,
        }
    }

    async fn hand_over(&self, connection: &mut Connection, shutdown: &ShutdownWatch) -> After {
        let Some(stream) = connection.stream.take() else { return After::Close };
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(self.settings.keep_alive_timeout.as_secs()));
        if let Some(persistent) = connection.persistent.take() {
            persistent.apply_to_session(&mut session);
        }
        session.set_pipelined_prefix(BytesMut::from(connection.buffer.unused()));
        connection.buffer = Buffer::default();
        let taken = &connection.taken;
        taken.0.store(false, Ordering::Relaxed);
        session.set_connection_user_context(Some(Box::new(taken.clone())));
        let served = self.proxy.process_new_http(session, shutdown);
        let next = limits::within(&self.lane.watchman, None, served).await.flatten();
        if !taken.0.load(Ordering::Relaxed) {
            self.counting.refuse(Refusal::Malformed);
        }
        let Some((stream, persistent)) = next.map(ReusedHttpStream::consume) else { return After::Close };
        (connection.stream, connection.persistent) = (Some(stream), persistent);
        After::Next
    }

    /// Answers a request that has nowhere to go. The connection is used again if all of it has come.
    async fn turn_away(&self, connection: &mut Connection, why: Refusal, used: Option<usize>, is_head: bool) -> After {
        self.counting.refuse(why);
        let (status, sentence) = match why {
            Refusal::UnknownHost => ("404 Not Found", "no route answers for this host\n"),
            _ => ("503 Service Unavailable", "no endpoint is available\n"),
        };
        let used = used.filter(|_| !self.lane.is_draining());
        let option = if used.is_some() { "keep-alive" } else { "close" };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}", sentence.len());
        let body = if is_head { "" } else { sentence };
        let answer = format!("{head}\r\nconnection: {option}\r\n\r\n{body}");
        self.answer(connection, answer.as_bytes(), used).await
    }

    /// Gives an answer of our own. The connection is used again after so many bytes, if after any.
    async fn answer(&self, connection: &mut Connection, answer: &[u8], used: Option<usize>) -> After {
        let Connection { stream: Some(stream), alarm, .. } = &mut *connection else { return After::Close };
        let is_told = self.lane.say(stream, alarm, answer).await;
        match used {
            Some(used) if is_told => {
                connection.buffer.consume(used);
                After::Next
            }
            _ => self.linger(connection).await,
        }
    }

    /// Counts what is no request, tells the client if that makes sense, and closes the connection.
    async fn refuse(&self, connection: &mut Connection, why: Refusal) -> After {
        self.counting.refuse(why);
        let status = match why {
            Refusal::Malformed => "400 Bad Request",
            Refusal::HeadTooLarge => "431 Request Header Fields Too Large",
            Refusal::HeadTimeout => "408 Request Timeout",
            Refusal::Connect => "405 Method Not Allowed",
            Refusal::Coding => "501 Not Implemented",
            Refusal::TooManyConnections
            | Refusal::Handshake
            | Refusal::HeadCut
            | Refusal::UnknownHost
            | Refusal::NoEndpoint => return After::Close,
        };
        self.tell(connection, status).await;
        self.linger(connection).await
    }

    async fn tell(&self, connection: &mut Connection, status: &str) {
        if let Connection { stream: Some(stream), alarm, .. } = connection {
            self.lane.tell(stream, alarm, status).await;
        }
    }

    /// Says that nothing more comes, and reads on for a while: to close a connection on which something unread arrives makes the
    /// client's system forget the answer (RFC 9112 section 9.6).
    async fn linger(&self, connection: &mut Connection) -> After {
        let Connection { stream: Some(stream), alarm, .. } = connection else { return After::Close };
        let _ = alarm.within(self.settings.downstream_write_timeout, stream.shutdown()).await;
        let begun = Instant::now();
        let mut buffer = Buffer::default();
        while begun.elapsed() < LINGER {
            let read = std::future::poll_fn(|context| match buffer.poll_read(stream, BUFFER_BYTES, context) {
                Poll::Pending if alarm.watchman().is_stopping() => Poll::Ready(Ok(None)),
                other => other,
            });
            match alarm.within(LINGER_READ, read).await {
                Ok(Ok(Some(count))) => buffer.consume(count),
                _ => break,
            }
        }
        After::Close
    }
}

/// Takes away the empty lines that some clients send after a body (RFC 9112 section 2.2).
fn skip_empty_lines(buffer: &mut Buffer) {
    while buffer.unused().starts_with(b"\r\n") {
        buffer.consume(2);
    }
}

/// Whether a head may be whole now, of which so many bytes were looked at before. A head that comes byte by byte would cost its
/// square; this costs it twice.
fn is_worth_a_look(come: &[u8], looked_at: usize) -> bool {
    if looked_at == 0 {
        return true;
    }
    let new = &come[looked_at.saturating_sub(3)..];
    let is_ended = memchr::memmem::find(new, b"\n\r\n").is_some() || memchr::memmem::find(new, b"\n\n").is_some();
    is_ended || come.len() >= 2 * looked_at || come.len() >= HEAD_BYTES_MAX
}

/// How a connection begins.
enum Preface {
    /// As one of HTTP/2.
    Http2,
    /// In another way.
    Other,
    /// Not at all: the client has left, or said nothing.
    Nothing,
}

/// How a read went.
#[derive(PartialEq, Eq)]
enum Read {
    More,
    /// The client has left.
    Over,
    /// The time ran out.
    Late,
}
