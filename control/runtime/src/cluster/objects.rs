//! What is known of the cluster: every watched object in its newest form, each kind complete before it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kube::core::DynamicObject;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::slice::Slice;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Name {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(object: &impl kube::ResourceExt) -> Self {
        Self::new(&object.namespace().unwrap_or_default(), &object.name_any())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Everything of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    pub(crate) objects: BTreeMap<Name, T>,
    /// What a new list has brought so far; it replaces the old one when it is whole, so that nothing flaps.
    coming: BTreeMap<Name, T>,
    is_complete: bool,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), coming: BTreeMap::new(), is_complete: false }
    }
}

impl<T> Table<T> {
    /// Takes in what a watch brings. Says whether anything that counts has changed.
    pub(crate) fn take(&mut self, event: Change<T>) -> bool {
        match event {
            Change::Set(name, object) => {
                self.objects.insert(name, object);
                true
            }
            Change::Gone(name) => self.objects.remove(&name).is_some(),
            Change::Began => {
                self.coming.clear();
                false
            }
            Change::Listed(name, object) => {
                self.coming.insert(name, object);
                false
            }
            Change::Complete => {
                self.objects = std::mem::take(&mut self.coming);
                self.is_complete = true;
                true
            }
        }
    }
}

/// What a watch brings, for one kind.
#[derive(Debug)]
pub(crate) enum Change<T> {
    Set(Name, T),
    Gone(Name),
    Began,
    Listed(Name, T),
    Complete,
}

/// All kinds.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) canaries: Table<DynamicObject>,
    pub(crate) deployments: Table<DynamicObject>,
    pub(crate) services: Table<DynamicObject>,
    pub(crate) slices: Table<Slice>,
    /// Of the Service behind which the fleet itself is. It may be in a namespace that is not looked at otherwise.
    pub(crate) fleet: Table<Slice>,
}

impl Objects {
    /// Whether every kind was listed once.
    pub(crate) fn is_complete(&self) -> bool {
        self.canaries.is_complete
            && self.deployments.is_complete
            && self.services.is_complete
            && self.slices.is_complete
            && self.fleet.is_complete
    }
}

/// The objects as they are shared by who watches and who reads.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    objects: Arc<Mutex<Objects>>,
    changes: watch::Sender<u64>,
    /// Kinds whose watch is broken off now.
    blind: Arc<Mutex<BTreeSet<String>>>,
    /// All kinds that are watched.
    kinds: Arc<Mutex<BTreeSet<String>>>,
    /// Rises when all watches are to be made anew.
    renewals: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            changes: watch::Sender::new(0),
            blind: Arc::default(),
            kinds: Arc::default(),
            renewals: watch::Sender::new(0),
        }
    }
}

impl Shared {
    /// Looks at the objects. Not to be held over anything that waits.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Objects) -> T) -> T {
        look(&self.objects.lock())
    }

    /// Changes them, and tells those who wait if something has changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Objects) -> bool) {
        if change(&mut self.objects.lock()) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Says whether the watch on a kind works.
    pub(crate) fn sees(&self, kind: &str, works: bool) {
        let mut blind = self.blind.lock();
        let has_changed = if works { blind.remove(kind) } else { blind.insert(kind.to_owned()) };
        if has_changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// A kind is watched from now on. Says when its watch is to be made anew.
    pub(crate) fn watches(&self, kind: &str) -> watch::Receiver<u64> {
        self.kinds.lock().insert(kind.to_owned());
        self.renewals.subscribe()
    }

    /// The API server was away, so a watch may be dead without having said so: each is made anew, and until its new list is whole
    /// its kind is not seen.
    pub(crate) fn renew_watches(&self) {
        self.blind.lock().extend(self.kinds.lock().iter().cloned());
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Whether every watch works, so that what is known is what is so.
    pub(crate) fn is_current(&self) -> bool {
        self.blind.lock().is_empty()
    }

    /// A number that rises with every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A field of an object, by its keys.
pub(crate) fn field<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(*key))
}

/// A whole number in an object.
pub(crate) fn number(value: &Value, path: &[&str]) -> Option<i64> {
    field(value, path)?.as_i64()
}

/// A text in an object.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    field(value, path)?.as_str()
}
