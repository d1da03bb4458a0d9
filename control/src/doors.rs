//! Listeners as they are written, opened: their certificates are read, and read again when the files change.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serin_config::{Listener, ListenerTls};
use serin_proxy::{Certificates, Listen, Pem, Tls};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. They are read and compared: a Secret in a volume is exchanged by a symbolic link two folders up,
/// which no watch on a file sees.
const LOOK: Duration = Duration::from_secs(2);

/// Certificates in force, and the files that they came from.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    certificates: Arc<Certificates>,
    files: Vec<[PathBuf; 2]>,
    /// What they were like then.
    print: Option<u64>,
}

/// A listener as the edge takes it. Relative names of files are looked up from `folder`.
///
/// # Errors
/// If a file cannot be read, or is no certificate.
pub(crate) fn open(listener: &Listener, folder: &Path) -> Result<(Listen, Option<Kept>)> {
    let address = listener.spec.address.as_deref().unwrap_or_default().parse().context("not an address")?;
    let Some(written) = &listener.spec.tls else { return Ok((Listen { address, tls: None }, None)) };
    let kept = certificates(written, folder)?;
    let clients = match &written.client_authorities {
        None => None,
        Some(file) => Some(Arc::new(authorities(&folder.join(file))?)),
    };
    let tls = Tls { certificates: kept.certificates.clone(), clients, http2: written.http2() };
    Ok((Listen { address, tls: Some(tls) }, Some(kept)))
}

fn certificates(written: &ListenerTls, folder: &Path) -> Result<Kept> {
    let file = |name: &Option<String>| folder.join(name.as_deref().unwrap_or_default());
    let files: Vec<_> =
        written.certificates().iter().map(|files| [file(&files.certificate), file(&files.key)]).collect();
    let pairs = read(&files)?;
    let certificates = Arc::new(Certificates::new(&pairs)?);
    Ok(Kept { certificates, files, print: print(&Ok(pairs)) })
}

fn read(files: &[[PathBuf; 2]]) -> Result<Vec<Pem>> {
    let bytes = |file: &PathBuf| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let pair = |[chain, key]: &[PathBuf; 2]| {
        Ok(Pem { name: chain.display().to_string(), chain: bytes(chain)?, key: bytes(key)? })
    };
    files.iter().map(pair).collect()
}

fn authorities(file: &Path) -> Result<RootCertStore> {
    let shown = file.display();
    let bytes = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.with_context(|| format!("{shown} is no PEM"))?;
        roots.add(certificate).with_context(|| format!("{shown} has a certificate that cannot be an authority"))?;
    }
    anyhow::ensure!(!roots.is_empty(), "there is no certificate in {shown}");
    Ok(roots)
}

/// Puts certificates in force as their files change, until told to stop. What cannot be used is told once, and what was good stays.
pub(crate) async fn keep(all: Vec<Kept>, stop: CancellationToken) {
    let mut seen: Vec<Option<u64>> = all.iter().map(|kept| kept.print).collect();
    let mut looks = tokio::time::interval(LOOK);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        for (kept, seen) in all.iter().zip(&mut seen) {
            // A few files of some kilobytes, every other second.
            let pairs = read(&kept.files);
            let now = print(&pairs);
            if *seen == now {
                continue;
            }
            *seen = now;
            let replaced = pairs.and_then(|pairs| Ok(kept.certificates.replace(&pairs)?));
            let file = kept.files.first().map(|[chain, _]| chain.display().to_string()).unwrap_or_default();
            match replaced {
                Ok(()) => tracing::info!(file, "new certificates are in force"),
                Err(error) => tracing::error!(file, "the certificates stay as they were: {error:#}"),
            }
        }
    }
}

/// What tells one state of the files from another, without keeping what is in them.
fn print(read: &Result<Vec<Pem>>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for Pem { chain, key, .. } in read.as_ref().ok()? {
        (chain, key).hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
    use serin_config::{CertificateFiles, ListenerSpec};

    use super::*;

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    /// Writes a certificate for the shop and its key, and returns what has to be trusted to see it.
    fn write(folder: &Path) -> Arc<RootCertStore> {
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a certificate");
        fs::write(folder.join("tls.crt"), made.cert.pem()).expect("the folder is there");
        fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).expect("the folder is there");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        Arc::new(roots)
    }

    /// Whether a client that trusts these gets along with the certificates in force.
    fn is_trusted(certificates: &Arc<Certificates>, roots: &Arc<RootCertStore>) -> bool {
        let versions = "they are there";
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = server.expect(versions).with_no_client_auth().with_cert_resolver(certificates.clone());
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = client.expect(versions).with_root_certificates(roots.clone()).with_no_client_auth();
        let name = ServerName::try_from("shop.example").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).expect("memory");
            }
            server.read_tls(&mut &bytes[..]).expect("memory");
            let mut answer = Vec::new();
            if server.process_new_packets().is_err() {
                return false;
            }
            while server.wants_write() {
                server.write_tls(&mut answer).expect("memory");
            }
            client.read_tls(&mut &answer[..]).expect("memory");
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[tokio::test(start_paused = true)]
    async fn certificates_follow_their_files_and_a_bad_pair_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = write(folder.path());
        let files = CertificateFiles { certificate: Some("tls.crt".into()), key: Some("tls.key".into()) };
        let tls = ListenerTls { certificates: Some(vec![files]), ..ListenerTls::default() };
        let spec = ListenerSpec { address: Some("127.0.0.1:0".into()), tls: Some(tls) };
        let listener = Listener { spec, ..Listener::default() };
        let (listen, kept) = open(&listener, folder.path()).expect("it can be opened");
        let certificates = listen.tls.expect("TLS").certificates;
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(kept.into_iter().collect(), stop.clone()));
        // The clock is a paused one, which goes on when nobody has anything to do.
        let looked_at = || tokio::time::sleep(2 * LOOK);
        looked_at().await;
        assert!(is_trusted(&certificates, &first));

        let second = write(folder.path());
        looked_at().await;
        assert!(is_trusted(&certificates, &second) && !is_trusted(&certificates, &first));

        fs::write(folder.path().join("tls.key"), "junk").expect("the folder is there");
        looked_at().await;
        assert!(is_trusted(&certificates, &second));
        fs::remove_file(folder.path().join("tls.crt")).expect("it is there");
        looked_at().await;
        assert!(is_trusted(&certificates, &second));

        let third = write(folder.path());
        looked_at().await;
        assert!(is_trusted(&certificates, &third));
        stop.cancel();
        keeping.await.expect("it ends when it is told to");
    }

    #[test]
    fn a_listener_whose_files_are_wrong_says_which() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = |authorities: Option<&str>| {
            let files = CertificateFiles { certificate: Some("tls.crt".into()), key: Some("tls.key".into()) };
            let client_authorities = authorities.map(str::to_owned);
            let tls = ListenerTls { certificates: Some(vec![files]), client_authorities, ..ListenerTls::default() };
            let spec = ListenerSpec { address: Some("127.0.0.1:0".into()), tls: Some(tls) };
            let result = open(&Listener { spec, ..Listener::default() }, folder.path());
            result.map(|_| ()).map_err(|error| format!("{error:#}").replace(&folder.path().display().to_string(), "."))
        };
        assert_eq!(opened(None), Err("cannot read ./tls.crt: No such file or directory (os error 2)".to_owned()));
        write(folder.path());
        assert_eq!(opened(None), Ok(()));
        assert_eq!(opened(Some("tls.crt")), Ok(()));
        assert_eq!(opened(Some("tls.key")), Err("there is no certificate in ./tls.key".to_owned()));
    }
}
