//! The server as a test uses it: the parity table, kube's own watcher, faults, and the small controllers.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{Fault, InProcess, Kind, Readiness, Verb, parity};

fn config(name: &str, a: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": a}})
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [
                    {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}]},
                ]},
            },
        },
    })
}

fn configs(server: &InProcess) -> Api<ConfigMap> {
    Api::default_namespaced(server.client())
}

fn patch(a: &str) -> Patch<Value> {
    Patch::Merge(json!({"data": {"a": a}}))
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result.expect_err("the server was told to refuse") {
        kube::Error::Api(status) => status.code,
        kube::Error::Service(_) => 0,
        other => panic!("an answer or none, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_parity_table_holds_for_this_server() {
    let outcomes = parity::run(&InProcess::new().client(), "default").await;
    let differences: Vec<String> = outcomes.iter().flat_map(parity::Outcome::differences).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(outcomes.len() >= 35, "the table has {} rows", outcomes.len());
}

/// What a watcher tells, in words.
fn told(event: Result<Event<ConfigMap>, watcher::Error>) -> String {
    let name = |object: ConfigMap| object.metadata.name.unwrap_or_default();
    match event {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(object)) => format!("there {}", name(object)),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::Apply(object)) => format!("apply {}", name(object)),
        Ok(Event::Delete(object)) => format!("delete {}", name(object)),
        Err(watcher::Error::WatchError(status)) => format!("error {}", status.code),
        Err(_) => "error".to_owned(),
    }
}

async fn next(stream: &mut (impl futures::Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Unpin)) -> String {
    let event = timeout(Duration::from_secs(600), stream.next()).await.expect("the watcher has something to tell");
    told(event.expect("a watcher does not end"))
}

#[tokio::test(start_paused = true)]
async fn kubes_watcher_lists_follows_and_begins_again_when_its_version_is_forgotten() {
    for settings in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        let server = InProcess::new();
        server.put(config("a", "1"));
        server.put(config("b", "1"));
        let mut stream = Box::pin(watcher(configs(&server), settings));
        for expected in ["init", "there a", "there b", "done"] {
            assert_eq!(next(&mut stream).await, expected);
        }
        server.put(config("b", "2"));
        server.remove("configmaps", "default", "a");
        assert_eq!(next(&mut stream).await, "apply b");
        assert_eq!(next(&mut stream).await, "delete a");
        server.drop_watches();
        server.put(config("c", "1"));
        assert_eq!(next(&mut stream).await, "apply c");
        server.drop_watches();
        server.put(config("c", "2"));
        server.compact();
        assert_eq!(next(&mut stream).await, "error 410");
        for expected in ["init", "there b", "there c", "done"] {
            assert_eq!(next(&mut stream).await, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_lives_through_an_hour_on_bookmarks() {
    let server = InProcess::new();
    let mut stream = Box::pin(watcher(configs(&server), watcher::Config::default()));
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["init", "done"]);
    assert!(timeout(Duration::from_secs(3600), stream.next()).await.is_err(), "nothing happened in that hour");
    // Versions that only other kinds made are passed by bookmarks, so even what is compacted does no harm.
    server.put(deployment("web", 1));
    assert!(timeout(Duration::from_secs(600), stream.next()).await.is_err(), "configs did not change");
    server.compact();
    server.put(config("a", "1"));
    assert_eq!(next(&mut stream).await, "apply a");
}

#[tokio::test(start_paused = true)]
async fn a_raw_watch_ends_after_the_time_it_was_given() {
    let server = InProcess::new();
    let begun = Instant::now();
    let stream = configs(&server).watch(&WatchParams::default().timeout(90), "1").await.expect("the watch opens");
    let events: Vec<_> = stream.collect().await;
    assert_eq!(begun.elapsed().as_secs(), 90);
    assert!(events.iter().all(|event| matches!(event, Ok(kube::api::WatchEvent::Bookmark(_)))));
}

#[tokio::test(start_paused = true)]
async fn calls_are_refused_as_often_as_a_test_says() {
    let server = InProcess::new();
    server.put(config("a", "1"));
    server.fault(Fault::on(Verb::Patch, "configmaps").times(2).refused(409));
    server.fault(Fault::on(Verb::Patch, "configmaps").refused_for(429, 7));
    server.fault(Fault::on(Verb::Get, "configmaps").named("b").refused(503));
    let configs = configs(&server);
    let change = async || configs.patch("a", &PatchParams::default(), &patch("2")).await;
    assert_eq!([code(change().await), code(change().await)], [409, 409]);
    match change().await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.details.map(|details| details.retry_after_seconds)), (429, Some(7)));
        }
        other => panic!("429 was asked for, not {other:?}"),
    }
    assert!(change().await.is_ok());
    assert!(configs.get("a").await.is_ok());
    assert_eq!(code(configs.get("b").await), 503);
    assert_eq!(code(configs.get("b").await), 404);
}

