//! The API server: states that are written by compare and swap, a Lease, and watches on the states.
//!
//! One counter numbers all writes, as in etcd, so versions of a state rise and have gaps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serin_measure::{BootId, CanaryKey};
use serin_runtime::store::{EVENTS_SHOWN_MAX, Save, Saved, Version};
use tokio::sync::Notify;

use crate::promises::Commit;
use crate::world::World;

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Api {
    counter: u64,
    states: BTreeMap<CanaryKey, Object>,
    pub(crate) lease: Lease,
}

/// A state and who wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) saved: Arc<Saved>,
    pub(crate) writer: BootId,
}

/// Who leads, by the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lease {
    pub(crate) holder: Option<BootId>,
    pub(crate) version: u64,
}

/// The state has another version than the one that the writer read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conflict;

impl Api {
    pub(crate) fn states(&self) -> Vec<Arc<Saved>> {
        self.states.values().map(|object| object.saved.clone()).collect()
    }

    pub(crate) fn object(&self, canary: &CanaryKey) -> Option<Object> {
        self.states.get(canary).cloned()
    }

    /// Writes the Lease, if it has not changed since it was read.
    pub(crate) fn write_lease(&mut self, read: Lease, holder: Option<BootId>) -> Option<Lease> {
        if self.lease != read {
            return None;
        }
        self.counter += 1;
        self.lease = Lease { holder, version: self.counter };
        Some(self.lease)
    }

    fn write(&mut self, writer: BootId, save: &Save) -> Result<Arc<Saved>, Conflict> {
        let known = self.states.get(&save.canary);
        if known.map(|object| object.saved.version) != save.expected {
            return Err(Conflict);
        }
        self.counter += 1;
        let former = known.into_iter().flat_map(|object| &object.saved.events);
        let mut events: Vec<_> = former.chain(&save.events).cloned().collect();
        events.drain(..events.len().saturating_sub(EVENTS_SHOWN_MAX));
        let saved = Arc::new(Saved {
            canary: save.canary.clone(),
            incarnation: save.incarnation.clone(),
            version: Version(self.counter),
            state: save.state.clone(),
            events,
        });
        self.states.insert(save.canary.clone(), Object { saved: saved.clone(), writer });
        Ok(saved)
    }
}

impl World {
    /// A write arrives.
    pub(crate) fn write(&self, writer: BootId, save: &Save) -> Result<Version, Conflict> {
        let saved = self.api.lock().write(writer, save)?;
        let at_ms = self.now_ms();
        self.tell(|| {
            let state = &saved.state;
            format!(
                "{writer} has saved {} version {}: run {} {} at {} %, epoch {}, applied {}",
                saved.canary,
                saved.version,
                state.rollout,
                state.phase,
                state.weight,
                state.epoch.id,
                state.applied.as_ref().map_or("-", |revision| &revision.0),
            )
        });
        let mut eyes = self.eyes.lock();
        let eyes = &mut *eyes;
        let booked = eyes.books.saved(Commit { at_ms, writer, saved: saved.clone() });
        let staked = eyes.ledgers.saved(&saved.canary, &saved.state, &self.boots(), &eyes.counts);
        eyes.note(booked.and(staked));
        for process in self.living() {
            process.watch.changed(self, &saved);
        }
        Ok(saved.version)
    }
}

/// A watch on the states, from the API server to one process: changes in order, each some time after it happened.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    queue: Mutex<Queue>,
    pub(crate) news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    is_open: bool,
    changes: VecDeque<(u64, Arc<Saved>)>,
}

impl Watch {
    fn changed(&self, world: &World, saved: &Arc<Saved>) {
        let mut queue = self.queue.lock();
        if queue.is_open {
            // Most changes arrive at once; some take as long as a watch may.
            let longest_ms = if world.is_healed() || world.chance(0.8) { 40 } else { 2_000 };
            let last_ms = queue.changes.back().map_or(0, |(due_ms, _)| *due_ms);
            let due_ms = last_ms.max(world.now_ms() + world.roll(1..longest_ms));
            queue.changes.push_back((due_ms, saved.clone()));
            self.news.notify_one();
        }
    }

    /// Begins anew, with everything there is.
    pub(crate) fn open(&self, world: &World) -> Vec<Arc<Saved>> {
        *self.queue.lock() = Queue { is_open: true, changes: VecDeque::new() };
        world.api.lock().states()
    }

    /// Whatever was on its way is lost.
    pub(crate) fn close(&self) {
        *self.queue.lock() = Queue::default();
        self.news.notify_one();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.queue.lock().is_open
    }

    /// When the next change arrives, in milliseconds.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.queue.lock().changes.front().map(|(due_ms, _)| *due_ms)
    }

    pub(crate) fn take(&self) -> Option<Arc<Saved>> {
        self.queue.lock().changes.pop_front().map(|(_, saved)| saved)
    }
}
