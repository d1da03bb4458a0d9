//! Serin's admin API as its users see it: is it ready, and how far is each rollout?
//!
//! The types here are the reader's own, apart from the server's, so that a field renamed by accident fails a test.
//! A number that is not there yet reads as 0, a text as empty.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::StatusCode;
use serde::{Deserialize, Deserializer};

use crate::client;

/// How long an admin page may take: it is local and does no work worth more.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// `GET /api/v1/rollouts`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollouts {
    /// One for each Canary.
    pub rollouts: Vec<Rollout>,
    /// What is wrong with the configuration on disk, if it is refused and an older one is in force.
    #[serde(default)]
    pub refused_config: Vec<String>,
}

/// How far one rollout is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The Canary's name.
    pub name: String,
    /// Flagger's name of the phase: `Initialized`, `Progressing`, `Succeeded`, `Failed`, and so on.
    pub phase: String,
    /// Percent of the traffic that goes to the canary.
    pub weight: f64,
    /// The version people trust.
    pub primary: Arm,
    /// The version on trial.
    #[serde(default, deserialize_with = "null_is_default")]
    pub canary: Arm,
    /// Failed checks so far, and how many roll back.
    #[serde(default)]
    pub failed_checks: u64,
    /// See [`Rollout::failed_checks`].
    #[serde(default)]
    pub threshold: u64,
    /// Time between two analyses, in milliseconds.
    #[serde(default)]
    pub interval_ms: u64,
    /// The guard's evidence against the canary.
    #[serde(default, deserialize_with = "null_is_default")]
    pub evidence: Evidence,
    /// Why the rollout waits, if it does.
    #[serde(default)]
    pub holds: Option<String>,
    /// What has happened, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Counts this Canary's rollouts.
    #[serde(default)]
    pub rollout: u64,
    /// The epoch in force.
    #[serde(default)]
    pub epoch: u64,
    /// What a person has to see to, such as a state that cannot be saved.
    #[serde(default)]
    pub alarm: Option<String>,
    /// Whether the state in force is saved.
    #[serde(default)]
    pub saved: bool,
}

/// One side of the split.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    /// The version that answers there; empty if there is none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub revision: String,
    /// Requests sent there.
    #[serde(default)]
    pub requests: u64,
    /// Those of them that failed.
    #[serde(default)]
    pub failures: u64,
    /// 99th percentile of their latency, in milliseconds; 0 if there were none.
    #[serde(default, rename = "p99Ms", deserialize_with = "null_is_default")]
    pub p99_ms: f64,
}

/// What the guard knows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The natural logarithm of the evidence against the canary; 0 is none.
    #[serde(default, rename = "lnE", deserialize_with = "null_is_default")]
    pub ln_e: f64,
    /// At this much of it the guard rolls back.
    #[serde(default, deserialize_with = "null_is_default")]
    pub limit: f64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Event {
    /// When, as the server writes it.
    pub at: serde_json::Value,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What, in words.
    pub message: String,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(given: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(given)?.unwrap_or_default())
}

/// The admin port of a running Serin.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// Whether `/readyz` answers 200. An admin port that does not answer yet is not ready.
    pub async fn ready(self) -> bool {
        matches!(client::get(self.0, "/readyz", PAGE_TIMEOUT).await, Ok(answer) if answer.status == StatusCode::OK)
    }

    /// A page's text.
    ///
    /// # Errors
    /// If it does not answer 200 with text.
    pub async fn page(self, path: &str) -> Result<String> {
        let answer = match client::get(self.0, path, PAGE_TIMEOUT).await {
            Ok(answer) => answer,
            Err(fault) => bail!("{}{path} does not answer: {fault:?}", self.0),
        };
        ensure!(answer.status == StatusCode::OK, "{}{path} answers {}", self.0, answer.status);
        String::from_utf8(answer.body.into()).with_context(|| format!("{path} is not text"))
    }

    /// Every rollout, and what is wrong with the configuration.
    ///
    /// # Errors
    /// If the page does not answer, or is not what its contract says.
    pub async fn rollouts(self) -> Result<Rollouts> {
        let page = self.page("/api/v1/rollouts").await?;
        serde_json::from_str(&page).with_context(|| format!("reading {page}"))
    }

    /// The rollout of this Canary, if there is one yet.
    ///
    /// # Errors
    /// As [`Admin::rollouts`].
    pub async fn rollout(self, name: &str) -> Result<Option<Rollout>> {
        Ok(self.rollouts().await?.rollouts.into_iter().find(|rollout| rollout.name == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Option<Rollout>) {
        let read: Option<Rollouts> = serde_json::from_str(json).ok();
        assert_eq!(read.and_then(|read| read.rollouts.into_iter().next()), expected);
    }

    #[test]
    fn a_rollout_is_read_with_and_without_a_canary() {
        let quiet = Rollout {
            name: "podinfo".to_owned(),
            phase: "Initialized".to_owned(),
            primary: Arm { revision: "6.0.0".to_owned(), ..Arm::default() },
            ..Rollout::default()
        };
        check(
            r#"{"rollouts":[{"name":"podinfo","phase":"Initialized","weight":0,"primary":{"revision":"6.0.0","p99Ms":null},
                "canary":null,"evidence":null,"holds":null,"new":1}]}"#,
            Some(quiet.clone()),
        );
        check(
            r#"{"rollouts":[{"name":"podinfo","phase":"Progressing","weight":20.0,"primary":{"revision":"6.0.0"},
                "canary":{"revision":"6.0.1","requests":7,"failures":1,"p50Ms":1.5,"p99Ms":2.5},
                "failedChecks":1,"threshold":5,"evidence":{"lnE":0.5,"limit":6.9,"mode":"enforce"},"rollout":2,"epoch":7,"saved":true}]}"#,
            Some(Rollout {
                phase: "Progressing".to_owned(),
                weight: 20.0,
                canary: Arm { revision: "6.0.1".to_owned(), requests: 7, failures: 1, p99_ms: 2.5 },
                failed_checks: 1,
                threshold: 5,
                evidence: Evidence { ln_e: 0.5, limit: 6.9 },
                rollout: 2,
                epoch: 7,
                saved: true,
                ..quiet
            }),
        );
    }

    #[test]
    fn a_page_that_breaks_its_contract_is_refused() {
        check(r#"{"rollouts":[{"name":"podinfo","weight":0,"primary":{}}]}"#, None);
        check("[]", None);
    }
}
