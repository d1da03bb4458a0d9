//! Carries out what changes an object: create, replace, patch and delete, with the server's rules for each.
//!
//! Follows `apiserver/pkg/registry/generic/registry/store.go` and `rest/update.go` of 1.37. Left out: admission,
//! validation of what a manifest says, most defaults (see `defaults`), and grace periods: a pod is gone at once.

use serde_json::{Value, json};

use super::call::{Call, PatchSort};
use super::defaults;
use super::failure::Failure;
use super::fields::{Paths, leaves};
use super::guard::{check_identity, check_immutable, check_preconditions, guarded, with_generation};
use super::kinds::{Generation, Kind};
use super::owners::{self, Applied, Operation, Owner};
use super::patch;
use super::store::{Key, Store, Stored};

/// An answer that is no failure.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) code: u16,
    pub(super) body: Value,
}

/// A write that is decided but not saved.
struct Draft {
    object: Value,
    owners: Vec<Owner>,
}

fn done(code: u16, body: Value) -> Done {
    Done { code, body }
}

impl Store {
    pub(super) fn create(&mut self, call: &Call) -> Result<Done, Failure> {
        let body = call.body()?;
        if call.kind.namespaced && call.namespace.is_none() {
            return Err(Failure::method_not_allowed());
        }
        let draft = self.draft_new(call, body, None)?;
        let key = Self::key(&call.kind, call.namespace.as_deref(), name_of(&draft.object));
        if let Some(there) = self.objects.get(&key) {
            return Err(Failure::already_exists(&call.kind, &key.name, is_terminating(&there.object)));
        }
        Ok(done(201, self.keep(call, key, draft)))
    }

    pub(super) fn replace(&mut self, call: &Call) -> Result<Done, Failure> {
        let (body, kind, name) = (call.body()?, &call.kind, call.name());
        check_identity(call, &body)?;
        let key = Self::key(kind, call.namespace.as_deref(), name);
        let (uid, version) = (text(&body, "uid"), text(&body, "resourceVersion"));
        let Some(old) = self.objects.get(&key).cloned() else {
            if !kind.rules.put_creates || call.subresource.is_some() {
                return Err(Failure::not_found(kind, name));
            }
            if !uid.is_empty() {
                let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
                return Err(Failure::conflict(kind, name, &why));
            }
            let draft = self.draft_new(call, body, None)?;
            return Ok(done(201, self.keep(call, key, draft)));
        };
        check_preconditions(kind, name, &old.object, Some(uid).filter(|uid| !uid.is_empty()), None)?;
        if version.is_empty() && !kind.rules.put_unconditional {
            let why = "Invalid value: 0: must be specified for an update";
            return Err(Failure::invalid(kind, name, "metadata.resourceVersion", why));
        }
        if !version.is_empty() && version != text(&old.object, "resourceVersion") {
            return Err(Failure::stale(kind, name));
        }
        self.update(call, key, &old, body, None)
    }

    pub(super) fn patch(&mut self, call: &Call, sort: PatchSort) -> Result<Done, Failure> {
        let (body, kind, name) = (call.body()?, &call.kind, call.name());
        let key = Self::key(kind, call.namespace.as_deref(), name);
        let old = self.objects.get(&key).cloned();
        if sort == PatchSort::Apply {
            return self.apply(call, key, old, body);
        }
        let old = old.ok_or_else(|| Failure::not_found(kind, name))?;
        let mut new = Value::clone(&old.object);
        match sort {
            PatchSort::Merge if !body.is_object() => return Err(Failure::bad_request("a merge patch is an object")),
            PatchSort::Merge => patch::merge(&mut new, &body),
            PatchSort::Json => patch::json(&mut new, &body).map_err(|error| error.failure(kind, name))?,
            PatchSort::Strategic => patch::strategic(&mut new, &body, &mut Vec::new()),
            PatchSort::Apply => unreachable!("an apply has returned above"),
        }
        check_identity(call, &new)?;
        if text(&new, "resourceVersion") != text(&old.object, "resourceVersion") {
            return Err(Failure::stale(kind, name));
        }
        self.update(call, key, &old, new, None)
    }

