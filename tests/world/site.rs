//! A process's surroundings: who else is there as far as it is told, how questions travel, and whether arms are ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serin_measure::{Arm, CanaryKey};
use serin_rollout::Readiness;
use serin_runtime::fleet::{Answer, AskError, Question, answer};
use serin_runtime::{Peer, Site, Wanted};

use crate::link::Link;
use crate::process::Process;

/// How long a question may take, as in the product.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a question is lost while many are.
const BAD: f64 = 0.4;

/// One process's surroundings.
pub(crate) struct Surroundings {
    pub(crate) link: Arc<Link>,
    /// Whom it knows of. Who cannot reach the API server goes by what it was told last.
    known: Mutex<Vec<Peer>>,
}

impl Surroundings {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, known: Mutex::default() })
    }

    fn is_lost(&self) -> bool {
        let world = &self.link.world;
        let is_bad = world.net.lock().bad_asks > 0;
        let is_lost = !world.is_healed() && world.chance(if is_bad { BAD } else { world.scenario.asks_fail });
        if is_lost {
            world.tally("question: lost");
        }
        is_lost
    }

    /// Whoever is at an address, if he can be reached.
    fn reach(&self, peer: SocketAddr) -> Option<Arc<Process>> {
        let places = self.link.world.places.lock();
        let (to, place) = places.iter().enumerate().find(|(_, place)| place.address == peer)?;
        let is_open = self.link.world.net.lock().reaches(self.link.place, to);
        place.process.clone().filter(|_| is_open)
    }

    async fn unreachable(&self, peer: SocketAddr) -> AskError {
        if self.link.world.chance(0.7) {
            tokio::time::sleep(ASK_TIMEOUT).await;
        }
        AskError::Unreachable { peer, why: "nobody answers".to_owned() }
    }

    /// A leader hears of trips; from now on it must not go on with those runs.
    fn hears(&self, answer: &Answer) {
        let (world, boot) = (&self.link.world, self.link.boot);
        let Some(process) = world.living().into_iter().find(|process| process.boot == boot) else { return };
        let (leads, term) = process.term();
        let posting = process.board.read();
        for trip in &answer.trips {
            let posted = posting.canaries.get(&trip.canary).map(|posted| &posted.state);
            let is_meant = posted.is_some_and(|state| state.is_analysing() && state.run() == trip.rollout);
            if leads && is_meant {
                world.tally("trip: heard by a leader from another replica");
                world.tell(|| format!("{boot} hears from {} that run {} is out", answer.boot, trip.rollout));
                let seat = (boot, trip.canary.clone());
                world.eyes.lock().trips.heard(seat, trip.rollout, term, world.now_ms());
            }
        }
    }
}

impl Site for Surroundings {
    async fn readiness(&self, _: &CanaryKey, wanted: Wanted) -> Readiness {
        let world = &self.link.world;
        world.pause(1..30).await;
        let is_unready = world.net.lock().unready[wanted.arm.index()] > 0;
        match wanted.arm {
            _ if !is_unready => Readiness::Ready,
            Arm::Primary => Readiness::Waiting("1 of 3 pods of the primary are ready".to_owned()),
            Arm::Canary => Readiness::Waiting("1 of 3 pods of the canary are ready".to_owned()),
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let (world, own) = (&self.link.world, self.link.boot);
        let mut known = self.known.lock();
        if self.link.is_open() {
            let places = world.places.lock();
            let others = places.iter().enumerate().filter(|(at, place)| place.told.is_listed && *at != self.link.place);
            *known = others.map(|(_, place)| Peer { address: place.address, serves: place.told.serves }).collect();
        }
        let living = world.living();
        let serves = |process: &Process| known.iter().any(|peer| peer.serves && peer.address == process.address);
        let listed: Vec<_> = living.iter().filter(|process| serves(process)).map(|process| process.boot).collect();
        let living: Vec<_> = living.iter().map(|process| process.boot).collect();
        world.eyes.lock().trips.listed(own, &living, &listed, world.now_ms());
        known.clone()
    }

    async fn ask(&self, peer: SocketAddr, question: Question) -> Result<Answer, AskError> {
        let world = &self.link.world;
        world.pause(1..15).await;
        let asked = self.reach(peer).filter(|_| !self.is_lost());
        let Some(asked) = asked.filter(|_| !self.link.dead.is_cancelled()) else {
            return Err(self.unreachable(peer).await);
        };
        let answer = answer(&*asked.plane, &asked.board, &question);
        world.pause(1..15).await;
        if !world.is_healed() && world.chance(world.scenario.asks_fail) {
            world.tally("answer: slow");
            world.pause(100..900).await;
        }
        if !world.net.lock().reaches(asked.place, self.link.place) || self.is_lost() {
            return Err(self.unreachable(peer).await);
        }
        if answer.is_final {
            asked.told_finally.notify_one();
        }
        self.hears(&answer);
        Ok(answer)
    }

    fn is_fleet(&self) -> bool {
        true
    }

    fn checkpoints_max(&self) -> usize {
        1
    }
}
