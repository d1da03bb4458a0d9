//! What every kind has in common: its version, its kind, its name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::problem::{Findings, quoted};

/// The namespace of an object that names none.
pub const NAMESPACE_DEFAULT: &str = "default";
/// Characters in an object's name (Kubernetes: DNS subdomain name, RFC 1123).
const NAME_CHARS_MAX: usize = 253;

/// An object of one kind with its `spec`. Its `status`, if it has one, is for people and is not read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de> + Default"))]
pub struct Object<S> {
    /// The API group and version, such as `flagger.app/v1beta1`.
    pub api_version: Option<String>,
    /// The kind, such as `Canary`.
    pub kind: Option<String>,
    /// Name, namespace, labels and annotations.
    #[serde(default, deserialize_with = "absent_as_default")]
    pub metadata: Metadata,
    /// What is wanted. Where it is absent, each of its required fields is reported.
    #[serde(default, deserialize_with = "absent_as_default")]
    pub spec: S,
}

/// The part of Kubernetes' object metadata that people write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name, unique among its kind in its namespace.
    pub name: Option<String>,
    /// The namespace; "default" where it is absent.
    pub namespace: Option<String>,
    /// Labels, for selection.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations, for tools.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An object's name in its namespace; `Display` gives `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl<S> Object<S> {
    /// The name; empty where it is absent, which validation reports.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace, [`NAMESPACE_DEFAULT`] where none is given.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(NAMESPACE_DEFAULT)
    }

    /// Namespace and name together.
    pub fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }
}

impl Metadata {
    /// Reports names that Kubernetes would refuse.
    pub(crate) fn check(&self, findings: &mut Findings) {
        if let Some(name) = findings.required("metadata.name", self.name.as_deref()) {
            check_name(findings, "metadata.name", name);
        }
        if let Some(namespace) = self.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            check_name(findings, "metadata.namespace", namespace);
        }
    }
}

/// The rule of RFC 1123 for subdomain names, as Kubernetes applies it.
fn check_name(findings: &mut Findings, path: &str, name: &str) {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.len() > NAME_CHARS_MAX {
        findings.error(path, format!("has {} characters, {NAME_CHARS_MAX} is the most", name.len()));
    } else if !(name.starts_with(edge) && name.ends_with(edge) && name.chars().all(inner)) {
        findings
            .error(path, format!("{} is not a name", quoted(name)))
            .help("a name has lower-case letters, digits, - and ., and begins and ends with a letter or digit");
    }
}

/// Reads a value of which both `null` and nothing mean the default.
fn absent_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
