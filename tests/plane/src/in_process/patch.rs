//! Patches without owners: JSON merge patch (RFC 7396), JSON patch (RFC 6902), and strategic merge.
//!
//! Strategic merge is a merge patch whose lists of containers, ports, conditions and the like are merged by their keys.
//! Of its directives only `$patch: delete` on an item is honoured; `$setElementOrder`, `$retainKeys` and
//! `$deleteFromPrimitiveList` are ignored.

use serde_json::Value;

use super::failure::Failure;
use super::fields::{Items, Path, items, key_step};

/// Merges as RFC 7396 says: objects field by field, null removes, anything else replaces.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("made an object above").remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// Merges lists by their keys where they have some.
pub(super) fn strategic(target: &mut Value, patch: &Value, path: &mut Path) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('$')) {
                if value.is_null() {
                    target.as_object_mut().expect("made an object above").remove(name);
                    continue;
                }
                path.push(format!("f:{name}"));
                strategic(&mut target[name.as_str()], value, path);
                path.pop();
            }
        }
        Value::Array(patches) => match (items(path, false), target.as_array_mut()) {
            (Items::Keyed(keys), Some(list)) => strategic_list(list, patches, keys, path),
            (Items::Set, Some(list)) => {
                let added: Vec<Value> = patches.iter().filter(|item| !list.contains(item)).cloned().collect();
                list.extend(added);
            }
            (Items::Keyed(_) | Items::Set | Items::Whole, _) => *target = patch.clone(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *target = patch.clone(),
    }
}

fn strategic_list(list: &mut Vec<Value>, patches: &[Value], keys: &[&str], path: &mut Path) {
    // Strategic merge knows one key for each list, the first: a patch of a port need not say its protocol.
    let keys = &keys[..1];
    for patch in patches {
        let step = key_step(patch, keys);
        let found = list.iter().position(|item| key_step(item, keys) == step);
        match (found, patch["$patch"] == "delete") {
            (Some(index), true) => drop(list.remove(index)),
            (None, true) => {}
            (Some(index), false) => {
                path.push(step);
                strategic(&mut list[index], patch, path);
                path.pop();
            }
            (None, false) => list.push(patch.clone()),
        }
    }
}

/// Carries out the operations of a JSON patch in order; the first that cannot be carried out fails the whole.
pub(super) fn json(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let operations = patch.as_array().ok_or(JsonPatchError::NoList)?;
    for operation in operations {
        let text = |key: &str| operation.get(key).and_then(Value::as_str);
        let path = text("path").ok_or(JsonPatchError::NoPath)?;
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        let missing = || JsonPatchError::Missing(path.to_owned());
        match text("op") {
            Some("add") => add(target, path, value()).ok_or_else(missing)?,
            Some("remove") => drop(take(target, path).ok_or_else(missing)?),
            Some("replace") => replace(target, path, value()).ok_or_else(missing)?,
            Some("test") => {
                if target.pointer(path) != Some(&value()) {
                    return Err(JsonPatchError::Test(path.to_owned()));
                }
            }
            Some("copy" | "move") | Some(_) | None => {
                return Err(JsonPatchError::Operation(text("op").unwrap_or("").to_owned()));
            }
        }
    }
    Ok(())
}

/// Why a JSON patch was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JsonPatchError {
    NoList,
    NoPath,
    Missing(String),
    Test(String),
    Operation(String),
}

impl JsonPatchError {
    /// As the real server answers: 400 for what is no patch, 422 for one that cannot be carried out.
    pub(super) fn failure(&self, kind: &super::kinds::Kind, name: &str) -> Failure {
        match self {
            Self::NoList => Failure::bad_request("a JSON patch is a list of operations"),
            Self::NoPath => Failure::bad_request("an operation of a JSON patch has a path"),
            Self::Operation(op) => Failure::bad_request(format!("operation {op:?} is not one this server knows")),
            Self::Missing(path) => Failure::invalid(kind, name, path, "the path does not exist"),
            Self::Test(path) => Failure::invalid(kind, name, path, "the test failed"),
        }
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (above, last) = path.rsplit_once('/')?;
    Some((target.pointer_mut(above)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (above, last) = parent(target, path)?;
    match above {
        Value::Object(fields) => drop(fields.insert(last, value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let index: usize = last.parse().ok().filter(|index| *index <= list.len())?;
            list.insert(index, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

/// Against RFC 6902, but as the library of the real server does: what is not there is added, if its parent is an
/// object.
fn replace(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if let Some(there) = target.pointer_mut(path) {
        *there = value;
        return Some(());
    }
    let (above, last) = parent(target, path)?;
    above.as_object_mut()?.insert(last, value);
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (above, last) = parent(target, path)?;
    match above {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(list) => {
            let index: usize = last.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_with_null() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge(&mut object, &json!({"a": {"c": [3], "b": null}, "e": {"f": null, "g": 1}}));
        assert_eq!(object, json!({"a": {"c": [3]}, "d": 1, "e": {"g": 1}}));
    }

    #[test]
    fn a_json_patch_adds_replaces_removes_and_tests() {
        let mut object = json!({"a": {"b/c": 1}, "list": [1, 3]});
        let patch = json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "replace", "path": "/a/b~1c", "value": 2},
            {"op": "add", "path": "/list/1", "value": 2},
            {"op": "add", "path": "/list/-", "value": 4},
            {"op": "remove", "path": "/list/0"},
        ]);
        assert_eq!(json(&mut object, &patch), Ok(()));
        assert_eq!(object, json!({"a": {"b/c": 2}, "list": [2, 3, 4]}));
        let absent = json!([{"op": "remove", "path": "/absent"}]);
        assert_eq!(json(&mut object, &absent), Err(JsonPatchError::Missing("/absent".to_owned())));
    }

    #[test]
    fn a_strategic_merge_finds_a_container_by_its_name() {
        let mut object =
            json!({"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}});
        let patch = json!({"spec": {"containers": [{"name": "b", "image": "b:2"}, {"name": "a", "$patch": "delete"}]}});
        strategic(&mut object, &patch, &mut Vec::new());
        assert_eq!(object, json!({"spec": {"containers": [{"name": "b", "image": "b:2"}]}}));
    }
}
