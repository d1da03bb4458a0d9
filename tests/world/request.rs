//! Requests: how many come where, where each is sent, when it ends, and how.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic;
use std::time::Duration;

use fastrand::Rng;
use serin_measure::{Arm, Assignment, BootId, CanaryKey, Cell, EpochId, Outcome};
use serin_route::{RequestView, RouteIndex, Ticket, decide};

use crate::plane::{Inner, Instruments, Plane, Published, SHARDS, counts_against};
use crate::process::Process;
use crate::scenario::App;
use crate::world::World;

/// Between two looks at the clients, in milliseconds.
const STEP_MS: u64 = 25;

/// A request that was sent and has not ended.
pub(crate) struct Underway {
    ends_ms: u64,
    number: u64,
    instruments: Arc<Instruments>,
    shard: usize,
    arm: Arm,
    assignment: Assignment,
    outcome: Outcome,
}

impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Underway {}

impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Underway {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.ends_ms, self.number).cmp(&(other.ends_ms, other.number))
    }
}

/// A request that says where it wants to go, and nothing else.
struct Plain<'a>(&'a str);

impl RequestView for Plain<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn authority(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn path(&self) -> &[u8] {
        b"/"
    }

    fn header<'a>(&'a self, _: &'a str) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}

/// What was done in one go, by epoch.
type Done = BTreeMap<(CanaryKey, EpochId), Cell>;

/// Clients of all canaries, until the world ends.
pub(crate) async fn clients(world: Arc<World>) {
    let mut rng = world.dice();
    let mut steps = tokio::time::interval(Duration::from_millis(STEP_MS));
    loop {
        steps.tick().await;
        let serving: Vec<bool> = world.places.lock().iter().map(|place| place.told.serves).collect();
        let living = world.living();
        let takes = |process: &Process| {
            let accepts = process.accepts.load(atomic::Ordering::Relaxed);
            accepts && serving[process.place] && world.net.lock().reaches_clients(process.place)
        };
        let taking = living.iter().filter(|process| takes(process)).count();
        for process in &living {
            process.watch_state(&world);
            let mut inner = process.plane.inner.lock();
            let mut done = Done::new();
            process.plane.end(&mut inner, &mut done);
            if takes(process) {
                for app in &world.scenario.canaries {
                    process.plane.send(&mut inner, app, share(&mut rng, app.rate, taking), &mut rng, &mut done);
                }
            }
            drop(inner);
            world.tell_counts(process.boot, done);
        }
    }
}

/// How many requests of `rate` in a second come to one of `taking` processes in this step.
fn share(rng: &mut Rng, rate: f64, taking: usize) -> u32 {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let mean = rate * STEP_MS as f64 / 1_000.0 / taking.max(1) as f64;
    // Between none and twice as many as on average.
    let drawn = mean * 2.0 * rng.f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
    let whole = drawn as u32;
    whole + u32::from(rng.f64() < drawn.fract())
}

impl World {
    fn tell_counts(&self, boot: BootId, done: Done) {
        let mut eyes = self.eyes.lock();
        for ((canary, epoch), cell) in done {
            eyes.counts.add(boot, &canary, epoch, cell);
        }
    }
}

impl Plane {
    /// Ends the requests that are due.
    fn end(&self, inner: &mut Inner, done: &mut Done) {
        let now_ms = self.world.now_ms();
        while inner.underway.peek().is_some_and(|Reverse(next)| next.ends_ms <= now_ms) {
            let Reverse(Underway { instruments, shard, arm, assignment, outcome, .. }) =
                inner.underway.pop().expect("peeked at");
            let shard = instruments.meter.shard(shard);
            shard.served(arm, outcome);
            shard.ended(arm, assignment, outcome, None);
            let (key, failed) = (instruments.meter.key(), outcome.is_failure());
            if assignment.is_evidence() {
                let cell = done.entry((key.canary.clone(), key.epoch)).or_default();
                let (a, b) = (u64::from(failed && arm == Arm::Canary), u64::from(failed && arm == Arm::Primary));
                cell.merge(&Cell { n: 0, a, b, done: 1 });
            }
            if counts_against(arm, assignment, failed) {
                self.look(inner, &key.canary);
            }
        }
    }

    /// Sends some requests.
    fn send(&self, inner: &mut Inner, app: &App, count: u32, rng: &mut Rng, done: &mut Done) {
        let published = inner.published.clone();
        let (world, now_ms) = (&self.world, self.world.now_ms());
        let mut is_drawn = [false; 2];
        let mut route = None;
        for _ in 0..count {
            let ticket = Ticket::from(rng.u64(..));
            let Ok(decision) = decide(&published.table, &Plain(&app.host), &*published, ticket) else { continue };
            let (arm, assignment) = (decision.arm, decision.assignment);
            let instruments = published.instruments[decision.found.route.0 as usize].clone();
            let address = published.table.route(decision.found.route).endpoints(arm)[decision.endpoint].address;
            let failed = rng.f64() < world.scenario.fails(app, address, now_ms);
            let outcome = Outcome::Status(if failed { 500 } else { 200 });
            let is_slow = rng.u32(..1_000) < app.slow_permille;
            let ends_ms = now_ms + if is_slow { rng.u64(1_000..8_000) } else { rng.u64(1..60) };
            let shard = rng.usize(..SHARDS);
            instruments.meter.shard(shard).routed(arm, assignment);
            if assignment.is_evidence() {
                is_drawn[arm.index()] = true;
                route = Some(decision.found.route);
                let key = instruments.meter.key();
                done.entry((key.canary.clone(), key.epoch)).or_default().n += 1;
            }
            inner.requests += 1;
            let number = inner.requests;
            inner.underway.push(Reverse(Underway { ends_ms, number, instruments, shard, arm, assignment, outcome }));
        }
        if let Some(route) = route {
            self.drawn(&published, route, is_drawn[Arm::Canary.index()]);
        }
    }

    /// Lets the observer see that requests were drawn.
    fn drawn(&self, published: &Published, route: RouteIndex, to_canary: bool) {
        let route = published.table.route(route);
        let mut eyes = self.world.eyes.lock();
        let kept = eyes.books.drawn(self.boot, route);
        eyes.note(kept);
        if to_canary {
            let kept = eyes.trips.drawn_to_canary(&(self.boot, route.canary.clone()), route.rollout);
            eyes.note(kept);
        }
    }
}
