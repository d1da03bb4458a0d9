//! What one thread of the edge owns: its view of the table, its recorder slots, its random numbers, its listeners.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use serin_measure::{Arm, EpochMeter, FailedUnits, Shard};
use serin_route::{
    Condition, CookieSet, Decision, Edits, Found, Live, Match, Mirror, Place, RequestView, RouteIndex, Stickiness,
    Ticket, Unit, Unrouted, Upstream, decide_on,
};

use crate::budget::Budget;
use crate::health::Health;
use crate::peer::peer;
use crate::published::Published;
use crate::settings::Settings;
use crate::tripwire::Tripwire;

/// One thread's way to decide.
pub(crate) struct Desk {
    thread: usize,
    settings: Arc<Settings>,
    /// Only this thread takes it, so it is never waited for; Pingora wants the adapter to be `Sync`.
    own: Mutex<Own>,
}

struct Own {
    table: Cache<Arc<ArcSwap<Published>>, Arc<Published>>,
    /// The table that `routes` was made for.
    routes_of: Arc<Published>,
    /// How many tables there were.
    turn: u64,
    /// By route index, made at first use: a thread need not prepare ten thousand routes to serve one. Beside each is the turn for
    /// which it was last found good; one of an earlier table stays if it would be made the same.
    routes: Vec<Option<(u64, Arc<ThreadRoute>)>>,
    random: fastrand::Rng,
}

/// A route as one thread uses it. The `Arc` around it is this thread's own, so its count is not contended.
#[derive(Debug)]
pub(crate) struct ThreadRoute {
    thread: usize,
    meter: Arc<EpochMeter>,
    pub(crate) tripwire: Arc<Tripwire>,
    matches: Arc<[Match]>,
    edits: Arc<Edits>,
    upstream: Arc<Upstream>,
    /// What may be tried again.
    pub(crate) budget: Budget,
    stickiness: Option<Arc<Stickiness>>,
    pub(crate) mirror: Option<Mirror>,
    pub(crate) replays: bool,
    addresses: [Vec<SocketAddr>; 2],
    /// Requests in flight that this thread has with each endpoint.
    in_flight: [Vec<AtomicU32>; 2],
    health: [Vec<Arc<Health>>; 2],
    places: Arc<AtomicU32>,
    /// Made when pingora-proxy needs them first.
    peers: OnceLock<[Vec<HttpPeer>; 2]>,
    settings: Arc<Settings>,
}

/// What was decided on a request.
pub(crate) enum Decided {
    /// It goes there.
    Taken(Decision, Arc<ThreadRoute>),
    /// Who asked does not carry such requests.
    NotTaken,
}

impl ThreadRoute {
    /// Where this thread counts.
    pub(crate) fn shard(&self) -> &Shard {
        self.meter.shard(self.thread)
    }

    /// What is changed on the way.
    pub(crate) fn edits(&self) -> &Edits {
        &self.edits
    }

    /// How its backends are spoken to.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What the answer to a request sets a cookie to, if it does.
    pub(crate) fn cookie(&self, set: CookieSet) -> Option<&str> {
        self.stickiness.as_deref()?.line(set)
    }

    /// Units of users that have failed in its epoch.
    pub(crate) fn failed_units(&self) -> &FailedUnits {
        self.meter.failed_units()
    }

    /// A request goes to an endpoint.
    pub(crate) fn enter(&self, arm: Arm, endpoint: usize) {
        add(&self.in_flight[arm.index()][endpoint], 1);
    }

    /// It has left it, having gone well or not; none if neither is known.
    pub(crate) fn leave(&self, arm: Arm, endpoint: usize, was_good: Option<bool>) {
        add(&self.in_flight[arm.index()][endpoint], -1);
        let health = &self.health[arm.index()];
        if let (Some(was_good), Some(rule)) = (was_good, &self.upstream.ejection) {
            match was_good {
                true => health[endpoint].succeeded(),
                false => health[endpoint].failed(rule, health.iter().map(AsRef::as_ref)),
            }
        }
    }

    /// Gives back a place among the requests at the canary.
    pub(crate) fn give_place_back(&self) {
        self.places.fetch_sub(1, Ordering::Relaxed);
    }

    fn condition(&self, arm: Arm, endpoint: usize) -> Condition {
        let in_flight = self.in_flight[arm.index()][endpoint].load(Ordering::Relaxed);
        match self.health[arm.index()].get(endpoint) {
            None => Condition { in_flight, ..Condition::IDLE },
            Some(health) => {
                Condition { in_flight, warmth: health.warmth(self.upstream.warm_up), is_out: health.is_out() }
            }
        }
    }

