//! One process's candidate for the Lease, by the algorithm of `cluster/lease.rs` on the made-up API server.

use std::sync::Arc;
use std::time::Duration;

use serin_runtime::Tell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Lease;
use crate::link::Link;

/// Between two looks at the Lease, as a part of its duration.
const LOOKS_PER_DURATION: u32 = 4;

/// A candidate and what it has seen.
pub(crate) struct Candidate {
    link: Arc<Link>,
    tell: Tell,
    duration: Duration,
    /// The record as it was seen last, and since when it has not changed.
    seen: Option<(Lease, Instant)>,
    leads: bool,
}

impl Candidate {
    pub(crate) fn new(link: Arc<Link>, tell: Tell) -> Self {
        let duration = link.world.scenario.lease;
        Self { link, tell, duration, seen: None, leads: false }
    }

    /// Stands until told to stop, then gives the Lease back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let pause = self.duration / LOOKS_PER_DURATION;
        let mut looks = tokio::time::interval(pause);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            let _ = tokio::time::timeout(pause, self.look()).await;
        }
        if self.leads {
            let _ = tokio::time::timeout(pause, self.release()).await;
        }
    }

    async fn look(&mut self) {
        let Some(lease) = self.read().await else { return };
        if self.seen.is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease, Instant::now()));
        }
        let own = self.link.boot;
        match lease.holder {
            Some(holder) if holder == own => self.write(lease).await,
            Some(_) => {
                if std::mem::replace(&mut self.leads, false) {
                    self.link.world.tally("leader: was replaced");
                }
                self.tell.deposed().await;
                if self.seen.is_some_and(|(_, since)| since.elapsed() >= self.duration) {
                    self.write(lease).await;
                }
            }
            None => self.write(lease).await,
        }
    }

    /// Reads the record, if the store can be reached.
    async fn read(&self) -> Option<Lease> {
        let world = &self.link.world;
        world.pause(1..10).await;
        let lease = self.link.is_open().then(|| world.api.lock().lease);
        world.pause(1..10).await;
        lease.filter(|_| self.link.is_open())
    }

    /// Takes or renews it, if nobody has written since it was read.
    async fn write(&mut self, read: Lease) {
        let world = self.link.world.clone();
        world.pause(1..10).await;
        if !self.link.is_open() || (!world.is_healed() && world.chance(world.scenario.calls_fail)) {
            return;
        }
        let written = world.api.lock().write_lease(read, Some(self.link.boot));
        world.pause(1..10).await;
        if !self.link.is_open() || (!world.is_healed() && world.chance(world.scenario.calls_fail)) {
            return;
        }
        if let Some(lease) = written {
            self.seen = Some((lease, Instant::now()));
            self.leads = true;
            self.tell.elected().await;
        }
    }

    async fn release(&self) {
        if let Some(lease) = self.read().await.filter(|lease| lease.holder == Some(self.link.boot)) {
            self.link.world.tally("leader: gives the Lease back");
            self.link.world.api.lock().write_lease(lease, None);
        }
    }
}
