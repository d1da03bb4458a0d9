//! What all replicas share: time, chance, the network between them, the API server, and somebody who sees everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use serin_measure::BootId;
use serin_runtime::Workload;
use tokio::time::Instant;

use crate::api::Api;
use crate::breaks::Break;
use crate::process::Process;
use crate::promises::Observer;
use crate::scenario::Scenario;
use crate::tally::Tally;

/// The wall clock of somebody without a skew when a world begins, in milliseconds since 1970.
const WALL_MS: u64 = 1_800_000_000_000;

/// A world.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    /// What is broken on purpose, to see that it is noticed.
    pub(crate) broken: Option<Break>,
    begun: Instant,
    dice: Mutex<Rng>,
    boots: AtomicU64,
    healed: AtomicBool,
    /// Writes and replicas that are still to come.
    pub(crate) pending: AtomicUsize,
    pub(crate) api: Mutex<Api>,
    pub(crate) net: Mutex<Net>,
    pub(crate) places: Mutex<Vec<Place>>,
    pub(crate) eyes: Mutex<Observer>,
    pub(crate) tally: Mutex<Tally>,
    /// Which version each canary points at.
    wanted: Mutex<Vec<u16>>,
    notes: Option<Mutex<Vec<String>>>,
}

/// Where a process can be.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<Arc<Process>>,
    /// Whether there is a pod, with a process in it or not.
    pub(crate) has_pod: bool,
    /// What the cluster says of it: whether there is such a pod, and whether clients are sent to it.
    pub(crate) told: Told,
    /// When what it says changes next, in milliseconds.
    pub(crate) changes_ms: Option<u64>,
}

/// What the cluster says of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) is_listed: bool,
    pub(crate) serves: bool,
}

/// What does not get through.
#[derive(Debug, Default)]
pub(crate) struct Net {
    /// Directed, by place; a count, because cuts overlap.
    pairs: BTreeMap<(usize, usize), u32>,
    stores: BTreeMap<usize, u32>,
    clients: BTreeMap<usize, u32>,
    pub(crate) outages: u32,
    pub(crate) bad_calls: u32,
    pub(crate) bad_asks: u32,
    pub(crate) unready: [u32; 2],
}

/// Some ways that are cut together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut {
    pub(crate) pairs: Vec<(usize, usize)>,
    pub(crate) store: Option<usize>,
    pub(crate) clients: Option<usize>,
}

impl Net {
    /// Cuts, or mends a former cut.
    pub(crate) fn cut(&mut self, cut: &Cut, is_cut: bool) {
        for pair in &cut.pairs {
            count(self.pairs.entry(*pair).or_default(), is_cut);
        }
        if let Some(place) = &cut.store {
            count(self.stores.entry(*place).or_default(), is_cut);
        }
        if let Some(place) = &cut.clients {
            count(self.clients.entry(*place).or_default(), is_cut);
        }
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        self.pairs.get(&(from, to)).is_none_or(|cuts| *cuts == 0)
    }

    pub(crate) fn reaches_store(&self, place: usize) -> bool {
        self.outages == 0 && self.stores.get(&place).is_none_or(|cuts| *cuts == 0)
    }

    pub(crate) fn reaches_clients(&self, place: usize) -> bool {
        self.clients.get(&place).is_none_or(|cuts| *cuts == 0)
    }
}

/// Counts up or down. What is mended twice, as by the end of all troubles, is whole.
pub(crate) fn count(number: &mut u32, is_up: bool) {
    *number = if is_up { *number + 1 } else { number.saturating_sub(1) };
}

impl World {
    pub(crate) fn new(scenario: Scenario, broken: Option<Break>, tells: bool) -> Arc<Self> {
        let dice = Rng::with_seed(scenario.seed ^ 0x5e71_4e5e_edc0_ffee);
        let wanted = Mutex::new(vec![1; scenario.canaries.len()]);
        Arc::new(Self {
            scenario,
            broken,
            begun: Instant::now(),
            dice: Mutex::new(dice),
            boots: AtomicU64::new(0),
            healed: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            api: Mutex::default(),
            net: Mutex::default(),
            places: Mutex::default(),
            eyes: Mutex::default(),
            tally: Mutex::default(),
            wanted,
            notes: tells.then(Mutex::default),
        })
    }

    /// Milliseconds since the world began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis().try_into().expect("worlds last for minutes")
    }

    /// What a wall clock says that goes wrong by as much as clocks do here.
    pub(crate) fn wall_ms(&self) -> u64 {
        let skew_max_ms = self.scenario.skew_max_ms;
        let skew_ms = self.roll(0..2 * skew_max_ms + 1);
        WALL_MS + self.now_ms() + skew_ms - skew_max_ms
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
        *self.net.lock() = Net::default();
        self.tell(|| "all is well again".to_owned());
    }

    pub(crate) fn roll(&self, among: Range<u64>) -> u64 {
        self.dice.lock().u64(among)
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.dice.lock().f64() < probability
    }

    /// Chance of one's own, for many rolls in a row.
    pub(crate) fn dice(&self) -> Rng {
        self.dice.lock().fork()
    }

    /// Waits for some milliseconds.
    pub(crate) async fn pause(&self, among: Range<u64>) {
        let ms = self.roll(among);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub(crate) fn next_boot(&self) -> BootId {
        BootId(self.boots.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The starts of processes so far.
    pub(crate) fn boots(&self) -> Vec<BootId> {
        (1..=self.boots.load(Ordering::Relaxed)).map(BootId).collect()
    }

    /// The configuration as it is now.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let wanted = self.wanted.lock().clone();
        let apps = self.scenario.canaries.iter().enumerate();
        apps.map(|(place, app)| app.workload(place, wanted[place])).collect()
    }

    /// Points a canary at a version, and lets everybody hear of it. One by one: a channel of tokio's would wake them in an
    /// order that no seed decides.
    pub(crate) fn release(&self, canary: usize, version: u16) {
        self.wanted.lock()[canary] = version;
        self.tell_configuration();
    }

    /// Lets everybody hear of the configuration.
    pub(crate) fn tell_configuration(&self) {
        self.living().iter().for_each(|process| process.configured.notify_one());
    }

    /// Who lives, in the order of their places.
    pub(crate) fn living(&self) -> Vec<Arc<Process>> {
        self.places.lock().iter().filter_map(|place| place.process.clone()).collect()
    }

    /// Counts what happened, for the table at the end.
    pub(crate) fn tally(&self, what: &'static str) {
        self.tally.lock().add(what, 1);
    }

    /// Keeps what happened, if anybody is going to read it.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(notes) = &self.notes {
            let now_ms = self.now_ms();
            notes.lock().push(format!("{:>3}.{:03} s  {}", now_ms / 1_000, now_ms % 1_000, what()));
        }
    }

    /// What happened.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.as_ref().map(|notes| notes.lock().clone()).unwrap_or_default()
    }
}
