//! What a write may change: values in, values out.
//!
//! Follows `apiserver/pkg/registry/rest/update.go` and the strategies of the kinds.

use serde_json::{Value, json};

use super::call::Call;
use super::failure::Failure;
use super::kinds::{Generation, Kind};
use super::write::{finalizers, is_terminating, name_of, set, text};

/// What a caller may change of `old`: status through its subresource, the rest through the main resource, and never
/// what the server keeps itself.
pub(super) fn guarded(call: &Call, old: &Value, mut new: Value) -> Value {
    if call.on_status() {
        // As the real one for custom kinds; for the built-in ones it would let through some metadata.
        let mut kept = old.clone();
        set(&mut kept, "status", new.get("status"));
        return kept;
    }
    if call.kind.status {
        set(&mut new, "status", old.get("status"));
    }
    new["kind"] = old["kind"].clone();
    new["apiVersion"] = old["apiVersion"].clone();
    let kept = ["name", "namespace", "creationTimestamp", "generation", "resourceVersion", "managedFields"];
    for field in kept.into_iter().chain(["deletionTimestamp", "deletionGracePeriodSeconds"]) {
        set(&mut new["metadata"], field, old["metadata"].get(field));
    }
    if text(&new, "uid").is_empty() {
        set(&mut new["metadata"], "uid", old["metadata"].get("uid"));
    }
    if call.kind.qualified() == "services" && new["spec"]["type"] != "ExternalName" {
        // What was allocated is kept where a caller that replaces the whole does not mention it.
        for field in ["clusterIP", "clusterIPs"] {
            if new["spec"].get(field).is_none() {
                set(&mut new["spec"], field, old["spec"].get(field));
            }
        }
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = new["metadata"].get(field).is_some_and(|value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.is_null(),
        });
        if empty {
            set(&mut new["metadata"], field, None);
        }
    }
    new
}

pub(super) fn check_immutable(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let name = name_of(old);
    if text(new, "uid") != text(old, "uid") {
        let why = format!("Invalid value: \"{}\": field is immutable", text(new, "uid"));
        return Err(Failure::invalid(kind, name, "metadata.uid", &why));
    }
    let added = finalizers(new).iter().any(|finalizer| !finalizers(old).contains(finalizer));
    if is_terminating(old) && added {
        let why = "Forbidden: no new finalizers can be added if the object is being deleted";
        return Err(Failure::invalid(kind, name, "metadata.finalizers", why));
    }
    let selects = kind.group == "apps" && old["spec"].get("selector").is_some();
    if selects && old["spec"]["selector"] != new["spec"]["selector"] {
        return Err(Failure::invalid(kind, name, "spec.selector", "field is immutable"));
    }
    Ok(())
}

pub(super) fn with_generation(kind: &Kind, on_status: bool, old: &Value, mut new: Value) -> Value {
    let differ = |field: &str| old.get(field) != new.get(field);
    let meta = |field: &str| old["metadata"].get(field) != new["metadata"].get(field);
    let body = || {
        let names = old.as_object().into_iter().chain(new.as_object()).flat_map(|fields| fields.keys());
        names.filter(|name| *name != "metadata" && !(kind.status && *name == "status")).any(|name| differ(name))
    };
    let raised = match kind.rules.generation {
        Generation::None => false,
        Generation::Spec => differ("spec"),
        Generation::SpecOrAnnotations => differ("spec") || meta("annotations"),
        Generation::BodyOrLabels => body() || meta("labels"),
        Generation::Body => body(),
    };
    if raised && !on_status {
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
    new
}

/// The name and the namespace in a body have to be those of the path, where it says any.
pub(super) fn check_identity(call: &Call, body: &Value) -> Result<(), Failure> {
    let (name, namespace) = (name_of(body), text(body, "namespace"));
    if !name.is_empty() && name != call.name() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    if call.kind.namespaced && !namespace.is_empty() && Some(namespace) != call.namespace.as_deref() {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

pub(super) fn check_preconditions(
    kind: &Kind,
    name: &str,
    object: &Value,
    uid: Option<&str>,
    version: Option<&str>,
) -> Result<(), Failure> {
    let mismatch = |what: &str, asked: &str, there: &str| {
        Failure::conflict(
            kind,
            name,
            &format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {there}"),
        )
    };
    let (uid_there, version_there) = (text(object, "uid"), text(object, "resourceVersion"));
    if let Some(uid) = uid.filter(|uid| *uid != uid_there) {
        return Err(mismatch("UID", uid, uid_there));
    }
    if let Some(version) = version.filter(|version| *version != version_there) {
        return Err(mismatch("ResourceVersion", version, version_there));
    }
    Ok(())
}
