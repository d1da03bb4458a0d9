//! Certificates, by the name that a client asks for (SNI, RFC 6066 section 3). They can be replaced while connections go on: a handshake
//! takes those that are there when it begins.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate with its chain, and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pem {
    /// What it is called in errors, such as the file's name.
    pub name: String,
    /// The certificate, then what signed it.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// A pair that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct CertificateError {
    name: String,
    why: String,
}

/// Certificates in force.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<Names>,
}

#[derive(Debug)]
struct Names {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows the star and the dot; a star stands for one label (RFC 6125 section 6.4.3).
    below: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that ask for no name, or for one that nobody has: they are to see whose server it is.
    first: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads them. The first is for who asks for no name; for a name that several have, it is the earlier one.
    ///
    /// # Errors
    /// If there is none, or one cannot be used: its key is another one's, or it has no DNS name and so would never be shown (the first may
    /// have none).
    pub fn new(pairs: &[Pem]) -> Result<Self, CertificateError> {
        Ok(Self { current: ArcSwap::from_pointee(Names::read(pairs)?) })
    }

    /// Puts others in force. If one of them cannot be used, all stay that were there.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn replace(&self, pairs: &[Pem]) -> Result<(), CertificateError> {
        self.current.store(Arc::new(Names::read(pairs)?));
        Ok(())
    }
}

impl Names {
    fn read(pairs: &[Pem]) -> Result<Self, CertificateError> {
        let (mut exact, mut below) = (HashMap::new(), HashMap::new());
        let mut first = None;
        for pair in pairs {
            let wrong = |why: String| CertificateError { name: pair.name.clone(), why };
            let key = Arc::new(certified_key(pair).map_err(wrong)?);
            let own_names = dns_names(&key).map_err(wrong)?;
            if own_names.is_empty() && first.is_some() {
                return Err(wrong("it has no DNS name, so no client would be shown it".to_owned()));
            }
            for name in own_names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut below, parent),
                    None => (&mut exact, &*name),
                };
                names.entry(name.into()).or_insert_with(|| key.clone());
            }
            first.get_or_insert(key);
        }
        let missing = || CertificateError { name: "certificates".to_owned(), why: "there is none".to_owned() };
        Ok(Self { exact, below, first: first.ok_or_else(missing)? })
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(&*name).or_else(below)
        });
        found.unwrap_or(&self.first)
    }
}

/// The provider of this process, which Pingora sets too.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

fn certified_key(pair: &Pem) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pair.chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| format!("there is no key: {error}"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        error => format!("the key cannot be used: {error}"),
    })
}

fn dns_names(key: &CertifiedKey) -> Result<Vec<String>, String> {
    let own = key.end_entity_cert().map_err(|error| error.to_string())?;
    let own =
        webpki::EndEntityCert::try_from(own).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    Ok(own.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().find(hello.server_name()).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> Pem {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
        let (chain, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
        Pem { name: names.join(","), chain, key }
    }

    #[test]
    fn a_certificate_is_found_by_its_name_then_by_its_wildcard_then_the_first() {
        let pairs = [pair(&["first.example"]), pair(&["*.shop.example", "shop.example"]), pair(&["a.shop.example"])];
        let names = Names::read(&pairs).expect("they can be used");
        let find = |name: Option<&str>| {
            let found = names.find(name).end_entity_cert().expect("a certificate").clone();
            pairs.iter().position(|pair| CertificateDer::from_pem_slice(&pair.chain).expect("PEM") == found)
        };
        for (name, expected) in [
            (None, 0),
            (Some("nobody.example"), 0),
            (Some("first.example"), 0),
            (Some("shop.example"), 1),
            (Some("B.Shop.example"), 1),
            (Some("x.b.shop.example"), 0),
            (Some("a.shop.example"), 2),
        ] {
            assert_eq!(find(name), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_bad_pair_is_refused_while_the_old_one_serves() {
        let (good, other) = (pair(&["a.example"]), pair(&["b.example"]));
        let certificates = Certificates::new(std::slice::from_ref(&good)).expect("it can be used");
        let before = certificates.current.load_full();
        let mixed = Pem { name: "tls".to_owned(), key: other.key.clone(), ..good.clone() };
        let cases = [
            (vec![mixed], "tls: the key is not the certificate's"),
            (vec![], "certificates: there is none"),
            (vec![Pem { chain: b"junk".to_vec(), ..good }], "a.example: there is no certificate in it"),
        ];
        for (pairs, expected) in cases {
            assert_eq!(certificates.replace(&pairs).expect_err("it cannot be used").to_string(), expected);
            assert!(Arc::ptr_eq(&before, &certificates.current.load_full()));
        }
        certificates.replace(&[other]).expect("it can be used");
        assert!(!Arc::ptr_eq(&before, &certificates.current.load_full()));
    }
}
