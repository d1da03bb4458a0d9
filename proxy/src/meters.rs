//! All meters of this process, by canary and epoch: made when a table first needs them, folded when nobody does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serin_analysis::EPOCHS_MAX;
use serin_measure::{Arm, BootId, CanaryKey, Cell, CellKey, Cuts, EpochCounts, EpochId, EpochMeter, Snapshot};
use serin_route::{Endpoint, Route, RouteTable};
use tokio::sync::mpsc;

use crate::health::Health;
use crate::tripwire::{Tripped, Tripwire};

/// How long an epoch that left the table is kept writable: a thread decides on the table it has just loaded, and that
/// takes microseconds.
const GRACE: Duration = Duration::from_secs(5);
/// Folded epochs kept apart per canary, oldest added together beyond. A run has a few epochs a step, at most 100 steps.
const FOLDED_MAX: usize = 256;
/// Canaries that have left the table and whose counts are kept, the longest gone are dropped beyond: as many as a large
/// configuration has, and each is some kilobytes.
const GONE_MAX: usize = 1_000;
/// Stands for all epochs before the folded ones; real ones are numbered from 1.
const BEFORE: EpochId = EpochId(0);

#[derive(Debug)]
pub(crate) struct Meters {
    boot: BootId,
    threads: usize,
    canaries: Mutex<BTreeMap<CanaryKey, CanaryMeters>>,
    report: mpsc::UnboundedSender<Tripped>,
}

#[derive(Debug)]
struct CanaryMeters {
    tripwire: Arc<Tripwire>,
    live: BTreeMap<EpochId, LiveEpoch>,
    folded: BTreeMap<EpochId, EpochCounts>,
    /// Requests at the canary now that have one of its places.
    places: Arc<AtomicU32>,
    /// Of the endpoints of the present table.
    health: BTreeMap<SocketAddr, Arc<Health>>,
    /// Since when no table carries it.
    gone: Option<Instant>,
}

#[derive(Debug)]
struct LiveEpoch {
    meter: Arc<EpochMeter>,
    cuts: Cuts,
    /// Since when no table carries it.
    left: Option<Instant>,
}

/// What a route needs beside the table.
#[derive(Debug, Clone)]
pub(crate) struct Instruments {
    pub(crate) meter: Arc<EpochMeter>,
    pub(crate) tripwire: Arc<Tripwire>,
    pub(crate) places: Arc<AtomicU32>,
    /// By arm, in the order of its endpoints; empty where nobody asks.
    pub(crate) health: [Vec<Arc<Health>>; 2],
}

impl Meters {
    pub(crate) fn new(boot: BootId, threads: usize, report: mpsc::UnboundedSender<Tripped>) -> Self {
        Self { boot, threads, canaries: Mutex::default(), report }
    }

    /// The instruments of every route of a table that is about to be published.
    pub(crate) fn instruments(&self, table: &RouteTable) -> Vec<Instruments> {
        let mut canaries = self.canaries.lock();
        let now = Instant::now();
        for canary in canaries.values_mut() {
            canary.gone.get_or_insert(now);
            for live in canary.live.values_mut() {
                live.left.get_or_insert(now);
            }
        }
        let per_route = table.routes().iter().map(|route| {
            let new = || CanaryMeters::new(&route.canary, &self.report);
            let canary = canaries.entry(route.canary.clone()).or_insert_with(new);
            let key = CellKey { boot: self.boot, canary: route.canary.clone(), epoch: route.epoch };
            let live = canary.live.entry(route.epoch).or_insert_with(|| LiveEpoch {
                meter: Arc::new(EpochMeter::new(key, self.threads)),
                cuts: Cuts::default(),
                left: None,
            });
            (live.left, canary.gone) = (None, None);
            let meter = live.meter.clone();
            canary.tell_tripwire();
            let health = canary.health_of(route);
            Instruments { meter, tripwire: canary.tripwire.clone(), places: canary.places.clone(), health }
        });
        let per_route = per_route.collect();
        drop_longest_gone(&mut canaries, now);
        per_route
    }

    /// This start of the process.
    pub(crate) const fn boot(&self) -> BootId {
        self.boot
    }

    /// The tripwire of a canary, made if it had none: an order may come before the first route.
    pub(crate) fn tripwire_or_new(&self, canary: &CanaryKey) -> Arc<Tripwire> {
        let mut canaries = self.canaries.lock();
        canaries.entry(canary.clone()).or_insert_with(|| CanaryMeters::new(canary, &self.report)).tripwire.clone()
    }

    /// What tripwires have taken out of traffic.
    pub(crate) fn tripped(&self) -> Vec<Tripped> {
        self.canaries.lock().values().filter_map(|canary| canary.tripwire.tripped()).collect()
    }

    pub(crate) fn tripwire(&self, canary: &CanaryKey) -> Option<Arc<Tripwire>> {
        self.canaries.lock().get(canary).map(|canary| canary.tripwire.clone())
    }

