//! One call of a row: what is sent, what of the answer counts, and how both are written without what differs by server.

use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::super::kinds::{self, Kind};

/// How long a step waits for what controllers or a watch bring. The garbage collector of a real server takes a few
/// seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call and what it should give.
#[derive(Debug)]
pub(super) struct Step {
    kind: Kind,
    name: &'static str,
    act: Act,
    on_status: bool,
    manager: Option<&'static str>,
    shown: Vec<&'static str>,
    eventually: bool,
    pub(super) expected: String,
}

#[derive(Debug)]
enum Act {
    Create { body: Value, dry_run: bool },
    Get,
    Replace { body: Value },
    Merge { body: Value },
    Strategic { body: Value },
    Json { body: Value },
    Apply { body: Value, force: bool },
    Delete { options: DeleteParams },
    DeleteCollection { params: ListParams },
    List { params: ListParams, metadata_only: bool },
    Watch { params: WatchParams, version: &'static str, events: usize },
}

/// What earlier steps of a row were answered.
#[derive(Debug)]
pub(super) struct Memory {
    namespace: String,
    prefix: String,
    answers: Vec<Value>,
}

fn step(resource: &str, name: &'static str, act: Act) -> Step {
    let kind = kinds::known().into_iter().find(|kind| kind.answers_to(resource)).expect("rows use kinds of the table");
    Step {
        kind,
        name,
        act,
        on_status: false,
        manager: None,
        shown: Vec::new(),
        eventually: false,
        expected: "ok".to_owned(),
    }
}

pub(super) fn create(resource: &str, body: Value) -> Step {
    step(resource, "", Act::Create { body, dry_run: false })
}

pub(super) fn get(resource: &str, name: &'static str) -> Step {
    step(resource, name, Act::Get)
}

pub(super) fn replace(resource: &str, name: &'static str, body: Value) -> Step {
    step(resource, name, Act::Replace { body })
}

pub(super) fn merge(resource: &str, name: &'static str, body: Value) -> Step {
    step(resource, name, Act::Merge { body })
}

pub(super) fn strategic(resource: &str, name: &'static str, body: Value) -> Step {
    step(resource, name, Act::Strategic { body })
}

pub(super) fn json_patch(resource: &str, name: &'static str, body: Value) -> Step {
    step(resource, name, Act::Json { body })
}

pub(super) fn apply(resource: &str, name: &'static str, manager: &'static str, body: Value) -> Step {
    step(resource, name, Act::Apply { body, force: false }).by(manager)
}

pub(super) fn delete(resource: &str, name: &'static str, options: DeleteParams) -> Step {
    step(resource, name, Act::Delete { options })
}

pub(super) fn delete_collection(resource: &str, params: ListParams) -> Step {
    step(resource, "", Act::DeleteCollection { params })
}

pub(super) fn list(resource: &str, params: ListParams) -> Step {
    step(resource, "", Act::List { params, metadata_only: false })
}

pub(super) fn list_metadata(resource: &str, params: ListParams) -> Step {
    step(resource, "", Act::List { params, metadata_only: true })
}

/// Watches the row's objects from a version until that many events have come.
pub(super) fn watch(resource: &str, params: WatchParams, version: &'static str, events: usize) -> Step {
    step(resource, "", Act::Watch { params, version, events })
}

impl Step {
    pub(super) fn on_status(self) -> Self {
        Self { on_status: true, ..self }
    }

    pub(super) fn by(self, manager: &'static str) -> Self {
        Self { manager: Some(manager), ..self }
    }

    pub(super) fn without_manager(self) -> Self {
        Self { manager: None, ..self }
    }

    pub(super) fn force(mut self) -> Self {
        if let Act::Apply { force, .. } = &mut self.act {
            *force = true;
        }
        self
    }

    pub(super) fn dry_run(mut self) -> Self {
        if let Act::Create { dry_run, .. } = &mut self.act {
            *dry_run = true;
        }
        self
    }

    /// Repeats the step until it gives what it should, or patience ends.
    pub(super) fn eventually(self) -> Self {
        Self { eventually: true, ..self }
    }

