//! `kill -9` at random moments of rollouts: what was in force goes on after a restart, and nothing is done twice.
//!
//! Half of the kills come at a random time. The other half come right after the state file was written, so that many of
//! them fall between a save and what follows from it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serin_tests::backend::Behaviour;
use serin_tests::files::CanaryFile;
use serin_tests::load::Load;
use serin_tests::process::{Launch, Serin};
use serin_tests::report::Report;
use serin_tests::rollouts::{Event, Rollout};

use crate::loop_stage::{Stage, canary};

/// Kills in each of five worlds beside each other.
const KILLS: u32 = 10;

/// The seed of all worlds, so that a run that failed can be had again.
const SEED_VARIABLE: &str = "SERIN_TEST_SEED";

/// Versions to release one after the other, in case a rollout ends before its world's last kill.
const VERSIONS: [&str; 4] = ["6.0.0", "6.0.1", "6.0.2", "6.0.3"];

/// Milliseconds between two ticks.
const INTERVAL_MS: u64 = 1_000;
/// The longest that a save may take on a busy machine.
const LATE_MAX: Duration = Duration::from_millis(500);
/// Percent added by a step, and steps to the last weight.
const STEP: u32 = 10;
const STEPS: u32 = 5;

/// Requests that show by whom traffic is served, in the first second after readiness. At a weight of 10 % none of them
/// reaches the canary in 1 of 10^9 cases.
const PROBES: u64 = 200;
const PROBED_WITHIN: Duration = Duration::from_secs(1);

/// A first release that is too slow until its checks have failed this often, so that there is a count to be kept.
const FAILED_CHECKS: u64 = 2;

#[tokio::test]
async fn fifty_kills_at_any_moment_lose_nothing_and_repeat_nothing_207() -> Result<()> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(given) => given.parse().context("the seed is a number")?,
        Err(_) => fastrand::u64(..),
    };
    println!("{SEED_VARIABLE}={seed} repeats these moments");
    let world = |n| play(Rng::with_seed(seed.wrapping_add(n)));
    let (a, b, c, d, e) = tokio::try_join!(world(0), world(1), world(2), world(3), world(4))?;
    let worlds = [a, b, c, d, e];
    let sum = |of: fn(&World) -> u32| worlds.iter().map(of).sum::<u32>();
    println!(
        "{} kills, {} of them right after a write; after {} the state was further than we had seen; after {} the split \
         was as before within {PROBED_WITHIN:?}, after the others the machine was too busy to tell",
        sum(|world| world.kills),
        sum(|world| world.at_save),
        sum(|world| world.unseen),
        sum(|world| world.probed),
    );
    assert_eq!(sum(|world| world.kills), 50);
    Ok(())
}

/// One serin, its rollouts, and what was seen of them.
struct World {
    stage: Stage,
    rng: Rng,
    /// The last look, and when it was begun.
    last: Rollout,
    looked: Instant,
    /// Every end of a promotion that was told.
    promotions: HashSet<Event>,
    released: usize,
    kills: u32,
    at_save: u32,
    /// Kills after which the state was further than the last look.
    unseen: u32,
    /// Kills after which all probes were answered in time.
    probed: u32,
}

/// Plays one world to the end of its last rollout.
async fn play(rng: Rng) -> Result<World> {
    let canary = CanaryFile {
        threshold: 100,
        step_weight: STEP,
        max_weight: STEP * STEPS,
        duration_ms_max: Some(50),
        ..canary()
    };
    let versions = VERSIONS.map(|version| (version, Behaviour::Ok));
    let stage = Stage::set(&canary, &versions).await?;
    stage.backend(VERSIONS[1]).behave(Behaviour::Delay(Duration::from_millis(80)));
    let last = stage.rollout().await?;
    let mut world = World {
        stage,
        rng,
        last,
        looked: Instant::now(),
        promotions: HashSet::new(),
        released: 0,
        kills: 0,
        at_save: 0,
        unseen: 0,
        probed: 0,
    };
    let load = world.stage.load(50.0);
    while world.kills < KILLS {
        let pause = Duration::from_millis(world.rng.u64(0..2 * INTERVAL_MS));
        world.watch_for(pause).await?;
        world = world.kill().await?;
    }
    while !world.has_ended() {
        world.look().await?;
    }
    let seen = load.stop().await;
    ensure!(seen.statuses.keys().all(|status| *status == 200), "only a dead process fails a request: {seen:?}");
    ensure!(world.promotions.len() == world.released, "{:?} after {} releases", world.promotions, world.released);
    ensure!(world.last.rollout == world.released as u64, "{:?} after {} releases", world.last, world.released);
    Ok(world)
}

impl World {
    fn has_ended(&self) -> bool {
        self.last.phase == "Succeeded" && self.last.primary.revision == VERSIONS[self.released]
    }

