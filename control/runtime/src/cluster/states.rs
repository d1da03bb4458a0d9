//! States in the cluster: one `CanaryState` for each Canary, under the same name. Its resourceVersion is the fence.
//!
//! A write that nobody answered may still arrive. Each one carries who wrote it and which of its writes it is, so that a
//! conflict with one's own late write is told from another writer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_config::{CanaryStateSpec, StateEvent, Writer};
use serin_measure::{BootId, CanaryKey};
use serin_rollout::{Revision, State};
use tokio::sync::{Semaphore, watch};

use super::template::Library;
use super::watch::{canaries, resource};
use crate::store::{EVENTS_SHOWN_MAX, Event, Save, Saved, Store, StoreError, Swap, Version};

/// How long one call may take. An API server that works answers in milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at once: enough to keep up with a thousand canaries, few enough for an API server to bear.
const CALLS_MAX: usize = 16;
/// Bytes of one object. etcd takes 1.5 MiB for a request (its `--max-request-bytes`), and three pod templates are tens of
/// kilobytes.
const OBJECT_BYTES_MAX: usize = 1024 * 1024;
/// The status codes that matter here (Kubernetes API conventions, "HTTP Status codes").
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// The kind.
pub(crate) fn canary_states() -> kube::api::ApiResource {
    resource("serin.dev", "v1alpha1", "CanaryState", "canarystates")
}

/// The events that are kept of one Canary of a name.
#[derive(Clone, Default)]
struct Kept {
    incarnation: String,
    events: Vec<Event>,
}

/// The states of all Canaries of a cluster, or of one namespace.
#[derive(Clone)]
pub(crate) struct States {
    client: Client,
    namespace: Option<String>,
    boot: BootId,
    saves: Arc<AtomicU64>,
    calls: Arc<Semaphore>,
    library: Library,
    /// Events that are saved with each state, as of its last save that is known to have arrived.
    /// Those of another Canary of the name are not this one's.
    events: Arc<parking_lot::Mutex<BTreeMap<CanaryKey, Kept>>>,
    changed: watch::Sender<u64>,
}

impl States {
    pub(crate) fn new(client: Client, namespace: Option<String>, boot: BootId, library: Library) -> Self {
        Self {
            client,
            namespace,
            boot,
            saves: Arc::default(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            library,
            events: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// All states, for listing and watching.
    pub(crate) fn api(&self) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &canary_states()),
            None => Api::all_with(self.client.clone(), &canary_states()),
        }
    }

