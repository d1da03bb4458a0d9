//! What one thread of the edge owns: its view of the table, its recorder slots, its random numbers, its listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use serin_measure::{Arm, EpochMeter, Shard};
use serin_route::{Decision, RequestView, RouteIndex, Ticket, Unrouted, decide};

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
    /// By route index, made at first use: a thread need not prepare ten thousand routes to serve one.
    routes: Vec<Option<Arc<ThreadRoute>>>,
    random: fastrand::Rng,
}

/// A route as one thread uses it. The `Arc` around it is this thread's own, so its count is not contended.
#[derive(Debug)]
pub(crate) struct ThreadRoute {
    thread: usize,
    meter: Arc<EpochMeter>,
    pub(crate) tripwire: Arc<Tripwire>,
    peers: [Vec<HttpPeer>; 2],
    addresses: [Vec<SocketAddr>; 2],
}

impl ThreadRoute {
    /// Where this thread counts.
    pub(crate) fn shard(&self) -> &Shard {
        self.meter.shard(self.thread)
    }

    /// Addresses of an arm, in the order of its endpoints.
    pub(crate) fn addresses(&self, arm: Arm) -> &[SocketAddr] {
        &self.addresses[arm.index()]
    }

    /// Prepared peers of an arm, in the order of its endpoints.
    pub(crate) fn peers(&self, arm: Arm) -> &[HttpPeer] {
        &self.peers[arm.index()]
    }
}

impl Desk {
    /// `seed` comes from the operating system's entropy: the evidence rests on threads not sharing a stream.
    pub(crate) fn new(thread: usize, settings: Arc<Settings>, published: Arc<ArcSwap<Published>>, seed: u64) -> Self {
        let routes_of = published.load_full();
        let routes = vec![None; routes_of.table.routes().len()];
        let own = Own { table: Cache::new(published), routes_of, routes, random: fastrand::Rng::with_seed(seed) };
        Self { thread, settings, own: Mutex::new(own) }
    }

    /// Decides on a request with this thread's next random number, on the newest table.
    pub(crate) fn decide(&self, request: &impl RequestView) -> Result<(Decision, Arc<ThreadRoute>), Unrouted> {
        let own = &mut *self.own.lock();
        let published = own.table.load();
        if !Arc::ptr_eq(published, &own.routes_of) {
            own.routes_of = published.clone();
            own.routes = vec![None; published.table.routes().len()];
        }
        let published = &*own.routes_of;
        let ticket = Ticket::from(own.random.u64(..));
        let decision = decide(&published.table, request, published, ticket)?;
        let place = &mut own.routes[decision.route.0 as usize];
        let route = place.get_or_insert_with(|| Arc::new(self.prepare(published, decision.route)));
        Ok((decision, route.clone()))
    }

    fn prepare(&self, published: &Published, index: RouteIndex) -> ThreadRoute {
        let route = published.table.route(index);
        let instruments = &published.instruments[index.0 as usize];
        let peers = |arm| route.endpoints(arm).iter().map(|endpoint| self.peer(endpoint.address)).collect();
        let addresses = |arm| route.endpoints(arm).iter().map(|endpoint| endpoint.address).collect();
        ThreadRoute {
            thread: self.thread,
            meter: instruments.meter.clone(),
            tripwire: instruments.tripwire.clone(),
            peers: [peers(Arm::Primary), peers(Arm::Canary)],
            addresses: [addresses(Arm::Primary), addresses(Arm::Canary)],
        }
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.settings.connect_timeout);
        options.total_connection_timeout = Some(self.settings.connect_timeout);
        options.read_timeout = Some(self.settings.upstream_read_timeout);
        options.write_timeout = Some(self.settings.upstream_write_timeout);
        options.idle_timeout = Some(self.settings.upstream_idle_timeout);
        peer
    }
}
