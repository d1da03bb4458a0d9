//! `analysis.guard`: Serin's own object in a Flagger Canary. It brakes sooner than the interval would, on evidence.
//!
//! Every knob may be absent; then the guard keeps the limits that the manifest's own checks set. None of them changes the
//! meaning of a Flagger field.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::duration::GoDuration;
use crate::problem::quoted;

/// `analysis.guard`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Whether the guard acts, only reports, or is off.
    pub mode: Option<GuardMode>,
    /// The chance of rolling back a canary that is no worse, over a whole rollout and all metrics.
    pub false_rollback: Option<Percent>,
    /// How many more requests, in percentage points, may fail on the canary than on the primary before that counts against
    /// it.
    pub tolerance: Option<Percent>,
    /// Never promote early while the canary may be worse by this many percentage points.
    pub margin: Option<Percent>,
    /// How much slower the canary may be than the primary.
    pub latency_tolerance: Option<Percent>,
    /// Excess failed requests on the canary after which it is taken off traffic, whatever the evidence says.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schemars(with = "Option<f64>")]
    pub budget: Option<i64>,
    /// Share of requests that must succeed, in absolute terms.
    pub slo: Option<Percent>,
    /// Time after the rollout's first canary weight in which only gross failures count.
    pub warmup: Option<GoDuration>,
    /// Shortest time at the final weight before an early promotion.
    pub bake_time: Option<GoDuration>,
    /// Longest time to wait for evidence.
    pub max_duration: Option<GoDuration>,
    /// Length of the slices within which failures count as one burst; off where absent. With it the guard needs at least
    /// four slices for a verdict.
    pub burst_guard: Option<GoDuration>,
    /// What tells users apart where they are to stay on one version without a cookie.
    pub sticky_key: Option<StickyKey>,
    /// Age at which a request is judged, finished or not; for services with long timeouts.
    pub settle: Option<GoDuration>,
    /// What decides that the next step may come.
    pub pace: Option<Pace>,
}

/// What the guard does with its verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// Roll back. The default.
    #[default]
    Enforce,
    /// Say what it would have done.
    Observe,
    /// Neither measure evidence nor report.
    Off,
}

/// What decides that the next step may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// The interval, as in Flagger. The default.
    #[default]
    Interval,
    /// The evidence: sooner when it is complete, later while it is doubtful.
    Evidence,
}

impl Guard {
    /// The mode; [`GuardMode::Enforce`] where absent.
    pub fn mode(&self) -> GuardMode {
        self.mode.unwrap_or_default()
    }

    /// The pace; [`Pace::Interval`] where absent.
    pub fn pace(&self) -> Pace {
        self.pace.unwrap_or_default()
    }
}

impl JsonSchema for GuardMode {
    fn schema_name() -> Cow<'static, str> {
        "GuardMode".into()
    }

    // `kubectl` sends a bare `off` as the boolean false. Only a field without a type takes both that and a text.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "enum": ["enforce", "observe", "off", false],
        })
    }
}

impl<'de> Deserialize<'de> for GuardMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModeVisitor)
    }
}

struct ModeVisitor;

impl Visitor<'_> for ModeVisitor {
    type Value = GuardMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enforce, observe or off")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<GuardMode, E> {
        match word {
            "enforce" => Ok(GuardMode::Enforce),
            "observe" => Ok(GuardMode::Observe),
            "off" => Ok(GuardMode::Off),
            other => Err(E::unknown_variant(other, &["enforce", "observe", "off"])),
        }
    }

    // To YAML 1.1, which Kubernetes reads, a bare `off` is the boolean false.
    fn visit_bool<E: Error>(self, yes: bool) -> Result<GuardMode, E> {
        match yes {
            false => Ok(GuardMode::Off),
            true => Err(E::invalid_type(serde::de::Unexpected::Bool(true), &self)),
        }
    }
}

/// A share written with its sign, such as `0.1%`. The sign is wanted because a bare 0.1 could be either.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent {
    percent: f64,
}

/// Why a text is not a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PercentError {
    /// The sign is missing; the person who wrote it must say what is meant.
    #[error("{} has no percent sign; write 0.5% for half a percent", quoted(.0))]
    NoSign(String),
    /// What stands before the sign is not a number from 0 on.
    #[error("{} is not a percentage such as 0.5%", quoted(.0))]
    Malformed(String),
}

impl Percent {
    /// The share as a fraction: 0.001 for `0.1%`.
    pub fn fraction(self) -> f64 {
        self.percent / 100.0
    }

    /// The number before the sign.
    pub fn value(self) -> f64 {
        self.percent
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').ok_or_else(|| PercentError::NoSign(text.to_owned()))?;
        match number.trim_end().parse::<f64>() {
            Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(Self { percent }),
            Ok(_) | Err(_) => Err(PercentError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

/// What tells users apart: a request header (`header:x-user-id`) or a cookie (`cookie:session`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StickyKey {
    /// The value of this request header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

impl FromStr for StickyKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.to_owned())),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("{} is neither header:<name> nor cookie:<name>", quoted(text))),
        }
    }
}

impl fmt::Display for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Whether a text is a token (RFC 9110, section 5.6.2), as names of headers and cookies are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Serde and a schema by way of text, for types that are written as one word. The pattern takes whatever can be parsed.
macro_rules! serde_as_text {
    ($type:ty, $expecting:literal, $pattern:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;

                impl Visitor<'_> for TextVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(TextVisitor)
            }
        }
    };
}

serde_as_text!(Percent, "a percentage such as 0.5%", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*%$");
serde_as_text!(StickyKey, "header:<name> or cookie:<name>", r"^(header|cookie):[-a-zA-Z0-9!#$%&'*+.^_`|~]+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, percent: Result<f64, &str>) {
        let parsed = text.parse::<Percent>().map(Percent::value).map_err(|error| error.to_string());
        assert_eq!(parsed, percent.map_err(str::to_owned));
    }

    #[test]
    fn a_percentage_has_its_sign() {
        check("0.1%", Ok(0.1));
        check("10 %", Ok(10.0));
        check("0%", Ok(0.0));
        check("0.1", Err("\"0.1\" has no percent sign; write 0.5% for half a percent"));
        check("-1%", Err("\"-1%\" is not a percentage such as 0.5%"));
        check("inf%", Err("\"inf%\" is not a percentage such as 0.5%"));
        check("NaN%", Err("\"NaN%\" is not a percentage such as 0.5%"));
        check("%", Err("\"%\" is not a percentage such as 0.5%"));
    }

    #[test]
    fn a_sticky_key_says_where_it_is_found() {
        assert_eq!("header:x-user".parse(), Ok(StickyKey::Header("x-user".into())));
        assert_eq!("cookie:sid".parse(), Ok(StickyKey::Cookie("sid".into())));
        for text in ["x-user", "header:", "header:a b", "ip:1"] {
            assert!(text.parse::<StickyKey>().is_err(), "of {text}");
        }
    }
}
