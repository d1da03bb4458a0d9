//! Requests that come as streams of an HTTP/2 connection. Pingora limits no read of their bodies, so each has a limit on silence here: a
//! client that stalls would hold its connection, and one to a backend, for ever.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::adapter::Adapter;
use crate::direct::alarm::Watchman;
use crate::limits;

/// Carries streams by Pingora's proxy.
pub(crate) struct Streams {
    proxy: Arc<HttpProxy<Adapter>>,
    watchman: Arc<Watchman>,
    /// How long neither side may say anything: as long as a client may, and a backend after it.
    silence: Duration,
    options: HttpServerOptions,
}

impl Streams {
    pub(crate) fn new(
        proxy: Arc<HttpProxy<Adapter>>,
        watchman: Arc<Watchman>,
        silence: Duration,
        idle: Duration,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        // For connections that have begun so; Pingora cannot look again at what was read, and takes it for HTTP/2 then.
        options.h2c = true;
        // Streams at once and heads are bounded by Pingora's defaults; see `Settings::connections_max`.
        options.h2_idle_timeout = Some(idle);
        Self { proxy, watchman, silence, options }
    }
}

#[async_trait]
impl HttpServerApp for Streams {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let served = self.proxy.process_new_http(session, shutdown);
        limits::within(&self.watchman, Some(self.silence), served).await.flatten()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
