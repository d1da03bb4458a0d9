//! Saving: a step before it comes into force, a brake after it has, evidence now and then. None of it is waited for.

use serin_measure::CanaryKey;
use serin_rollout::Step;
use tracing::{error, info};

use crate::beat::Backing;
use crate::controller::{Controller, Message};
use crate::entry::{CHECKPOINT_MS, Entry, Pending, events};
use crate::plane::DataPlane;
use crate::store::{Event, Save, Store, StoreError, Swap};

/// How long to wait after a save that failed.
const RETRY_MS: u64 = 1_000;

impl<S: Store, P: DataPlane> Controller<S, P> {
    /// Saves a step; it comes into force when that is done. One that only brakes comes into force even if that fails.
    pub(crate) fn advance(&mut self, key: &CanaryKey, step: Step) {
        let now_ms = self.clock.now_ms();
        let told = events(&step.notices, now_ms);
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.may_advance() {
            let (canary, expected, state) = (key.clone(), entry.version, step.state.clone());
            let save = Save { canary, expected, state, events: told.clone() };
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
        self.keep(|entry| entry.dirty && now_ms >= entry.retry_ms);
    }

    /// Saves brakes, and evidence that has moved on, the latter for all canaries together and at most once a second.
    pub(crate) fn keep_what_changed(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_checkpoint_ms) < CHECKPOINT_MS {
            return self.keep_brakes(now_ms);
        }
        self.last_checkpoint_ms = now_ms;
        self.keep(|entry| now_ms >= entry.retry_ms && (entry.dirty || entry.has_new_evidence()));
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
            let canaries = batch.iter().map(|save| save.canary.clone()).collect();
            let result = store.save(batch).await;
            // Nobody listens during shutdown; what is saved is saved.
            let _ = outbox.send(Message::Saved { canaries, result }).await;
        });
    }

    /// A save has ended, for better or worse.
    pub(crate) fn saved(&mut self, canaries: &[CanaryKey], result: Result<Vec<Swap>, StoreError>) {
        let now_ms = self.clock.now_ms();
        match result {
            Ok(swaps) => {
                for (key, swap) in canaries.iter().zip(swaps) {
                    self.swapped(key, swap, now_ms);
                }
            }
            Err(problem) => {
                self.tally.save_failures += 1;
                for key in canaries {
                    self.not_saved(key, &problem, now_ms);
                }
            }
        }
        self.keep_brakes(now_ms);
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
        let plane = self.plane.clone();
        let Some(entry) = self.entry_mut(key) else { return };
        let Some(pending) = entry.saving.take() else { return };
        let Swap::Done(version) = swap else {
            let alarm = "somebody else writes the state of this canary; this process advances it no more, restart it when the other one is gone";
            error!(canary = %key, "{alarm}");
            entry.alarm = Some(alarm.to_owned());
            entry.fenced = true;
            return;
        };
        entry.version = Some(version);
        if entry.alarm.take().is_some() {
            info!(canary = %key, "state is saved again");
        }
        match pending {
            // A trip whose message is still on its way goes before the step.
            Pending::Step(..) if entry.state.is_analysing() && plane.is_tripped(key, entry.state.rollout) => {
                entry.dirty = true;
            }
            Pending::Step(state, told) => {
                entry.saved_judged_ms = state.evidence.judged_ms();
                self.put_in_force(key, *state, told, now_ms, Backing::Saved);
            }
            Pending::InForce(_) => entry.dirty = false,
            Pending::Superseded => {}
        }
    }

    fn not_saved(&mut self, key: &CanaryKey, problem: &StoreError, now_ms: u64) {
        let Some(entry) = self.entry_mut(key) else { return };
        let Some(pending) = entry.saving.take() else { return };
        entry.retry_ms = now_ms + RETRY_MS;
        let mut brakes = None;
        match pending {
            Pending::Step(state, told) => brakes = entry.state.only_brakes(&state).then_some((state, told)),
            Pending::InForce(told) => {
                let later = std::mem::take(&mut entry.unsaved);
                entry.keep_unsaved(told.into_iter().chain(later));
            }
            Pending::Superseded => {}
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
