//! The demo's story, played on real processes: a good release is promoted, a bad one is rolled back, users hardly notice.
//!
//! It speaks through a callback and is stopped by dropping its future, which takes everything it started with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::backend::{Backend, Behaviour};
use crate::files::{BackendFile, CanaryFile, ConfigDir};
use crate::load::{Load, Running};
use crate::narrator::{Narrator, clock};
use crate::outcome::{BAD, GOOD, Moments, OLD, Outcome, Terms};
use crate::process::{Launch, Serin};
use crate::rollouts::{Admin, Rollout};
use crate::wait::until;

/// The service's name.
const NAME: &str = "podinfo";
/// The file that names the released version.
const BACKEND_FILE: &str = "backend.yaml";
/// The file that says how a release is tried.
const CANARY_FILE: &str = "canary.yaml";

/// The longest that the load lasts, whatever happens to the story.
const LOAD_LASTS: Duration = Duration::from_secs(600);

/// Patience beyond what the intervals take: a loaded CI machine is slow, and a story must not hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Intervals that a promotion takes: a start, three steps, promotion and its end, and as many again for a check that must be repeated.
const PROMOTION_INTERVALS: u32 = 12;

/// SIGTERM to end.
const END_WITHIN: Duration = Duration::from_secs(15);

/// What is played, and where.
#[derive(Clone, Debug)]
pub struct Script {
    /// A directory of the story's own, for its configuration, state and log.
    pub home: PathBuf,
    /// Where Serin takes traffic.
    pub listen: SocketAddr,
    /// Where Serin answers admins.
    pub admin: SocketAddr,
    /// Where the three versions answer, in the order of their names.
    pub backends: [SocketAddr; 3],
    /// Seconds between two analyses.
    pub interval_s: u32,
    /// Requests a second.
    pub rate: u32,
    /// How long nothing happens before each release, so that it can be seen that nothing fails.
    pub calm: Duration,
    /// How long the load goes on after the rollback, so that it can be seen that the bad version is gone.
    pub after: Duration,
}

impl Script {
    /// The configuration's directory.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.join("config")
    }

    /// Serin's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("serin.log")
    }

    fn canary(&self) -> CanaryFile {
        CanaryFile { interval_s: self.interval_s, ..CanaryFile::new(NAME) }
    }

    /// Plays the story to its end; `tell` gets each line of it.
    ///
    /// # Errors
    /// If something could not be started, or a release ended otherwise than it deserves.
    pub async fn play(&self, tell: &mut impl FnMut(&str)) -> Result<Outcome> {
        let Stage { serin, load, config, backends } = Stage::set(self).await?;
        let mut scene = Scene { start: Instant::now(), admin: serin.admin(), narrator: Narrator::default(), tell };
        let outcome = self.scenes(&mut scene, &config, load).await?;
        serin.terminate(END_WITHIN).await?;
        for backend in backends {
            backend.stop().await;
        }
        Ok(outcome)
    }

    async fn scenes<T: FnMut(&str)>(
        &self,
        scene: &mut Scene<'_, T>,
        config: &ConfigDir,
        load: Load,
    ) -> Result<Outcome> {
        scene.say(&format!("Serin takes over {NAME}, version {OLD}."));
        scene.until("Serin did not take the service over", PATIENCE, |now| now.phase == "Initialized").await?;
        scene.say(&format!("Users come: {} requests a second.", self.rate));
        let load = load.start();
        scene.watch(self.calm).await?;

        scene.say(&format!("Version {GOOD} is released. It is good."));
        let good_released = load.elapsed();
        config.release(BACKEND_FILE, GOOD)?;
        let within = PATIENCE + Duration::from_secs(u64::from(self.interval_s * PROMOTION_INTERVALS));
        let promoted = scene.end_of(GOOD, "Succeeded", within, &load).await?;
        scene.watch(self.calm).await?;

        scene.say(&format!("Version {BAD} is released. It fails from its first request."));
        let failed_before = load.so_far().failed;
        let bad_released = load.elapsed();
        config.release(BACKEND_FILE, BAD)?;
        let within = PATIENCE + Duration::from_secs(u64::from(self.terms().flagger_s()));
        let rolled_back = scene.end_of(BAD, "Failed", within, &load).await?;
        scene.watch(self.after).await?;

        let end = load.elapsed();
        let seen = load.stop().await;
        let moments = Moments { good_released, promoted, bad_released, rolled_back, end };
        Ok(Outcome { terms: self.terms(), seen, failed_before, moments })
    }

    fn terms(&self) -> Terms {
        let CanaryFile { interval_s, threshold, step_weight, .. } = self.canary();
        Terms { interval_s, threshold, step_weight, rate: self.rate }
    }
}

