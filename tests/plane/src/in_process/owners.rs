//! Who owns which field: what `managedFields` records, and what a server-side apply decides by it.
//!
//! Follows `sigs.k8s.io/structured-merge-diff/merge/update.go`, without schemas (see `fields`) and without conversion
//! between versions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::{self, Items, Path, Paths, at, key_step, leaves};

/// How an owner came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By a server-side apply: what it drops is removed.
    Apply,
    /// By any other write.
    Update,
}

/// An entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) subresource: Option<String>,
    pub(super) api_version: String,
    pub(super) time: String,
    pub(super) paths: Paths,
}

impl Owner {
    /// The same manager by another way of writing is another owner, and can conflict with itself.
    fn is(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && self.api_version == other.api_version
    }

    /// Whether both own the same, whenever they came by it.
    fn equals(&self, other: &Self) -> bool {
        self.is(other) && self.paths == other.paths
    }
}

/// Whether two records differ in nothing but times.
pub(super) fn same(some: &[Owner], others: &[Owner]) -> bool {
    some.len() == others.len() && some.iter().all(|owner| others.iter().any(|other| owner.equals(other)))
}

/// Who owns what after a write that is no apply: `writer` what it added or changed, and nobody what is gone.
pub(super) fn updated(owners: &[Owner], old: &Value, new: &Value, writer: Owner, custom: bool) -> Vec<Owner> {
    let (before, after) = (leaves(old, custom), leaves(new, custom));
    let changed: Paths = after.iter().filter(|path| at(old, path, custom) != at(new, path, custom)).cloned().collect();
    let lost: Paths = before.difference(&after).chain(&changed).cloned().collect();
    let mut next: Vec<Owner> = owners.to_vec();
    for owner in &mut next {
        owner.paths.retain(|path| !lost.contains(path));
    }
    if !changed.is_empty() {
        match next.iter_mut().find(|owner| owner.is(&writer)) {
            Some(owner) => {
                owner.paths.extend(changed);
                owner.time = writer.time;
            }
            None => next.push(Owner { paths: changed, ..writer }),
        }
    }
    next.retain(|owner| !owner.paths.is_empty());
    next
}

/// What an apply makes of an object.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) object: Value,
    pub(super) owners: Vec<Owner>,
}

