//! What objects mean together, and that one that means nothing harms no other.

use kube::core::DynamicObject;

use super::*;
use crate::cluster::objects::Change;
use crate::cluster::slice::Slice;

/// A cluster in memory.
#[derive(Default)]
struct World {
    objects: Objects,
    compiler: Compiler,
    library: Library,
}

impl World {
    fn with(mut self, yaml: &str) -> Self {
        self.put(yaml);
        self
    }

    fn put(&mut self, yaml: &str) {
        let set = serin_config::read_documents("x.yaml", yaml);
        for document in set.documents {
            let value = document.to_json();
            if value["kind"] == "EndpointSlice" {
                let slice = serde_json::from_value(value.clone()).expect("a slice");
                let name = Name::new("shop", value["metadata"]["name"].as_str().expect("a name"));
                self.objects.slices.take(Change::Set(name, Slice::of(&slice).expect("a Service's")));
                continue;
            }
            let object: DynamicObject = serde_json::from_value(value.clone()).expect("an object");
            let table = match value["kind"].as_str() {
                Some("Canary") => &mut self.objects.canaries,
                Some("Deployment") => &mut self.objects.deployments,
                Some("Service") => &mut self.objects.services,
                other => panic!("{other:?}"),
            };
            table.take(Change::Set(Name::of(&object), object));
        }
    }

    fn meaning(&mut self) -> Meaning {
        self.compiler.compile(&self.objects, &self.library)
    }

    fn refusals(&mut self, name: &str) -> Vec<String> {
        self.meaning().refusals.remove(&CanaryKey::new("shop", name)).unwrap_or_default()
    }

    fn reach(&mut self, name: &str) -> (Vec<String>, Vec<String>) {
        let meaning = self.meaning();
        let Reach::Workloads { primary, target } =
            &meaning.compiled[&CanaryKey::new("shop", name)].workload.routing.reach
        else {
            panic!("a cluster has workloads")
        };
        let texts = |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        (texts(primary), texts(target))
    }
}

fn canary(name: &str, uid: &str, generation: u32, extra: &str) -> String {
    format!(
        "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {{name: {name}, namespace: shop, uid: {uid}, generation: {generation}, creationTimestamp: \"2026-01-{:02}T00:00:00Z\"}}
spec:
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  service: {{port: 80{extra}}}
  analysis: {{interval: 10s, threshold: 2, stepWeight: 20}}
",
        uid.len()
    )
}

fn deployment(name: &str, image: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec: {{replicas: 2, selector: {{matchLabels: {{app: {name}}}}}, template: {{spec: {{containers: [{{name: c, image: {image}}}]}}}}}}
"
    )
}

fn slice(service: &str, address: &str, port_name: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
ports: [{{name: {port_name}, port: 8080}}]
"
    )
}

fn service(name: &str, app: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{app: {app}}}, ports: [{{name: web, port: 80}}]}}
"
    )
}

#[test]
fn a_canary_and_its_deployment_are_a_workload_whose_revision_is_the_template() {
    let mut world = World::default().with(&canary("cart", "u", 1, "")).with(&deployment("cart", "cart:1"));
    let revision = |world: &mut World| {
        let meaning = world.meaning();
        let compiled = &meaning.compiled[&CanaryKey::new("shop", "cart")];
        assert_eq!(compiled.workload.incarnation, "u");
        compiled.workload.plan.revision.clone()
    };
    let first = revision(&mut world);
    world.put(&deployment("cart", "cart:2"));
    let second = revision(&mut world);
    assert_ne!(first, second);
    let key = CanaryKey::new("shop", "cart");
    let template = world.library.template(&key, &first).expect("kept, since the primary may need it");
    assert_eq!(template["spec"]["containers"][0]["image"], "cart:1");
}

#[test]
fn without_hosts_a_canary_answers_for_its_services_names() {
    let mut world = World::default().with(&canary("cart", "u", 1, "")).with(&deployment("cart", "cart:1"));
    let hosts = world.meaning().compiled[&CanaryKey::new("shop", "cart")].workload.routing.hosts.clone();
    let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local"]);
}

