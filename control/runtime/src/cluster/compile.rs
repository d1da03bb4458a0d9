//! From objects of the cluster to workloads: what each Canary means together with its target and its Services' endpoints.
//!
//! One Canary that cannot be used never stands in the way of another: it is refused by itself, with sentences for its status,
//! and what it meant before stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use serin_config::{Canary, Located, Problem, Severity, SourceFile, TargetKind, read_files};
use serin_measure::CanaryKey;
use serin_route::Host;

use super::names::{Names, Selector};
use super::objects::{Name, Objects, field};
use super::slice::{Endpoints, of_service};
use super::template::{Library, revision};
use crate::interpret::{self, Ground};
use crate::workload::{NUMBERS_PER_SECOND, Reach, Workload};

/// A Canary that can be used, with all that is needed to act for it.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    pub(crate) canary: Canary,
    pub(crate) uid: String,
    pub(crate) names: Names,
    pub(crate) selector: Selector,
    pub(crate) workload: Workload,
}

/// What all objects mean together.
#[derive(Debug, Default)]
pub(crate) struct Meaning {
    pub(crate) compiled: BTreeMap<CanaryKey, Compiled>,
    /// Why a Canary is not used as it is written now.
    pub(crate) refusals: BTreeMap<CanaryKey, Vec<String>>,
}

impl Meaning {
    /// Whether there is a Canary of this name.
    pub(crate) fn knows(&self, canary: &CanaryKey) -> bool {
        self.compiled.contains_key(canary) || self.refusals.contains_key(canary)
    }
}

/// Reads objects, and remembers what a Canary meant while it could be used.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    /// What was read last, by uid, with the generation that it was read from.
    read: BTreeMap<String, (i64, Read)>,
    good: BTreeMap<CanaryKey, Compiled>,
    /// Whether a provider's name that means a mesh is taken for Serin's own routing.
    inline_providers: bool,
}

/// A Canary's spec, read.
#[derive(Debug, Clone)]
struct Read {
    canary: Option<Located<Canary>>,
    problems: Vec<String>,
}

impl Compiler {
    pub(crate) fn new(inline_providers: bool) -> Self {
        Self { inline_providers, ..Self::default() }
    }

    /// What the objects mean now.
    pub(crate) fn compile(&mut self, objects: &Objects, library: &Library) -> Meaning {
        let mut meaning = Meaning::default();
        let mut taken = Taken::default();
        let uids: BTreeSet<String> = objects.canaries.objects.values().filter_map(ResourceExt::uid).collect();
        self.read.retain(|uid, _| uids.contains(uid));
        self.good.retain(|_, good| uids.contains(&good.uid));
        // The oldest Canary keeps what two want.
        let mut canaries: Vec<(&Name, &DynamicObject)> = objects.canaries.objects.iter().collect();
        canaries.sort_by_key(|(name, canary)| (canary.creation_timestamp(), *name));
        for (name, object) in canaries {
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let key = CanaryKey::new(&name.namespace, &name.name);
            let found = self.one(object, objects, library).and_then(|compiled| taken.take(compiled));
            match found {
                Ok(compiled) => {
                    self.good.insert(key.clone(), compiled.clone());
                    meaning.compiled.insert(key, compiled);
                }
                Err(problems) => {
                    // What it meant before, where its pods are now.
                    let former = self.good.get(&key).map(|good| with_endpoints(good.clone(), objects));
                    if let Some(Ok(former)) = former.map(|former| taken.take(former)) {
                        meaning.compiled.insert(key.clone(), former);
                    }
                    meaning.refusals.insert(key, problems);
                }
            }
        }
        meaning
    }