    /// Looks on for so long, and releases the next version when a rollout has ended.
    async fn watch_for(&mut self, lasting: Duration) -> Result<()> {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            self.look().await?;
            if self.last.phase == "Initialized" || self.has_ended() {
                self.released += 1;
                let next = VERSIONS.get(self.released).context("rollouts end faster than kills come")?;
                self.stage.release(next)?;
                self.stage.until("the release was not taken up", |now| now.canary.revision == *next).await?;
            }
            if self.last.failed_checks >= FAILED_CHECKS {
                self.stage.backend(VERSIONS[1]).behave(Behaviour::Ok);
            }
        }
        Ok(())
    }

    /// Looks once, and holds what is seen against what was seen before. Returns the ticks in between.
    async fn look(&mut self) -> Result<u64> {
        let looking = Instant::now();
        let now = self.stage.rollout().await?;
        let ticks = ticks_between(&self.last, &now)?;
        check_told(&self.last.events, &now.events)?;
        // A tick is seen when it is saved, which may be later than it was taken, and the next one then comes sooner.
        let most = (self.looked.elapsed() + LATE_MAX).as_millis() as u64 / INTERVAL_MS + 1;
        ensure!(ticks <= most, "{ticks} ticks where {most} can be, from {:#?} to {now:#?}", self.last);
        self.promotions
            .extend(now.events.iter().filter(|event| event.message.contains("Promotion completed")).cloned());
        (self.last, self.looked) = (now, looking);
        Ok(ticks)
    }

    /// Kills serin, starts it again, and finds it where it was.
    async fn kill(mut self) -> Result<Self> {
        self.look().await?;
        let Stage { serin, config, backends, home } = self.stage;
        let at_save = self.rng.bool();
        let state = home.path().join("state");
        let launch = if at_save { crash_at_save(serin, &state).await? } else { serin.crash()? };
        self.stage = Stage { serin: launch.start().await?, config, backends, home };
        self.kills += 1;
        self.at_save += u32::from(at_save);
        self.unseen += u32::from(self.look().await? > 0);
        self.probe().await?;
        Ok(self)
    }

    /// Sends some requests and holds who answered against the weight before and after.
    async fn probe(&mut self) -> Result<()> {
        let before = self.last.clone();
        let mut probes = Load::closed(self.stage.serin.listen(), 16, PROBED_WITHIN);
        probes.requests_max = PROBES;
        let seen = probes.run().await;
        self.probed += u32::from(seen.requests == PROBES);
        self.look().await?;
        let after = &self.last;
        if (before.epoch, before.phase.as_str()) == (after.epoch, after.phase.as_str()) {
            check_split(after, &seen)?;
        }
        ensure!(seen.failed == 0, "{seen:?}");
        Ok(())
    }
}

/// Whether those were served whom phase and weight want to be served.
fn check_split(rollout: &Rollout, seen: &Report) -> Result<()> {
    let answered_by = |version: &str, least| (least..=seen.requests).contains(&seen.answered_by(version));
    // Few requests may all meet one version.
    let some = u64::from(seen.requests == PROBES);
    let (primary, canary) = (&rollout.primary.revision, &rollout.canary.revision);
    let is_right = match (rollout.phase.as_str(), rollout.weight > 0.0) {
        ("Progressing", true) => answered_by(primary, some) && answered_by(canary, some),
        ("Progressing", false) | ("Promoting" | "Finalising" | "Initialized" | "Succeeded", _) => {
            answered_by(primary, seen.requests)
        }
        (phase, _) => anyhow::bail!("no good release comes to {phase}"),
    };
    ensure!(is_right, "{} at {} %: {:?}", rollout.phase, rollout.weight, seen.versions);
    Ok(())
}

/// Whether later events go on where earlier ones ended; the oldest are let go.
fn check_told(earlier: &[Event], later: &[Event]) -> Result<()> {
    let gone = earlier.iter().position(|event| Some(event) == later.first());
    let kept = &earlier[gone.unwrap_or(earlier.len())..];
    ensure!(later.starts_with(kept) && (gone.is_some() || earlier.is_empty()), "{earlier:#?} became {later:#?}");
    Ok(())
}

/// How many ticks lie between two looks at a good release; an error if the second is behind the first.
fn ticks_between(before: &Rollout, after: &Rollout) -> Result<u64> {
    let same_run = before.rollout == after.rollout;
    let failed_before = if same_run { before.failed_checks } else { 0 };
    let forward = place(after)?.checked_sub(place(before)?);
    let failed = after.failed_checks.checked_sub(failed_before);
    let epochs = after.epoch.checked_sub(before.epoch);
    match (forward, failed, epochs) {
        (Some(forward), Some(failed), Some(_)) => Ok(forward + failed),
        _ => anyhow::bail!("it went back from {before:#?} to {after:#?}"),
    }
}

/// How far a good release is, in ticks that moved it, over all rollouts.
fn place(rollout: &Rollout) -> Result<u64> {
    let steps = u64::from(STEPS);
    let in_run = match rollout.phase.as_str() {
        "Progressing" => (rollout.weight / f64::from(STEP)).round() as u64,
        "Promoting" => steps + 1,
        "Finalising" => steps + 2,
        "Initialized" | "Succeeded" => steps + 3,
        phase => anyhow::bail!("no good release comes to {phase}: {rollout:#?}"),
    };
    Ok(rollout.rollout * (steps + 4) + in_run)
}

/// Kills serin as soon as it has written to its state, or after two intervals.
async fn crash_at_save(serin: Serin, state: &Path) -> Result<Launch> {
    /// Time between two looks at the file: shorter than a save and what follows from it.
    const LOOK_EVERY: Duration = Duration::from_micros(50);
    let log = state.join("serin.db-wal");
    let deadline = Instant::now() + Duration::from_millis(2 * INTERVAL_MS);
    tokio::task::spawn_blocking(move || {
        let before = written(&log)?;
        while written(&log)? == before && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        serin.crash()
    })
    .await?
}

/// What changes when a file is written to.
fn written(file: &Path) -> Result<(u64, SystemTime)> {
    let about = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?;
    Ok((about.len(), about.modified()?))
}
