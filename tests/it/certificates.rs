//! Certificates made for a test, and TLS as rustls speaks it on either side of the edge.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serin_proxy::Pem;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for these names that has signed itself.
pub(crate) fn pair(names: &[&str]) -> Pem {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
    let (chain, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    Pem { name: names.join(","), chain, key }
}

pub(crate) fn certificate(pair: &Pem) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&pair.chain).expect("PEM")
}

pub(crate) fn key(pair: &Pem) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(&pair.key).expect("a key")
}

pub(crate) fn roots(pairs: &[&Pem]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    pairs.iter().for_each(|pair| roots.add(certificate(pair)).expect("a certificate"));
    Arc::new(roots)
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// A client that trusts these, offers these protocols, and has a certificate of its own or not.
pub(crate) fn client(trusted: &[&Pem], offered: &[&str], own: Option<&Pem>) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots(trusted));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(vec![certificate(own)], key(own)).expect("they go together"),
    };
    config.alpn_protocols = protocols(offered);
    TlsConnector::from(Arc::new(config))
}

/// A server that is this, offers these protocols, and asks for a certificate that one of these has signed, if there are any.
pub(crate) fn server(own: &Pem, offered: &[&str], clients: &[&Pem]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("they are there");
    let builder = if clients.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(clients), provider).build();
        builder.with_client_cert_verifier(verifier.expect("there are roots"))
    };
    let mut config = builder.with_single_cert(vec![certificate(own)], key(own)).expect("they go together");
    config.alpn_protocols = protocols(offered);
    TlsAcceptor::from(Arc::new(config))
}
