//! The plane's certificates and keys: one authority, and what it vouches for.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::network;

/// The files of one plane.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The authority's certificate.
    pub(crate) authority: PathBuf,
    /// The API server's certificate and key.
    pub(crate) server: (PathBuf, PathBuf),
    /// The key that signs tokens of ServiceAccounts, and the one that checks them.
    pub(crate) tokens: (PathBuf, PathBuf),
    /// How an admin reaches the API server.
    pub(crate) kubeconfig: PathBuf,
}

impl Keys {
    /// Makes all of them, in `folder`, for an API server on `port`.
    pub(crate) fn make(folder: &Path, port: u16) -> Result<Self> {
        let put = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            anyhow::Ok(path)
        };
        let authority_key = KeyPair::generate()?;
        let mut authority = named("serin-plane", None);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_certificate = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let server_key = KeyPair::generate()?;
        let mut server = named("kube-apiserver", None);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.subject_alt_names = ["localhost", "kubernetes.default.svc", "kubernetes.default"]
            .into_iter()
            .map(|name| Ok(SanType::DnsName(name.try_into()?)))
            .chain([Ipv4Addr::LOCALHOST, network::API].map(|address| Ok(SanType::IpAddress(IpAddr::V4(address)))))
            .collect::<Result<_, rcgen::Error>>()?;

        let admin_key = KeyPair::generate()?;
        // The group that RBAC lets do everything.
        let mut admin = named("admin", Some("system:masters"));
        admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let admin_certificate = put("admin.crt", admin.signed_by(&admin_key, &issuer)?.pem())?;
        let admin_key = put("admin.key", admin_key.serialize_pem())?;

        let tokens = KeyPair::generate()?;
        let authority = put("ca.crt", authority_certificate)?;
        let kubeconfig = kubeconfig(port, &authority, &admin_certificate, &admin_key);
        Ok(Self {
            server: (
                put("server.crt", server.signed_by(&server_key, &issuer)?.pem())?,
                put("server.key", server_key.serialize_pem())?,
            ),
            tokens: (put("tokens.key", tokens.serialize_pem())?, put("tokens.pub", tokens.public_key_pem())?),
            kubeconfig: put("kubeconfig", kubeconfig)?,
            authority,
        })
    }
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

fn kubeconfig(port: u16, authority: &Path, certificate: &Path, key: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: plane\n\
         clusters:\n- name: plane\n  cluster:\n    server: https://{}:{port}\n    certificate-authority: {}\n\
         users:\n- name: admin\n  user:\n    client-certificate: {}\n    client-key: {}\n\
         contexts:\n- name: plane\n  context:\n    cluster: plane\n    user: admin\n",
        network::API,
        authority.display(),
        certificate.display(),
        key.display()
    )
}
