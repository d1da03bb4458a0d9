//! Asks a running Serin over its admin API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serin_runtime::admin::rollouts::{Problem, RolloutList, RolloutView};

/// How long an answer may take: it is made from memory, and on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Client {
    http: reqwest::Client,
    admin: SocketAddr,
}

impl Client {
    pub(crate) fn new(admin: SocketAddr) -> Result<Self> {
        let http =
            reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("cannot make an HTTP client")?;
        Ok(Self { http, admin })
    }

    /// All rollouts.
    pub(crate) async fn all(&self) -> Result<RolloutList> {
        let answer = self.get("/api/v1/rollouts").await?;
        answer.json().await.context("the answer is not what this version of serin understands")
    }

    /// One rollout.
    pub(crate) async fn one(&self, namespace: &str, name: &str) -> Result<RolloutView> {
        let answer = self.get(&format!("/api/v1/rollouts/{namespace}/{name}")).await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            let problem: Problem =
                answer.json().await.context("the answer is not what this version of serin understands")?;
            bail!("{}; `serin get` lists what there is", problem.error);
        }
        answer.json().await.context("the answer is not what this version of serin understands")
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        let url = format!("http://{}{path}", self.admin);
        self.http.get(url).send().await.map_err(|error| match error.is_connect() {
            true => anyhow!(
                "no Serin answers on {}: start one with `serin run`, or name its admin address with --admin",
                self.admin
            ),
            false => anyhow!(error).context(format!("Serin on {} did not answer", self.admin)),
        })
    }
}

/// A runtime for a command that only asks.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}