    /// The endpoint after this one that takes requests, where another try goes.
    pub(crate) fn next_endpoint(&self, arm: Arm, endpoint: usize) -> usize {
        let count = self.addresses(arm).len();
        let mut others = (1..count).map(|step| (endpoint + step) % count);
        others.find(|other| !self.condition(arm, *other).is_out).unwrap_or((endpoint + 1) % count)
    }

    /// The entry by which a request was found; see [`serin_route::Route::entry`].
    pub(crate) fn entry(&self, found: Found) -> Option<&Match> {
        self.matches.get(found.entry as usize)
    }

    /// Addresses of an arm, in the order of its endpoints.
    pub(crate) fn addresses(&self, arm: Arm) -> &[SocketAddr] {
        &self.addresses[arm.index()]
    }

    /// Prepared peers of an arm, in the order of its endpoints.
    pub(crate) fn peers(&self, arm: Arm) -> &[HttpPeer] {
        let peer = |address: &SocketAddr| peer(*address, &self.upstream, &self.settings);
        let of = |addresses: &Vec<SocketAddr>| addresses.iter().map(peer).collect();
        let peers = self.peers.get_or_init(|| self.addresses.each_ref().map(of));
        &peers[arm.index()]
    }

    /// Whether it is what would be made for a route of another table.
    fn is_of(&self, published: &Published, index: RouteIndex) -> bool {
        let (route, instruments) = (published.table.route(index), &published.instruments[index.0 as usize]);
        let is_same =
            |arm| self.addresses(arm).iter().eq(route.endpoints(arm).iter().map(|endpoint| &endpoint.address));
        Arc::ptr_eq(&self.meter, &instruments.meter)
            && Arc::ptr_eq(&self.tripwire, &instruments.tripwire)
            && (Arc::ptr_eq(&self.matches, &route.matches) || self.matches == route.matches)
            && (Arc::ptr_eq(&self.edits, &route.edits) || self.edits == route.edits)
            && (Arc::ptr_eq(&self.upstream, &route.upstream) || self.upstream == route.upstream)
            && self.stickiness == route.stickiness
            && (self.mirror, self.replays) == (route.mirror, route.replays)
            && Arc::ptr_eq(&self.places, &instruments.places)
            && Arm::ALL.into_iter().all(|arm| {
                let (own, other) = (&self.health[arm.index()], &instruments.health[arm.index()]);
                own.len() == other.len() && own.iter().zip(other).all(|(own, other)| Arc::ptr_eq(own, other))
            })
            && Arm::ALL.into_iter().all(is_same)
    }
}

/// What is live of the route that a request was found by.
struct Now<'a> {
    published: &'a Published,
    route: &'a ThreadRoute,
}

impl Live for Now<'_> {
    fn tripped(&self, route: RouteIndex) -> bool {
        self.route.tripwire.is_tripped(self.published.table.route(route).rollout)
    }

    fn take_place(&self, _: RouteIndex, most: u32) -> bool {
        let taken = self.route.places.fetch_add(1, Ordering::Relaxed);
        if taken >= most {
            self.route.give_place_back();
        }
        taken < most
    }

    fn give_place_back(&self, _: RouteIndex) {
        self.route.give_place_back();
    }

    fn has_failed(&self, _: RouteIndex, unit: Unit) -> bool {
        self.route.failed_units().contains(unit.0)
    }

    fn condition(&self, place: Place, endpoint: usize) -> Condition {
        self.route.condition(place.arm, endpoint)
    }
}

/// Adds to a count that one thread alone writes.
fn add(count: &AtomicU32, change: i32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
}

impl Desk {
    /// `seed` comes from the operating system's entropy: the evidence rests on threads not sharing a stream.
    pub(crate) fn new(thread: usize, settings: Arc<Settings>, published: Arc<ArcSwap<Published>>, seed: u64) -> Self {
        let routes_of = published.load_full();
        let routes = vec![None; routes_of.table.routes().len()];
        let own =
            Own { table: Cache::new(published), routes_of, turn: 0, routes, random: fastrand::Rng::with_seed(seed) };
        Self { thread, settings, own: Mutex::new(own) }
    }

