//! One client connection: within its limits, one head after the other, each handed to Pingora with the bytes that came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::adapter::Adapter;
use crate::counts::{Counting, Refusal};
use crate::head::{Head, Patience, read_head};
use crate::settings::Settings;

/// Wraps Pingora's proxy for what it leaves open: limits, a gauge, reading heads. It is no `HttpServerApp` itself.
pub(crate) struct Connections {
    pub(crate) proxy: Arc<HttpProxy<Adapter>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counting: Arc<Counting>,
    /// Woken whenever a connection of this thread ends.
    pub(crate) ended: Arc<Notify>,
}

/// Whether Pingora took a head for a request. It asks more of one than its syntax (two lengths that differ, two hosts),
/// and answers 400 without telling anybody; the hook that it calls for every other head sets this.
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

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Some(_open) = Open::enter(self) else {
            self.counting.refuse(Refusal::TooManyConnections);
            return None;
        };
        let taken = Taken::default();
        let mut next = Some(ReusedHttpStream::new(stream, None));
        while let Some((stream, persistent)) = next.map(ReusedHttpStream::consume) {
            next = self.one_request(stream, persistent, &taken, shutdown.clone()).await;
        }
        None
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.proxy).await;
    }
}

impl Connections {
    async fn one_request(
        &self,
        mut stream: Stream,
        persistent: Option<HttpPersistentSettings>,
        taken: &Taken,
        mut shutdown: ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let patience = Patience { idle: self.settings.keep_alive_timeout, head: self.settings.downstream_read_timeout };
        let head = tokio::select! {
            // What has already arrived is served, also when the process is ending.
            biased;
            head = read_head(&mut stream, patience) => head,
            _ = shutdown.wait_for(|stop| *stop) => return None,
        };
        let bytes = match head {
            Head::Complete(bytes) if bytes.starts_with(b"CONNECT ") => {
                return self.refuse(stream, Refusal::Connect).await;
            }
            Head::Complete(bytes) => bytes,
            Head::Idle => return None,
            Head::Refused(why) => return self.refuse(stream, why).await,
        };
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(self.settings.keep_alive_timeout.as_secs()));
        if let Some(persistent) = persistent {
            persistent.apply_to_session(&mut session);
        }
        session.set_pipelined_prefix(bytes);
        taken.0.store(false, Ordering::Relaxed);
        session.set_connection_user_context(Some(Box::new(taken.clone())));
        let next = self.proxy.process_new_http(session, &shutdown).await;
        if !taken.0.load(Ordering::Relaxed) {
            self.counting.refuse(Refusal::Malformed);
        }
        next
    }

    /// Counts what is no request, tells the client if that makes sense, and closes the connection.
    async fn refuse(&self, mut stream: Stream, why: Refusal) -> Option<ReusedHttpStream> {
        self.counting.refuse(why);
        let status = match why {
            Refusal::Malformed => "400 Bad Request",
            Refusal::HeadTooLarge => "431 Request Header Fields Too Large",
            Refusal::HeadTimeout => "408 Request Timeout",
            Refusal::Connect => "405 Method Not Allowed",
            Refusal::TooManyConnections | Refusal::HeadCut | Refusal::UnknownHost | Refusal::NoEndpoint => return None,
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let tell = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await
        };
        // The connection is closed whether or not the client reads this.
        let _ = tokio::time::timeout(self.settings.downstream_write_timeout, tell).await;
        let _ = stream.shutdown().await;
        None
    }
}
