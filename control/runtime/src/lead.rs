//! Leading and following: how a process comes to judge and step, how it gives that up, and what it does instead.
//!
//! ```text
//!               elected                    newest states loaded
//!   following ───────────▶ assuming ───────────────────────────▶ leading
//!       ▲                                                          │
//!       └── another one leads, or has written a state ─────────────┘
//! ```
//!
//! Nothing is carried over in memory but brakes: whoever leads begins with the states as they are saved. A brake that this
//! process pulled and could not save stays with its data path, which tells it to the next leader like any other trip.

use std::net::SocketAddr;

use serin_measure::CanaryKey;
use serin_rollout::{Phase, State, Weight};
use tracing::{debug, error, info};

use crate::controller::{Controller, Message, Role};
use crate::entry::Contested;
use crate::fleet::{Answer, AskError, Question};
use crate::plane::{DataPlane, Trip};
use crate::site::Site;
use crate::store::{Saved, Store, StoreError};

/// How long another writer has to be quiet before it is taken to be gone, in milliseconds: Flagger writes at every interval of a
/// run, which is a minute at most as a rule.
pub(crate) const QUIET_MS: u64 = 120_000;
/// How long to wait before a state that was deleted is written anew, in milliseconds: its Canary may be going too.
const FORGOTTEN_MS: u64 = 1_000;
/// How long a new leader waits before it steps, in milliseconds: within that its hands have looked at every status.
const LOOK_FIRST_MS: u64 = 400;
/// Time between two questions while nothing is on trial, in milliseconds: enough to know who is there.
const IDLE_MS: u64 = 1_000;
/// Time between two questions for whole counts, in milliseconds; cells are asked for on every beat.
const SNAPSHOTS_MS: u64 = 1_000;

impl<S: Store, P: DataPlane, W: Site> Controller<S, P, W> {
    /// States were saved, by this process or by another one.
    pub(crate) fn stored(&mut self, states: Vec<Saved>) {
        if self.role == Role::Leading {
            // What it has in force is what it saved, or newer. If somebody else wrote, or a save of its own arrived that it
            // has given up, the next save will say so.
            for saved in states {
                if let Some(entry) = self.entries.get_mut(&saved.canary) {
                    entry.newest_seen = entry.newest_seen.max(Some(saved.version));
                }
            }
            return;
        }
        let (now_ms, mut is_news) = (self.clock.now_ms(), false);
        for saved in states {
            match self.entries.get_mut(&saved.canary) {
                Some(entry) if entry.workload.incarnation == saved.incarnation => is_news |= entry.adopt(saved, now_ms),
                Some(_) | None => {
                    self.parked.insert(saved.canary.clone(), saved);
                }
            }
        }
        if is_news {
            self.publish();
        } else {
            self.post();
        }
    }

    /// States were deleted, as with their Canaries: nothing of those that are gone is kept.
    pub(crate) fn forgotten(&mut self, canaries: &[CanaryKey]) {
        let now_ms = self.clock.now_ms();
        for canary in canaries {
            self.parked.remove(canary);
            if let Some(entry) = self.entries.get_mut(canary) {
                // Its Canary may be about to go too; else it is written anew, now and then until it is there.
                entry.is_forgotten = true;
                if self.role == Role::Leading && entry.version.is_some() {
                    entry.dirty = true;
                    entry.retry_ms = entry.retry_ms.max(now_ms + FORGOTTEN_MS);
                }
            } else {
                self.retired.remove(canary);
                self.tally.ended.remove(canary);
                self.fleet.forget(canary);
            }
        }
    }

    /// This process is to lead. Old saves of its own may still be on their way, so it waits for them, then reads anew.
    pub(crate) fn elected(&mut self) {
        if self.role == Role::Following {
            self.role = Role::Assuming;
            self.load_if_quiet();
        }
    }

