//! One process's way to the store, and all that can happen to a call on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serin_measure::BootId;
use serin_rollout::{Phase, Stakes};
use serin_runtime::store::{Save, Saved, Store, StoreError, Swap, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Conflict;
use crate::breaks::Break;
use crate::world::World;

/// How long a call may take before it is given up, as in the product.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a call goes wrong while many do.
const BAD: f64 = 0.5;

/// A process's way to the store.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    pub(crate) boot: BootId,
    pub(crate) place: usize,
    pub(crate) dead: CancellationToken,
    changed: watch::Sender<u64>,
}

/// What becomes of a write.
enum Fate {
    Fine,
    /// It never arrives.
    Lost,
    /// It is carried out, and nobody says so.
    Unanswered,
    /// It is given up, and carried out later.
    Late(u64),
    /// It takes very long.
    Hangs(u64),
    /// It arrives twice, and the second answer counts.
    Twice,
}

impl Link {
    pub(crate) fn new(world: Arc<World>, boot: BootId, place: usize, dead: CancellationToken) -> Arc<Self> {
        Arc::new(Self { world, boot, place, dead, changed: watch::Sender::new(0) })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.world.net.lock().reaches_store(self.place)
    }

    fn goes_wrong(&self) -> bool {
        let world = &self.world;
        let is_bad = world.net.lock().bad_calls > 0;
        !world.is_healed() && world.chance(if is_bad { BAD } else { world.scenario.calls_fail })
    }

    fn fate(&self) -> Fate {
        let world = &self.world;
        if !self.goes_wrong() {
            return Fate::Fine;
        }
        let (what, fate) = match world.roll(0..5) {
            0 => ("save: lost", Fate::Lost),
            1 => ("save: carried out, the answer is lost", Fate::Unanswered),
            2 => ("save: arrives late", Fate::Late(world.roll(100..15_000))),
            3 => ("save: hangs", Fate::Hangs(world.roll(500..12_000))),
            _ => ("save: arrives twice", Fate::Twice),
        };
        world.tally(what);
        world.tell(|| format!("{}: {what}", self.boot));
        fate
    }

    /// Nobody answers: refused at once, or after all patience.
    async fn give_up(&self) -> StoreError {
        if self.world.chance(0.5) {
            tokio::time::sleep(CALL_TIMEOUT).await;
        }
        StoreError::Unavailable("the API server does not answer".to_owned())
    }

    async fn save_one(self: Arc<Self>, save: Save) -> Result<Swap, StoreError> {
        let world = &self.world;
        self.watch_over(&save);
        if world.broken == Some(Break::SaveSkipped) && self.place == 0 {
            return Ok(Swap::Done(Version(save.expected.map_or(1, |version| version.0 + 1))));
        }
        world.pause(1..10).await;
        if !self.is_open() || (self.dead.is_cancelled() && world.chance(0.5)) {
            world.tally("save: no way to the store");
            return Err(self.give_up().await);
        }
        match self.fate() {
            Fate::Fine => self.swap(&save).await,
            Fate::Lost => Err(self.give_up().await),
            Fate::Unanswered => {
                let _ = world.write(self.boot, &save);
                Err(self.give_up().await)
            }
            Fate::Late(ms) => {
                self.clone().arrives_late(save, ms);
                Err(self.give_up().await)
            }
            Fate::Hangs(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.swap(&save).await
            }
            Fate::Twice => {
                let _ = world.write(self.boot, &save);
                world.pause(1..20).await;
                self.swap(&save).await
            }
        }
    }

    fn arrives_late(self: Arc<Self>, save: Save, ms: u64) {
        self.world.pending.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            self.world.tell(|| format!("{}: a write arrives that was given up", self.boot));
            let _ = self.world.write(self.boot, &save);
            self.world.pending.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Writes and answers; on a conflict as `cluster/states.rs` does.
    async fn swap(&self, save: &Save) -> Result<Swap, StoreError> {
        let written = self.world.write(self.boot, save);
        self.world.pause(1..10).await;
        if !self.is_open() {
            return Err(self.give_up().await);
        }
        match written {
            Ok(version) => Ok(Swap::Done(version)),
            Err(Conflict) => {
                if self.goes_wrong() {
                    return Err(self.give_up().await);
                }
                match self.world.api.lock().object(&save.canary) {
                    Some(object) if object.writer == self.boot => {
                        self.world.tally("save: finds an earlier one of its own");
                        self.world.tell(|| format!("{}: its earlier save had landed", self.boot));
                        Ok(Swap::Landed(Box::new((*object.saved).clone())))
                    }
                    Some(_) | None => {
                        self.world.tally("save: finds another one's");
                        self.world.tell(|| format!("{}: is stale", self.boot));
                        Ok(Swap::Stale)
                    }
                }
            }
        }
    }

    /// Lets the observer see what somebody wants to save.
    fn watch_over(&self, save: &Save) {
        if self.dead.is_cancelled() {
            return;
        }
        let (world, seat) = (&self.world, (self.boot, save.canary.clone()));
        let term =
            world.living().iter().find(|process| process.boot == self.boot).map_or(0, |process| process.term().1);
        let mut eyes = world.eyes.lock();
        let before = eyes.books.newest(&save.canary).cloned();
        let kept =
            eyes.trips.saving(&seat, &save.state, before.as_ref().map(|saved| &saved.state), term, world.now_ms());
        eyes.note(kept);
    }

    fn loaded(&self, saved: &Saved) -> Saved {
        let mut saved = saved.clone();
        if self.world.broken == Some(Break::StakeAgain)
            && let Stakes::Split { issued, .. } = &mut saved.state.stakes
            && saved.state.phase == Phase::Progressing
        {
            issued.clear();
        }
        saved
    }
}

impl Store for Link {
    async fn load(&self) -> Result<Vec<Saved>, StoreError> {
        self.world.pause(1..10).await;
        if !self.is_open() || self.goes_wrong() {
            self.world.tally("load: fails");
            return Err(self.give_up().await);
        }
        let states = self.world.api.lock().states();
        self.world.pause(1..10).await;
        Ok(states.iter().map(|saved| self.loaded(saved)).collect())
    }

    async fn save(&self, batch: Vec<Save>) -> Vec<Result<Swap, StoreError>> {
        // Each on a task of its own: the product sends them side by side too.
        let link = Arc::new(self.clone());
        let calls: Vec<_> = batch.into_iter().map(|save| tokio::spawn(link.clone().save_one(save))).collect();
        let mut results = Vec::with_capacity(calls.len());
        for call in calls {
            results.push(call.await.expect("a call does not panic"));
        }
        results
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
