//! Watches the cluster: keeps [`Objects`] current, one task for each kind, each with its own retries.
//!
//! A watch that breaks off changes nothing: what was last seen stays known until a new list is whole.

use std::fmt::Debug;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ApiResource;
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::objects::{Change, Name, Objects, Shared, Table};
use super::slice::{SERVICE_LABEL, Slice};

/// How long a watch that broke off waits before it is tried again, at first and at most. kube's own half minute would leave a
/// fleet blind for that long after the API server is back, and a fleet is a handful of clients.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// How long one watch lasts before it is renewed, in seconds. One whose connection is dead, and nobody said so, is found out soon
/// after; kube's own is 290.
const WATCH_S: u32 = 60;

/// Annotation with a copy of the object as somebody applied it. It is large, and nothing here reads it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind that is watched as it comes, so that fields this build does not know are kept.
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

pub(crate) fn canaries() -> ApiResource {
    resource("flagger.app", "v1beta1", "Canary", "canaries")
}

pub(crate) fn deployments() -> ApiResource {
    resource("apps", "v1", "Deployment", "deployments")
}

pub(crate) fn services() -> ApiResource {
    resource("", "v1", "Service", "services")
}

/// Starts all watches, of one namespace or of all; and in its own, of the Service behind which the fleet is.
pub(crate) fn start(client: &Client, namespace: Option<&str>, fleet: &Name, shared: &Shared, stop: &CancellationToken) {
    let dynamic = |resource: &ApiResource| match namespace {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource),
        None => Api::<DynamicObject>::all_with(client.clone(), resource),
    };
    let slices = match namespace {
        Some(namespace) => Api::<EndpointSlice>::namespaced(client.clone(), namespace),
        None => Api::<EndpointSlice>::all(client.clone()),
    };
    let (canaries, deployments, services) = (dynamic(&canaries()), dynamic(&deployments()), dynamic(&services()));
    let own = Api::<EndpointSlice>::namespaced(client.clone(), &fleet.namespace);
    let of_fleet = every().labels(&format!("{SERVICE_LABEL}={}", fleet.name));
    tokio::spawn(follow(own, of_fleet, shared.clone(), |slice| Slice::of(&slice), |all| &mut all.fleet, stop.clone()));
    tokio::spawn(follow(canaries, every(), shared.clone(), whole, |all| &mut all.canaries, stop.clone()));
    tokio::spawn(follow(deployments, every(), shared.clone(), stripped, |all| &mut all.deployments, stop.clone()));
    tokio::spawn(follow(services, every(), shared.clone(), stripped, |all| &mut all.services, stop.clone()));
    tokio::spawn(follow(
        slices,
        every(),
        shared.clone(),
        |slice| Slice::of(&slice),
        |all| &mut all.slices,
        stop.clone(),
    ));
}

/// Canaries keep `managedFields`: they say who writes the status.
fn whole(mut object: DynamicObject) -> Option<DynamicObject> {
    object.annotations_mut().remove(LAST_APPLIED);
    Some(object)
}

fn stripped(mut object: DynamicObject) -> Option<DynamicObject> {
    object.managed_fields_mut().clear();
    whole(object)
}

/// All objects of a kind.
pub(crate) fn every() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_S)
}

/// What happens to the objects of one kind, for ever.
pub(crate) fn events<K>(
    api: Api<K>,
    which: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let retries = ExponentialBuilder::default().with_min_delay(RETRY).with_max_delay(RETRY_MAX).with_jitter();
    let retries = watcher::ExponentialBackoff::from(retries.without_max_times());
    watcher(api, which).backoff(retries)
}

async fn follow<K, T>(
    api: Api<K>,
    which: watcher::Config,
    shared: Shared,
    keep: impl Fn(K) -> Option<T> + Send,
    table: impl Fn(&mut Objects) -> &mut Table<T> + Send,
    stop: CancellationToken,
) where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let what = format!("{} {}", api.resource_url(), which.label_selector.as_deref().unwrap_or_default());
    let mut is_troubled = false;
    let mut renewals = shared.watches(&what);
    let mut events = events_anew(&api, &which);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = renewals.changed() => {
                (events, is_troubled) = (events_anew(&api, &which), true);
                continue;
            }
            event = events.try_next() => event,
        };
        let change = match event {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                if std::mem::replace(&mut is_troubled, true) {
                    debug!(%what, %error, "still cannot watch");
                } else {
                    shared.sees(&what, false);
                    warn!(%what, %error, "cannot watch; what was seen last stays in force");
                }
                continue;
            }
        };
        // A list that has begun may be long; until it is whole, what was known before counts, and may be old.
        let is_whole = !matches!(change, watcher::Event::Init | watcher::Event::InitApply(_));
        let change = match change {
            watcher::Event::Apply(object) => {
                let name = Name::of(&object);
                keep(object).map(|kept| Change::Set(name, kept))
            }
            watcher::Event::InitApply(object) => {
                let name = Name::of(&object);
                keep(object).map(|kept| Change::Listed(name, kept))
            }
            watcher::Event::Delete(object) => Some(Change::Gone(Name::of(&object))),
            watcher::Event::Init => Some(Change::Began),
            watcher::Event::InitDone => Some(Change::Complete),
        };
        if let Some(change) = change {
            shared.change(|all| table(all).take(change));
        }
        if is_whole && std::mem::take(&mut is_troubled) {
            shared.sees(&what, true);
        }
    }
}

fn events_anew<K>(
    api: &Api<K>,
    which: &watcher::Config,
) -> BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    events(api.clone(), which.clone()).boxed()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_plane::in_process::InProcess;

    use super::super::slice::{Endpoints, of_service, peers};
    use super::*;

    #[tokio::test]
    async fn the_fleet_is_seen_also_if_only_another_namespace_is_looked_at() {
        let server = InProcess::new();
        let slice = |namespace: &str, service: &str, address: &str| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {SERVICE_LABEL: service}},
                "ports": [{"name": "admin", "port": 9090}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true}}],
            })
        };
        server.put(slice("serin", "serin-fleet", "10.0.0.1"));
        server.put(slice("serin", "other", "10.0.0.2"));
        server.put(slice("shop", "cart", "10.0.0.3"));
        let (shared, stop, fleet) = (Shared::default(), CancellationToken::new(), Name::new("serin", "serin-fleet"));
        start(&server.client(), Some("shop"), &fleet, &shared, &stop);
        let mut changes = shared.watch();
        while !shared.read(Objects::is_complete) {
            changes.changed().await.expect("it goes on");
        }
        shared.read(|objects| {
            let found = peers(of_service(&objects.fleet.objects, "serin", "serin-fleet"), "admin");
            assert_eq!(found.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>(), ["10.0.0.1:9090"]);
            assert_eq!(objects.fleet.objects.len(), 1);
            assert_eq!(objects.slices.objects.keys().map(|name| name.namespace.as_str()).collect::<Vec<_>>(), ["shop"]);
        });
        // After an outage nothing is believed before it was listed again.
        server.drop_watches();
        server.put(slice("shop", "cart", "10.0.0.4"));
        shared.renew_watches();
        assert!(!shared.is_current());
        while !shared.is_current() {
            changes.changed().await.expect("it goes on");
        }
        let reached = shared
            .read(|objects| Endpoints::of(of_service(&objects.slices.objects, "shop", "cart"), "admin").serving());
        assert_eq!(reached.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.4:9090"]);
        stop.cancel();
    }
}
