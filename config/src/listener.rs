//! Serin's Listener: an address on which the proxy takes requests.

use serde::{Deserialize, Serialize};

use crate::address::check_listen;
use crate::object::Object;
use crate::problem::{Finding, Findings};

/// An address on which the proxy takes requests.
pub type Listener = Object<ListenerSpec>;

/// `Listener.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSpec {
    /// IP address and port, such as `127.0.0.1:8080`; required. Port 0 lets the system choose.
    pub address: Option<String>,
    /// TLS; without it requests come in cleartext.
    pub tls: Option<ListenerTls>,
}

/// `Listener.spec.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Who the server is; required. A client gets the one for the name it asks for, and the first if none is.
    pub certificates: Option<Vec<CertificateFiles>>,
    /// PEM file of authorities. Where it is given, only clients with a certificate that one of them has signed may come.
    pub client_authorities: Option<String>,
    /// Whether HTTP/2 is offered; true where absent.
    pub http2: Option<bool>,
}

/// A certificate and its key. Relative names are looked up from the configuration directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFiles {
    /// PEM file of the certificate, followed by what has signed it; required.
    pub certificate: Option<String>,
    /// PEM file of its private key; required.
    pub key: Option<String>,
}

impl ListenerTls {
    /// The certificates; empty where absent.
    pub fn certificates(&self) -> &[CertificateFiles] {
        self.certificates.as_deref().unwrap_or_default()
    }

    /// Whether HTTP/2 is offered.
    pub fn http2(&self) -> bool {
        self.http2.unwrap_or(true)
    }
}

impl Listener {
    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.metadata.check(&mut findings);
        if let Some(address) = findings.required("spec.address", self.spec.address.as_deref()) {
            check_listen(&mut findings, "spec.address", address);
        }
        if let Some(tls) = &self.spec.tls {
            if tls.certificates().is_empty() {
                findings.error("spec.tls.certificates", "is missing").help("give one certificate and its key at least");
            }
            for (index, files) in tls.certificates().iter().enumerate() {
                let path = format!("spec.tls.certificates[{index}]");
                findings.required(format!("{path}.certificate"), files.certificate.as_deref());
                findings.required(format!("{path}.key"), files.key.as_deref());
            }
        }
        findings.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_needs_a_certificate_and_its_key() {
        let tls = |certificates| Listener {
            spec: ListenerSpec {
                address: Some("127.0.0.1:0".into()),
                tls: Some(ListenerTls { certificates, ..ListenerTls::default() }),
            },
            ..Listener::default()
        };
        let found = |listener: &Listener| {
            let of_tls = listener.validate().into_iter().filter(|finding| finding.path.contains("tls"));
            of_tls.map(|finding| format!("{}: {}", finding.path, finding.message)).collect::<Vec<_>>()
        };
        assert_eq!(found(&tls(None)), ["spec.tls.certificates: is missing"]);
        let half = CertificateFiles { certificate: Some("tls.crt".into()), key: None };
        assert_eq!(found(&tls(Some(vec![half.clone()]))), ["spec.tls.certificates[0].key: is missing"]);
        assert_eq!(found(&tls(Some(vec![CertificateFiles { key: Some("tls.key".into()), ..half }]))), [""; 0]);
    }
}