#[tokio::test(start_paused = true)]
async fn a_held_call_goes_on_when_it_is_released() {
    let server = InProcess::new();
    server.put(config("a", "1"));
    let hold = server.fault(Fault::on(Verb::Patch, "configmaps").held());
    let configs = configs(&server);
    let call = tokio::spawn(async move { configs.patch("a", &PatchParams::default(), &patch("2")).await });
    hold.reached(1).await;
    assert_eq!(server.object("configmaps", "default", "a").expect("it was put")["data"]["a"], "1");
    hold.release();
    assert!(call.await.expect("the call does not panic").is_ok());
    assert_eq!(server.object("configmaps", "default", "a").expect("it was put")["data"]["a"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_saved_without_anybody_being_told() {
    let server = InProcess::new();
    server.put(config("a", "1"));
    let patches = || Fault::on(Verb::Patch, "configmaps").although_carried_out();
    let configs = configs(&server);
    for (fault, seen, a) in [(patches().refused(500), 500, "2"), (patches().broken(), 0, "3")] {
        server.fault(fault);
        assert_eq!(code(configs.patch("a", &PatchParams::default(), &patch(a)).await), seen);
        assert_eq!(server.object("configmaps", "default", "a").expect("it was put")["data"]["a"], a);
    }
    let hold = server.fault(patches().held());
    let waited = timeout(Duration::from_secs(30), configs.patch("a", &PatchParams::default(), &patch("4"))).await;
    assert!(waited.is_err(), "it is held");
    assert_eq!(hold.hits(), 1);
    assert_eq!(server.object("configmaps", "default", "a").expect("it was put")["data"]["a"], "4");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_answers_nobody_and_keeps_what_it_had() {
    let server = InProcess::new();
    server.put(config("a", "1"));
    let mut stream = Box::pin(watcher(configs(&server), watcher::Config::default()));
    for expected in ["init", "there a", "done"] {
        assert_eq!(next(&mut stream).await, expected);
    }
    server.go_down();
    assert_eq!(code(configs(&server).get("a").await), 0);
    assert_eq!(next(&mut stream).await, "error");
    server.put(config("a", "2"));
    server.come_up();
    assert_eq!(next(&mut stream).await, "apply a");
}

#[tokio::test(start_paused = true)]
async fn requests_say_who_did_what() {
    let server = InProcess::new();
    server.put(deployment("web", 1));
    let deployments: Api<Deployment> = Api::default_namespaced(server.client());
    let params = PatchParams { field_manager: Some("serin".to_owned()), ..PatchParams::default() };
    let status = Patch::Merge(json!({"status": {"replicas": 1}}));
    deployments.patch_status("web", &params, &status).await.expect("the deployment is there");
    let [request] = &server.requests()[..] else { panic!("one call was made") };
    assert_eq!(
        (request.verb, request.resource.as_str(), request.manager.as_str()),
        (Verb::Patch, "deployments", "serin")
    );
    assert_eq!(request.path, "/apis/apps/v1/namespaces/default/deployments/web/status");
    assert_eq!(request.subresource.as_deref(), Some("status"));
    server.forget_requests();
    assert!(server.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn workloads_become_ready_when_and_if_the_test_says() {
    let server = InProcess::new();
    server.put(deployment("web", 2));
    server.put(deployment("stuck", 1));
    let ready = |name: &str| {
        let object = server.object("deployments", "default", name).expect("it was put");
        (object["status"]["observedGeneration"].clone(), object["status"]["readyReplicas"].clone())
    };
    assert_eq!(ready("web"), (Value::Null, Value::Null));
    server.hold_back("stuck");
    server.run_workloads(Readiness::After(Duration::from_secs(5)));
    assert_eq!(ready("web"), (json!(1), Value::Null));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ready("web"), (json!(1), json!(2)));
    assert_eq!(ready("stuck"), (json!(1), Value::Null));
    server.merge("deployments", "default", "web", &json!({"spec": {"replicas": 3}}));
    assert_eq!(ready("web"), (json!(2), Value::Null));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ready("web"), (json!(2), json!(3)));
    server.run_workloads(Readiness::AtOnce);
    server.let_go("stuck");
    assert_eq!(ready("stuck"), (json!(1), json!(1)));
}

#[tokio::test(start_paused = true)]
async fn slices_follow_the_ready_replicas_that_a_service_selects() {
    let server = InProcess::new();
    server.run_workloads(Readiness::AtOnce);
    server.run_endpoint_slices();
    server.put(deployment("web", 2));
    let services: Api<Service> = Api::default_namespaced(server.client());
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }))
    .expect("it is a service");
    services.create(&PostParams::default(), &service).await.expect("the service is new");
    let slice = || server.object("endpointslices", "default", "web-slice");
    let addresses = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
    let first = slice().expect("the service selects");
    assert_eq!((addresses(&first), &first["ports"][0]["port"]), (2, &json!(8080)));
    server.merge("deployments", "default", "web", &json!({"spec": {"replicas": 3}}));
    assert_eq!(slice().as_ref().map(addresses), Some(3));
    services.delete("web", &kube::api::DeleteParams::default()).await.expect("the service is there");
    assert_eq!(slice(), None);
}

#[tokio::test(start_paused = true)]
async fn a_test_adds_and_removes_kinds() {
    let server = InProcess::new();
    server.add_kind(Kind::custom("example.com", "v1", "widgets", "Widget").cluster_scoped().without_status());
    let resource = ApiResource {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        api_version: "example.com/v1".to_owned(),
        kind: "Widget".to_owned(),
        plural: "widgets".to_owned(),
    };
    let widgets: Api<DynamicObject> = Api::all_with(server.client(), &resource);
    let widget = DynamicObject::new("one", &resource).data(json!({"status": {"a": 1}}));
    let made = widgets.create(&PostParams::default(), &widget).await.expect("the kind was added");
    assert_eq!(made.data["status"], json!({"a": 1}));
    server.remove_kind("widgets");
    assert_eq!(code(widgets.list(&ListParams::default()).await), 404);
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_can_be_listed_and_watched() {
    let server = InProcess::new();
    server.put(config("a", "1"));
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(server.client());
    let list = api.list(&ListParams::default()).await.expect("lists work");
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("a"));
    let mut events = Box::pin(api.watch(&WatchParams::default(), "0").await.expect("the watch opens"));
    assert!(matches!(events.next().await, Some(Ok(kube::api::WatchEvent::Added(_)))));
}

#[tokio::test(start_paused = true)]
async fn time_is_that_of_the_test() {
    let server = InProcess::starting_at("2026-01-01T00:00:00Z".parse().expect("it is a time"));
    tokio::time::advance(Duration::from_secs(90)).await;
    assert_eq!(server.put(config("a", "1"))["metadata"]["creationTimestamp"], "2026-01-01T00:01:30Z");
}
