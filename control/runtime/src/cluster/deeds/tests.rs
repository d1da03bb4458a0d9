//! What is done, in which order, and what is left alone: by phase, over the objects that are there.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serin_config::{SourceFile, read_files};
use serin_measure::{CanaryKey, EpochId};
use serin_rollout::{Phase, State, Weight};

use super::*;
use crate::cluster::names::{Names, Selector};
use crate::cluster::objects::Change;
use crate::interpret;
use crate::store::Version;
use crate::workload::{Reach, Workload};

const CANARY: &str = "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: cart, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  service: {port: 80}
  analysis: {interval: 10s, threshold: 2, stepWeight: 20}
";

/// A cluster with one target, and a state over it.
struct World {
    compiled: Compiled,
    posted: CanaryPosting,
    objects: Objects,
    library: Library,
    all_see: bool,
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

impl World {
    /// A target of three replicas, and this phase of a run of its template.
    fn at(phase: Phase) -> Self {
        let set = read_files(&[SourceFile { name: "canary.yaml".to_owned(), bytes: CANARY.as_bytes().to_vec() }]);
        let located = set.canaries.first().expect("a canary");
        let revision = revision(&template("cart:1"));
        let reach = Reach::Workloads { primary: Vec::new(), target: Vec::new() };
        let (plan, routing) = interpret::canary(located, revision.clone(), reach).expect("a plan");
        let (key, library) = (CanaryKey::new("shop", "cart"), Library::default());
        library.keep_target(&key, &revision, &template("cart:1"));
        let workload = Workload { plan: plan.clone(), routing, incarnation: "u".to_owned(), numbered_after: 0 };
        let selector = Selector { label: "app".to_owned(), value: "cart".to_owned() };
        let names = Names::of(&located.value);
        let compiled = Compiled { canary: located.value.clone(), uid: "u".to_owned(), names, selector, workload };
        let named = Some(revision);
        let promoted = named.clone().filter(|_| phase != Phase::Initializing);
        let state = State { phase, applied: named.clone(), primary: named, promoted, ..State::new(0) };
        let posted = CanaryPosting {
            plan,
            state,
            events: Vec::new(),
            alarm: None,
            contested: None,
            checks: Vec::new(),
            run_from: EpochId(1),
            saved: true,
            version: Some(Version(1)),
            settled: true,
        };
        let mut world = Self { compiled, posted, objects: Objects::default(), library, all_see: true };
        world.put("Deployment", "cart", json!({"replicas": 3, "template": template("cart:1")}));
        world
    }

    fn put(&mut self, kind: &str, name: &str, spec: Value) {
        let value =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "shop", "name": name}, "spec": spec});
        self.put_whole(value);
    }

    fn put_whole(&mut self, value: Value) {
        let object: DynamicObject = serde_json::from_value(value.clone()).expect("an object");
        let table = if value["kind"] == "Service" { &mut self.objects.services } else { &mut self.objects.deployments };
        table.take(Change::Set(Name::of(&object), object));
    }

    fn deeds(&self) -> Vec<Deed> {
        deeds(&self.compiled, &self.posted, self.all_see, &self.objects, &self.library).expect("no obstacle")
    }

    /// What is to be done, in short.
    fn told(&self) -> Vec<String> {
        let told = self.deeds().into_iter().map(|deed| match deed {
            Deed::Apply(resource, name, _) => format!("apply {} {}", resource.kind, name.name),
            Deed::Change(resource, name, change) => {
                format!("change {} {}: {}", resource.kind, name.name, change["spec"])
            }
        });
        told.collect()
    }

    /// Does what is to be done, as the API server would, until nothing is left.
    fn settle(mut self) -> Self {
        for _ in 0..5 {
            for deed in self.deeds() {
                match deed {
                    Deed::Apply(_, _, object) => self.put_whole(object),
                    Deed::Change(resource, name, change) => {
                        let table =
                            if resource.kind == "Service" { &self.objects.services } else { &self.objects.deployments };
                        let mut object = as_value(&table.objects[&name]);
                        object["apiVersion"] = json!("v1");
                        object["kind"] = json!(resource.kind);
                        merge(&mut object["spec"], &change["spec"]);
                        self.put_whole(object);
                    }
                }
            }
        }
        self
    }
}

/// A JSON merge patch (RFC 7396).
fn merge(into: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else {
        into.clone_from(change);
        return;
    };
    for (key, value) in fields {
        match (value, into.as_object_mut()) {
            (Value::Null, Some(object)) => drop(object.remove(key)),
            _ => merge(&mut into[key], value),
        }
    }
}

