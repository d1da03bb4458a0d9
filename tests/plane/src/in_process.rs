//! A Kubernetes API server inside the test's process, behind `kube::Client`: no sockets, and time is tokio's.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::api::{Api, Patch, PatchParams};
//! use serde_json::json;
//! use serin_plane::in_process::{Fault, InProcess, Verb};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let server = InProcess::new();
//! server.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"weight": "10"}}));
//! let fault = server.fault(Fault::on(Verb::Patch, "configmaps").refused(503).although_carried_out());
//!
//! let configs: Api<ConfigMap> = Api::default_namespaced(server.client());
//! let patch = Patch::Merge(json!({"data": {"weight": "20"}}));
//! assert!(configs.patch("a", &PatchParams::default(), &patch).await.is_err());
//! assert_eq!(fault.hits(), 1);
//! assert_eq!(server.object("configmaps", "default", "a").unwrap()["data"]["weight"], "20");
//! assert_eq!(server.requests().len(), 1);
//! # }
//! ```
//!
//! What a controller relies on is as in the real server: versions, conflicts, generations, the status subresource, the
//! four sorts of patch, owners of fields, finalizers, owner references, watches that continue. `parity` is the table of
//! calls that keeps it honest. Each file says what it leaves out; beyond those, a namespace need not exist before
//! objects are in it, nobody is forbidden anything, nothing is validated against a schema, and events of `v1` and
//! `events.k8s.io/v1` are kept apart.
//!
//! ```text
//! kube::Client ─▶ call (understood) ─▶ faults ─▶ store, write, delete ─▶ controllers ─▶ watch (streams)
//!                                        │         │
//!                                        │         └─ fields, owners, patch, guard, defaults: values in, values out
//!                                        └─ refused, broken, held, or carried out and nobody told
//! ```

mod call;
mod controllers;
mod defaults;
mod delete;
mod failure;
mod faults;
mod fields;
mod guard;
mod kinds;
mod owners;
pub mod parity;
mod patch;
mod selector;
mod service;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

pub use self::call::Verb;
pub use self::controllers::Readiness;
pub use self::faults::{Fault, Hold};
pub use self::kinds::Kind;

use self::controllers::Controllers;
use self::faults::Faults;
use self::store::{Key, Store};
use self::write::{name_of, set, text};

/// Calls remembered for [`InProcess::requests`]. Beyond it the oldest go: a test that counts more looks at the wrong
/// thing.
const REQUESTS_MAX: usize = 100_000;

/// A call that reached the server, whatever came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it does.
    pub verb: Verb,
    /// The plural, such as `deployments`.
    pub resource: String,
    /// The path, without the query.
    pub path: String,
    /// The namespace, where the path has one.
    pub namespace: Option<String>,
    /// The name, where the path has one.
    pub name: Option<String>,
    /// The part of the object, such as `status`.
    pub subresource: Option<String>,
    /// Who wrote: the field manager, or the first word of the user agent.
    pub manager: String,
}

/// A server. Clones are the same server.
#[derive(Clone, Debug)]
pub struct InProcess {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts changes, to wake the watches.
    changed: tokio::sync::watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    store: Store,
    controllers: Controllers,
    faults: Faults,
    requests: VecDeque<Request>,
    down: bool,
    /// How often all connections were broken.
    connections: u64,
    /// When the controllers are next woken.
    wakes_at: Option<Instant>,
}

