//! A data plane without sockets: the real decision, the real meters and the real look of a tripwire, on virtual time.
//!
//! It keeps meters as `proxy/src/meters.rs` does, and trips as `proxy/src/tripwire.rs`. Requests take time, so they end under
//! other tables and in later epochs than they were routed in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use parking_lot::Mutex;
use serin_analysis::{Checkpoint, EPOCHS_MAX};
use serin_measure::{
    Arm, Assignment, BootId, CanaryKey, Cell, CellKey, Cuts, EpochCounts, EpochId, EpochMeter, Snapshot,
};
use serin_route::{Live, RouteIndex, RouteTable};
use serin_runtime::{DataPlane, EdgeView, Trip};
use tokio::sync::mpsc;

use crate::breaks::Break;
use crate::promises::Origin;
use crate::request::Underway;
use crate::world::World;

/// Threads that count, each for itself.
pub(crate) const SHARDS: usize = 2;
/// How long an epoch that left the table is kept writable, in milliseconds; as in the product.
const GRACE_MS: u64 = 5_000;

/// The data plane of one process.
pub(crate) struct Plane {
    pub(crate) world: Arc<World>,
    pub(crate) boot: BootId,
    pub(crate) inner: Mutex<Inner>,
    report: mpsc::UnboundedSender<Trip>,
}

pub(crate) struct Inner {
    pub(crate) published: Arc<Published>,
    canaries: BTreeMap<CanaryKey, Meters>,
    /// Requests that have not ended, the next one to end on top.
    pub(crate) underway: BinaryHeap<Reverse<Underway>>,
    pub(crate) requests: u64,
}

/// A table with what its routes are measured by.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) table: RouteTable,
    pub(crate) instruments: Vec<Arc<Instruments>>,
}

/// What a route is measured by.
pub(crate) struct Instruments {
    pub(crate) meter: EpochMeter,
    pub(crate) tripwire: Arc<Tripwire>,
}

struct Meters {
    tripwire: Arc<Tripwire>,
    live: BTreeMap<EpochId, LiveEpoch>,
    folded: BTreeMap<EpochId, EpochCounts>,
}

struct LiveEpoch {
    instruments: Arc<Instruments>,
    cuts: Cuts,
    left_ms: Option<u64>,
}

/// The tripwire of one canary.
#[derive(Default)]
pub(crate) struct Tripwire {
    state: Mutex<Tripped>,
    forgets: bool,
}

#[derive(Default)]
struct Tripped {
    told: Option<Trip>,
    checkpoint: Option<Checkpoint>,
}

impl Tripwire {
    fn is_tripped(&self, rollout: u64) -> bool {
        !self.forgets && rollout > 0 && self.state.lock().told.as_ref().is_some_and(|trip| trip.rollout == rollout)
    }

    fn told(&self) -> Option<Trip> {
        self.state.lock().told.clone().filter(|_| !self.forgets)
    }

    /// The newest run wins. Says whether this one is new.
    fn trip(&self, trip: &Trip) -> bool {
        let mut state = self.state.lock();
        let is_new = state.told.as_ref().is_none_or(|told| told.rollout < trip.rollout);
        if is_new {
            state.told = Some(trip.clone());
        }
        is_new
    }
}

impl Live for Published {
    fn tripped(&self, route: RouteIndex) -> bool {
        let rollout = self.table.route(route).rollout;
        self.instruments[route.0 as usize].tripwire.is_tripped(rollout)
    }
}

impl Plane {
    pub(crate) fn new(world: Arc<World>, boot: BootId, report: mpsc::UnboundedSender<Trip>) -> Arc<Self> {
        let (published, canaries, underway) = (Arc::default(), BTreeMap::new(), BinaryHeap::new());
        let inner = Inner { published, canaries, underway, requests: 0 };
        Arc::new(Self { world, boot, inner: Mutex::new(inner), report })
    }

    /// Whether no request is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().underway.is_empty()
    }

    /// The look after a canary failure was counted.
    pub(crate) fn look(&self, inner: &Inner, canary: &CanaryKey) {
        let Some(meters) = inner.canaries.get(canary) else { return };
        let checkpoint = meters.tripwire.state.lock().checkpoint.clone();
        let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.acts) else { return };
        let rollout = checkpoint.rollout;
        if meters.tripwire.is_tripped(rollout) {
            return;
        }
        let ln_e = checkpoint.look(|epoch| meters.live.get(&epoch).map(|live| live.instruments.meter.look()));
        let trip = Trip { canary: canary.clone(), rollout, ln_e };
        if checkpoint.stake.crossed(ln_e) && meters.tripwire.trip(&trip) {
            self.tripped(&trip, Origin::Tripwire);
            let _ = self.report.send(trip);
        }
    }

    fn tripped(&self, trip: &Trip, origin: Origin) {
        let (world, boot) = (&self.world, self.boot);
        world.tally(match origin {
            Origin::Tripwire => "trip: by a tripwire",
            Origin::Order => "trip: by order",
        });
        world.tell(|| format!("{boot} takes run {} of {} out: {origin:?}", trip.rollout, trip.canary));
        world.eyes.lock().trips.tripped((boot, trip.canary.clone()), trip.rollout, origin, world.now_ms());
    }
}

