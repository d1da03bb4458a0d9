//! `spec.analysis`: how fast traffic moves, what is checked, who is asked and told.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::affinity::SessionAffinity;
use super::guard::Guard;
use super::service::StringMatch;
use crate::duration::GoDuration;
use crate::interval::{self, INTERVAL_DEFAULT};
use crate::schema::{self, AnyObject};

/// What an analysis has: one of the three ways in which traffic moves, and two fields with each of them.
const STRATEGIES: &[&[&str]] = &[
    &["interval", "threshold", "iterations"],
    &["interval", "threshold", "stepWeight"],
    &["interval", "threshold", "stepWeights"],
];

/// `Canary.spec.analysis`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::exactly_one_of(STRATEGIES))]
pub struct Analysis {
    /// Time between two checks; required. It begins with whole minutes or seconds, such as 90s, 5m or 1m30s.
    #[schemars(regex(pattern = interval::PATTERN))]
    pub interval: Option<String>,
    /// Failed checks after which the canary is rolled back; required.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub threshold: Option<i64>,
    /// Number of checks of a blue/green or A/B run.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub iterations: Option<i64>,
    /// Percentage points that the canary gains at each step.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub step_weight: Option<i64>,
    /// The canary's weight at each step, in percent.
    #[serde(default, deserialize_with = "crate::whole::list")]
    #[schemars(with = "Option<Vec<f64>>")]
    pub step_weights: Option<Vec<i64>>,
    /// The weight at which the canary is promoted, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub max_weight: Option<i64>,
    /// Percentage points by which traffic returns to the primary after promotion.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub step_weight_promotion: Option<i64>,
    /// Mirror traffic to the canary before it answers any.
    pub mirror: Option<bool>,
    /// Share of requests that is mirrored, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub mirror_weight: Option<i64>,
    /// Share of the primary's replicas that must be available, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub primary_ready_threshold: Option<i64>,
    /// Share of the canary's replicas that must be available, in percent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub canary_ready_threshold: Option<i64>,
    /// Requests that belong to an A/B run. One entry must match in full.
    #[serde(rename = "match")]
    pub matches: Option<Vec<RequestMatch>>,
    /// Checks on measured values.
    pub metrics: Option<Vec<Metric>>,
    /// Alerts of this Canary.
    pub alerts: Option<Vec<Alert>>,
    /// Calls to other services: gates, tests, events.
    pub webhooks: Option<Vec<Webhook>>,
    /// Keep users on the version that served them first.
    pub session_affinity: Option<SessionAffinity>,
    /// Serin's guard, which brakes sooner than the interval would, on evidence. Not a Flagger field.
    pub guard: Option<Guard>,
}

/// The largest weight there is, in percent.
const WEIGHT_MAX: i64 = 100;

impl Analysis {
    /// Time between two checks, as honoured: one minute where it cannot be read, never below one second.
    pub fn interval(&self) -> Duration {
        interval::interval(self.interval.as_deref()).map_or(INTERVAL_DEFAULT, |interval| interval.duration)
    }

    /// Failed checks before a rollback: at least 1 (checklist 13).
    pub fn threshold(&self) -> u32 {
        small(self.threshold.unwrap_or(1).max(1))
    }

    /// Number of checks of a blue/green or A/B run; 0 for a weighted canary.
    pub fn iterations(&self) -> u32 {
        small(self.iterations.unwrap_or(0))
    }

