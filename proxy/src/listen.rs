//! Addresses to listen on, and what is spoken there.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::certificates::{Certificates, provider};

/// Sessions that are kept for TLS 1.2 clients without tickets; those of all others are kept by the clients themselves.
const SESSIONS_MAX: usize = 4_096;

/// An address to listen on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS, if it is spoken there.
    pub tls: Option<Tls>,
}

/// How TLS is spoken, 1.2 or 1.3.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Who we are, by the name that a client asks for.
    pub certificates: Arc<Certificates>,
    /// Who may come: clients with a certificate that one of these has signed. None asks for no certificate.
    pub clients: Option<Arc<RootCertStore>>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// A setting of TLS that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

impl Listen {
    /// Without TLS.
    pub fn plain(address: impl Into<SocketAddr>) -> Self {
        Self { address: address.into(), tls: None }
    }
}

impl Tls {
    /// What all threads share, so that a client goes on with a session wherever it comes in.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let wrong = |error: &dyn std::fmt::Display| TlsError(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
            }
        };
        let mut config = builder.with_cert_resolver(self.certificates.clone());
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| wrong(&error))?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        let offered: &[&[u8]] = if self.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}
