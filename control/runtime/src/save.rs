//! Saving: a step before it comes into force, a brake after it has, evidence now and then. None of it is waited for.

use serin_measure::CanaryKey;
use serin_rollout::{State, Step};
use tracing::{error, info};

use crate::beat::Backing;
use crate::controller::{Controller, Message};
use crate::entry::{CHECKPOINT_MS, Entry, Pending, events};
use crate::plane::{DataPlane, Trip};
use crate::site::Site;
use crate::store::{Event, Save, Saved, Store, StoreError, Swap};

/// How long to wait after a save that failed.
const RETRY_MS: u64 = 1_000;

impl<S: Store, P: DataPlane, W: Site> Controller<S, P, W> {
    /// Saves a step; it comes into force when that is done. One that only brakes comes into force even if that fails.
    pub(crate) fn advance(&mut self, key: &CanaryKey, step: Step) {
        let now_ms = self.clock.now_ms();
        let told = events(&step.notices, now_ms);
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.may_advance() {
            let (canary, expected, state) = (key.clone(), entry.version, step.state.clone());
            let incarnation = entry.workload.incarnation.clone();
            let save = Save { canary, incarnation, expected, state, events: told.clone() };
            entry.begin_saving(Pending::Step(Box::new(step.state), told), now_ms);
            self.send(vec![save]);
        } else if entry.state.only_brakes(&step.state) {
            self.put_in_force(key, step.state, told, now_ms, Backing::Unsaved);
        } else {
            entry.retry_ms = now_ms + RETRY_MS;
        }
    }

    /// Saves brakes that are not saved yet.
    pub(crate) fn keep_brakes(&mut self, now_ms: u64) {
        self.keep(|entry| (entry.dirty || entry.is_behind()) && now_ms >= entry.retry_ms);
    }

