//! What `spec.service` says of the backends: which protocol they speak, how long they may take, and what is tried again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serin_config::{GoDuration, Located, Problem, Service, TlsMode, TlsSettings, UpgradePolicy};
use serin_route::{Conditions, Identity, Protocol, RETRIES_MAX, Retries, Upstream, UpstreamTls};

/// Where TLS is written.
const TLS: &str = "spec.service.trafficPolicy.tls";
const PROTOCOLS: &str = "there are http, http2, h2c, grpc, https (which may be HTTP/2 too), grpcs, kubernetes.io/h2c, \
                         kubernetes.io/ws and kubernetes.io/wss";

/// How the backends of a canary are spoken to.
pub(super) fn upstream(canary: &Located<serin_config::Canary>, keep: &mut impl FnMut(Problem)) -> Upstream {
    let Some(service) = &canary.value.spec.service else { return Upstream::default() };
    let mut written = Written { canary, service, keep };
    let (protocol, is_tls) = written.protocol();
    let tls = written.tls(is_tls);
    // Without TLS there is nothing to agree by.
    let protocol = if tls.is_none() && protocol == Protocol::Agreed { Protocol::Http1 } else { protocol };
    let timeout = written.duration("timeout", service.timeout.as_deref());
    Upstream { protocol, tls, timeout, retries: written.retries(), ..Upstream::default() }
}

struct Written<'a, K> {
    canary: &'a Located<serin_config::Canary>,
    service: &'a Service,
    keep: &'a mut K,
}

impl<K: FnMut(Problem)> Written<'_, K> {
    fn problem(&mut self, path: &str, message: String, help: Option<&str>) {
        (self.keep)(self.canary.problem_at(path, message, help.map(str::to_owned)));
    }

    /// The protocol, and whether it is spoken over TLS: as `appProtocol` says (Kubernetes, "Application protocol"; Istio, "Explicit
    /// protocol selection"), else as the port's name does up to its first dash, if that is one.
    fn protocol(&mut self) -> (Protocol, bool) {
        let said = self.service.app_protocol.as_deref().filter(|said| !said.is_empty());
        let named = self.service.port_name().split('-').next().and_then(protocol);
        let (protocol, is_tls) = match said.map(|said| (said, protocol(said))) {
            None => named.unwrap_or_default(),
            Some((_, Some(found))) => found,
            Some((said, None)) => {
                let message = format!("{said:?} is no protocol that Serin speaks to backends");
                self.problem("spec.service.appProtocol", message, Some(PROTOCOLS));
                Default::default()
            }
        };
        let policy =
            self.service.traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref()?.http.as_ref());
        match policy.and_then(|http| http.h2_upgrade_policy) {
            Some(UpgradePolicy::Upgrade) if protocol == Protocol::Http1 => (Protocol::Http2, is_tls),
            Some(UpgradePolicy::DoNotUpgrade) if protocol == Protocol::Agreed => (Protocol::Http1, is_tls),
            _ => (protocol, is_tls),
        }
    }

    fn tls(&mut self, is_said: bool) -> Option<UpstreamTls> {
        let settings = self.service.traffic_policy.as_ref().and_then(|policy| policy.tls.clone()).unwrap_or_default();
        let is_on = match settings.mode {
            Some(TlsMode::Simple | TlsMode::Mutual) => true,
            Some(TlsMode::Disable) => false,
            // The mesh's own certificates are not there.
            Some(TlsMode::IstioMutual) | None => is_said,
        };
        if !is_on {
            return None;
        }
        let server_name = settings.sni.as_deref().filter(|name| !name.is_empty()).map(Into::into);
        let authorities = self.authorities(&settings);
        let identity = self.identity(&settings);
        if settings.subject_alt_names.as_ref().is_some_and(|names| !names.is_empty()) {
            let message = "other names than the one that is asked for are not looked at".to_owned();
            self.problem(&format!("{TLS}.subjectAltNames"), message, Some("write the name of the certificate as sni"));
        }
        Some(UpstreamTls { server_name, authorities, identity })
    }

    fn authorities(&mut self, settings: &TlsSettings) -> Option<Arc<[Box<[u8]>]>> {
        let file = settings.ca_certificates.as_deref().filter(|file| !file.is_empty())?;
        let found = certificates(file).and_then(|found| {
            let mut roots = RootCertStore::empty();
            found.iter().try_for_each(|root| roots.add(root.clone())).map_err(|error| error.to_string())?;
            Ok(found.iter().map(|root| root.to_vec().into()).collect())
        });
        found.map_err(|why| self.unusable("caCertificates", file, &why)).ok()
    }

    fn identity(&mut self, settings: &TlsSettings) -> Option<Arc<Identity>> {
        let given = |file: &Option<String>| file.clone().filter(|file| !file.is_empty());
        let (chain, key) = match (given(&settings.client_certificate), given(&settings.private_key)) {
            (Some(chain), Some(key)) => (chain, key),
            (None, None) if settings.mode == Some(TlsMode::Mutual) => {
                let message = "MUTUAL needs a certificate and a key to show".to_owned();
                self.problem(&format!("{TLS}.mode"), message, Some("give clientCertificate and privateKey"));
                return None;
            }
            (None, None) => return None,
            (Some(_), None) => {
                self.problem(&format!("{TLS}.clientCertificate"), "has no privateKey beside it".to_owned(), None);
                return None;
            }
            (None, Some(_)) => {
                self.problem(&format!("{TLS}.privateKey"), "has no clientCertificate beside it".to_owned(), None);
                return None;
            }
        };
        let certificates = certificates(&chain).map_err(|why| self.unusable("clientCertificate", &chain, &why)).ok()?;
        let key_found =
            read(&key).and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|error| error.to_string()));
        let key_der = key_found.map_err(|why| self.unusable("privateKey", &key, &why)).ok()?;
        let (der, provider) = (key_der.secret_der().into(), ring::default_provider());
        if let Err(error) = CertifiedKey::from_der(certificates.clone(), key_der, &provider) {
            self.unusable("privateKey", &key, &error.to_string());
        }
        let chain = certificates.iter().map(|certificate| certificate.to_vec().into()).collect();
        Some(Arc::new(Identity { chain, key: der }))
    }

    fn unusable(&mut self, field: &str, file: &str, why: &str) {
        let help = "a PEM file on the machine that Serin runs on, with its whole path";
        self.problem(&format!("{TLS}.{field}"), format!("{file:?} cannot be used: {why}"), Some(help));
    }

    fn duration(&mut self, field: &str, written: Option<&str>) -> Option<Duration> {
        let written = written.filter(|written| !written.is_empty())?;
        match written.parse::<GoDuration>() {
            // As in Istio and Gateway API.
            Ok(time) if time == GoDuration::default() => None,
            Ok(time) if !time.is_negative() => Some(time.to_std()),
            Ok(_) | Err(_) => {
                let message = format!("{written:?} is no duration, or one below zero");
                self.problem(&format!("spec.service.{field}"), message, Some("write it as 15s or 500ms"));
                None
            }
        }
    }

    fn retries(&mut self) -> Retries {
        let written = self.service.retries.clone().unwrap_or_default();
        let per_try = self.duration("retries.perTryTimeout", written.per_try_timeout.as_deref());
        let backend = self.duration("backendTimeout", self.service.backend_timeout.as_deref());
        let try_timeout = [per_try, backend].into_iter().flatten().min();
        let given = written.attempts.unwrap_or(0);
        let attempts = u32::try_from(given).ok().filter(|attempts| *attempts as usize <= RETRIES_MAX);
        if attempts.is_none() {
            let message = format!("{given} is not between 0 and {RETRIES_MAX}");
            self.problem("spec.service.retries.attempts", message, None);
        }
        let on = match written.retry_on.as_deref().filter(|on| !on.is_empty()) {
            None => Conditions::istio_default(),
            Some(on) => Conditions::parse(on).unwrap_or_else(|error| {
                let help = "there are 5xx, gateway-error, reset, connect-failure, refused-stream, retriable-4xx, statuses such as 503, \
                            and cancelled, deadline-exceeded, internal, resource-exhausted and unavailable of gRPC";
                self.problem("spec.service.retries.retryOn", error.to_string(), Some(help));
                Conditions::default()
            }),
        };
        Retries { attempts: attempts.unwrap_or(0), on, try_timeout }
    }
}

