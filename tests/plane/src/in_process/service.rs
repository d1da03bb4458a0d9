//! The `tower::Service` behind the client: reads a request, lets it go wrong where a test says so, and has it carried
//! out.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

use super::call::{self, Call, Verb};
use super::failure::Failure;
use super::faults::Reply;
use super::store::Store;
use super::write::Done;
use super::{Inner, REQUESTS_MAX, Request, State, metadata_of, watch};

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

pub(super) fn client(inner: &Arc<Inner>) -> kube::Client {
    kube::Client::new(Service { inner: Arc::clone(inner) }, "default")
}

#[derive(Clone)]
struct Service {
    inner: Arc<Inner>,
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { answer(inner, request).await })
    }
}

async fn answer(inner: Arc<Inner>, request: http::Request<Body>) -> Result<Answer, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect_bytes().await?;
    if inner.look(|state| state.down) {
        return Err(cut_off());
    }
    let path = parts.uri.path();
    let Some((kind, place)) = inner.look(|state| located(&state.store, path)) else {
        return Ok(inner.look(|state| discovered(&state.store, path)));
    };
    let call = match Call::read(&parts.method, parts.uri.query(), &parts.headers, body, kind, place) {
        Ok(call) => call,
        Err(failure) => return Ok(refused(&failure)),
    };
    let fault = inner.look(|state| {
        remember(state, &call, path);
        state.faults.take(&call)
    });
    let Some((fault, hold)) = fault else { return Ok(carried_out(&inner, call)) };
    // What is saved though nobody is told is saved before anybody waits for it.
    let result = fault.carried_out.then(|| carried_out(&inner, call.clone()));
    match fault.reply {
        Reply::Status { code, retry_after_s } => Ok(refused(&Failure::of_code(code, retry_after_s))),
        Reply::Broken => Err(cut_off()),
        Reply::Held => {
            hold.released().await;
            Ok(result.unwrap_or_else(|| carried_out(&inner, call)))
        }
    }
}

fn located(store: &Store, path: &str) -> Option<(super::Kind, call::Place)> {
    let place = call::place(path)?;
    let same =
        |kind: &&super::Kind| kind.group == place.group && kind.version == place.version && kind.plural == place.plural;
    let kind = store.kinds.iter().find(same)?.clone();
    Some((kind, place))
}

fn remember(state: &mut State, call: &Call, path: &str) {
    if state.requests.len() == REQUESTS_MAX {
        state.requests.pop_front();
    }
    state.requests.push_back(Request {
        verb: call.verb,
        resource: call.kind.plural.clone(),
        path: path.to_owned(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        subresource: call.subresource.clone(),
        manager: call.manager.clone(),
    });
}

fn carried_out(inner: &Arc<Inner>, call: Call) -> Answer {
    let has_part = call.subresource.is_none() || (call.on_status() && call.kind.status);
    if !has_part {
        return refused(&Failure::not_found(&call.kind, call.name()));
    }
    let metadata_only = call.metadata_only;
    let ok = |body| Done { code: 200, body };
    let result = match call.verb {
        Verb::Get => inner.look(|state| state.store.get(&call)).map(ok),
        Verb::List => inner.look(|state| state.store.list(&call)).map(ok),
        Verb::Watch => return watched(inner, call),
        Verb::Create => inner.change(|state| state.store.create(&call)),
        Verb::Update => inner.change(|state| state.store.replace(&call)),
        Verb::Patch => {
            let sort = call.patch.expect("a PATCH that is read has a sort");
            inner.change(|state| state.store.patch(&call, sort))
        }
        Verb::Delete => inner.change(|state| state.store.delete(&call)),
        Verb::DeleteCollection => inner.change(|state| state.store.delete_collection(&call)),
    };
    match result {
        Ok(Done { code, body }) if metadata_only => plain(code, &reduced(body)),
        Ok(Done { code, body }) => plain(code, &body),
        Err(failure) => refused(&failure),
    }
}

fn reduced(mut body: Value) -> Value {
    match body.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) => {
            items.iter_mut().for_each(|item| *item = metadata_of(item));
            body["kind"] = json!("PartialObjectMetadataList");
            body["apiVersion"] = json!("meta.k8s.io/v1");
            body
        }
        None => metadata_of(&body),
    }
}

fn watched(inner: &Arc<Inner>, call: Call) -> Answer {
    match watch::open(inner, call) {
        Ok(frames) => {
            let body = StreamBody::new(frames).map_err(|never| match never {});
            made(200, body.boxed_unsync(), None)
        }
        Err(failure) => refused(&failure),
    }
}

/// What is at a path that is no resource: the version, and the resources of a group, by which a client asks for
/// definitions.
fn discovered(store: &Store, path: &str) -> Answer {
    if path == "/version" {
        let version = json!({
            "major": "1", "minor": "37", "gitVersion": "v1.37.2", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "none", "platform": "in-process",
        });
        return plain(200, &version);
    }
    let wanted = path.trim_start_matches("/apis/").trim_start_matches("/api/");
    let resources: Vec<Value> = store
        .kinds
        .iter()
        .filter(|kind| kind.api_version() == wanted)
        .map(|kind| {
            let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
            let (name, namespaced) = (&kind.plural, kind.namespaced);
            json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind.kind, "verbs": verbs})
        })
        .collect();
    if resources.is_empty() {
        // The real server answers in plain text where nothing is served.
        let body = Full::new(Bytes::from_static(b"404 page not found\n")).map_err(|never| match never {});
        return made(404, body.boxed_unsync(), None);
    }
    plain(200, &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": wanted, "resources": resources}))
}

fn refused(failure: &Failure) -> Answer {
    let body = Full::new(Bytes::from(failure.status().to_string())).map_err(|never| match never {});
    made(failure.code, body.boxed_unsync(), failure.retry_after_s())
}

fn plain(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    made(code, body.boxed_unsync(), None)
}

fn made(code: u16, body: UnsyncBoxBody<Bytes, BoxError>, retry_after_s: Option<u64>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).expect("a test asks for a code that HTTP has");
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after_s {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    answer
}

fn cut_off() -> BoxError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the test broke the connection").into()
}