    /// Saves brakes, and evidence that has moved on, the latter for all canaries together and at most once a second.
    pub(crate) fn keep_what_changed(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_checkpoint_ms) < CHECKPOINT_MS {
            return self.keep_brakes(now_ms);
        }
        self.last_checkpoint_ms = now_ms;
        // Where each is a write of its own, those go first whose evidence has waited longest.
        let with_news = self.entries.values().filter(|entry| now_ms >= entry.retry_ms && entry.has_new_evidence());
        let behind = |entry: &Entry| entry.state.evidence.judged_ms().saturating_sub(entry.saved_judged_ms);
        let mut waits: Vec<u64> = with_news.map(behind).collect();
        waits.sort_unstable_by(|one, other| other.cmp(one));
        let least = waits.get(self.site.checkpoints_max().saturating_sub(1)).copied().unwrap_or(0);
        self.keep(|entry| {
            let must = entry.dirty || entry.is_behind();
            now_ms >= entry.retry_ms && (must || (entry.has_new_evidence() && behind(entry) >= least))
        });
    }

    /// Saves whatever is newer than its saved form.
    pub(crate) fn keep_everything(&mut self) {
        self.keep(|entry| entry.dirty || entry.has_new_evidence());
    }

    fn keep(&mut self, wanted: impl Fn(&Entry) -> bool) {
        let mut batch = Vec::new();
        let now_ms = self.clock.now_ms();
        for (key, entry) in self.entries.iter_mut().chain(&mut self.retired) {
            if !entry.may_save() || !wanted(entry) {
                continue;
            }
            let told: Vec<Event> = entry.unsaved.drain(..).collect();
            batch.push(Save {
                canary: key.clone(),
                incarnation: entry.workload.incarnation.clone(),
                expected: entry.version,
                state: entry.state.clone(),
                events: told.clone(),
            });
            entry.saved_judged_ms = entry.state.evidence.judged_ms();
            entry.begin_saving(Pending::InForce(told), now_ms);
        }
        if !batch.is_empty() {
            self.send(batch);
        }
    }

    fn send(&self, batch: Vec<Save>) {
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let canaries = batch.iter().map(|save| (save.canary.clone(), save.incarnation.clone())).collect();
            let results = store.save(batch).await;
            // Nobody listens during shutdown; what is saved is saved.
            let _ = outbox.send(Message::Saved { canaries, results }).await;
        });
    }

    /// Saves have ended, for better or worse.
    pub(crate) fn saved(&mut self, canaries: &[(CanaryKey, String)], results: Vec<Result<Swap, StoreError>>) {
        let now_ms = self.clock.now_ms();
        let mut has_failed = false;
        for ((key, incarnation), result) in canaries.iter().zip(results) {
            // What was saved for a former Canary of the name says nothing about this one.
            if self.entry_mut(key).is_none_or(|entry| entry.workload.incarnation != *incarnation) {
                continue;
            }
            match result {
                Ok(swap) => self.swapped(key, swap, now_ms),
                Err(problem) => {
                    has_failed = true;
                    self.not_saved(key, &problem, now_ms);
                }
            }
        }
        self.tally.save_failures += u64::from(has_failed);
        if self.leads() {
            self.keep_brakes(now_ms);
        } else {
            self.load_if_quiet();
        }
    }

    /// A save that does not come back is told like one that failed.
    pub(crate) fn sound_the_alarm_for_saves_that_hang(&mut self, now_ms: u64) {
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.save_hangs(now_ms)) {
            sound_the_alarm(key, entry, "the store does not answer");
        }
    }

    /// The entry of a canary, also of one that is no longer configured.
    fn entry_mut(&mut self, key: &CanaryKey) -> Option<&mut Entry> {
        self.entries.get_mut(key).or_else(|| self.retired.get_mut(key))
    }

    fn swapped(&mut self, key: &CanaryKey, swap: Swap, now_ms: u64) {
        let (plane, leads, is_fleet) = (self.plane.clone(), self.leads(), self.site.is_fleet());
        let Some(entry) = self.entry_mut(key) else { return };
        let Some(pending) = entry.saving.take() else { return };
        if !leads {
            // It was sent while this process led. Whatever came of it, the store tells it to everybody.
            return;
        }
        let version = match swap {
            Swap::Done(version) => version,
            Swap::Landed(saved) => return self.landed(key, *saved, pending, now_ms),
            Swap::Stale if is_fleet => {
                info!(canary = %key, "another process has saved a state, so this one follows until it is elected again");
                return self.stand_down();
            }
            Swap::Stale => {
                let alarm = "somebody else writes the state of this canary; this process advances it no more, restart it when the other one is gone";
                error!(canary = %key, "{alarm}");
                entry.alarm = Some(alarm.to_owned());
                entry.fenced = true;
                return;
            }
        };
        (entry.version, entry.is_forgotten) = (Some(version), false);
        if entry.alarm.take().is_some() {
            info!(canary = %key, "state is saved again");
        }
        match pending {
            // A trip whose message is still on its way goes before the step.
            Pending::Step(step, _) if entry.state.is_analysing() && plane.is_tripped(key, entry.state.run()) => {
                let trip = Trip { canary: key.clone(), rollout: entry.state.run(), ln_e: entry.state.evidence.ln_e() };
                // Nothing is sent before it is known what it follows.
                entry.saving = Some(Pending::Superseded(None));
                self.trip(&trip);
                self.overtaken(key, *step, now_ms);
            }
            Pending::Step(state, told) => {
                entry.saved_judged_ms = state.evidence.judged_ms();
                self.put_in_force(key, *state, told, now_ms, Backing::Saved);
            }
            Pending::InForce(_) => entry.dirty = false,
            Pending::Superseded(Some(step)) => self.overtaken(key, *step, now_ms),
            Pending::Superseded(None) => {}
        }
    }

    /// A step that was given up for what is in force is saved all the same.
    fn overtaken(&mut self, key: &CanaryKey, saved: State, now_ms: u64) {
        let Some(entry) = self.entry_mut(key) else { return };
        entry.saving = None;
        entry.overtaken(saved, now_ms);
        self.publish();
    }

    /// A save that was taken for failed had arrived after all, so others may have seen it.
    fn landed(&mut self, key: &CanaryKey, saved: Saved, pending: Pending, now_ms: u64) {
        let Some(entry) = self.entry_mut(key) else { return };
        info!(canary = %key, version = %saved.version, "a save that was given up had arrived");
        entry.version = Some(saved.version);
        if let Pending::InForce(told) = pending {
            entry.keep_unsaved(told);
        }
        if entry.dirty {
            self.overtaken(key, saved.state, now_ms);
        } else {
            // Evidence was bet on in this process, whatever the older save says of it.
            self.put_in_force(key, saved.state, Vec::new(), now_ms, Backing::Saved);
        }
    }

    fn not_saved(&mut self, key: &CanaryKey, problem: &StoreError, now_ms: u64) {
        let leads = self.leads();
        let Some(entry) = self.entry_mut(key) else { return };
        let Some(pending) = entry.saving.take() else { return };
        if !leads {
            return;
        }
        entry.retry_ms = now_ms + RETRY_MS;
        let mut brakes = None;
        match pending {
            Pending::Step(state, told) => brakes = entry.state.only_brakes(&state).then_some((state, told)),
            Pending::InForce(told) => {
                let later = std::mem::take(&mut entry.unsaved);
                entry.keep_unsaved(told.into_iter().chain(later));
            }
            Pending::Superseded(_) => {}
        }
        sound_the_alarm(key, entry, &problem.to_string());
        match brakes {
            Some((state, told)) => self.put_in_force(key, *state, told, now_ms, Backing::Unsaved),
            None => self.post(),
        }
    }
}

/// Tells a person why a state is not saved, once as long as the reason stays the same.
fn sound_the_alarm(key: &CanaryKey, entry: &mut Entry, why: &str) {
    let alarm = format!("state cannot be saved, so nothing advances (a bad canary is still taken off): {why}");
    if entry.alarm.as_ref() != Some(&alarm) {
        error!(canary = %key, "{alarm}");
        entry.alarm = Some(alarm);
    }
}
