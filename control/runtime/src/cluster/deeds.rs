//! What has to be done in the cluster so that it is as desired: a pure comparison of objects with a state.
//!
//! The order within one Canary is the order in which it is safe: Services before pods, the primary before what clients use
//! points at it, and that before the target is taken down (checklist 33, 44).

use kube::api::ApiResource;
use serde_json::{Value, json};
use serin_rollout::{Desired, Revision, Stage, desired};

use super::compile::Compiled;
use super::copies::{Owner, is_owned_by};
use super::names::{copied_revision, replicas};
use super::objects::{Name, Objects, field};
use super::template::{Library, revision};
use super::watch::{deployments, services};
use crate::board::CanaryPosting;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    /// Make an object, or bring what Serin owns of it to this form.
    Apply(ApiResource, Name, Value),
    /// Change these fields of somebody's object.
    Change(ApiResource, Name, Value),
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    /// A promotion needs the template that was analysed.
    #[error("the pod template of revision {0} is not known any more, so it cannot be copied")]
    UnknownTemplate(Revision),
    /// The name is taken.
    #[error("deployment {0} exists and belongs to somebody else; it has to be removed or renamed")]
    Occupied(Name),
}

/// What has to be done for one Canary. Pods are taken down, for good or for newer ones, only if everybody who sends requests sees
/// them go: `all_see`.
pub(crate) fn deeds(
    compiled: &Compiled,
    posted: &CanaryPosting,
    all_see: bool,
    objects: &Objects,
    library: &Library,
) -> Result<Vec<Deed>, Obstacle> {
    let Compiled { canary, uid, names, selector, .. } = compiled;
    // A state that nobody has saved moves traffic if it brakes, and nothing else.
    let (Some(_), true) = (posted.version, posted.saved) else { return Ok(Vec::new()) };
    // Somebody else acts for this Canary, and two would undo each other.
    if posted.contested.is_some() {
        return Ok(Vec::new());
    }
    let Some(target) = objects.deployments.objects.get(&names.target) else { return Ok(Vec::new()) };
    let owner = Owner { canary, uid, names, selector };
    let wanted = desired(&posted.plan, &posted.state);
    let mut deeds = Vec::new();
    for (name, value) in [(&names.apex_canary, selector.value.clone()), (&names.apex_primary, selector.primary_value())]
    {
        deeds.extend(arm_service(&owner, objects, name, &value));
    }
    let is_new = !objects.deployments.objects.contains_key(&names.primary);
    if all_see || is_new {
        deeds.extend(primary(&owner, objects, &target.data, posted, library)?);
    }
    deeds.extend(apex_service(&owner, objects, &wanted));
    let scaled = scale(&owner, objects, &target.data, posted, &wanted);
    deeds.extend(scaled.filter(|_| all_see || wanted.stage == Stage::OnTrial));
    Ok(deeds)
}

fn arm_service(owner: &Owner<'_>, objects: &Objects, name: &Name, value: &str) -> Option<Deed> {
    let service = owner.arm_service(name, value);
    match objects.services.objects.get(name) {
        None => Some(Deed::Apply(services(), name.clone(), service)),
        Some(found) if owner.points_at(&found.data, value) && owner.has_port(&found.data) => None,
        Some(found) if is_owned_by(&as_value(found), owner.uid) => Some(Deed::Apply(services(), name.clone(), service)),
        // Somebody's own: it is pointed where it has to, and stays theirs.
        Some(found) => Some(Deed::Change(services(), name.clone(), owner.arm_change(&found.data, value))),
    }
}

fn apex_service(owner: &Owner<'_>, objects: &Objects, wanted: &Desired) -> Option<Deed> {
    let name = &owner.names.apex;
    match objects.services.objects.get(name) {
        // What clients use is left alone until the primary is ready to take over.
        _ if wanted.stage == Stage::TakingOver => None,
        None => Some(Deed::Apply(services(), name.clone(), owner.apex_service())),
        Some(found) => {
            let (is_own, points) = (
                is_owned_by(&as_value(found), owner.uid),
                owner.points_at(&found.data, &owner.selector.primary_value()),
            );
            if is_own && !(points && owner.has_port(&found.data)) {
                Some(Deed::Apply(services(), name.clone(), owner.apex_service()))
            } else if points {
                None
            } else {
                // Somebody's own stays his, with the ports that he gave it.
                Some(Deed::Change(services(), name.clone(), owner.apex_change(&found.data)))
            }
        }
    }
}

fn primary(
    owner: &Owner<'_>,
    objects: &Objects,
    target: &Value,
    posted: &CanaryPosting,
    library: &Library,
) -> Result<Option<Deed>, Obstacle> {
    let Some(wanted) = posted.state.primary.clone() else { return Ok(None) };
    let name = &owner.names.primary;
    let found = objects.deployments.objects.get(name).map(as_value);
    if found.as_ref().is_some_and(|found| !is_owned_by(found, owner.uid)) {
        return Err(Obstacle::Occupied(name.clone()));
    }
    if found.as_ref().and_then(copied_revision) == Some(&wanted.0) {
        return Ok(None);
    }
    let template = library.template(&posted.plan.canary, &wanted);
    let template = template.ok_or_else(|| Obstacle::UnknownTemplate(wanted.clone()))?;
    // A promotion takes the canary's size (checklist 98); a target that rests says nothing about size.
    let size = [Some(replicas(target)), found.as_ref().map(replicas)].into_iter().flatten().find(|size| *size > 0);
    let copy = owner.primary(target, &template, &wanted, size.unwrap_or(1));
    Ok(Some(Deed::Apply(deployments(), name.clone(), copy)))
}

/// The target runs while it is on trial, and rests otherwise. It is taken down when nobody sends it requests any more.
fn scale(
    owner: &Owner<'_>,
    objects: &Objects,
    target: &Value,
    posted: &CanaryPosting,
    wanted: &Desired,
) -> Option<Deed> {
    let size = replicas(target);
    let template = field(target, &["spec", "template"]).unwrap_or(&Value::Null);
    let size = match wanted.stage {
        Stage::OnTrial if size == 0 => {
            let primary = objects.deployments.objects.get(&owner.names.primary).map(|found| replicas(&found.data));
            primary.filter(|size| *size > 0).unwrap_or(1)
        }
        Stage::AtRest | Stage::TakenBack if size > 0 => {
            let is_news = posted.state.applied.as_ref() != Some(&revision(template));
            if is_news || !posted.settled {
                return None;
            }
            0
        }
        Stage::TakingOver | Stage::OnTrial | Stage::AtRest | Stage::TakenBack => return None,
    };
    Some(Deed::Change(deployments(), owner.names.target.clone(), json!({"spec": {"replicas": size}})))
}

fn as_value(object: &kube::core::DynamicObject) -> Value {
    let mut value = object.data.clone();
    value["metadata"] = serde_json::to_value(&object.metadata).unwrap_or_default();
    value
}

#[cfg(test)]
mod tests;