    fn one(&mut self, object: &DynamicObject, objects: &Objects, library: &Library) -> Result<Compiled, Vec<String>> {
        let (uid, generation) = (object.uid().unwrap_or_default(), object.metadata.generation.unwrap_or(0));
        let is_known = self.read.get(&uid).is_some_and(|(known, _)| *known == generation);
        if !is_known {
            self.read.insert(uid.clone(), (generation, read(object, self.inline_providers)));
        }
        let (_, Read { canary, problems }) = &self.read[&uid];
        let Some(located) = canary.as_ref().filter(|_| problems.is_empty()) else { return Err(problems.clone()) };
        let canary = located.value.clone();
        let names = Names::of(&canary);
        let Some(target) = objects.deployments.objects.get(&names.target) else {
            let sentence = format!("deployment {} get query error: not found", names.target);
            return Err(vec![sentence]);
        };
        let selector = Selector::of(&target.data, &names.target).map_err(|sentence| vec![sentence])?;
        let template = field(&target.data, &["spec", "template"]).cloned().unwrap_or(Value::Null);
        let newest = revision(&template);
        let reach = Reach::Workloads { primary: Vec::new(), target: Vec::new() };
        let (plan, mut routing) = interpret::canary(located, newest.clone(), reach).map_err(sentences)?;
        library.keep_target(&plan.canary, &newest, &template);
        let is_open = canary.spec.service.as_ref().is_none_or(|service| service.hosts().is_empty());
        if is_open {
            routing.hosts = in_cluster_names(&names.apex);
        }
        if let Some(tls) = &mut Arc::make_mut(&mut routing.upstream).tls
            && tls.server_name.is_none()
        {
            // Pods have certificates for the name of their Service, if for any: their addresses change.
            tls.server_name = Some(format!("{}.{}.svc", names.apex.name, names.apex.namespace).into());
        }
        let numbered_after = created_s(object) * NUMBERS_PER_SECOND;
        let workload = Workload { plan, routing, incarnation: uid.clone(), numbered_after };
        Ok(with_endpoints(Compiled { canary, uid, names, selector, workload }, objects))
    }
}

/// When an object was made, in seconds since 1970, by the clock of the API server: all who look at it see the same.
fn created_s(object: &DynamicObject) -> u64 {
    let created = object.creation_timestamp().map(|created| created.0.as_second());
    created.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
}

/// A Canary without hosts answers for the names that its Service has in the cluster.
fn in_cluster_names(Name { namespace, name }: &Name) -> Vec<Host> {
    let suffixes = ["", ".svc", ".svc.cluster.local"];
    let names = suffixes.iter().map(|suffix| format!("{name}.{namespace}{suffix}"));
    names.filter_map(|name| Host::parse(&name).ok()).collect()
}

/// The same Canary, with its pods where they are now.
fn with_endpoints(mut compiled: Compiled, objects: &Objects) -> Compiled {
    let names = &compiled.names;
    let serving = |service: &Name| {
        let slices = of_service(&objects.slices.objects, &service.namespace, &service.name);
        Endpoints::of(slices, &names.port_name).serving()
    };
    let primary = serving(&names.apex_primary);
    let (slices, canary) = (&objects.slices.objects, &names.apex_canary);
    let is_known = of_service(slices, &canary.namespace, &canary.name).next().is_some();
    // Before the endpoints of Serin's own Service are known, the target is behind the Service that clients use.
    let target = if is_known { serving(canary) } else { target_behind(&compiled, objects) };
    compiled.workload.routing.reach = Reach::Workloads { primary, target };
    compiled
}

/// The pods behind a Service that was there before the Canary, if they are the target's. Its port may have another name.
fn target_behind(compiled: &Compiled, objects: &Objects) -> Vec<std::net::SocketAddr> {
    let (names, selector) = (&compiled.names, &compiled.selector);
    let Some(apex) = objects.services.objects.get(&names.apex) else { return Vec::new() };
    let selected = field(&apex.data, &["spec", "selector"]).and_then(|labels| labels.get(&selector.label));
    if selected != Some(&json!(selector.value)) {
        return Vec::new();
    }
    let wanted = compiled.canary.spec.service.as_ref().and_then(|service| service.port);
    let ports = field(&apex.data, &["spec", "ports"]).and_then(Value::as_array).into_iter().flatten();
    let mut of_number = ports.filter(|port| port.get("port").and_then(Value::as_i64) == wanted);
    let port_name = of_number.next().and_then(|port| port.get("name")?.as_str()).unwrap_or_default();
    let slices = of_service(&objects.slices.objects, &names.apex.namespace, &names.apex.name);
    Endpoints::of(slices, port_name).serving()
}

