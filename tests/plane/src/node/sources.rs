//! Reads ConfigMaps and Secrets for a pod, and makes its tokens.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};

/// Why a container cannot be started yet, as its status says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// In one word, as kubelet says it.
    pub(super) reason: &'static str,
    /// In a sentence.
    pub(super) message: String,
}

impl Problem {
    /// Something that the pod refers to is missing or wrong.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self { reason: "CreateContainerConfigError", message: message.into() }
    }

    /// Something that this node cannot do. Better said than left out silently.
    pub(super) fn unsupported(what: &str) -> Self {
        Self::config(format!("this node does not know {what}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// The content of a ConfigMap or a Secret, by key.
pub(super) type Content = BTreeMap<String, Vec<u8>>;

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

/// What pods of one namespace may refer to.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Sources {
    /// What an object holds; nothing if it is optional and missing.
    pub(super) async fn content(&self, kind: Kind, name: &str, optional: Option<bool>) -> Result<Content, Problem> {
        let found = match kind {
            Kind::ConfigMap => self.api::<ConfigMap>().get_opt(name).await.map(|found| found.map(config_map)),
            Kind::Secret => self.api::<Secret>().get_opt(name).await.map(|found| found.map(secret)),
        };
        match found {
            Ok(Some(content)) => Ok(content),
            Ok(None) if optional == Some(true) => Ok(Content::new()),
            Ok(None) => Err(Problem::config(format!("{kind:?} {name:?} not found"))),
            Err(error) => Err(Problem::config(format!("reading {kind:?} {name:?}: {error}"))),
        }
    }

    /// The value of one key; none if it is optional and missing.
    pub(super) async fn key(
        &self,
        kind: Kind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<Vec<u8>>, Problem> {
        match self.content(kind, name, optional).await?.remove(key) {
            Some(value) => Ok(Some(value)),
            None if optional == Some(true) => Ok(None),
            None => Err(Problem::config(format!("couldn't find key {key} in {kind:?} {name:?}"))),
        }
    }

    /// A token of the pod's ServiceAccount that is worth something only while the pod exists.
    pub(super) async fn token(&self, pod: &Pod, wanted: &ServiceAccountTokenProjection) -> Result<String, Problem> {
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: wanted.audience.iter().cloned().collect(),
                expiration_seconds: wanted.expiration_seconds,
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
            },
            ..TokenRequest::default()
        };
        let api = self.api::<ServiceAccount>();
        let made = api.create_token_request(account, &PostParams::default(), &request).await;
        let made = made.map_err(|error| Problem::config(format!("a token for {account:?}: {error}")))?;
        made.status.map(|status| status.token).ok_or_else(|| Problem::config(format!("no token for {account:?}")))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn config_map(found: ConfigMap) -> Content {
    let text = found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    text.chain(found.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))).collect()
}

fn secret(found: Secret) -> Content {
    found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}