    /// Forgets what is kept of canaries that are gone.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&CanaryKey) -> bool) {
        self.events.lock().retain(|canary, _| is_there(canary));
    }

    fn of_namespace(&self, canary: &CanaryKey) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), canary.namespace(), &canary_states())
    }

    /// What an object says; nothing of it is believed that cannot be read.
    pub(crate) fn read(&self, object: &DynamicObject) -> Result<Saved, StoreError> {
        let name = object.name_any();
        let damaged = |error: &dyn std::fmt::Display| {
            let mend = "mend it, or delete it and have it written anew";
            StoreError::Unavailable(format!("the CanaryState {name} is damaged, {mend}: {error}"))
        };
        let spec = object.data.get("spec").unwrap_or(&Value::Null);
        let spec = CanaryStateSpec::deserialize(spec).map_err(|error| damaged(&error))?;
        let state = State::deserialize(&spec.state).map_err(|error| damaged(&error))?;
        let templates = Option::<BTreeMap<Revision, Value>>::deserialize(&spec.templates);
        let version = object.resource_version().and_then(|version| version.parse().ok());
        let version = Version(version.ok_or_else(|| damaged(&"its resourceVersion is no number"))?);
        let canary = CanaryKey::new(&object.namespace().unwrap_or_default(), &name);
        self.library.keep_saved(&canary, templates.map_err(|error| damaged(&error))?.unwrap_or_default());
        let events = spec.events.into_iter().map(|StateEvent { at, level, message }| Event {
            at_ms: u64::try_from(at).unwrap_or(0),
            level,
            message,
        });
        Ok(Saved { canary, incarnation: spec.canary_uid, version, state, events: events.collect() })
    }

    async fn save_one(&self, save: Save) -> Result<Swap, StoreError> {
        let _turn = self.calls.acquire().await.map_err(unavailable)?;
        match tokio::time::timeout(CALL_TIMEOUT, self.swap(&save)).await {
            Ok(swap) => {
                self.changed.send_modify(|count| *count += 1);
                swap
            }
            Err(_) => Err(StoreError::Unavailable(format!("the API server did not answer within {CALL_TIMEOUT:?}"))),
        }
    }

    async fn swap(&self, save: &Save) -> Result<Swap, StoreError> {
        let api = self.of_namespace(&save.canary);
        let events = self.events_with(save);
        let object = self.object(save, &events)?;
        let written = match save.expected {
            Some(_) => match api.replace(save.canary.name(), &PostParams::default(), &object).await {
                // Somebody deleted it. What is known of the rollout is here, and a fresh start would forget what serves.
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {
                    let mut anew = object.clone();
                    anew.metadata.resource_version = None;
                    api.create(&PostParams::default(), &anew).await
                }
                written => written,
            },
            None => api.create(&PostParams::default(), &object).await,
        };
        match written {
            Ok(object) => {
                let version = self.read(&object)?.version;
                self.keep(&save.canary, &save.incarnation, events);
                Ok(Swap::Done(version))
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => self.conflict(&api, save).await,
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Somebody wrote since: perhaps this process itself, by a write that it had given up.
    async fn conflict(&self, api: &Api<DynamicObject>, save: &Save) -> Result<Swap, StoreError> {
        let object = api.get(save.canary.name()).await.map_err(unavailable)?;
        let writer = object.data.pointer("/spec/writer").and_then(|writer| Writer::deserialize(writer).ok());
        let is_own = writer.is_some_and(|writer| writer.boot == self.boot.to_string());
        // One that cannot be read is nobody's: it is told of, and only its own Canary waits.
        let saved = self.read(&object)?;
        if saved.incarnation != save.incarnation {
            return Err(self.remove_former(api, save, &object).await);
        }
        if !is_own {
            return Ok(Swap::Stale);
        }
        self.keep(&save.canary, &saved.incarnation, saved.events.clone());
        Ok(Swap::Landed(Box::new(saved)))
    }

    /// Makes way for a state: the one that is there is of another Canary of this name. It goes if its Canary has gone, and the
    /// one to be saved for is here; whoever is late and still acts for a former Canary removes nothing.
    async fn remove_former(&self, api: &Api<DynamicObject>, save: &Save, object: &DynamicObject) -> StoreError {
        let canaries = Api::<DynamicObject>::namespaced_with(self.client.clone(), save.canary.namespace(), &canaries());
        match canaries.get_opt(save.canary.name()).await {
            Ok(Some(present)) if present.uid().as_ref() == Some(&save.incarnation) => {}
            Ok(_) => return StoreError::Unavailable("this Canary was deleted meanwhile, or made anew".to_owned()),
            Err(error) => return unavailable(error),
        }
        let is_it = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        match api.delete(save.canary.name(), &DeleteParams::default().preconditions(is_it)).await {
            Ok(_) => StoreError::Unavailable("the state of a former Canary of this name was deleted first".to_owned()),
            Err(error) => unavailable(error),
        }
    }

    fn keep(&self, canary: &CanaryKey, incarnation: &str, events: Vec<Event>) {
        let kept = Kept { incarnation: incarnation.to_owned(), events };
        self.events.lock().insert(canary.clone(), kept);
    }

    /// The events to be saved with a state: those that were, and what it tells.
    fn events_with(&self, save: &Save) -> Vec<Event> {
        let kept = self.events.lock().get(&save.canary).cloned();
        let of_this_one = kept.filter(|kept| kept.incarnation == save.incarnation);
        let mut events = of_this_one.unwrap_or_default().events;
        events.extend(save.events.iter().cloned());
        let surplus = events.len().saturating_sub(EVENTS_SHOWN_MAX);
        events.drain(..surplus);
        events
    }

    fn object(&self, save: &Save, events: &[Event]) -> Result<DynamicObject, StoreError> {
        let key = &save.canary;
        let templates = self.library.of_state(key, &save.state);
        let templates: serde_json::Map<String, Value> =
            templates.into_iter().map(|(revision, template)| (revision.0, (*template).clone())).collect();
        let as_wire = |event: &Event| StateEvent {
            at: i64::try_from(event.at_ms).unwrap_or(i64::MAX),
            level: event.level.clone(),
            message: event.message.clone(),
        };
        let spec = CanaryStateSpec {
            canary_uid: save.incarnation.clone(),
            writer: Writer { boot: self.boot.to_string(), save: self.saves.fetch_add(1, Ordering::Relaxed) },
            state: serde_json::to_value(&save.state).map_err(unavailable)?,
            templates: templates.into(),
            events: events.iter().map(as_wire).collect(),
        };
        let spec = serde_json::to_value(&spec).map_err(unavailable)?;
        let bytes = spec.to_string().len();
        if bytes > OBJECT_BYTES_MAX {
            let why = format!("the CanaryState of {key} would have {bytes} bytes, {OBJECT_BYTES_MAX} is the most");
            return Err(StoreError::Unavailable(why));
        }
        let mut object = DynamicObject::new(key.name(), &canary_states()).within(key.namespace());
        object.metadata.resource_version = save.expected.map(|version| version.to_string());
        object.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": key.name(), "uid": save.incarnation,
            "controller": true, "blockOwnerDeletion": false,
        }]))
        .ok();
        object.data = json!({ "spec": spec });
        Ok(object)
    }
}

impl Store for States {
    async fn load(&self) -> Result<Vec<Saved>, StoreError> {
        // Without a resourceVersion the answer is as new as the newest write (Kubernetes, "Resource versions").
        let listed = tokio::time::timeout(CALL_TIMEOUT, self.api().list(&ListParams::default())).await;
        let listed = listed.map_err(|_| unavailable("the API server did not answer"))?.map_err(unavailable)?;
        let states: Vec<Saved> = listed
            .items
            .iter()
            .filter_map(|object| {
                self.read(object).inspect_err(|problem| tracing::error!(%problem, "a state cannot be used")).ok()
            })
            .collect();
        states.iter().for_each(|saved| self.keep(&saved.canary, &saved.incarnation, saved.events.clone()));
        Ok(states)
    }

    async fn save(&self, batch: Vec<Save>) -> Vec<Result<Swap, StoreError>> {
        join_all(batch.into_iter().map(|save| self.save_one(save))).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the state cannot be read or written: {error}"))
}

#[cfg(test)]
mod tests;
