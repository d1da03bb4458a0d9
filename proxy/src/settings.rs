//! What the edge needs to know at start. Every timeout is set: Pingora's own defaults wait for ever.

use std::time::Duration;

use crate::forward::Forwarding;
use crate::listen::Listen;

/// How the edge listens and how long it waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Threads that carry requests, at least 1.
    pub threads: usize,
    /// Client connections at once, over all threads. Beyond this a connection is closed at once, so that memory stays
    /// bounded: 6 KiB for each that is idle, and at most 400 KiB for each with the longest heads and bodies both ways; TLS adds some 40 KiB, and
    /// a connection of HTTP/2 has up to 100 streams, each with a head of 64 KiB and a window of as much.
    pub connections_max: usize,
    /// How long a client connection may stay without a request.
    pub keep_alive_timeout: Duration,
    /// How long a client may take for a request head, from its first byte, and between two reads of a body.
    pub downstream_read_timeout: Duration,
    /// How long a client may block a write.
    pub downstream_write_timeout: Duration,
    /// How long a backend may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long a backend may be silent.
    pub upstream_read_timeout: Duration,
    /// How long a backend may block a write.
    pub upstream_write_timeout: Duration,
    /// Whether requests are carried directly where that can be done; if not, pingora-proxy carries them all.
    pub direct: bool,
    /// What backends are told of where a request comes from.
    pub forwarding: Forwarding,
    /// How long an idle connection to a backend is kept. Below the backend's own keep-alive there are no stale ones.
    pub upstream_idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![Listen::plain(([127, 0, 0, 1], 8080))],
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            connections_max: 10_000,
            keep_alive_timeout: Duration::from_secs(75),
            downstream_read_timeout: Duration::from_secs(60),
            downstream_write_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(1),
            upstream_read_timeout: Duration::from_secs(60),
            upstream_write_timeout: Duration::from_secs(60),
            direct: true,
            forwarding: Forwarding::default(),
            upstream_idle_timeout: Duration::from_secs(50),
        }
    }
}