    fn apply(&mut self, call: &Call, key: Key, old: Option<Stored>, config: Value) -> Result<Done, Failure> {
        let (kind, name) = (&call.kind, call.name());
        if !call.manager_given() {
            let why = "Required value: is required for apply patch";
            return Err(Failure::invalid(&patch_options(), "", "fieldManager", why));
        }
        if config["apiVersion"] != kind.api_version() || config["kind"] != kind.kind {
            return Err(Failure::bad_request("apiVersion and kind of an apply have to be those of the path"));
        }
        if config["metadata"]
            .get("managedFields")
            .is_some_and(|fields| fields.as_array().is_some_and(|list| !list.is_empty()))
        {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        check_identity(call, &config)?;
        let (uid, version) = (text(&config, "uid").to_owned(), text(&config, "resourceVersion").to_owned());
        let mut config = within_reach(call, defaults::keys_of_ports(config));
        let owner = self.owner(call, Operation::Apply, &config);
        let Some(old) = old else {
            if call.subresource.is_some() {
                return Err(Failure::not_found(kind, name));
            }
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Failure::conflict(kind, name, &why));
            }
            config["metadata"]["name"] = json!(name);
            let draft = self.draft_new(call, config, Some(owner))?;
            return Ok(done(201, self.keep(call, key, draft)));
        };
        if !version.is_empty() && version != text(&old.object, "resourceVersion") {
            return Err(Failure::stale(kind, name));
        }
        let Applied { object, owners } =
            owners::apply(&old.owners, &old.object, &config, owner, call.force, kind.rules.custom)
                .map_err(|conflicts| Failure::owned_by_others(kind, name, &conflicts))?;
        self.update(call, key, &old, object, Some(owners))
    }

    /// Decides on what replaces `old` and saves it. `owners` are given by an apply, which decides on them itself.
    fn update(
        &mut self,
        call: &Call,
        key: Key,
        old: &Stored,
        new: Value,
        owners: Option<Vec<Owner>>,
    ) -> Result<Done, Failure> {
        let kind = &call.kind;
        let new = guarded(call, &old.object, new);
        check_immutable(kind, &old.object, &new)?;
        let object = with_generation(kind, call.on_status(), &old.object, defaults::completed(kind, new, None));
        let owners = owners.unwrap_or_else(|| {
            let writer = Owner { paths: Paths::new(), ..self.owner(call, Operation::Update, &json!({})) };
            owners::updated(&old.owners, &old.object, &object, writer, kind.rules.custom)
        });
        if without_managed(&object) == without_managed(&old.object) && owners::same(&owners, &old.owners) {
            return Ok(done(200, Value::clone(&old.object)));
        }
        if is_terminating(&object) && finalizers(&object).is_empty() {
            // What the caller gets back is the object as it wanted it, though it is gone.
            if !call.dry_run {
                self.vanish(key);
            }
            return Ok(done(200, object));
        }
        Ok(done(200, self.keep(call, key, Draft { object, owners })))
    }

    /// An object that is not there yet, as it would be saved.
    fn draft_new(&mut self, call: &Call, mut object: Value, applied: Option<Owner>) -> Result<Draft, Failure> {
        let kind = &call.kind;
        if !object.is_object() || object.get("kind").is_some_and(|given| *given != kind.kind) {
            return Err(Failure::bad_request(format!("the object provided is no {}", kind.kind)));
        }
        object["kind"] = json!(kind.kind);
        object["apiVersion"] = json!(kind.api_version());
        let given = text(&object, "namespace");
        if kind.namespaced && !given.is_empty() && Some(given) != call.namespace.as_deref() {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !text(&object, "resourceVersion").is_empty() && applied.is_none() && call.name.is_none() {
            // `storage.ErrResourceVersionSetOnCreate` is turned into no API error.
            return Err(Failure::unknown("resourceVersion should not be set on objects to be created"));
        }
        self.name(kind, &mut object)?;
        let uid = self.uid();
        let now = self.now();
        let metadata = object["metadata"].as_object_mut().expect("naming it made metadata");
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "generation",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(now));
        if let Some(namespace) = call.namespace.as_deref().filter(|_| kind.namespaced) {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        if kind.rules.generation != Generation::None {
            metadata.insert("generation".to_owned(), json!(1));
        }
        if kind.status {
            object.as_object_mut().expect("checked above").remove("status");
        }
        let address = self.serial();
        let object = defaults::completed(kind, object, Some(address));
        let owners = match applied {
            Some(owner) => vec![owner],
            None => {
                let writer = self.owner(call, Operation::Update, &json!({}));
                owners::updated(&[], &json!({}), &object, writer, kind.rules.custom)
            }
        };
        Ok(Draft { object, owners })
    }

    /// Saves what a test puts there in place of `before`, if it differs.
    pub(super) fn put_in_place(&mut self, kind: &Kind, key: Key, before: &Value, object: Value) -> Value {
        let address = before.get("metadata").is_none().then(|| self.serial());
        let status = object.get("status").cloned();
        let mut object = defaults::completed(kind, object, address);
        if status.is_some() {
            set(&mut object, "status", status.as_ref());
        }
        if address.is_none() {
            object = with_generation(kind, false, before, object);
        } else if kind.rules.generation != Generation::None {
            object["metadata"]["generation"] = json!(1);
        }
        set(&mut object["metadata"], "resourceVersion", before["metadata"].get("resourceVersion"));
        if object == *before {
            return object;
        }
        let owners = self.objects.get(&key).map(|stored| stored.owners.clone()).unwrap_or_default();
        let writer = Owner {
            manager: "somebody-else".to_owned(),
            operation: Operation::Update,
            subresource: None,
            api_version: kind.api_version(),
            time: self.now(),
            paths: Paths::new(),
        };
        let owners = owners::updated(&owners, before, &object, writer, kind.rules.custom);
        object["metadata"]["managedFields"] = owners::rendered(&owners);
        Value::clone(&self.save(key, object, owners))
    }

    fn name(&mut self, kind: &Kind, object: &mut Value) -> Result<(), Failure> {
        if text(object, "name").is_empty() {
            let prefix = text(object, "generateName").to_owned();
            if prefix.is_empty() {
                return Err(Failure::invalid(
                    kind,
                    "",
                    "metadata.name",
                    "Required value: name or generateName is required",
                ));
            }
            // The alphabet of the real server, which has no vowels, so as to generate no words.
            let alphabet: Vec<char> = "bcdfghjklmnpqrstvwxz2456789".chars().collect();
            let mut number = usize::try_from(self.serial()).unwrap_or(usize::MAX);
            let mut suffix = String::new();
            for _ in 0..5 {
                suffix.insert(0, alphabet[number % alphabet.len()]);
                number /= alphabet.len();
            }
            object["metadata"]["name"] = json!(format!("{prefix}{suffix}"));
        }
        let name = name_of(object);
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if name.len() > 253 || !name.bytes().all(fits) || name.starts_with(['-', '.']) || name.ends_with(['-', '.']) {
            let why = format!(
                "Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.'"
            );
            return Err(Failure::invalid(kind, name, "metadata.name", &why));
        }
        Ok(())
    }

    fn owner(&self, call: &Call, operation: Operation, config: &Value) -> Owner {
        Owner {
            manager: call.manager.clone(),
            operation,
            subresource: call.subresource.clone(),
            api_version: call.kind.api_version(),
            time: self.now(),
            paths: leaves(config, call.kind.rules.custom),
        }
    }

    /// Saves a draft, unless the call is a dry run, and returns it as saved.
    fn keep(&mut self, call: &Call, key: Key, draft: Draft) -> Value {
        let Draft { mut object, owners } = draft;
        object["metadata"]["managedFields"] = owners::rendered(&owners);
        if call.dry_run { object } else { Value::clone(&self.save(key, object, owners)) }
    }
}

/// The kind that the server names when the options of a patch are wrong.
fn patch_options() -> Kind {
    Kind::custom("meta.k8s.io", "v1", "patchoptions", "PatchOptions")
}

/// Of an applied object, what the call can reach: status through its subresource and nothing else, or all but status.
fn within_reach(call: &Call, mut config: Value) -> Value {
    if let Some(fields) = config.as_object_mut().filter(|_| call.kind.status) {
        if call.on_status() {
            fields.retain(|name, _| name == "status");
        } else {
            fields.remove("status");
        }
    }
    config
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    set(&mut object["metadata"], "managedFields", None);
    object
}

/// Sets a field, or removes it.
pub(super) fn set(object: &mut Value, field: &str, value: Option<&Value>) {
    match (value, object.as_object_mut()) {
        (Some(value), _) => object[field] = value.clone(),
        (None, Some(fields)) => drop(fields.remove(field)),
        (None, None) => {}
    }
}

/// A text of `metadata`; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"].get(field).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn name_of(object: &Value) -> &str {
    text(object, "name")
}

pub(super) fn is_terminating(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"].get("finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}