/// Applies `config`, whose leaves `writer` will own. `Err` names other managers and the fields they would lose.
pub(super) fn apply(
    owners: &[Owner],
    live: &Value,
    config: &Value,
    writer: Owner,
    force: bool,
    custom: bool,
) -> Result<Applied, Vec<(String, String)>> {
    let set = &writer.paths;
    let differs = |path: &Path| at(live, path, custom) != at(config, path, custom);
    let (mine, others): (Vec<&Owner>, Vec<&Owner>) = owners.iter().partition(|owner| owner.is(&writer));
    let mut taken: BTreeSet<Path> = BTreeSet::new();
    let mut conflicts = Vec::new();
    for path in set.iter().filter(|path| differs(path)) {
        for owner in &others {
            for lost in owner.paths.iter().filter(|owned| fields::overlap(owned, path)) {
                taken.insert(lost.clone());
                conflicts.push((owner.manager.clone(), fields::shown(path)));
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    let mut object = live.clone();
    overlay(&mut object, config, &mut Vec::new(), custom);
    // What this manager applied before and does not any more goes, unless somebody else wants it too.
    let dropped: Paths = mine
        .iter()
        .flat_map(|owner| &owner.paths)
        .filter(|path| !set.iter().any(|kept| fields::overlap(kept, path)))
        .filter(|path| !others.iter().any(|owner| owner.paths.iter().any(|owned| fields::overlap(owned, path))))
        .cloned()
        .collect();
    fields::remove(&mut object, &dropped, custom);
    let mut next: Vec<Owner> = others.into_iter().cloned().collect();
    for owner in &mut next {
        owner.paths.retain(|path| !taken.contains(path));
    }
    next.push(writer);
    next.retain(|owner| !owner.paths.is_empty());
    Ok(Applied { object, owners: next })
}

fn overlay(target: &mut Value, config: &Value, path: &mut Path, custom: bool) {
    match config {
        Value::Object(wanted) if target.is_object() && !fields::is_atomic(path, custom) => {
            for (name, value) in wanted {
                path.push(format!("f:{name}"));
                match target.get_mut(name) {
                    Some(below) => overlay(below, value, path, custom),
                    None => target[name.as_str()] = value.clone(),
                }
                path.pop();
            }
        }
        Value::Array(wanted) => match (fields::items(path, custom), target.as_array_mut()) {
            (Items::Keyed(keys), Some(list)) => {
                for item in wanted {
                    let step = key_step(item, keys);
                    match list.iter().position(|there| key_step(there, keys) == step) {
                        Some(index) => {
                            path.push(step);
                            overlay(&mut list[index], item, path, custom);
                            path.pop();
                        }
                        None => list.push(item.clone()),
                    }
                }
            }
            (Items::Set, Some(list)) => {
                let added: Vec<Value> = wanted.iter().filter(|item| !list.contains(item)).cloned().collect();
                list.extend(added);
            }
            (Items::Keyed(_) | Items::Set | Items::Whole, _) => *target = config.clone(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            *target = config.clone();
        }
    }
}

/// `metadata.managedFields`.
pub(super) fn rendered(owners: &[Owner]) -> Value {
    let entry = |owner: &Owner| {
        let operation = match owner.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({
            "manager": owner.manager, "operation": operation, "apiVersion": owner.api_version, "time": owner.time,
            "fieldsType": "FieldsV1", "fieldsV1": fields::rendered(&owner.paths),
        });
        if let Some(subresource) = &owner.subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    };
    Value::Array(owners.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str, config: &Value) -> Owner {
        Owner {
            manager: manager.to_owned(),
            operation: Operation::Apply,
            subresource: None,
            api_version: "apps/v1".to_owned(),
            time: String::new(),
            paths: leaves(config, false),
        }
    }

    #[track_caller]
    fn applied(live: &Applied, manager: &str, config: &Value, force: bool) -> Result<Applied, Vec<(String, String)>> {
        apply(&live.owners, &live.object, config, writer(manager, config), force, false)
    }

    fn nothing() -> Applied {
        Applied { object: json!({}), owners: Vec::new() }
    }

    #[test]
    fn a_field_that_its_only_owner_drops_is_removed_with_its_container() {
        let two = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}});
        let one = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        let live = applied(&nothing(), "serin", &two, false).expect("nobody else owns a field");
        let live = applied(&live, "serin", &one, false).expect("nobody else owns a field");
        assert_eq!(live.object, one);
    }

    #[test]
    fn a_field_with_two_owners_stays_until_both_drop_it() {
        let both = json!({"data": {"a": "1", "b": "2"}});
        let less = json!({"data": {"a": "1"}});
        let live = applied(&nothing(), "one", &both, false).expect("nobody else owns a field");
        let live = applied(&live, "two", &both, false).expect("the values are the same");
        let live = applied(&live, "one", &less, false).expect("the values are the same");
        assert_eq!(live.object, both);
        let live = applied(&live, "two", &less, false).expect("the values are the same");
        assert_eq!(live.object, less);
    }

    #[test]
    fn a_differing_value_of_another_owner_is_a_conflict_unless_forced() {
        let live = applied(&nothing(), "one", &json!({"spec": {"replicas": 1}}), false).expect("the object is new");
        let other = json!({"spec": {"replicas": 2}});
        let conflicts = applied(&live, "two", &other, false).expect_err("one owns it");
        assert_eq!(conflicts, [("one".to_owned(), ".spec.replicas".to_owned())]);
        let live = applied(&live, "two", &other, true).expect("it was forced");
        assert_eq!(live.object, other);
        assert_eq!(live.owners.len(), 1);
    }
}