    /// The weight at which the canary is promoted: the last of `stepWeights`, else `maxWeight`, else 100 (checklist 15).
    pub fn max_weight(&self) -> u32 {
        let last = self.step_weights().last().copied();
        let given = last.or_else(|| self.max_weight.filter(|weight| *weight > 0));
        small(given.unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX))
    }

    /// The canary's weight at each step; empty where `stepWeight` or `iterations` is used.
    pub fn step_weights(&self) -> &[i64] {
        self.step_weights.as_deref().unwrap_or_default()
    }

    /// Percentage points by which traffic returns to the primary; `None` for all at once.
    pub fn step_weight_promotion(&self) -> Option<u32> {
        self.step_weight_promotion.filter(|step| *step > 0).map(small)
    }

    /// Whether traffic is mirrored first; false where absent.
    pub fn mirror(&self) -> bool {
        self.mirror.unwrap_or(false)
    }

    /// Share of requests that is mirrored, in percent: 100 where absent or 0.
    pub fn mirror_weight(&self) -> u32 {
        small(self.mirror_weight.filter(|weight| *weight > 0).unwrap_or(WEIGHT_MAX))
    }

    /// Share of the primary's replicas that must be available, in percent: 100 where absent (checklist 16).
    pub fn primary_ready_threshold(&self) -> u32 {
        small(self.primary_ready_threshold.unwrap_or(100))
    }

    /// Share of the canary's replicas that must be available, in percent: 100 where absent (checklist 16).
    pub fn canary_ready_threshold(&self) -> u32 {
        small(self.canary_ready_threshold.unwrap_or(100))
    }

    /// The A/B conditions; empty where absent.
    pub fn matches(&self) -> &[RequestMatch] {
        self.matches.as_deref().unwrap_or_default()
    }

    /// The checks; empty where absent.
    pub fn metrics(&self) -> &[Metric] {
        self.metrics.as_deref().unwrap_or_default()
    }

    /// The alerts; empty where absent.
    pub fn alerts(&self) -> &[Alert] {
        self.alerts.as_deref().unwrap_or_default()
    }

    /// The hooks; empty where absent.
    pub fn webhooks(&self) -> &[Webhook] {
        self.webhooks.as_deref().unwrap_or_default()
    }
}

/// A count or a percentage for the rest of the program; validation has reported what is cut here.
fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// One entry of `analysis.match`: every condition in it must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestMatch {
    /// Conditions on request headers, by name.
    pub headers: Option<BTreeMap<String, HeaderMatch>>,
    /// Conditions on query parameters, by name.
    pub query_params: Option<BTreeMap<String, StringMatch>>,
    /// Labels of the calling pod; known to a mesh only.
    pub source_labels: Option<BTreeMap<String, String>>,
}

/// A condition on a header in `analysis.match`: exactly one of the four.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::exactly_one_of(&[&["exact"], &["prefix"], &["suffix"], &["regex"]]))]
pub struct HeaderMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// How the value begins.
    pub prefix: Option<String>,
    /// How the value ends.
    pub suffix: Option<String>,
    /// A regular expression in RE2's syntax for the whole value.
    pub regex: Option<String>,
}

/// Metrics that need no query: share of requests that succeed, in percent, and p99 of their duration, in milliseconds.
pub const BUILTIN_METRICS: [&str; 2] = ["request-success-rate", "request-duration"];

/// One check of `analysis.metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub struct Metric {
    /// The metric's name; required. `request-success-rate` and `request-duration` mean the builtin checks.
    pub name: Option<String>,
    /// The window that is looked at.
    #[schemars(regex(pattern = interval::PATTERN))]
    pub interval: Option<String>,
    /// The limit in its deprecated form: a minimum for `request-success-rate`, a maximum for all others.
    pub threshold: Option<f64>,
    /// The values that pass, both ends included.
    pub threshold_range: Option<ThresholdRange>,
    /// PromQL, deprecated.
    pub query: Option<String>,
    /// The MetricTemplate that holds the query.
    pub template_ref: Option<NamespacedRef>,
    /// Variables for the template.
    pub template_variables: Option<BTreeMap<String, String>>,
}

/// `thresholdRange`: both ends pass; an absent one sets no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThresholdRange {
    /// The smallest value that passes.
    pub min: Option<f64>,
    /// The largest value that passes.
    pub max: Option<f64>,
}