    /// The evidence cells of the epochs that may still change.
    pub(crate) fn cells(&self, canary: &CanaryKey) -> Vec<(EpochId, Cell)> {
        let mut canaries = self.canaries.lock();
        let Some(canary) = canaries.get_mut(canary) else { return Vec::new() };
        let CanaryMeters { live, folded, .. } = canary;
        // The newest folded ones too: their last outcomes may have come after the last look.
        let folded = folded.iter().rev().take(EPOCHS_MAX).map(|(epoch, counts)| (*epoch, counts.cell()));
        let mut cells: BTreeMap<EpochId, Cell> = folded.collect();
        for (epoch, live) in live {
            // One that comes back, as after a brake that nobody saved, goes on with what was folded of it.
            cells.entry(*epoch).or_default().merge(&live.meter.cut(&mut live.cuts));
        }
        cells.into_iter().collect()
    }

    /// Everything counted since the start, of one canary or of all.
    pub(crate) fn snapshot(&self, of: Option<&CanaryKey>) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for (key, canary) in self.canaries.lock().iter_mut().filter(|(key, _)| of.is_none_or(|of| of == *key)) {
            canary.fold(Instant::now());
            let live = canary.live.iter().map(|(epoch, live)| (*epoch, live.meter.snapshot()));
            let folded = canary.folded.iter().map(|(epoch, counts)| (*epoch, counts.clone()));
            for (epoch, counts) in folded.chain(live) {
                snapshot.insert(CellKey { boot: self.boot, canary: key.clone(), epoch }, counts);
            }
        }
        snapshot
    }
}

impl CanaryMeters {
    fn new(canary: &CanaryKey, report: &mpsc::UnboundedSender<Tripped>) -> Self {
        let tripwire = Arc::new(Tripwire::new(canary.clone(), report.clone()));
        let (live, folded, health) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { tripwire, live, folded, places: Arc::default(), health, gone: None }
    }

    /// The health of a route's endpoints, which is theirs from table to table.
    fn health_of(&mut self, route: &Route) -> [Vec<Arc<Health>>; 2] {
        if route.upstream.ejection.is_none() && route.upstream.warm_up.is_none() {
            self.health.clear();
            return Default::default();
        }
        let former = std::mem::take(&mut self.health);
        let mut of = |endpoint: &Endpoint| {
            let known = || former.get(&endpoint.address).cloned().unwrap_or_default();
            self.health.entry(endpoint.address).or_insert_with(known).clone()
        };
        Arm::ALL.map(|arm| route.endpoints(arm).iter().map(&mut of).collect())
    }

    fn tell_tripwire(&self) {
        self.tripwire.set_meters(self.live.values().map(|live| live.meter.clone()).collect());
    }

    /// Turns epochs that nobody can write to any more into plain counts.
    fn fold(&mut self, now: Instant) {
        let before = self.live.len();
        self.live.retain(|epoch, live| {
            if live.left.is_none_or(|left| now.duration_since(left) < GRACE) {
                return true;
            }
            if in_flight(&live.meter.snapshot()) > 0 {
                return true;
            }
            // Read again: the first reading may have begun before the last request ended.
            let counts = live.meter.snapshot();
            self.folded.entry(*epoch).or_default().merge(&counts);
            false
        });
        while self.folded.len() > FOLDED_MAX {
            let oldest = self.folded.keys().copied().find(|epoch| *epoch != BEFORE).expect("more than one is folded");
            let counts = self.folded.remove(&oldest).expect("just found");
            self.folded.entry(BEFORE).or_default().merge(&counts);
        }
        if self.live.len() < before {
            self.tell_tripwire();
        }
    }
}

/// Keeps memory bounded where canaries come and go for ever. Nobody can write to what is dropped.
fn drop_longest_gone(canaries: &mut BTreeMap<CanaryKey, CanaryMeters>, now: Instant) {
    let mut gone: Vec<(Instant, CanaryKey)> =
        canaries.iter().filter_map(|(key, canary)| Some((canary.gone?, key.clone()))).collect();
    if gone.len() <= GONE_MAX {
        return;
    }
    gone.sort_unstable();
    let surplus = gone.len() - GONE_MAX;
    for (_, key) in gone.into_iter().take(surplus) {
        let is_over = canaries.get_mut(&key).is_some_and(|canary| {
            canary.fold(now);
            canary.live.is_empty()
        });
        if is_over {
            canaries.remove(&key);
        }
    }
}

/// First attempts that were sent and have not ended, of whatever class.
fn in_flight(counts: &EpochCounts) -> u64 {
    let of = |arm| {
        let record = counts.arm(arm);
        [record.evidence, record.other].iter().map(|sums| sums.routed.saturating_sub(sums.done)).sum::<u64>()
    };
    Arm::ALL.into_iter().map(of).sum()
}