    /// Reads the newest states: to follow them, or to lead if nothing of its own is on the way that could change them.
    pub(crate) fn load_if_quiet(&mut self) {
        let is_saving = || self.entries.values().chain(self.retired.values()).any(|entry| entry.saving.is_some());
        let is_due = match self.role {
            Role::Following => self.unread,
            Role::Assuming => !is_saving(),
            Role::Leading => false,
        };
        if !is_due || self.loading.is_some() {
            return;
        }
        self.loading = Some(self.role);
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let states = store.load().await;
            // Nobody listens during shutdown.
            let _ = outbox.send(Message::Loaded(states)).await;
        });
    }

    /// The newest states are there.
    pub(crate) fn loaded(&mut self, states: Result<Vec<Saved>, StoreError>) {
        let read_as = self.loading.take();
        if self.role == Role::Leading {
            return;
        }
        match states {
            Ok(states) => {
                self.unread = false;
                self.stored(states);
                // What was read before it was elected may be older than its own last save.
                if self.role == Role::Assuming && read_as == Some(Role::Assuming) {
                    self.lead();
                }
            }
            // The next beat tries again.
            Err(problem) if self.role == Role::Assuming => {
                error!(%problem, "elected, and the states cannot be read yet");
            }
            Err(problem) => debug!(%problem, "the states cannot be read yet; those in force stay"),
        }
    }

    fn lead(&mut self) {
        self.role = Role::Leading;
        let (now_ms, former) = (self.clock.now_ms(), self.former());
        for entry in self.entries.values_mut() {
            entry.fenced = false;
            entry.alarm = None;
            entry.take_charge(former, now_ms);
            // First the hands look whether somebody else acts for it.
            entry.retry_ms = entry.retry_ms.max(now_ms + LOOK_FIRST_MS);
        }
        info!(canaries = self.entries.len(), "leads the fleet from now on");
        self.publish();
        self.ask_fleet();
        self.beat();
    }

    /// Another process leads.
    pub(crate) fn deposed(&mut self) {
        if self.role != Role::Following {
            info!("another process leads the fleet, this one follows");
            self.stand_down();
        }
    }

    /// Gives up judging and stepping. Whoever leads saves what has to be saved.
    pub(crate) fn stand_down(&mut self) {
        self.role = Role::Following;
        let mut brakes = Vec::new();
        for (key, entry) in self.entries.iter_mut().chain(&mut self.retired) {
            let is_unsaved = entry.stand_down();
            brakes.extend(brake_of(key, &entry.state).filter(|_| is_unsaved));
            // What is saved decides, also if it is older than what was in force here.
            entry.version = None;
        }
        // The run stays out of traffic here, and the next leader hears of it.
        brakes.iter().for_each(|brake| self.plane.trip(brake));
        // Changes that it was told of while it led are not told again.
        self.unread = true;
        self.load_if_quiet();
        self.post();
    }

    /// Somebody else writes the status of a Canary, as a Flagger does that runs beside. Two that step one rollout would undo each
    /// other, so this one stops until the other has been quiet for a while. Brakes still work.
    pub(crate) fn contested(&mut self, canary: &CanaryKey, incarnation: &str, by: &str) {
        let now_ms = self.clock.now_ms();
        let entry = self.entries.get_mut(canary).filter(|entry| entry.workload.incarnation == incarnation);
        let Some(entry) = entry else { return };
        let sentence = format!(
            "{by} writes the status of this Canary too; Serin steps it no more until that has stopped for {} s",
            QUIET_MS / 1_000
        );
        if entry.contested.is_none() {
            error!(%canary, "{sentence}");
        }
        entry.contested = Some(Contested { sentence, until_ms: now_ms + QUIET_MS });
        self.post();
    }

    /// Goes on with Canaries that nobody else has written for a while.
    pub(crate) fn forget_contests(&mut self, now_ms: u64) {
        for (canary, entry) in &mut self.entries {
            if entry.contested.take_if(|contested| now_ms >= contested.until_ms).is_some() {
                info!(%canary, "nobody else writes its status any more");
            }
        }
    }

    /// Asks everybody who is not being asked already.
    pub(crate) fn ask_fleet(&mut self) {
        if !self.leads() || !self.site.is_fleet() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let peers = self.site.peers();
        self.fleet.keep(&peers, now_ms);
        let wants_snapshots = now_ms.saturating_sub(self.snapshots_asked_ms) >= SNAPSHOTS_MS;
        let keys: Vec<CanaryKey> = self.entries.keys().cloned().collect();
        let on_trial = self.entries.iter().filter(|(_, entry)| entry.state.is_analysing());
        let question = Question {
            brakes: self.entries.iter().filter_map(|(key, entry)| brake_of(key, &entry.state)).collect(),
            cells_of: on_trial.map(|(key, _)| key.clone()).collect(),
            snapshots_of: if wants_snapshots { keys } else { Vec::new() },
            departed: false,
        };
        self.asked_ms = now_ms;
        if wants_snapshots {
            self.snapshots_asked_ms = now_ms;
        }
        for peer in peers {
            if self.asked.insert(peer.address) {
                let departed = !self.fleet.knows(peer.address);
                self.ask(peer.address, Question { departed, ..question.clone() });
            }
        }
    }

    /// Asks the fleet on a beat, less often while nothing is on trial.
    pub(crate) fn ask_fleet_if_due(&mut self, now_ms: u64) {
        let is_trial = self.entries.values().any(|entry| entry.state.is_analysing() || entry.dirty);
        if is_trial || now_ms.saturating_sub(self.asked_ms) >= IDLE_MS {
            self.ask_fleet();
        }
    }

    fn ask(&self, peer: SocketAddr, question: Question) {
        let (site, outbox) = (self.site.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let answer = site.ask(peer, question).await;
            let _ = outbox.send(Message::Answered { peer, answer }).await;
        });
    }

    /// Another process has answered, or has not.
    pub(crate) fn answered(&mut self, peer: SocketAddr, answer: Result<Answer, AskError>) {
        self.asked.remove(&peer);
        let answer = match answer {
            Ok(answer) if answer.boot == self.plane.boot() => return self.fleet.is_own(peer),
            Ok(answer) => answer,
            Err(why) => return debug!(%why, "a process of the fleet was asked in vain"),
        };
        if !self.leads() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let trips = answer.trips.clone();
        let heard: Vec<CanaryKey> = answer.cells.iter().map(|(key, _, _)| key.clone()).collect();
        self.others_have_news |= !answer.snapshot.is_empty() || !answer.departed.is_empty();
        self.fleet.take(self.plane.boot(), peer, answer, now_ms);
        for trip in trips {
            self.trip(&trip);
        }
        for key in heard {
            self.judge(&key, now_ms);
        }
        self.enlist_newcomers(now_ms);
    }
}

/// The order that keeps a run out of traffic that was taken back; none if the last run was not.
fn brake_of(key: &CanaryKey, state: &State) -> Option<Trip> {
    let is_taken_back = state.phase == Phase::Failed && state.weight == Weight::ZERO && state.rollout > 0;
    let ln_e = state.trip.as_ref().map_or(0.0, |trip| trip.ln_e);
    is_taken_back.then(|| Trip { canary: key.clone(), rollout: state.run(), ln_e })
}
