//! How the backends of a route are spoken to, both arms alike: else what the protocol costs would be taken for what a version does.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::Balance;
use crate::retries::Retries;

/// How backends are spoken to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Upstream {
    /// The protocol.
    pub protocol: Protocol,
    /// TLS, if it is spoken.
    pub tls: Option<UpstreamTls>,
    /// Time for a whole request, from its head to the end of its answer, whatever was tried meanwhile. A request of gRPC may ask for less.
    pub timeout: Option<Duration>,
    /// What is tried again, and when one try has taken too long.
    pub retries: Retries,
    /// Which endpoint of an arm is chosen.
    pub balance: Balance,
    /// How long a new endpoint gets less than its share; no time at all where absent.
    pub warm_up: Option<Duration>,
    /// When an endpoint that fails is left out for a while; never where absent.
    pub ejection: Option<Ejection>,
}

/// When an endpoint is left out: its requests go to the others of its arm, and what it has failed stays in the arm's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row: 5xx, no answer, no connection.
    pub failures: u32,
    /// For how long; as many times that as it was left out before without a break, at most ten.
    pub time: Duration,
    /// How much of an arm may be left out, in percent. Of an arm with two endpoints or more one may be in any case, and one stays in any case.
    pub most_percent: u32,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, known beforehand (RFC 9113 section 3.3).
    Http2,
    /// HTTP/2 where the backend offers it in its TLS handshake, else HTTP/1.1.
    Agreed,
}

/// How TLS is spoken with backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name that a backend's certificate has to have, which it is asked for too; its address where absent.
    pub server_name: Option<Box<str>>,
    /// Certificates (DER) of who may sign it; those that the system trusts where absent.
    pub authorities: Option<Arc<[Box<[u8]>]>>,
    /// Who we are, if backends ask.
    pub identity: Option<Arc<Identity>>,
}

/// A certificate of our own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate and those that lead to its authority (DER).
    pub chain: Vec<Box<[u8]>>,
    /// Its private key (DER).
    pub key: Box<[u8]>,
}

/// Without the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Backends of this protocol in cleartext, with nothing else about them.
    pub const fn speaking(protocol: Protocol) -> Self {
        Self {
            protocol,
            tls: None,
            timeout: None,
            retries: Retries::NONE,
            balance: Balance::LeastOfTwo,
            warm_up: None,
            ejection: None,
        }
    }

    /// Whether it is HTTP/1.1 in cleartext.
    pub fn is_plain(&self) -> bool {
        self.protocol == Protocol::Http1 && self.tls.is_none()
    }
}
