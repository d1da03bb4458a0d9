//! What the server holds: objects, the changes that led to them, and one counter that numbers every change.
//!
//! Reads and lists are here, writes in `write`. Nothing here waits; whoever holds the lock sees one moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::failure::Failure;
use super::kinds::{self, Kind};
use super::owners::Owner;
use super::selector::Selector;

/// Changes kept for watches that continue from a version. Beyond it the oldest go and such a watch is answered 410, so
/// a test that runs for days of paused time stays small.
const HISTORY_CHANGES_MAX: usize = 20_000;

/// Lists kept for their next page; an older one expires, as a continue token of the real server does after minutes.
const PAGED_LISTS_MAX: usize = 16;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The qualified plural, such as `deployments.apps`.
    pub(super) resource: String,
    /// Empty for what is in no namespace.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// An object and who owns its fields.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) object: Arc<Value>,
    pub(super) owners: Vec<Owner>,
}

/// One step from one version to the next.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    /// After a deletion, the last state under the version of the deletion.
    pub(super) after: Arc<Value>,
    pub(super) deleted: bool,
}

#[derive(Debug)]
struct PagedList {
    token: u64,
    version: u64,
    items: Vec<Value>,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) kinds: Vec<Kind>,
    pub(super) objects: BTreeMap<Key, Stored>,
    pub(super) history: VecDeque<Change>,
    /// The version of the last change.
    pub(super) version: u64,
    /// The last version a watch cannot continue from any more.
    pub(super) compacted: u64,
    serial: u64,
    paged: VecDeque<PagedList>,
    started: (Timestamp, Instant),
}

impl Store {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            kinds: kinds::known(),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            // Not 0, which in a request means "any".
            version: 1,
            compacted: 0,
            serial: 0,
            paged: VecDeque::new(),
            started: (now, Instant::now()),
        }
    }

    /// The time by tokio's clock, so that it stands still and jumps with the test's.
    pub(super) fn now(&self) -> String {
        let (then, started) = self.started;
        let now = then.checked_add(started.elapsed()).unwrap_or(Timestamp::MAX);
        now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// A number nobody had before.
    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn uid(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.serial())
    }

    pub(super) fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.answers_to(name))
    }

    pub(super) fn kind_of(&self, object: &Value) -> Option<&Kind> {
        self.kinds.iter().find(|kind| object["kind"] == kind.kind && object["apiVersion"] == kind.api_version())
    }

    pub(super) fn key(kind: &Kind, namespace: Option<&str>, name: &str) -> Key {
        let namespace = if kind.namespaced { namespace.unwrap_or("") } else { "" };
        Key { resource: kind.qualified(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Objects of a kind, in the order of a list.
    pub(super) fn all<'a>(&'a self, kind: &Kind) -> impl Iterator<Item = (&'a Key, &'a Stored)> + use<'a> {
        let resource = kind.qualified();
        self.objects.iter().filter(move |(key, _)| key.resource == resource)
    }

    /// Saves what is at a key under a new version, and returns it as saved.
    pub(super) fn save(&mut self, key: Key, mut object: Value, owners: Vec<Owner>) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let stored = Stored { object: Arc::clone(&object), owners };
        let before = self.objects.insert(key.clone(), stored).map(|stored| stored.object);
        self.remember(Change { version: self.version, key, before, after: Arc::clone(&object), deleted: false });
        object
    }

    /// Removes what is at a key, and returns its last state under the version of the removal.
    pub(super) fn erase(&mut self, key: Key) -> Option<Arc<Value>> {
        let stored = self.objects.remove(&key)?;
        self.version += 1;
        let mut last = Value::clone(&stored.object);
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        let after = Arc::clone(&last);
        self.remember(Change { version: self.version, key, before: Some(stored.object), after, deleted: true });
        Some(last)
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > HISTORY_CHANGES_MAX {
            self.compacted = self.history.pop_front().map_or(self.compacted, |change| change.version);
        }
    }

    /// Forgets every change, so that a watch from an older version is answered 410.
    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.paged.clear();
        self.compacted = self.version;
    }

    pub(super) fn get(&self, call: &Call) -> Result<Value, Failure> {
        let key = Self::key(&call.kind, call.namespace.as_deref(), call.name());
        let stored = self.objects.get(&key).ok_or_else(|| Failure::not_found(&call.kind, call.name()))?;
        Ok(Value::clone(&stored.object))
    }

    pub(super) fn list(&mut self, call: &Call) -> Result<Value, Failure> {
        let limit = call.option("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
        if let Some(token) = call.option("continue") {
            let malformed = || Failure::bad_request("continue key is not valid");
            let (token, from) = token.split_once('-').ok_or_else(malformed)?;
            let (token, from) = (token.parse::<u64>().ok(), from.parse::<usize>().map_err(|_| malformed())?);
            let gone = "The provided continue parameter is too old to display a consistent list result.";
            let list =
                self.paged.iter().find(|list| Some(list.token) == token).ok_or_else(|| Failure::expired(gone))?;
            return Ok(page(&call.kind, list, from, limit, false));
        }
        let asked = call.option("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
        if asked > self.version {
            return Err(Failure::too_large_version(asked, self.version));
        }
        if call.option("resourceVersionMatch") == Some("Exact") && asked < self.version {
            // The real server could serve it until it compacts; nothing of ours asks for that.
            return Err(Failure::expired(format!("The provided resource version {asked} is too old.")));
        }
        let selector = Selector::parse(call.option("labelSelector"), call.option("fieldSelector"))?;
        let items: Vec<Value> = self.chosen(call, &selector).iter().map(|object| Value::clone(object)).collect();
        let list = PagedList { token: self.serial(), version: self.version, items };
        let answer = page(&call.kind, &list, 0, limit, selector.is_empty());
        if limit.is_some_and(|limit| limit < list.items.len()) {
            self.paged.push_back(list);
            self.paged.drain(..self.paged.len().saturating_sub(PAGED_LISTS_MAX));
        }
        Ok(answer)
    }

    /// The objects a list or watch is about, as they are now.
    pub(super) fn chosen(&self, call: &Call, selector: &Selector) -> Vec<Arc<Value>> {
        self.all(&call.kind)
            .filter(|(key, _)| is_within(key, call))
            .map(|(_, stored)| &stored.object)
            .filter(|object| selector.chooses(object))
            .map(Arc::clone)
            .collect()
    }
}

/// Whether a key is in the namespace of a call, and is its name where it has one.
pub(super) fn is_within(key: &Key, call: &Call) -> bool {
    let here = call.namespace.as_deref().is_none_or(|namespace| namespace == key.namespace);
    here && call.name.as_deref().is_none_or(|name| name == key.name)
}

fn page(kind: &Kind, list: &PagedList, from: usize, limit: Option<usize>, counted: bool) -> Value {
    let end = limit.map_or(list.items.len(), |limit| list.items.len().min(from + limit));
    let mut items = list.items.get(from..end).unwrap_or_default().to_vec();
    if !kind.rules.custom {
        // Items of built-in kinds do not repeat what the list says.
        for fields in items.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
    }
    let mut metadata = json!({"resourceVersion": list.version.to_string()});
    if end < list.items.len() {
        metadata["continue"] = json!(format!("{}-{end}", list.token));
        if counted {
            metadata["remainingItemCount"] = json!(list.items.len() - end);
        }
    }
    let name = format!("{}List", kind.kind);
    json!({"kind": name, "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
}
