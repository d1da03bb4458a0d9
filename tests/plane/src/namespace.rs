//! A namespace for one test: applied to, waited on, told about, emptied.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{self as core, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serin_tests::wait::until;

use crate::plane::Plane;
use crate::{dump, objects};

/// The ServiceAccount controller needs less than half a second.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(30);

/// Processes that are killed are gone within milliseconds; their pods within a second.
const EMPTIED_WITHIN: Duration = Duration::from_secs(30);

/// A namespace of a plane. Clones are the same namespace.
#[derive(Clone)]
pub struct Namespace {
    plane: Arc<Plane>,
    name: String,
}

impl Plane {
    /// Makes a namespace whose name begins so, and in which pods can be made.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn namespace(self: &Arc<Self>, prefix: &str) -> Result<Namespace> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed) + 1);
        let object = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        let api: Api<core::Namespace> = Api::all(self.client());
        api.create(&PostParams::default(), &object).await.with_context(|| format!("making namespace {name}"))?;
        let made = Namespace { plane: Arc::clone(self), name };
        // Without it, the API server refuses pods, and controllers try again only after a while.
        made.until("no default ServiceAccount", ACCOUNT_WITHIN, async || {
            made.api::<ServiceAccount>().get_opt("default").await.map_err(Into::into)
        })
        .await?;
        Ok(made)
    }
}

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plane it is on.
    #[must_use]
    pub const fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Its objects of one kind.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.plane.client(), &self.name)
    }

    /// Applies an object, or each of an array, on the server. Objects that name no namespace go into this one.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub async fn apply(&self, objects: Value) -> Result<Vec<DynamicObject>> {
        let objects = match objects {
            Value::Array(objects) => objects,
            object => vec![object],
        };
        let mut applied = Vec::with_capacity(objects.len());
        for object in &objects {
            applied.push(self.plane.applier.apply(object, Some(&self.name)).await?);
        }
        Ok(applied)
    }

    /// Applies the documents of a YAML text.
    ///
    /// # Errors
    /// If it is not YAML, or the API server refuses one.
    pub async fn apply_yaml(&self, text: &str) -> Result<Vec<DynamicObject>> {
        self.apply(Value::Array(objects::parse(text)?)).await
    }

    /// Asks again and again until the answer is `Some`, and returns what was in it.
    ///
    /// # Errors
    /// With `what` in its sentence when `within` has passed; an error of `ask` itself ends the wait at once.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        ask: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let waited = until(what, within, ask).await;
        waited.with_context(|| format!("in namespace {}", self.name))
    }

    /// Waits until an object is so; returns it as it was then.
    ///
    /// # Errors
    /// With the object as it was last, when `within` has passed.
    pub async fn until_object<K>(&self, name: &str, within: Duration, mut so: impl FnMut(&K) -> bool) -> Result<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let kind = K::kind(&());
        let mut last = None;
        let what = format!("{kind} {name} is not as it should be");
        let waited = self.until(&what, within, async || {
            last = self.api::<K>().get_opt(name).await?;
            Ok(last.clone().filter(|object| so(object)))
        });
        let waited = waited.await;
        waited.with_context(|| match &last {
            Some(last) => serde_json::to_string(last).unwrap_or_default(),
            None => format!("there is no {kind} {name}"),
        })
    }

    /// Waits until a Deployment has rolled out: all its pods are of the newest template and available, and the old ones are gone.
    ///
    /// # Errors
    /// With the Deployment as it was last, when `within` has passed.
    pub async fn until_rolled_out(&self, deployment: &str, within: Duration) -> Result<Deployment> {
        self.until_object(deployment, within, |found: &Deployment| {
            let Some(status) = &found.status else { return false };
            let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            status.observed_generation >= found.metadata.generation
                && counts.iter().all(|count| count.unwrap_or(0) == wanted)
        })
        .await
    }

    /// The pods with these labels (`app=web`), newest last.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn pods(&self, labels: &str) -> Result<Vec<Pod>> {
        let mut pods = self.api::<Pod>().list(&ListParams::default().labels(labels)).await?.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|made| made.0));
        Ok(pods)
    }

    /// The ready endpoints of a Service's port, as kube-proxy would pick them: there are no ClusterIPs here. A port without a name is
    /// called "".
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn endpoints(&self, service: &str, port: &str) -> Result<Vec<SocketAddr>> {
        let labels = format!("kubernetes.io/service-name={service}");
        let slices = self.api::<EndpointSlice>().list(&ListParams::default().labels(&labels)).await?;
        let mut found = Vec::new();
        for slice in slices {
            let ports = slice.ports.unwrap_or_default();
            let named = ports.iter().find(|known| known.name.as_deref().unwrap_or_default() == port);
            let Some(number) = named.and_then(|known| known.port) else { continue };
            for endpoint in &slice.endpoints {
                // Nothing said counts as ready.
                if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true) {
                    for address in &endpoint.addresses {
                        let address: Ipv4Addr = address.parse().with_context(|| format!("the endpoint {address}"))?;
                        found.push(SocketAddrV4::new(address, u16::try_from(number)?).into());
                    }
                }
            }
        }
        Ok(found)
    }

    /// All that helps to see why a test failed: objects, events, what the node did, and the ends of the pods' logs.
    pub async fn dump(&self) -> String {
        dump::dump(self).await
    }

    /// Removes what runs here, and waits until it is gone. The namespace itself stays: deleting one takes seconds.
    ///
    /// # Errors
    /// If pods come back again and again.
    pub async fn close(&self) -> Result<()> {
        let background = DeleteParams::background();
        let all = ListParams::default();
        self.api::<Deployment>().delete_collection(&background, &all).await?;
        self.api::<DaemonSet>().delete_collection(&background, &all).await?;
        self.api::<Job>().delete_collection(&background, &all).await?;
        self.until("pods are still there", EMPTIED_WITHIN, async || {
            // A controller that has not heard of the end may make another.
            self.api::<ReplicaSet>().delete_collection(&background, &all).await?;
            self.api::<Pod>().delete_collection(&DeleteParams::default().grace_period(0), &all).await?;
            Ok(self.api::<Pod>().list(&all).await?.items.is_empty().then_some(()))
        })
        .await
    }
}
