//! Names the fields of an object as `managedFields` does, and finds and removes them by those names.
//!
//! Left out: the schemas. Which lists are maps by a key is a table for the built-in kinds; every other list is a leaf
//! that has one owner, as is every list of a custom kind, even where its definition says `x-kubernetes-list-type: map`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Where a field is: `f:spec`, `k:{"name":"app"}`, `v:"finalizer"`, as in `fieldsV1`.
pub(super) type Path = Vec<String>;

/// A set of leaves.
pub(super) type Paths = BTreeSet<Path>;

/// Fields the server itself keeps; nobody owns them (`stripMeta` in structured-merge-diff's users).
const OF_THE_SERVER: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// What distinguishes the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Items {
    /// Nothing: the list is one value.
    Whole,
    /// The items are values, each there once.
    Set,
    /// The items are objects, distinguished by these fields.
    Keyed(&'static [&'static str]),
}

/// How the list at `path` is merged; `custom` for kinds of a definition.
pub(super) fn items(path: &[String], custom: bool) -> Items {
    let last = path.last().map_or("", String::as_str);
    let within = |field: &str| path.iter().any(|step| step == field);
    let metadata = path.len() == 2 && path[0] == "f:metadata";
    match last {
        "f:ownerReferences" if metadata => Items::Keyed(&["uid"]),
        "f:finalizers" if metadata => Items::Set,
        _ if custom => Items::Whole,
        "f:containers" | "f:initContainers" | "f:env" | "f:volumes" | "f:imagePullSecrets" => Items::Keyed(&["name"]),
        "f:volumeMounts" => Items::Keyed(&["mountPath"]),
        "f:conditions" => Items::Keyed(&["type"]),
        "f:ports" if within("f:containers") => Items::Keyed(&["containerPort", "protocol"]),
        "f:ports" if path.len() == 2 && path[0] == "f:spec" => Items::Keyed(&["port", "protocol"]),
        _ => Items::Whole,
    }
}

/// Selectors are replaced as a whole (`x-kubernetes-map-type: atomic`), and so is a reference to an owner.
pub(super) fn is_atomic(path: &[String], custom: bool) -> bool {
    let last = path.last().map_or("", String::as_str);
    let owner = path.len() == 3 && path[1] == "f:ownerReferences";
    owner || (!custom && matches!(last, "f:selector" | "f:nodeSelector"))
}

/// The step that leads to an item of a keyed list.
pub(super) fn key_step(item: &Value, keys: &[&str]) -> String {
    let part = |key: &&str| {
        // The one key field with a default: a port without a protocol is one of TCP.
        let default = if *key == "protocol" { json!("TCP") } else { Value::Null };
        ((*key).to_owned(), item.get(*key).cloned().unwrap_or(default))
    };
    format!("k:{}", Value::Object(keys.iter().map(part).collect::<Map<_, _>>()))
}

/// Every leaf of an object that somebody can own.
pub(super) fn leaves(object: &Value, custom: bool) -> Paths {
    let mut found = Paths::new();
    walk(object, &mut Vec::new(), custom, &mut found);
    found.retain(|path| !is_of_the_server(path));
    found
}

fn is_of_the_server(path: &[String]) -> bool {
    match path {
        [first] => matches!(first.as_str(), "f:apiVersion" | "f:kind" | "f:metadata"),
        [first, second, ..] => first == "f:metadata" && OF_THE_SERVER.iter().any(|field| second[2..] == **field),
        [] => true,
    }
}

fn walk(value: &Value, path: &mut Path, custom: bool, found: &mut Paths) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) if !is_atomic(path, custom) => {
            fields.iter().map(|(name, value)| (format!("f:{name}"), value)).collect()
        }
        Value::Array(list) => match items(path, custom) {
            Items::Whole => Vec::new(),
            Items::Set => list.iter().map(|item| (format!("v:{item}"), &Value::Null)).collect(),
            Items::Keyed(keys) => list.iter().map(|item| (key_step(item, keys), item)).collect(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    };
    if below.is_empty() {
        found.insert(path.clone());
    }
    for (step, value) in below {
        path.push(step);
        walk(value, path, custom, found);
        path.pop();
    }
}

/// The value at a path.
pub(super) fn at<'a>(object: &'a Value, path: &[String], custom: bool) -> Option<&'a Value> {
    let mut value = object;
    for (depth, step) in path.iter().enumerate() {
        value = match step.split_at(2) {
            ("f:", name) => value.get(name)?,
            _ => {
                let index = index_of(value, &path[..depth], step, custom)?;
                value.get(index)?
            }
        };
    }
    Some(value)
}

fn index_of(list: &Value, path: &[String], step: &str, custom: bool) -> Option<usize> {
    let same = |item: &Value| match items(path, custom) {
        Items::Whole => false,
        Items::Set => format!("v:{item}") == step,
        Items::Keyed(keys) => key_step(item, keys) == step,
    };
    list.as_array()?.iter().position(same)
}

/// Takes leaves out of an object, and what becomes empty by that. The keys of an item go last, with the item.
pub(super) fn remove(object: &mut Value, paths: &Paths, custom: bool) {
    let is_key = |path: &Path| {
        path.len() > 1 && path[path.len() - 2].starts_with("k:{") && {
            let list = &path[..path.len() - 2];
            matches!(items(list, custom), Items::Keyed(keys) if keys.contains(&&path[path.len() - 1][2..]))
        }
    };
    let (keys, others): (Vec<&Path>, Vec<&Path>) = paths.iter().partition(|path| is_key(path));
    for path in others {
        remove_one(object, path, 0, custom);
    }
    for path in keys {
        let item = &path[..path.len() - 1];
        let Items::Keyed(fields) = items(&item[..item.len() - 1], custom) else { continue };
        let bare = at(object, item, custom)
            .and_then(Value::as_object)
            .is_some_and(|left| left.keys().all(|name| fields.contains(&name.as_str())));
        if bare {
            remove_one(object, item, 0, custom);
        }
    }
}

/// Returns whether the value has become empty and should go too.
fn remove_one(value: &mut Value, path: &[String], depth: usize, custom: bool) -> bool {
    let Some(step) = path.get(depth) else { return true };
    match step.split_at(2) {
        ("f:", name) => {
            let Some(fields) = value.as_object_mut() else { return false };
            let empty = fields.get_mut(name).is_some_and(|below| remove_one(below, path, depth + 1, custom));
            if empty {
                fields.remove(name);
            }
            empty && fields.is_empty() && depth > 0
        }
        _ => {
            let Some(index) = index_of(value, &path[..depth], step, custom) else { return false };
            let Some(list) = value.as_array_mut() else { return false };
            if remove_one(&mut list[index], path, depth + 1, custom) {
                list.remove(index);
            }
            list.is_empty()
        }
    }
}

/// Whether one path is the other or leads to it.
pub(super) fn overlap(one: &[String], other: &[String]) -> bool {
    let shorter = one.len().min(other.len());
    one[..shorter] == other[..shorter]
}

/// `fieldsV1` as the server shows it, without its `.` entries.
pub(super) fn rendered(paths: &Paths) -> Value {
    let mut root = json!({});
    for path in paths {
        let mut value = &mut root;
        for step in path {
            value = &mut value[step.as_str()];
            if value.is_null() {
                *value = json!({});
            }
        }
    }
    root
}

/// A path as messages of the server write it: `.spec.replicas`.
pub(super) fn shown(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_at(2) {
            ("f:", name) => format!(".{name}"),
            (_, key) => format!("[{key}]"),
        })
        .collect()
}