impl Inner {
    fn look<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().expect("nothing panics under this lock"))
    }

    /// Changes something, lets the controllers react, and wakes the watches.
    fn change<T>(self: &Arc<Self>, with: impl FnOnce(&mut State) -> T) -> T {
        let (value, wakes_at) = self.look(|state| {
            let value = with(state);
            let next = state.controllers.settle(&mut state.store);
            let new = next.filter(|at| Some(*at) != state.wakes_at);
            state.wakes_at = next;
            (value, new)
        });
        self.changed.send_modify(|count| *count += 1);
        if let Some(at) = wakes_at {
            self.wake_at(at);
        }
        value
    }

    /// Lets the controllers go on at a moment, if the server is still there by then.
    fn wake_at(self: &Arc<Self>, at: Instant) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep_until(at).await;
            if let Some(inner) = inner.upgrade() {
                inner.change(|_| ());
            }
        });
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcess {
    /// An empty server that begins now.
    pub fn new() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// An empty server that begins at a moment. From there its time is tokio's, paused or not.
    pub fn starting_at(now: Timestamp) -> Self {
        let state = State {
            store: Store::new(now),
            controllers: Controllers::default(),
            faults: Faults::default(),
            requests: VecDeque::new(),
            down: false,
            connections: 0,
            wakes_at: None,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), changed: tokio::sync::watch::Sender::new(0) }) }
    }

    /// A client of this server, whose default namespace is `default`. Needs a tokio runtime.
    pub fn client(&self) -> kube::Client {
        service::client(&self.inner)
    }

    /// Adds a kind, or replaces the one of the same group and plural.
    pub fn add_kind(&self, kind: Kind) {
        self.inner.change(|state| {
            state.store.kinds.retain(|known| known.qualified() != kind.qualified());
            state.store.kinds.push(kind);
        });
    }

    /// Forgets a kind, as if its definition was not installed: calls are answered 404.
    pub fn remove_kind(&self, resource: &str) {
        self.inner.change(|state| state.store.kinds.retain(|kind| !kind.answers_to(resource)));
    }

    /// Lets something go wrong for the next calls that match.
    pub fn fault(&self, fault: Fault) -> Hold {
        self.inner.look(|state| state.faults.add(fault))
    }

    /// Ends all faults; what is held goes on.
    pub fn clear_faults(&self) {
        self.inner.look(|state| state.faults.clear());
    }

    /// Takes the whole server down: calls find no connection, and watches end.
    pub fn go_down(&self) {
        self.inner.change(|state| {
            state.down = true;
            state.connections += 1;
        });
    }

    /// Brings the server back with all it held.
    pub fn come_up(&self) {
        self.inner.change(|state| state.down = false);
    }

    /// Ends the watches that are open.
    pub fn drop_watches(&self) {
        self.inner.change(|state| state.connections += 1);
    }

    /// Forgets what led to the present state, so that a watch from an older version is answered 410.
    pub fn compact(&self) {
        self.inner.look(|state| state.store.compact());
    }

    /// The calls so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.look(|state| state.requests.iter().cloned().collect())
    }

    /// Forgets the calls so far.
    pub fn forget_requests(&self) {
        self.inner.look(|state| state.requests.clear());
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.inner.look(|state| state.store.version)
    }

    /// What is held under a name now. The resource is `deployments` or `deployments.apps`, as everywhere here; the
    /// namespace of a kind that has none is ignored.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner.look(|state| {
            let key = Store::key(state.store.kind(resource)?, Some(namespace), name);
            state.store.objects.get(&key).map(|stored| Value::clone(&stored.object))
        })
    }

    /// Everything of a kind.
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.inner.look(|state| {
            let kind = state.store.kind(resource).cloned();
            kind.iter().flat_map(|kind| state.store.all(kind)).map(|(_, stored)| Value::clone(&stored.object)).collect()
        })
    }

    /// Writes an object as it stands, status and all, as somebody else would: creates it, or replaces what is there
    /// whatever its version. Returns it as saved. Faults and outages do not concern it.
    ///
    /// # Panics
    /// If the kind is unknown or the object has no name: a mistake in the test.
    #[track_caller]
    pub fn put(&self, object: Value) -> Value {
        self.inner.change(|state| state.store.put(object))
    }

    /// Merges into an object, status and all, as somebody else would. `None` where there is no such object.
    pub fn merge(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> Option<Value> {
        let mut object = self.object(resource, namespace, name)?;
        patch::merge(&mut object, patch);
        Some(self.put(object))
    }

    /// Removes an object, finalizers or not, and what it owned. Returns whether it was there.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.inner.change(|state| {
            let key = state.store.kind(resource).map(|kind| Store::key(kind, Some(namespace), name));
            let there = key.as_ref().is_some_and(|key| state.store.objects.contains_key(key));
            key.into_iter().for_each(|key| state.store.vanish(key));
            there
        })
    }

    /// From now on Deployments and DaemonSets become ready. Before, their status is what the test writes.
    pub fn run_workloads(&self, readiness: Readiness) {
        self.inner.change(|state| state.controllers.workloads = Some(readiness));
    }

    /// The workload of that name stays unready from its next generation on, wherever it is.
    pub fn hold_back(&self, name: &str) {
        self.inner.change(|state| state.controllers.held_back.insert(name.to_owned()));
    }

    /// The workload of that name becomes ready again like the others.
    pub fn let_go(&self, name: &str) {
        self.inner.change(|state| state.controllers.held_back.remove(name));
    }

    /// From now on a Service that selects has a slice `NAME-slice` with an address for each ready replica.
    pub fn run_endpoint_slices(&self) {
        self.inner.change(|state| state.controllers.slices = true);
    }
}

impl Store {
    #[track_caller]
    fn put(&mut self, mut object: Value) -> Value {
        let kind = self.kind_of(&object).cloned().unwrap_or_else(|| panic!("the server knows the kind of {object}"));
        assert!(!name_of(&object).is_empty(), "an object has a name: {object}");
        let namespace = match text(&object, "namespace") {
            "" => "default".to_owned(),
            given => given.to_owned(),
        };
        let key: Key = Self::key(&kind, Some(&namespace), name_of(&object));
        let old = self.objects.get(&key).cloned();
        let before = old.as_ref().map_or_else(|| json!({}), |stored| Value::clone(&stored.object));
        let metadata = &mut object["metadata"];
        if old.is_some() {
            for field in ["uid", "creationTimestamp", "generation", "managedFields"] {
                set(metadata, field, before["metadata"].get(field));
            }
        } else {
            metadata["uid"] = json!(self.uid());
            metadata["creationTimestamp"] = json!(self.now());
        }
        if kind.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.put_in_place(&kind, key, &before, object)
    }
}

/// The `PartialObjectMetadata` of an object.
fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