    /// What the answer should have: JSON pointers, or `version`, `names`, `managers`, `more`, `events`. Texts are
    /// written as they are, other values as JSON, and `-` is what is not there.
    pub(super) fn with(self, fields: &[(&'static str, &str)]) -> Self {
        let told: Vec<String> = fields.iter().map(|(what, value)| format!(" {what}={value}")).collect();
        let shown = fields.iter().map(|(what, _)| *what).collect();
        Self { shown, expected: format!("ok{}", told.concat()), ..self }
    }

    /// The failure it should give, as `409 Conflict`.
    pub(super) fn gives(self, failure: &str) -> Self {
        Self { expected: failure.to_owned(), ..self }
    }

    pub(super) async fn run(&self, client: &Client, memory: &mut Memory) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.call(client, memory).await;
            let seen = match &answer {
                Ok(value) => memory.shown(value, &self.shown),
                Err(kube::Error::Api(status)) => format!("{} {}", status.code, status.reason).trim().to_owned(),
                Err(error) => format!("no answer: {error}"),
            };
            if self.eventually && seen != self.expected && Instant::now() < deadline {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            memory.answers.push(answer.unwrap_or(Value::Null));
            return seen;
        }
    }

    async fn call(&self, client: &Client, memory: &Memory) -> kube::Result<Value> {
        let request = Request::new(self.kind.path(Some(&memory.namespace)));
        let name = memory.filled(self.name);
        let body = |body: &Value| memory.filled_all(&complete(&self.kind, body));
        let bytes = |value: &Value| body(value).to_string().into_bytes();
        let post = |dry_run| PostParams { dry_run, field_manager: self.manager.map(str::to_owned) };
        let patch =
            |force| PatchParams { force, field_manager: self.manager.map(str::to_owned), ..PatchParams::default() };
        let patched = |patch: &Patch<Value>, params: &PatchParams| match self.on_status {
            true => request.patch_subresource("status", &name, params, patch),
            false => request.patch(&name, params, patch),
        };
        let made = match &self.act {
            Act::Watch { params, version, events } => {
                return self.follow(client, memory, &request, params, version, *events).await;
            }
            Act::Create { body, dry_run } => request.create(&post(*dry_run), bytes(body)),
            Act::Get => request.get(&name, &GetParams::default()),
            Act::Replace { body } if self.on_status => {
                request.replace_subresource("status", &name, &post(false), bytes(body))
            }
            Act::Replace { body } => request.replace(&name, &post(false), bytes(body)),
            Act::Merge { body } => patched(&Patch::Merge(memory.filled_all(body)), &patch(false)),
            Act::Strategic { body } => patched(&Patch::Strategic(memory.filled_all(body)), &patch(false)),
            Act::Apply { body: config, force } => patched(&Patch::Apply(body(config)), &patch(*force)),
            Act::Json { body } => Ok(json_request(&request, &name, &memory.filled_all(body))),
            Act::Delete { options } => request.delete(&name, &memory.filled_options(options)),
            Act::DeleteCollection { params } => {
                request.delete_collection(&DeleteParams::default(), &memory.filled_list(params))
            }
            Act::List { params, metadata_only: true } => request.list_metadata(&memory.filled_list(params)),
            Act::List { params, metadata_only: false } => request.list(&memory.filled_list(params)),
        };
        client.request::<Value>(made.map_err(kube::Error::BuildRequest)?).await
    }

    /// The events of a watch, as a list of `TYPE name`.
    async fn follow(
        &self,
        client: &Client,
        memory: &Memory,
        request: &Request,
        params: &WatchParams,
        version: &str,
        events: usize,
    ) -> kube::Result<Value> {
        let mut params = params.clone();
        params.label_selector = params.label_selector.map(|selector| memory.filled(&selector));
        params.field_selector = params.field_selector.map(|selector| memory.filled(&selector));
        let request = request.watch(&params, &memory.filled(version)).map_err(kube::Error::BuildRequest)?;
        let stream = client.request_events::<Value>(request).await?;
        let told = stream.filter_map(|event| async {
            let line = |word: &str, object: &Value| {
                Some(format!("{word} {}", object["metadata"]["name"].as_str().unwrap_or("")))
            };
            match event {
                Ok(WatchEvent::Added(object)) => line("ADDED", &object),
                Ok(WatchEvent::Modified(object)) => line("MODIFIED", &object),
                Ok(WatchEvent::Deleted(object)) => line("DELETED", &object),
                Ok(WatchEvent::Bookmark(mark))
                    if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") =>
                {
                    Some("END OF LIST".to_owned())
                }
                Ok(WatchEvent::Bookmark(_)) => None,
                Ok(WatchEvent::Error(status)) => Some(format!("ERROR {} {}", status.code, status.reason)),
                Err(error) => Some(format!("no event: {error}")),
            }
        });
        let mut told = std::pin::pin!(told);
        let mut lines = Vec::new();
        while lines.len() < events {
            match timeout(PATIENCE, told.next()).await {
                Ok(Some(line)) => lines.push(line),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(json!({"events": lines.join(", ")}))
    }
}

/// A body with the kind it is of, unless the row says another.
fn complete(kind: &Kind, body: &Value) -> Value {
    let mut body = body.clone();
    for (field, value) in [("kind", kind.kind.clone()), ("apiVersion", kind.api_version())] {
        if body.get(field).is_none() {
            body[field] = json!(value);
        }
    }
    body
}

/// A JSON patch, written out because kube has it behind a feature that brings another crate.
fn json_request(request: &Request, name: &str, body: &Value) -> http::Request<Vec<u8>> {
    http::Request::patch(format!("{}/{name}", request.url_path))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(body.to_string().into_bytes())
        .expect("the path is one of a resource")
}

impl Memory {
    pub(super) fn new(namespace: &str, row: usize) -> Self {
        Self { namespace: namespace.to_owned(), prefix: format!("p{row:02}-"), answers: Vec::new() }
    }

    /// Puts in what stands for something: `@` for the row, `{ns}` for its namespace, `{version0}`, `{uid0}` and
    /// `{continue0}` for answers.
    fn filled(&self, text: &str) -> String {
        let mut text = text.replace('@', &self.prefix).replace("{ns}", &self.namespace);
        for (number, answer) in self.answers.iter().enumerate() {
            for (word, field) in [("version", "resourceVersion"), ("uid", "uid"), ("continue", "continue")] {
                let value = answer["metadata"][field].as_str().unwrap_or("");
                text = text.replace(&format!("{{{word}{number}}}"), value);
            }
        }
        text
    }

    fn filled_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.filled(text)),
            Value::Array(list) => list.iter().map(|item| self.filled_all(item)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), self.filled_all(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn filled_list(&self, params: &ListParams) -> ListParams {
        let mut params = params.clone();
        for text in [&mut params.label_selector, &mut params.field_selector, &mut params.continue_token] {
            *text = text.as_ref().map(|text| self.filled(text));
        }
        params
    }

    fn filled_options(&self, options: &DeleteParams) -> DeleteParams {
        let mut options = options.clone();
        if let Some(preconditions) = &mut options.preconditions {
            for text in [&mut preconditions.uid, &mut preconditions.resource_version] {
                *text = text.as_ref().map(|text| self.filled(text));
            }
        }
        options
    }

    fn shown(&self, answer: &Value, shown: &[&str]) -> String {
        let mut line = "ok".to_owned();
        for what in shown {
            let value = match *what {
                "version" => self.version(answer),
                "names" => names(answer),
                "managers" => managers(answer),
                "more" => answer["metadata"]["continue"].as_str().is_some_and(|token| !token.is_empty()).to_string(),
                "events" => answer["events"].as_str().unwrap_or("").to_owned(),
                pointer => answer.pointer(pointer).map_or_else(|| "-".to_owned(), plain),
            };
            line.push_str(&format!(" {what}={value}"));
        }
        line.replace(&self.prefix, "@").replace(&self.namespace, "NAMESPACE")
    }

    /// The step that first was answered with this version, or how it compares to the newest so far.
    fn version(&self, answer: &Value) -> String {
        let of = |answer: &Value| {
            answer["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok())
        };
        let Some(version) = of(answer) else { return "none".to_owned() };
        match self.answers.iter().position(|earlier| of(earlier) == Some(version)) {
            Some(number) => format!("of {number}"),
            None if self.answers.iter().filter_map(of).all(|earlier| earlier < version) => "newer".to_owned(),
            None => "older".to_owned(),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().into_iter().flatten();
    let mut names: Vec<&str> = items.filter_map(|item| item["metadata"]["name"].as_str()).collect();
    names.sort_unstable();
    names.join(",")
}

fn managers(object: &Value) -> String {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut managers: Vec<String> = entries
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or("").to_owned();
            [text("manager"), text("operation"), text("subresource")].join("/").trim_end_matches('/').to_owned()
        })
        .collect();
    managers.sort_unstable();
    managers.join(",")
}
