//! The words every other crate shares: which arm, which epoch, which start of a process, which canary, and why a
//! request went where it went. Plain names; nothing here counts or decides.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One of the two versions between which traffic is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The version people trust.
    Primary,
    /// The version on trial.
    Canary,
}

impl Arm {
    /// The one it is compared with.
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Canary,
            Self::Canary => Self::Primary,
        }
    }

    /// Both arms, in the order of [`Arm::index`].
    pub const ALL: [Self; 2] = [Self::Primary, Self::Canary];

    /// This arm's place in an array with one entry per arm: 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Self::Primary => 0,
            Self::Canary => 1,
        }
    }

    /// `primary` or `canary`, as in metric labels and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stretch of a rollout in which every request was assigned by the same rule: the same revision, the same coin, the
/// same tolerance. Numbered by the leader; a request belongs to the epoch in which it was *routed*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochId(pub u64);

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One start of one process. Counters begin at zero with it, so a smaller sum is another boot, never a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which Canary object, by namespace and name. Cheap to clone; on the wire it is the string `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CanaryKey(Arc<str>);

impl CanaryKey {
    /// The key of the Canary `name` in `namespace`, both as Kubernetes writes them: not empty, and without a `/`.
    pub fn new(namespace: &str, name: &str) -> Self {
        debug_assert!(!namespace.is_empty() && !namespace.contains('/'));
        debug_assert!(!name.is_empty() && !name.contains('/'));
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace alone.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').expect("a key is made of two parts and a slash")
    }
}

/// `name.namespace`, as Flagger prints it in events and logs (Flagger 1.44, `pkg/controller/scheduler.go`).
impl fmt::Display for CanaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.parts();
        write!(f, "{name}.{namespace}")
    }
}

impl FromStr for CanaryKey {
    type Err = InvalidCanaryKey;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(given.into()))
            }
            _ => Err(InvalidCanaryKey { given: given.to_owned() }),
        }
    }
}

impl TryFrom<String> for CanaryKey {
    type Error = InvalidCanaryKey;

    fn try_from(given: String) -> Result<Self, Self::Error> {
        given.parse()
    }
}

impl From<CanaryKey> for String {
    fn from(key: CanaryKey) -> Self {
        key.as_str().to_owned()
    }
}

/// A string that was to name a Canary and does not. The fault is whoever wrote it; trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a canary's key, which is written namespace/name")]
pub struct InvalidCanaryKey {
    /// What was given.
    pub given: String,
}

/// Why a request went to the arm it went to; settled before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignment {
    /// Its own coin was tossed, with both sides possible. The only class that is evidence.
    Drawn,
    /// A rule decided: a header, a cookie, an A/B match, the canary's own address, a weight of zero or all; a mirrored
    /// copy too.
    Forced,
    /// Carried over from an earlier toss by a cookie or a hash. Scoring it again would bet on the same coin twice.
    Sticky,
    /// The canary's limit of concurrent requests was reached, before any coin. While it binds neither arm is scored.
    Capped,
    /// An arm had no ready endpoint, before any coin. While so, neither arm is scored.
    Empty,
    /// The second attempt, on the primary, after a failed canary attempt. The first attempt stays the outcome.
    Replay,
}

impl Assignment {
    /// Every assignment.
    pub const ALL: [Self; 6] = [Self::Drawn, Self::Forced, Self::Sticky, Self::Capped, Self::Empty, Self::Replay];

    /// Whether the outcome enters the evidence: true of a drawn request only. Whoever was not tossed for says nothing
    /// about the coin.
    pub const fn is_evidence(self) -> bool {
        match self {
            Self::Drawn => true,
            Self::Forced | Self::Sticky | Self::Capped | Self::Empty | Self::Replay => false,
        }
    }

    /// Whether the outcome enters Flagger's builtin checks, which measure at the destination whatever led there: true of
    /// all but a replay, whose request was counted with its first attempt.
    pub const fn counts_for_checks(self) -> bool {
        match self {
            Self::Drawn | Self::Forced | Self::Sticky | Self::Capped | Self::Empty => true,
            Self::Replay => false,
        }
    }

    /// The name used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::Forced => "forced",
            Self::Sticky => "sticky",
            Self::Capped => "capped",
            Self::Empty => "empty",
            Self::Replay => "replay",
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &str, expected: Option<(&str, &str)>) {
        let key = given.parse::<CanaryKey>();
        let parts = key.as_ref().ok().map(|key| (key.namespace(), key.name()));
        assert_eq!(parts, expected, "{given}");
    }

    #[test]
    fn a_key_is_a_namespace_a_slash_and_a_name() {
        check("test/podinfo", Some(("test", "podinfo")));
        check("podinfo", None);
        check("/podinfo", None);
        check("test/", None);
        check("a/b/c", None);
        check("", None);
    }

    #[test]
    fn a_key_is_written_namespace_first_and_shown_as_flagger_shows_it() {
        let key = CanaryKey::new("test", "podinfo");
        assert_eq!(key.as_str(), "test/podinfo");
        assert_eq!(key.to_string(), "podinfo.test");
        let json = serde_json::to_string(&key).expect("a key is a string");
        assert_eq!(json, r#""test/podinfo""#);
        assert_eq!(serde_json::from_str::<CanaryKey>(&json).ok(), Some(key));
        assert!(serde_json::from_str::<CanaryKey>(r#""podinfo""#).is_err());
    }

    #[test]
    fn ids_are_bare_numbers_and_arms_bare_words_on_the_wire() {
        let json = serde_json::to_string(&(EpochId(7), BootId(9), Arm::ALL));
        assert_eq!(json.expect("plain values"), r#"[7,9,["primary","canary"]]"#);
    }

    #[test]
    fn only_a_toss_is_evidence_and_only_a_replay_escapes_the_checks() {
        for assignment in Assignment::ALL {
            assert_eq!(assignment.is_evidence(), assignment == Assignment::Drawn);
            let counted = assignment != Assignment::Replay;
            assert_eq!(assignment.counts_for_checks(), counted);
        }
    }
}
