//! A stage for tests of the whole loop: a directory, versions that answer, a real `serin` that reads and writes there.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::files::{BackendFile, CanaryFile, ConfigDir};
use serin_tests::load::{Load, Running};
use serin_tests::process::{Launch, Serin, binary};
use serin_tests::rollouts::{Event, Rollout};
use serin_tests::wait::until;
use tempfile::TempDir;

/// The Canary's name and its target's.
pub(crate) const NAME: &str = "podinfo";
/// The file that names the released version.
pub(crate) const BACKEND_FILE: &str = "backend.yaml";
/// The file that says how a release is tried.
pub(crate) const CANARY_FILE: &str = "canary.yaml";
/// The version that is released first.
pub(crate) const OLD: &str = "6.0.0";
/// The version that is released next.
pub(crate) const NEW: &str = "6.0.1";

/// How long anything here may take. Only a test that fails waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// SIGTERM or a fatal error to end.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(20);

/// Everything that runs, in the order in which it is dropped.
pub(crate) struct Stage {
    pub(crate) serin: Serin,
    pub(crate) config: ConfigDir,
    pub(crate) backends: Vec<Backend>,
    pub(crate) home: TempDir,
}

/// A Canary that moves once a second, by 20 % up to 60 %, and so ends a good rollout in 6 s.
pub(crate) fn canary() -> CanaryFile {
    CanaryFile { interval_s: 1, threshold: 3, ..CanaryFile::new(NAME) }
}

impl Stage {
    /// Starts these versions and a serin that serves the first of them.
    pub(crate) async fn set(canary: &CanaryFile, versions: &[(&str, Behaviour)]) -> Result<Self> {
        let mut backends = Vec::new();
        for (version, behaviour) in versions {
            backends.push(Backend::start(version, *behaviour).await?);
        }
        let addresses: Vec<_> = backends.iter().map(|backend| (backend.version(), backend.address())).collect();
        let file = BackendFile::new(NAME, &addresses);
        Self::with(canary, &file, backends).await
    }

    /// Starts a serin that serves what this Backend has released.
    pub(crate) async fn with(canary: &CanaryFile, backend: &BackendFile, backends: Vec<Backend>) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("serin-loop-").tempdir()?;
        let config = ConfigDir::new(home.path().join("config"))?;
        config.write(BACKEND_FILE, &backend.yaml())?;
        config.write(CANARY_FILE, &canary.yaml())?;
        let serin = Launch::configured(config.path(), &home.path().join("state")).start().await?;
        let stage = Self { serin, config, backends, home };
        stage.phase("Initialized").await?;
        Ok(stage)
    }

    /// Points the Backend at another version.
    pub(crate) fn release(&self, version: &str) -> Result<()> {
        self.config.release(BACKEND_FILE, version)
    }

    /// Requests at this rate until it is stopped.
    pub(crate) fn load(&self, per_second: f64) -> Running {
        Load::open(self.serin.listen(), per_second, 10 * PATIENCE).start()
    }

    /// How the rollout stands.
    pub(crate) async fn rollout(&self) -> Result<Rollout> {
        self.serin.admin().rollout(NAME).await?.context("the canary is configured, so it is listed")
    }

    /// Looks on until the rollout is so.
    pub(crate) async fn until(&self, what: &str, mut so: impl FnMut(&Rollout) -> bool) -> Result<Rollout> {
        let mut last = None;
        let seen = until(what, PATIENCE, async || {
            let now = self.rollout().await?;
            last = Some(now.clone());
            Ok(so(&now).then_some(now))
        })
        .await;
        seen.with_context(|| format!("last seen: {last:#?}"))
    }

    /// Looks on until the rollout is in this phase.
    pub(crate) async fn phase(&self, phase: &str) -> Result<Rollout> {
        self.until(&format!("the rollout did not come to {phase}"), |now| now.phase == phase).await
    }

    /// Looks on until the canary has this weight.
    pub(crate) async fn weight(&self, percent: f64) -> Result<Rollout> {
        self.until(&format!("the canary did not come to {percent} %"), |now| now.weight == percent).await
    }

    /// The backend of this version.
    pub(crate) fn backend(&self, version: &str) -> &Backend {
        self.backends.iter().find(|backend| backend.version() == version).expect("the test started this version")
    }
}

/// What was told, oldest first.
pub(crate) fn story(rollout: &Rollout) -> Vec<&str> {
    rollout.events.iter().map(|event| event.message.as_str()).collect()
}

/// How often something was told that contains these words.
pub(crate) fn times_told(rollout: &Rollout, words: &str) -> usize {
    rollout.events.iter().filter(|event| event.message.contains(words)).count()
}

/// Milliseconds from the first event that contains some words to the first one that contains others.
pub(crate) fn ms_between(rollout: &Rollout, from: &str, to: &str) -> Result<u64> {
    let at = |words: &str| {
        let event = rollout.events.iter().find(|event| event.message.contains(words));
        ms_of_day(event.with_context(|| format!("nothing was told with {words:?} in {:#?}", rollout.events))?)
    };
    const DAY_MS: u64 = 86_400_000;
    Ok((at(to)? + DAY_MS - at(from)?) % DAY_MS)
}

/// The time of an event in its day: the digits after the `T` of RFC 3339.
fn ms_of_day(event: &Event) -> Result<u64> {
    let time = event.at.as_str().and_then(|at| at.get(11..23)).context("an event has a time")?;
    let digits: Vec<u64> = time.split([':', '.']).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(digits.len() == 4, "{time} is not a time");
    Ok(((digits[0] * 60 + digits[1]) * 60 + digits[2]) * 1_000 + digits[3])
}

/// Looks on until a load has gone on for so long.
pub(crate) async fn passed(load: &Running, until_elapsed: Duration) -> Result<()> {
    until("the clock stands", PATIENCE, async || Ok((load.elapsed() >= until_elapsed).then_some(()))).await
}

/// Runs `serin` with these arguments to its end, in a directory, without what a terminal or the caller would tell it.
pub(crate) async fn serin(arguments: &[&str], directory: &std::path::Path) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(arguments).current_dir(directory).env_remove("SERIN_ADMIN").env_remove("NO_COLOR");
    tokio::task::spawn_blocking(move || command.output()).await?.context("running serin")
}

/// An address on which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], serin_tests::process::free_port()).into()
}