impl Metric {
    /// Whether the name is that of a builtin check.
    pub fn is_builtin(&self) -> bool {
        self.name.as_deref().is_some_and(|name| BUILTIN_METRICS.contains(&name))
    }

    /// The window as text, for queries: `1m` where absent for builtin and inline ones. Templates have no default.
    pub fn interval_text(&self) -> Option<&str> {
        let default = (self.is_builtin() || self.query.is_some()).then_some("1m");
        self.interval.as_deref().or(default)
    }

    /// The window of a builtin check: one minute where it is absent or cannot be read, never below one second.
    pub fn window(&self) -> Duration {
        interval::interval(self.interval.as_deref()).map_or(INTERVAL_DEFAULT, |interval| interval.duration)
    }
}

/// A reference to an object that may live in another namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub struct NamespacedRef {
    /// The name; required.
    pub name: Option<String>,
    /// The namespace; the Canary's own where absent.
    pub namespace: Option<String>,
}

/// One entry of `analysis.alerts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name", "providerRef"]))]
pub struct Alert {
    /// The alert's name; required.
    pub name: Option<String>,
    /// The AlertProvider that delivers it; required.
    pub provider_ref: Option<NamespacedRef>,
    /// The least severity that is delivered.
    pub severity: Option<AlertSeverity>,
}

/// How serious an alert is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = schema::or_empty)]
pub enum AlertSeverity {
    /// Everything. The default, also of "" (Flagger's documentation says so; its code would deliver nothing).
    #[default]
    #[serde(alias = "")]
    Info,
    /// What wants a look.
    Warn,
    /// What went wrong.
    Error,
}

impl Alert {
    /// The least severity that is delivered; [`AlertSeverity::Info`] where absent (checklist 185).
    pub fn severity(&self) -> AlertSeverity {
        self.severity.unwrap_or_default()
    }
}

/// One entry of `analysis.webhooks`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name", "url"]))]
pub struct Webhook {
    /// When it is called.
    #[serde(rename = "type")]
    pub hook_type: Option<HookType>,
    /// The hook's name; required.
    pub name: Option<String>,
    /// Where to send the call; required.
    pub url: Option<String>,
    /// Time for one attempt.
    #[schemars(regex(pattern = interval::PATTERN))]
    pub timeout: Option<String>,
    /// Attempts after the first.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub retries: Option<i64>,
    /// Do not verify the server's certificate.
    #[serde(rename = "disableTLS")]
    pub disable_tls: Option<bool>,
    /// Send no alert about this hook.
    pub mute_alert: Option<bool>,
    /// What is sent along. Flagger takes text only, Serin any JSON.
    #[schemars(with = "Option<AnyObject>")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

/// When a hook is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = schema::or_empty)]
pub enum HookType {
    /// Before a new revision is scaled up: a gate.
    ConfirmRollout,
    /// Before the first step.
    PreRollout,
    /// With every check. The default, also of "" (checklist 18).
    #[default]
    #[serde(alias = "")]
    Rollout,
    /// Before each step: a gate.
    ConfirmTrafficIncrease,
    /// Before promotion: a gate.
    ConfirmPromotion,
    /// After the run, whatever its end.
    PostRollout,
    /// For every event.
    Event,
    /// At any time in a run: success rolls back.
    Rollback,
}

/// Flagger's time for one attempt of a hook (checklist 19).
const HOOK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

impl Webhook {
    /// When it is called; [`HookType::Rollout`] where absent.
    pub fn hook_type(&self) -> HookType {
        self.hook_type.unwrap_or_default()
    }

    /// Time for one attempt: 10 s where absent; validation refuses what cannot be read.
    pub fn timeout(&self) -> Duration {
        let given = self.timeout.as_deref().and_then(|text| text.parse::<GoDuration>().ok());
        given.map_or(HOOK_TIMEOUT_DEFAULT, GoDuration::to_std)
    }

    /// Attempts after the first; 0 where absent.
    pub fn retries(&self) -> u32 {
        small(self.retries.unwrap_or(0))
    }
}
