//! Objects of any kind, from YAML or JSON into the cluster.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use serde_json::Value;
use serin_tests::wait::until;

/// The name under which the tests own fields.
pub(crate) const FIELD_MANAGER: &str = "serin-plane";

/// A CRD is usable some tens of milliseconds after it was made.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(20);

/// The documents of a YAML text; JSON is YAML too.
///
/// # Errors
/// If it is not YAML.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("reading YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies objects, and knows the kinds it has met.
pub(crate) struct Applier {
    client: Client,
    kinds: Mutex<HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>>,
}

impl Applier {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    /// Applies one object on the server, with force; in `namespace` if its kind has one and it names none.
    pub(crate) async fn apply(&self, object: &Value, namespace: Option<&str>) -> Result<DynamicObject> {
        let told = |field: &str| object.pointer(field).and_then(Value::as_str);
        let name = told("/metadata/name").context("an object without metadata.name")?;
        let kind = kind_of(object)?;
        let (resource, capabilities) = self.kind(&kind).await?;
        let api = match (capabilities.scope, told("/metadata/namespace").or(namespace)) {
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            (Scope::Namespaced | Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
        };
        let applied = api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await;
        applied.with_context(|| format!("applying {} {name}", kind.kind))
    }

    /// The resource behind a kind.
    pub(crate) async fn kind(&self, kind: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities)> {
        if let Some(known) = self.kinds.lock().expect("nothing panics while it is held").get(kind) {
            return Ok(known.clone());
        }
        let found = pinned_kind(&self.client, kind).await;
        let found = found.with_context(|| format!("looking for {} of {}", kind.kind, kind.api_version()))?;
        self.kinds.lock().expect("nothing panics while it is held").insert(kind.clone(), found.clone());
        Ok(found)
    }

    /// Applies CRDs and waits until the API server serves them.
    pub(crate) async fn apply_crds(&self, text: &str) -> Result<()> {
        for crd in parse(text)? {
            let applied = self.apply(&crd, None).await?;
            let name = applied.metadata.name.as_deref().unwrap_or_default();
            let (resource, _) = self.kind(&kind_of(&crd)?).await?;
            ensure!(resource.kind == "CustomResourceDefinition", "{name} is a {}, not a CRD", resource.kind);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            until(&format!("CRD {name} is not established"), ESTABLISHED_WITHIN, async || {
                Ok(is_established(&api.get(name).await?).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

fn kind_of(object: &Value) -> Result<GroupVersionKind> {
    let told =
        |field: &str| object.get(field).and_then(Value::as_str).with_context(|| format!("an object without {field}"));
    let (version, kind) = (told("apiVersion")?, told("kind")?);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Ok(GroupVersionKind::gvk(group, version, kind))
}

fn is_established(crd: &DynamicObject) -> bool {
    let conditions = crd.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}