impl Inner {
    fn instruments(&mut self, plane: &Plane, table: &RouteTable) -> Vec<Arc<Instruments>> {
        let now_ms = plane.world.now_ms();
        for live in self.canaries.values_mut().flat_map(|meters| meters.live.values_mut()) {
            live.left_ms.get_or_insert(now_ms);
        }
        let per_route = table.routes().iter().map(|route| {
            let forgets = plane.world.broken == Some(Break::TripForgotten);
            let meters = self.canaries.entry(route.canary.clone()).or_insert_with(|| Meters::new(forgets));
            let tripwire = meters.tripwire.clone();
            let live = meters.live.entry(route.epoch).or_insert_with(|| {
                let key = CellKey { boot: plane.boot, canary: route.canary.clone(), epoch: route.epoch };
                let instruments = Arc::new(Instruments { meter: EpochMeter::new(key, SHARDS), tripwire });
                LiveEpoch { instruments, cuts: Cuts::default(), left_ms: None }
            });
            live.left_ms = None;
            live.instruments.clone()
        });
        per_route.collect()
    }
}

impl Meters {
    fn new(forgets: bool) -> Self {
        let tripwire = Arc::new(Tripwire { forgets, ..Tripwire::default() });
        Self { tripwire, live: BTreeMap::new(), folded: BTreeMap::new() }
    }

    fn fold(&mut self, now_ms: u64) {
        let Self { live, folded, .. } = self;
        live.retain(|epoch, live| {
            if live.left_ms.is_none_or(|left_ms| now_ms - left_ms < GRACE_MS) {
                return true;
            }
            let counts = live.instruments.meter.snapshot();
            if in_flight(&counts) > 0 {
                return true;
            }
            folded.entry(*epoch).or_default().merge(&counts);
            false
        });
    }
}

fn in_flight(counts: &EpochCounts) -> u64 {
    let records = Arm::ALL.map(|arm| counts.arm(arm));
    let all = records.iter().flat_map(|record| [record.evidence, record.other]);
    all.map(|sums| sums.routed - sums.done).sum()
}

impl DataPlane for Plane {
    fn boot(&self) -> BootId {
        self.boot
    }

    fn publish(&self, table: RouteTable) {
        self.world.tell(|| {
            let shown = table.routes().iter().map(|route| {
                let share = route.coin.probability() * 100.0;
                format!("{} run {} epoch {} {share:.0} %", route.canary, route.rollout, route.epoch)
            });
            format!("{} publishes {}", self.boot, shown.collect::<Vec<_>>().join(", "))
        });
        let mut eyes = self.world.eyes.lock();
        let kept = eyes.books.published(self.boot, &table);
        eyes.note(kept);
        drop(eyes);
        let mut inner = self.inner.lock();
        let instruments = inner.instruments(self, &table);
        inner.published = Arc::new(Published { table, instruments });
    }

    fn arm(&self, canary: &CanaryKey, checkpoint: Option<Checkpoint>) {
        if let Some(checkpoint) = &checkpoint {
            let mut eyes = self.world.eyes.lock();
            let kept = eyes.ledgers.armed(&(self.boot, canary.clone()), checkpoint);
            eyes.note(kept);
        }
        if let Some(meters) = self.inner.lock().canaries.get(canary) {
            meters.tripwire.state.lock().checkpoint = checkpoint;
        }
    }

    fn is_tripped(&self, canary: &CanaryKey, rollout: u64) -> bool {
        let is_tripped = |meters: &Meters| meters.tripwire.is_tripped(rollout);
        self.inner.lock().canaries.get(canary).is_some_and(is_tripped)
    }

    fn trip(&self, trip: &Trip) {
        let forgets = self.world.broken == Some(Break::TripForgotten);
        let is_new = {
            let mut inner = self.inner.lock();
            let meters = inner.canaries.entry(trip.canary.clone()).or_insert_with(|| Meters::new(forgets));
            meters.tripwire.trip(trip)
        };
        if is_new {
            self.tripped(trip, Origin::Order);
        }
    }

    fn trips(&self) -> Vec<Trip> {
        self.inner.lock().canaries.values().filter_map(|meters| meters.tripwire.told()).collect()
    }

    fn cells(&self, canary: &CanaryKey) -> Vec<(EpochId, Cell)> {
        let mut inner = self.inner.lock();
        let Some(meters) = inner.canaries.get_mut(canary) else { return Vec::new() };
        let folded = meters.folded.iter().rev().take(EPOCHS_MAX).map(|(epoch, counts)| (*epoch, counts.cell()));
        let mut cells: BTreeMap<EpochId, Cell> = folded.collect();
        for (epoch, live) in &mut meters.live {
            if cells.contains_key(epoch) {
                self.world.tally("epoch: asked for after it was folded and came back");
            }
            cells.entry(*epoch).or_default().merge(&live.instruments.meter.cut(&mut live.cuts));
        }
        cells.into_iter().collect()
    }

    fn snapshot(&self, of: Option<&CanaryKey>) -> Snapshot {
        let now_ms = self.world.now_ms();
        let mut snapshot = Snapshot::new();
        let mut inner = self.inner.lock();
        for (key, meters) in inner.canaries.iter_mut().filter(|(key, _)| of.is_none_or(|of| of == *key)) {
            meters.fold(now_ms);
            let live = meters.live.iter().map(|(epoch, live)| (*epoch, live.instruments.meter.snapshot()));
            let folded = meters.folded.iter().map(|(epoch, counts)| (*epoch, counts.clone()));
            for (epoch, counts) in folded.chain(live) {
                snapshot.insert(CellKey { boot: self.boot, canary: key.clone(), epoch }, counts);
            }
        }
        snapshot
    }

    fn edge(&self) -> EdgeView {
        EdgeView::default()
    }
}

/// Whether a request is evidence against the canary.
pub(crate) fn counts_against(arm: Arm, assignment: Assignment, failed: bool) -> bool {
    arm == Arm::Canary && assignment.is_evidence() && failed
}