/// Reads a Canary's spec as a file would be read, and says why it cannot be used.
fn read(object: &DynamicObject, inline_providers: bool) -> Read {
    let document = json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": object.name_any(), "namespace": object.namespace()},
        "spec": object.data.get("spec"),
    });
    // JSON is YAML.
    let bytes = document.to_string().into_bytes();
    let set = read_files(&[SourceFile { name: object.name_any(), bytes }]);
    let mut problems = set.problems.clone();
    let canary = set.canaries.into_iter().next();
    if let Some(canary) = &canary {
        problems.extend(interpret::refusals(canary, Ground::Cluster));
        problems.extend(refused_here(canary, inline_providers));
    }
    let errors = problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
    Read { canary, problems: sentences(errors) }
}

/// What a cluster refuses and files do not.
fn refused_here(canary: &Located<Canary>, inline_providers: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let kind = canary.value.spec.target_ref.as_ref().and_then(|target| target.kind);
    if kind != Some(TargetKind::Deployment) {
        let message = "only a Deployment can be rolled out in a cluster by this version of Serin".to_owned();
        problems.push(canary.problem_at("spec.targetRef.kind", message, None));
    }
    if canary.value.spec.service.is_none() {
        let message = "the port of the service is needed to find the pods".to_owned();
        problems.push(canary.problem_at("spec.service", message, None));
    }
    match canary.value.spec.provider.as_deref() {
        None | Some("" | "serin") => {}
        Some("kubernetes") => {
            let message = "provider kubernetes means blue/green without moving traffic, which this version of Serin does not do yet; leave provider out, and Serin moves the traffic itself";
            problems.push(canary.problem_at("spec.provider", message, None));
        }
        Some(_) if inline_providers => {}
        Some(mesh) => {
            let message = format!(
                "provider {mesh} shifts traffic in a mesh or gateway, and Serin shifts it itself; leave provider out, or run Serin with --inline-providers to take such Canaries over"
            );
            problems.push(canary.problem_at("spec.provider", message, None));
        }
    }
    problems
}

fn sentences(problems: Vec<Problem>) -> Vec<String> {
    problems
        .into_iter()
        .map(|problem| match problem.path {
            Some(path) => format!("{path}: {}", problem.message),
            None => problem.message,
        })
        .collect()
}

/// What can belong to one Canary only.
#[derive(Debug, Default)]
struct Taken {
    hosts: BTreeMap<String, CanaryKey>,
    targets: BTreeMap<Name, CanaryKey>,
}

impl Taken {
    fn take(&mut self, compiled: Compiled) -> Result<Compiled, Vec<String>> {
        let (key, target) = (&compiled.workload.plan.canary, &compiled.names.target);
        let mut problems = Vec::new();
        if let Some(other) = self.targets.get(target).filter(|other| *other != key) {
            problems.push(format!("spec.targetRef.name: deployment {target} is the target of canary {other} already"));
        }
        for host in &compiled.workload.routing.hosts {
            if let Some(other) = self.hosts.get(&host.to_string()).filter(|other| *other != key) {
                problems.push(format!("spec.service.hosts: canary {other} answers for {host} already"));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        self.targets.insert(target.clone(), key.clone());
        let hosts = compiled.workload.routing.hosts.iter().map(|host| (host.to_string(), key.clone()));
        self.hosts.extend(hosts);
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests;
