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
    let certificates = Arc::new(Certificates::new(&read(&files)?)?);
    Ok(Kept { certificates, files })
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
    let mut seen: Vec<Option<u64>> = all.iter().map(|kept| print(&read(&kept.files))).collect();
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
