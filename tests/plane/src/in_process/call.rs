//! Reads an HTTP request as a call: which verb, on what, as whom, with which options.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use super::failure::Failure;
use super::kinds::Kind;

/// What a request does, in the words of the server's authorization rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads many.
    List,
    /// Follows many.
    Watch,
    /// A POST.
    Create,
    /// A PUT.
    Update,
    /// A PATCH of any sort.
    Patch,
    /// Deletes one object.
    Delete,
    /// Deletes many.
    DeleteCollection,
}

/// How the body of a PATCH is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchSort {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A request, understood.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) kind: Kind,
    /// `None` for a cluster-scoped kind, and for all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) patch: Option<PatchSort>,
    /// Only `metadata` is wanted back.
    pub(super) metadata_only: bool,
    pub(super) manager: String,
    pub(super) dry_run: bool,
    pub(super) force: bool,
    query: BTreeMap<String, String>,
    body: Bytes,
}

/// Where a path leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Splits the path of a resource; `None` for what is no resource, such as `/version`.
pub(super) fn place(path: &str) -> Option<Place> {
    let mut steps = path.split('/').filter(|step| !step.is_empty()).map(|step| decoded(step, false));
    let group = match steps.next()?.as_str() {
        "api" => String::new(),
        "apis" => steps.next()?,
        _ => return None,
    };
    let version = steps.next()?;
    let rest: Vec<String> = steps.collect();
    let at = |index: usize| rest.get(index).cloned();
    // `/namespaces/NAME/status` is about the namespace, `/namespaces/NAME/pods` about what is in it.
    let within = rest.len() > 2 && rest[0] == "namespaces" && rest[2] != "status" && rest[2] != "finalize";
    let (namespace, skipped) = if within { (at(1), 2) } else { (None, 0) };
    let plural = at(skipped)?;
    Some(Place { group, version, plural, namespace, name: at(skipped + 1), subresource: at(skipped + 2) })
}

impl Call {
    pub(super) fn read(
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
        kind: Kind,
        place: Place,
    ) -> Result<Self, Failure> {
        let query = pairs(query.unwrap_or(""));
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let watches = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match (method.as_str(), place.name.is_some()) {
            ("GET", _) if watches => Verb::Watch,
            ("GET", true) => Verb::Get,
            ("GET", false) => Verb::List,
            ("POST", false) => Verb::Create,
            ("PUT", true) => Verb::Update,
            ("PATCH", true) => Verb::Patch,
            ("DELETE", true) => Verb::Delete,
            ("DELETE", false) => Verb::DeleteCollection,
            _ => return Err(Failure::method_not_allowed()),
        };
        let patch = match verb {
            Verb::Patch => Some(sort(header(header::CONTENT_TYPE), &kind)?),
            Verb::Get
            | Verb::List
            | Verb::Watch
            | Verb::Create
            | Verb::Update
            | Verb::Delete
            | Verb::DeleteCollection => None,
        };
        // As the real server: who gives no manager is known by the first word of its user agent.
        let agent = header(header::USER_AGENT).split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
        Ok(Self {
            verb,
            patch,
            metadata_only: header(header::ACCEPT).contains("as=PartialObjectMetadata"),
            manager: query.get("fieldManager").map_or(agent, String::as_str).to_owned(),
            dry_run: query.contains_key("dryRun"),
            force: query.get("force").is_some_and(|value| value == "true"),
            namespace: place.namespace,
            name: place.name,
            subresource: place.subresource,
            kind,
            query,
            body,
        })
    }

    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the caller named a field manager, which an apply has to.
    pub(super) fn manager_given(&self) -> bool {
        self.option("fieldManager").is_some()
    }

    pub(super) fn body(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::bad_request(format!("the body is no JSON: {error}")))
    }

    /// The body where one may be left out, as with DELETE.
    pub(super) fn body_or_null(&self) -> Result<Value, Failure> {
        if self.body.is_empty() { Ok(Value::Null) } else { self.body() }
    }

    pub(super) fn on_status(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }

    /// The name, for verbs that are only read from a path that has one.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }
}

fn sort(content_type: &str, kind: &Kind) -> Result<PatchSort, Failure> {
    match content_type.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => Ok(PatchSort::Json),
        "application/merge-patch+json" => Ok(PatchSort::Merge),
        "application/apply-patch+yaml" => Ok(PatchSort::Apply),
        "application/strategic-merge-patch+json" if !kind.rules.custom => Ok(PatchSort::Strategic),
        _ => Err(Failure::unsupported_media_type()),
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key, true), decoded(value, true))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// Undoes the encoding of a URL; in a query, `+` is a space.
fn decoded(text: &str, in_query: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            (b'+', _) if in_query => {
                out.push(b' ');
                rest = after;
            }
            (byte, _) => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: [&str; 4]) {
        let place = place(path).expect("the path is one of a resource");
        let text = |part: Option<String>| part.unwrap_or_default();
        let seen = [place.plural, text(place.namespace), text(place.name), text(place.subresource)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_path_names_a_kind_a_namespace_an_object_and_a_part_of_it() {
        check("/api/v1/namespaces/shop/pods", ["pods", "shop", "", ""]);
        check("/apis/apps/v1/namespaces/shop/deployments/web/status", ["deployments", "shop", "web", "status"]);
        check("/apis/apps/v1/deployments", ["deployments", "", "", ""]);
        check("/api/v1/namespaces/shop", ["namespaces", "", "shop", ""]);
        check("/api/v1/namespaces/shop/status", ["namespaces", "", "shop", "status"]);
        assert_eq!(place("/version"), None);
    }

    #[test]
    fn a_query_is_decoded_and_the_ampersand_that_kube_puts_first_is_ignored() {
        let query = pairs("&labelSelector=app+in+%28a%2Cb%29&watch=true");
        assert_eq!(query.get("labelSelector").map(String::as_str), Some("app in (a,b)"));
        assert_eq!(query.get("watch").map(String::as_str), Some("true"));
    }
}
