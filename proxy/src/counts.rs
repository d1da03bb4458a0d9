//! Counts of what never became a routed request: connections, unreadable heads, unknown hosts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why something a client sent was not routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The connection came on top of the allowed number.
    TooManyConnections,
    /// The head is not HTTP/1; answered with 400.
    Malformed,
    /// The head is longer than allowed; answered with 431.
    HeadTooLarge,
    /// The head took too long; answered with 408.
    HeadTimeout,
    /// The client went away within a head.
    HeadCut,
    /// No route answers for the host; answered with 404.
    UnknownHost,
    /// The route has no endpoint at all; answered with 503.
    NoEndpoint,
    /// The body has a transfer coding that is not chunked; answered with 501.
    Coding,
    /// The method CONNECT, which an edge does not serve; answered with 405.
    Connect,
    /// TLS did not come about: the client speaks another protocol, does not trust us, or took too long.
    Handshake,
}

impl Refusal {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 10] = [
        Self::TooManyConnections,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::HeadCut,
        Self::UnknownHost,
        Self::NoEndpoint,
        Self::Coding,
        Self::Connect,
        Self::Handshake,
    ];

    /// Its place in a table of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::HeadCut => "head_cut",
            Self::UnknownHost => "unknown_host",
            Self::NoEndpoint => "no_endpoint",
            Self::Coding => "transfer_coding",
            Self::Connect => "connect",
            Self::Handshake => "tls_handshake",
        }
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    /// Client connections open now.
    pub connections_open: u64,
    /// Client connections accepted since the start.
    pub connections_total: u64,
    /// What was not routed, by [`Refusal::index`].
    pub refused: [u64; Refusal::ALL.len()],
}

/// The same while they are counted. One for all threads: connections are rare beside requests.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) open: AtomicU64,
    pub(crate) total: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counting {
    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> EdgeCounts {
        EdgeCounts {
            connections_open: self.open.load(Ordering::Relaxed),
            connections_total: self.total.load(Ordering::Relaxed),
            refused: std::array::from_fn(|index| self.refused[index].load(Ordering::Relaxed)),
        }
    }
}