#[test]
fn checklist_33_44_services_and_primary_are_made_before_anything_that_clients_use_is_touched() {
    let mut world = World::at(Phase::Initializing);
    world.put("Service", "cart", json!({"selector": {"app": "cart"}, "ports": []}));
    assert_eq!(
        world.told(),
        ["apply Service cart-canary", "apply Service cart-primary", "apply Deployment cart-primary"]
    );
    let mut world = world.settle();
    assert_eq!(world.told(), [""; 0], "until the primary is ready nothing more is done");
    world.posted.state.phase = Phase::Initialized;
    world.posted.state.promoted = world.posted.state.applied.clone();
    let told =
        [r#"change Service cart: {"selector":{"app":"cart-primary"}}"#, r#"change Deployment cart: {"replicas":0}"#];
    assert_eq!(world.told(), told, "in this order");
    assert_eq!(world.settle().told(), [""; 0], "doing it again changes nothing");
}

#[test]
fn pods_are_taken_down_only_when_everybody_follows_and_sees() {
    let mut world = World::at(Phase::Initialized).settle();
    world.put("Deployment", "cart", json!({"replicas": 3, "template": template("cart:1")}));
    let down = [r#"change Deployment cart: {"replicas":0}"#];
    assert_eq!(world.told(), down);
    world.posted.settled = false;
    assert_eq!(world.told(), [""; 0], "a replica has not said that it follows");
    world.posted.settled = true;
    world.all_see = false;
    assert_eq!(world.told(), [""; 0], "a replica does not see the cluster");
}

#[test]
fn a_release_that_comes_now_is_not_scaled_down_before_it_is_noticed() {
    let mut world = World::at(Phase::Succeeded).settle();
    world.put("Deployment", "cart", json!({"replicas": 3, "template": template("cart:2")}));
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn checklist_162_a_target_on_trial_is_scaled_up_to_the_primarys_size() {
    let mut world = World::at(Phase::Initialized).settle();
    world.posted.state.phase = Phase::Progressing;
    assert_eq!(world.told(), [r#"change Deployment cart: {"replicas":3}"#]);
    world.posted.state = State { phase: Phase::Failed, weight: Weight::FULL, ..world.posted.state.clone() };
    assert_eq!(
        world.told(),
        [r#"change Deployment cart: {"replicas":3}"#],
        "it serves in the place of a broken primary"
    );
}

#[test]
fn checklist_92_98_a_promotion_copies_what_was_analysed_also_if_the_target_has_moved_on() {
    let mut world = World::at(Phase::Initialized).settle();
    let analysed = revision(&template("cart:2"));
    world.library.keep_target(&world.posted.plan.canary, &analysed, &template("cart:2"));
    world.put("Deployment", "cart", json!({"replicas": 5, "template": template("cart:3")}));
    let named = Some(analysed);
    world.posted.state =
        State { phase: Phase::Promoting, applied: named.clone(), primary: named, ..world.posted.state.clone() };
    let deeds = world.deeds();
    let [Deed::Apply(_, name, primary)] = deeds.as_slice() else { panic!("{deeds:?}") };
    assert_eq!(name.name, "cart-primary");
    assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], "cart:2");
    assert_eq!(primary["spec"]["replicas"], 5);
    world.all_see = false;
    assert_eq!(world.told(), [""; 0], "its old pods go, so everybody has to see it");
}

#[test]
fn what_nobody_has_saved_moves_no_object_and_a_name_that_is_taken_is_an_obstacle() {
    let mut world = World::at(Phase::Initializing);
    world.posted.saved = false;
    assert_eq!(world.told(), [""; 0]);
    world.posted.saved = true;
    world.put("Deployment", "cart-primary", json!({"replicas": 1}));
    let found = deeds(&world.compiled, &world.posted, true, &world.objects, &world.library);
    assert_eq!(found, Err(Obstacle::Occupied(Name::new("shop", "cart-primary"))));
    let unknown = World { library: Library::default(), ..World::at(Phase::Initializing) };
    let found = deeds(&unknown.compiled, &unknown.posted, true, &unknown.objects, &unknown.library);
    assert!(matches!(found, Err(Obstacle::UnknownTemplate(_))), "{found:?}");
}

#[test]
fn checklist_46_47_an_apex_service_that_was_there_is_pointed_elsewhere_and_else_left_alone() {
    let mut world = World::at(Phase::Initialized);
    world.put("Service", "cart", json!({"selector": {"app": "cart", "tier": "x"}, "ports": [{"port": 1}]}));
    let deeds = world.deeds();
    let apex = deeds.iter().find_map(|deed| match deed {
        Deed::Change(resource, name, change) if resource.kind == "Service" && name.name == "cart" => Some(change),
        Deed::Change(..) | Deed::Apply(..) => None,
    });
    let apex = apex.expect("it is changed");
    let keys: BTreeMap<_, _> = apex["spec"].as_object().expect("a spec").iter().collect();
    assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["selector"]);
    assert_eq!(
        apex["spec"]["selector"],
        json!({"app": "cart-primary", "tier": null}),
        "its other labels would select nothing"
    );
    assert_eq!(apex["metadata"].as_object().map(serde_json::Map::len), Some(1), "the Flux markers");
}

#[test]
fn checklist_51_services_that_serin_made_follow_an_edited_port_and_anothers_keeps_his() {
    let mut world = World::at(Phase::Initialized).settle();
    let mut service = world.compiled.canary.spec.service.clone().expect("a service");
    service.port = Some(9090);
    world.compiled.canary.spec.service = Some(service);
    let told = ["apply Service cart-canary", "apply Service cart-primary", "apply Service cart"];
    assert_eq!(world.told(), told);
    let mut anothers = World::at(Phase::Initialized);
    anothers.put("Service", "cart", json!({"selector": {"app": "cart-primary"}, "ports": [{"port": 1}]}));
    assert!(anothers.settle().told().is_empty());
}

#[test]
fn nothing_is_done_for_a_canary_that_somebody_else_acts_for() {
    let mut world = World::at(Phase::Initialized);
    assert!(!world.told().is_empty());
    world.posted.contested = Some("flagger writes its status too".to_owned());
    assert_eq!(world.told(), [""; 0]);
}