    /// Decides on a request with this thread's next random number, on the newest table. `takes` says of the route, before any coin is
    /// tossed, whether who asks can carry such a request.
    pub(crate) fn decide(
        &self,
        request: &impl RequestView,
        takes: impl Fn(&Upstream) -> bool,
    ) -> Result<Decided, Unrouted> {
        let own = &mut *self.own.lock();
        let published = own.table.load();
        if !Arc::ptr_eq(published, &own.routes_of) {
            own.routes_of = published.clone();
            own.routes.resize(published.table.routes().len(), None);
            own.turn += 1;
        }
        let published = &*own.routes_of;
        let found = published.table.find(request).ok_or(Unrouted::UnknownHost)?;
        if !takes(&published.table.route(found.route).upstream) {
            return Ok(Decided::NotTaken);
        }
        let index = found.route;
        let place = &mut own.routes[index.0 as usize];
        let route = match place {
            Some((turn, route)) if *turn == own.turn || route.is_of(published, index) => {
                *turn = own.turn;
                &*route
            }
            _ => &place.insert((own.turn, Arc::new(self.prepare(published, index)))).1,
        };
        let ticket = Ticket::from(own.random.u64(..));
        let decision = decide_on(&published.table, found, request, &Now { published, route }, ticket)?;
        Ok(Decided::Taken(decision, route.clone()))
    }

    fn prepare(&self, published: &Published, index: RouteIndex) -> ThreadRoute {
        let route = published.table.route(index);
        let instruments = &published.instruments[index.0 as usize];
        let addresses = |arm| route.endpoints(arm).iter().map(|endpoint| endpoint.address).collect();
        ThreadRoute {
            thread: self.thread,
            meter: instruments.meter.clone(),
            tripwire: instruments.tripwire.clone(),
            matches: route.matches.clone(),
            edits: route.edits.clone(),
            upstream: route.upstream.clone(),
            budget: Budget::default(),
            stickiness: route.stickiness.clone(),
            mirror: route.mirror,
            replays: route.replays,
            in_flight: Arm::ALL.map(|arm| route.endpoints(arm).iter().map(|_| AtomicU32::new(0)).collect()),
            health: instruments.health.clone(),
            places: instruments.places.clone(),
            addresses: [addresses(Arm::Primary), addresses(Arm::Canary)],
            peers: OnceLock::new(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_measure::{BootId, CanaryKey, Coin, EpochId};
    use serin_route::{Endpoint, Generation, Host, Route, RouteTable};
    use tokio::sync::mpsc;

    use super::*;
    use crate::meters::Meters;

    struct Anything;

    impl RequestView for Anything {
        fn method(&self) -> &str {
            "GET"
        }
        fn scheme(&self) -> &str {
            "http"
        }
        fn authority(&self) -> Option<&[u8]> {
            None
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

    fn published(meters: &Meters, epoch: u64, port: u16) -> Arc<Published> {
        let route = Route {
            epoch: EpochId(epoch),
            coin: Coin::from_percent(10.0).expect("a percentage"),
            hosts: vec![Host::Any],
            primary: vec![Endpoint { address: ([127, 0, 0, 1], port).into() }],
            ..Route::new(CanaryKey::new("default", "shop"))
        };
        let table = RouteTable::build(Generation(epoch), vec![route]).expect("one route");
        let instruments = meters.instruments(&table);
        Arc::new(Published { table, instruments })
    }

    #[test]
    fn what_a_thread_has_of_a_route_is_kept_while_it_would_be_made_the_same() {
        let (report, _) = mpsc::unbounded_channel();
        let meters = Meters::new(BootId(1), 1, report);
        let tables = Arc::new(ArcSwap::new(published(&meters, 1, 9001)));
        let desk = Desk::new(0, Arc::default(), tables.clone(), 1);
        let decide = || match desk.decide(&Anything, |_| true) {
            Ok(Decided::Taken(_, route)) => route,
            Ok(Decided::NotTaken) | Err(_) => panic!("there is a route"),
        };
        let first = decide();
        tables.store(published(&meters, 1, 9001));
        assert!(Arc::ptr_eq(&first, &decide()), "nothing about it has changed");
        for (epoch, port) in [(2, 9001), (2, 9002), (1, 9001)] {
            let former = decide();
            tables.store(published(&meters, epoch, port));
            let route = decide();
            assert!(!Arc::ptr_eq(&former, &route), "epoch {epoch}, port {port}");
            assert_eq!(route.meter.key().epoch, EpochId(epoch));
            assert_eq!(route.addresses(Arm::Primary), [([127, 0, 0, 1], port).into()]);
            assert!(Arc::ptr_eq(&route, &decide()), "it is asked for again");
        }
    }
}