#[test]
fn before_serins_services_are_there_the_target_is_behind_the_one_that_clients_use() {
    let mut world = World::default().with(&canary("cart", "u", 1, "")).with(&deployment("cart", "cart:1"));
    assert_eq!(world.reach("cart"), (vec![], vec![]));
    world.put(&service("cart", "cart"));
    world.put(&slice("cart", "10.0.0.1", "web"));
    assert_eq!(world.reach("cart").1, ["10.0.0.1:8080"]);
    world.put(&service("cart-canary", "cart"));
    assert_eq!(world.reach("cart").1, ["10.0.0.1:8080"], "a Service is there a moment before its endpoints are");
    world.put(&slice("cart-canary", "10.0.0.3", "http"));
    world.put(&slice("cart-primary", "10.0.0.2", "http"));
    assert_eq!(world.reach("cart"), (vec!["10.0.0.2:8080".to_owned()], vec!["10.0.0.3:8080".to_owned()]));
    world.put(&slice("cart-canary", "10.0.0.3", "http").replace("ready: true", "ready: false"));
    assert_eq!(world.reach("cart").1, [""; 0], "what it says counts, also if that is nobody");
}

#[test]
fn one_that_cannot_be_used_keeps_what_it_meant_and_harms_no_other() {
    let mut world = World::default();
    for name in ["cart", "pay"] {
        world.put(&canary(name, &format!("u-{name}"), 1, ""));
        world.put(&deployment(name, "x:1"));
    }
    assert_eq!(world.meaning().compiled.len(), 2);
    world.put(&canary("cart", "u-cart", 2, ", timeout: soon"));
    let meaning = world.meaning();
    assert_eq!(meaning.compiled.len(), 2, "the last good form stays in force");
    assert_eq!(world.refusals("cart"), ["spec.service.timeout: \"soon\" is no duration, or one below zero"]);
    world.put(&canary("cart", "u-cart-anew", 1, ", timeout: soon"));
    assert_eq!(world.meaning().compiled.len(), 1, "another Canary of that name never was good");
}

#[test]
fn what_two_want_the_older_one_keeps() {
    let hosts = ", hosts: [shop.example.com]";
    let mut world = World::default();
    for (name, uid) in [("young", "uuu"), ("old", "u")] {
        world.put(&canary(name, uid, 1, hosts));
        world.put(&deployment(name, "x:1"));
    }
    assert_eq!(world.refusals("young"), ["spec.service.hosts: canary old.shop answers for shop.example.com already"]);
    assert_eq!(world.refusals("old"), [""; 0]);
}

#[test]
fn checklist_37_200_what_cannot_be_honoured_is_said() {
    let mut world = World::default().with(&canary("cart", "u", 1, ""));
    assert_eq!(world.refusals("cart"), ["deployment cart.shop get query error: not found"]);
    world.put(&deployment("cart", "x:1").replace("matchLabels: {app: cart}", "matchLabels: {tier: cart}"));
    assert_eq!(
        world.refusals("cart"),
        ["deployment cart.shop spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name]"]
    );
    world.put(&deployment("cart", "x:1"));
    let with_provider =
        |provider: &str| canary("cart", "u", 2, "").replace("spec:\n", &format!("spec:\n  provider: {provider}\n"));
    world.put(&with_provider("istio"));
    assert!(world.refusals("cart")[0].starts_with("spec.provider: provider istio shifts traffic in a mesh"));
    world.compiler.inline_providers = true;
    world.put(&with_provider("istio").replace("generation: 2", "generation: 3"));
    assert_eq!(world.refusals("cart"), [""; 0]);
    world.put(&with_provider("kubernetes").replace("generation: 2", "generation: 4"));
    assert!(world.refusals("cart")[0].starts_with("spec.provider: provider kubernetes means blue/green"));
}
