//! What the server says when it does not do what was asked: a `metav1.Status`, worded as the real one words it.

use serde_json::{Value, json};

use super::kinds::Kind;

/// Why a call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// What `registry.OptimisticLockErrorMsg` says.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl Failure {
    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::named(404, "NotFound", kind, name, format!("{} \"{name}\" not found", kind.qualified()))
    }

    pub(super) fn already_exists(kind: &Kind, name: &str, terminating: bool) -> Self {
        let prefix = if terminating { "object is being deleted: " } else { "" };
        Self::named(409, "AlreadyExists", kind, name, format!("{prefix}{} \"{name}\" already exists", kind.qualified()))
    }

    pub(super) fn stale(kind: &Kind, name: &str) -> Self {
        Self::conflict(kind, name, MODIFIED)
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::named(409, "Conflict", kind, name, message)
    }

    /// A field manager owns what another wants to apply.
    pub(super) fn owned_by_others(kind: &Kind, name: &str, conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                let message = format!("conflict with \"{manager}\"");
                json!({"reason": "FieldManagerConflict", "message": message, "field": field})
            })
            .collect();
        let (manager, field) = conflicts.first().cloned().unwrap_or_default();
        let message = match conflicts.len() {
            1 => format!("Apply failed with 1 conflict: conflict with \"{manager}\": {field}"),
            many => {
                format!("Apply failed with {many} conflicts: conflicts with \"{manager}\" and others: {field} and more")
            }
        };
        let details = json!({"name": name, "group": kind.group, "kind": kind.plural, "causes": causes});
        Self { code: 409, reason: "Conflict", message, details: Some(details) }
    }

    pub(super) fn invalid(kind: &Kind, name: &str, field: &str, why: &str) -> Self {
        let subject = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let details = json!({
            "name": name, "group": kind.group, "kind": kind.kind,
            "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
        });
        let message = format!("{subject} \"{name}\" is invalid: {field}: {why}");
        Self { code: 422, reason: "Invalid", message, details: Some(details) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into(), details: None }
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self { code: 410, reason: "Expired", message: message.into(), details: None }
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self { code: 500, reason: "", message: message.into(), details: None }
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self { code: 405, reason: "MethodNotAllowed", message, details: None }
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        Self { code: 415, reason: "UnsupportedMediaType", message: message.to_owned(), details: None }
    }

    pub(super) fn too_large_version(given: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {given}, current: {current}");
        let details = json!({"retryAfterSeconds": 1, "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"},
        ]});
        Self { code: 504, reason: "Timeout", message, details: Some(details) }
    }

    /// The failure a test asked for by its code.
    pub(super) fn of_code(code: u16, retry_after_s: Option<u32>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        let details = retry_after_s.map(|seconds| json!({"retryAfterSeconds": seconds}));
        Self { code, reason, message: format!("{code} as the test asked"), details }
    }

    /// The body of the answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    /// What a `Retry-After` header says, where there is one.
    pub(super) fn retry_after_s(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    fn named(code: u16, reason: &'static str, kind: &Kind, name: &str, message: String) -> Self {
        let details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        Self { code, reason, message, details: Some(details) }
    }
}