/// The protocol of this name, and whether it is spoken over TLS. Names are compared without case, as Istio does.
fn protocol(name: &str) -> Option<(Protocol, bool)> {
    match name.to_ascii_lowercase().as_str() {
        "http" | "grpc-web" | "ws" | "kubernetes.io/ws" => Some((Protocol::Http1, false)),
        "http2" | "h2c" | "kubernetes.io/h2c" | "grpc" => Some((Protocol::Http2, false)),
        "https" => Some((Protocol::Agreed, true)),
        // An upgrade is a matter of HTTP/1.1.
        "wss" | "kubernetes.io/wss" => Some((Protocol::Http1, true)),
        "grpcs" | "h2" => Some((Protocol::Http2, true)),
        _ => None,
    }
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    if !Path::new(file).is_absolute() {
        return Err("it is no whole path".to_owned());
    }
    std::fs::read(file).map_err(|error| error.to_string())
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    let found =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    for certificate in &found {
        x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_has_the_names_of_kubernetes_and_istio() {
        for (name, expected) in [
            ("http", Some((Protocol::Http1, false))),
            ("HTTP2", Some((Protocol::Http2, false))),
            ("kubernetes.io/h2c", Some((Protocol::Http2, false))),
            ("grpc", Some((Protocol::Http2, false))),
            ("https", Some((Protocol::Agreed, true))),
            ("kubernetes.io/wss", Some((Protocol::Http1, true))),
            ("mongo", None),
            ("", None),
        ] {
            assert_eq!(protocol(name), expected, "{name}");
        }
    }
}
