//! Carries out deletions: preconditions, finalizers, and the collection of what the deleted object owned.
//!
//! The propagation policy is ignored. What is owned goes in the same moment as its last owner, where the real garbage
//! collector takes a second or two, and an object that is created under an owner that is already gone stays.

use serde_json::{Value, json};

use super::call::Call;
use super::failure::Failure;
use super::guard::check_preconditions;
use super::kinds::Kind;
use super::owners;
use super::selector::Selector;
use super::store::{Key, Store};
use super::write::{Done, finalizers, is_terminating, name_of, text};

impl Store {
    pub(super) fn delete(&mut self, call: &Call) -> Result<Done, Failure> {
        let (options, kind, name) = (call.body_or_null()?, &call.kind, call.name());
        let key = Self::key(kind, call.namespace.as_deref(), name);
        let object = &self.objects.get(&key).ok_or_else(|| Failure::not_found(kind, name))?.object;
        let asked = |field: &str| options["preconditions"][field].as_str();
        check_preconditions(kind, name, object, asked("uid"), asked("resourceVersion"))?;
        if call.dry_run || options["dryRun"].is_array() {
            return Ok(Done { code: 200, body: Value::clone(object) });
        }
        Ok(Done { code: 200, body: self.dismiss(kind, key) })
    }

    pub(super) fn delete_collection(&mut self, call: &Call) -> Result<Done, Failure> {
        let selector = Selector::parse(call.option("labelSelector"), call.option("fieldSelector"))?;
        let list = self.list(call)?;
        for object in self.chosen(call, &selector) {
            let key = Self::key(&call.kind, Some(text(&object, "namespace")), name_of(&object));
            self.dismiss(&call.kind, key);
        }
        Ok(Done { code: 200, body: list })
    }

    /// Removes an object, or marks it where finalizers hold it, and returns what a DELETE answers.
    fn dismiss(&mut self, kind: &Kind, key: Key) -> Value {
        let Some(stored) = self.objects.get(&key).cloned() else { return Value::Null };
        if finalizers(&stored.object).is_empty() {
            self.vanish(key);
            if kind.rules.delete_returns {
                return Value::clone(&stored.object);
            }
            let (name, uid) = (name_of(&stored.object), text(&stored.object, "uid"));
            return json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid},
            });
        }
        if is_terminating(&stored.object) {
            return Value::clone(&stored.object);
        }
        let mut object = Value::clone(&stored.object);
        object["metadata"]["deletionTimestamp"] = json!(self.now());
        object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        // `markAsDeleting` raises it, so that a controller that compares generations notices.
        if let Some(generation) = object["metadata"]["generation"].as_u64() {
            object["metadata"]["generation"] = json!(generation + 1);
        }
        Value::clone(&self.save(key, object, stored.owners))
    }

    /// Removes an object for good, then what it was the last owner of.
    pub(super) fn vanish(&mut self, key: Key) {
        let Some(last) = self.erase(key) else { return };
        let gone = text(&last, "uid").to_owned();
        let owned: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, stored)| owner_uids(&stored.object).contains(&gone.as_str()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in owned {
            self.release(key, &gone);
        }
    }

    /// Takes a gone owner off an object, or the object away where no other owner is left.
    fn release(&mut self, key: Key, gone: &str) {
        let Some(stored) = self.objects.get(&key).cloned() else { return };
        let others = owner_uids(&stored.object);
        let kept = self.objects.values().any(|there| {
            let uid = text(&there.object, "uid");
            uid != gone && others.contains(&uid)
        });
        let kind = self.kinds.iter().find(|kind| kind.qualified() == key.resource).cloned();
        match kind {
            Some(kind) if !kept => drop(self.dismiss(&kind, key)),
            Some(_) | None => {
                let mut object = Value::clone(&stored.object);
                if let Some(list) = object["metadata"]["ownerReferences"].as_array_mut() {
                    list.retain(|owner| owner["uid"] != gone);
                }
                let mut owners = stored.owners;
                let step = format!("k:{}", json!({"uid": gone}));
                owners.iter_mut().for_each(|owner| owner.paths.retain(|path| !path.contains(&step)));
                object["metadata"]["managedFields"] = owners::rendered(&owners);
                self.save(key, object, owners);
            }
        }
    }
}

fn owner_uids(object: &Value) -> Vec<&str> {
    let list = object["metadata"].get("ownerReferences").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|owner| owner["uid"].as_str()).collect()
}
