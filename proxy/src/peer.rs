//! A backend as pingora-proxy knows it: its address, how it is spoken to, and how long it may take.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use serin_route::{Protocol, Upstream, UpstreamTls};

use crate::settings::Settings;

/// Requests at once on one connection of HTTP/2: what RFC 9113 section 6.5.2 asks of a server at least.
const STREAMS_MAX: usize = 100;
/// What a backend may send ahead in one stream, and on one connection, in bytes: it waits in memory while a client does not read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// A backend at this address.
pub(crate) fn peer(address: SocketAddr, upstream: &Upstream, settings: &Settings) -> HttpPeer {
    let server_name = upstream.tls.as_ref().map(|tls| server_name(tls, address)).unwrap_or_default();
    let mut peer = HttpPeer::new(address, upstream.tls.is_some(), server_name);
    // Connections are kept by address; those that were made in another way are no use.
    peer.group_key = FixedState::default().hash_one((upstream.protocol, &upstream.tls));
    let options = &mut peer.options;
    options.connection_timeout = Some(settings.connect_timeout);
    options.total_connection_timeout = Some(settings.connect_timeout);
    options.read_timeout = Some(settings.upstream_read_timeout);
    // Sooner than silence is one: a backend that takes nothing of a body is to be found by that, and not by the answer that it cannot give
    // (`awaits_client`).
    options.write_timeout = Some(settings.upstream_write_timeout.min(settings.upstream_read_timeout * 9 / 10));
    options.idle_timeout = Some(settings.upstream_idle_timeout);
    options.alpn = match upstream.protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::Http2 => ALPN::H2,
        Protocol::Agreed => ALPN::H2H1,
    };
    options.max_h2_streams = STREAMS_MAX;
    options.h2_stream_window_size = Some(STREAM_WINDOW_BYTES);
    options.h2_connection_window_size = Some(CONNECTION_WINDOW_BYTES);
    if let Some(tls) = &upstream.tls {
        options.ca = tls.authorities.as_deref().map(authorities);
        peer.client_cert_key = tls.identity.as_ref().map(|identity| {
            let chain = identity.chain.iter().map(|certificate| certificate.to_vec()).collect();
            Arc::new(CertKey::new(chain, identity.key.to_vec()))
        });
    }
    peer
}

/// The name that a backend's certificate has to have. It is never empty: then Pingora would look at no certificate.
fn server_name(tls: &UpstreamTls, address: SocketAddr) -> String {
    match &tls.server_name {
        Some(name) if !name.is_empty() => name.to_string(),
        Some(_) | None => address.ip().to_string(),
    }
}

fn authorities(certificates: &[Box<[u8]>]) -> Arc<CaType> {
    certificates.iter().map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509)).collect()
}