/// Everything that runs, in the order in which it is dropped if the story is stopped.
struct Stage {
    serin: Serin,
    load: Load,
    config: ConfigDir,
    backends: Vec<Backend>,
}

impl Stage {
    async fn set(script: &Script) -> Result<Self> {
        let manners = [(OLD, Behaviour::Ok), (GOOD, Behaviour::Ok), (BAD, Behaviour::FailAlways)];
        let mut backends = Vec::new();
        for ((version, behaviour), address) in manners.into_iter().zip(script.backends) {
            backends.push(Backend::start_at(address, version, behaviour).await?);
        }
        let versions: Vec<_> = backends.iter().map(|backend| (backend.version(), backend.address())).collect();
        let config = ConfigDir::new(script.config())?;
        config.write(BACKEND_FILE, &BackendFile::new(NAME, &versions).yaml())?;
        config.write(CANARY_FILE, &script.canary().yaml())?;
        let serin = launch(script, config.path()).start().await?;
        let load = Load::open(serin.listen(), f64::from(script.rate), LOAD_LASTS);
        Ok(Self { serin, load, config, backends })
    }
}

fn launch(script: &Script, config: &Path) -> Launch {
    let mut launch = Launch::configured(config, &script.home.join("state"));
    launch.listen = script.listen;
    launch.admin = script.admin;
    launch.log = script.log();
    launch
}

/// The view on the rollout, and the voice.
struct Scene<'a, T> {
    start: Instant,
    admin: Admin,
    narrator: Narrator,
    tell: &'a mut T,
}

impl<T: FnMut(&str)> Scene<'_, T> {
    fn say(&mut self, sentence: &str) {
        (self.tell)("");
        (self.tell)(&format!("{} {sentence}", clock(self.start.elapsed())));
    }

    /// Looks at the rollout once, and tells what is new.
    async fn look(&mut self) -> Result<Option<Rollout>> {
        let seen = self.admin.rollout(NAME).await?;
        if let Some(now) = &seen {
            for line in self.narrator.look(self.start.elapsed(), now) {
                (self.tell)(&line);
            }
        }
        Ok(seen)
    }

    /// Looks on until the rollout is so.
    async fn until(&mut self, what: &str, within: Duration, mut so: impl FnMut(&Rollout) -> bool) -> Result<Rollout> {
        until(what, within, async || Ok(self.look().await?.filter(|now| so(now)))).await
    }

    /// Looks on for so long.
    async fn watch(&mut self, lasting: Duration) -> Result<()> {
        let end = Instant::now() + lasting;
        let what = "the rollout cannot be seen";
        self.until(what, lasting + PATIENCE, |_| Instant::now() >= end).await.map(|_| ())
    }

    /// Looks on until the rollout of this version has ended, and says when that was in the load's time.
    async fn end_of(&mut self, version: &str, expected: &str, within: Duration, load: &Running) -> Result<Duration> {
        let what = format!("the rollout of {version} did not end");
        let before = self.look().await?.context("the rollout has disappeared")?.phase;
        let mut moved = false;
        let last = self.until(&what, within, |now| {
            let ended = matches!(now.phase.as_str(), "Initialized" | "Succeeded" | "Failed");
            moved |= !ended || now.phase != before;
            moved && ended
        });
        let last = last.await?;
        let reason = last.events.last().map_or("no event says why", |event| &event.message);
        ensure!(last.phase == expected, "the rollout of {version} ended as {}, not {expected}: {reason}", last.phase);
        Ok(load.elapsed())
    }
}
