//! `analysis.sessionAffinity`: keep a user on the version that served them first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `analysis.sessionAffinity`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["cookieName"]))]
pub struct SessionAffinity {
    /// Name of the cookie that keeps a user on the canary; required.
    pub cookie_name: Option<String>,
    /// Name of the cookie that keeps a user on the primary until the next step.
    pub primary_cookie_name: Option<String>,
    /// `Domain` attribute.
    pub domain: Option<String>,
    /// `HttpOnly` attribute.
    pub http_only: Option<bool>,
    /// `Max-Age` of the canary's cookie in seconds.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub max_age: Option<i64>,
    /// `Partitioned` attribute.
    pub partitioned: Option<bool>,
    /// `Path` attribute.
    pub path: Option<String>,
    /// `SameSite` attribute.
    pub same_site: Option<SameSite>,
    /// `Secure` attribute.
    pub secure: Option<bool>,
}

/// Values of a cookie's `SameSite` attribute (RFC 6265bis, section 4.1.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SameSite {
    /// Sent on requests from the same site only.
    Strict,
    /// Sent on top-level navigation too.
    Lax,
    /// Sent on every request; browsers want `Secure` with it.
    None,
}

/// One day in seconds: Flagger's default `Max-Age` (checklist 17).
const MAX_AGE_DEFAULT_S: i64 = 86_400;

impl SessionAffinity {
    /// `Max-Age` of the canary's cookie in seconds; 86400 where absent.
    pub fn max_age_s(&self) -> i64 {
        self.max_age.unwrap_or(MAX_AGE_DEFAULT_S)
    }
}
