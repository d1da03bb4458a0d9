//! The routing table: an immutable, numbered whole, looked up by host and then by conditions.
//!
//! It is rebuilt from all states and swapped, never patched; a route carries everything that a decision needs,
//! weight and epoch among it, so both are read as one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serin_measure::{Arm, CanaryKey, Coin, EpochId};

use crate::edits::Edits;
use crate::matcher::Match;
use crate::mirror::Mirror;
use crate::stickiness::Stickiness;
use crate::upstream::Upstream;
use crate::view::RequestView;

/// The longest host name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// The number of a table; a later one has a larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// The place of a route in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteIndex(pub u32);

/// Where requests of an arm can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address, resolved when the table was built.
    pub address: SocketAddr,
}

/// Who may meet the canary by the coin.
#[derive(Debug, Clone, Default)]
pub enum Audience {
    /// Every request.
    #[default]
    Everyone,
    /// Requests that match one of these; all others go to the primary (Flagger's `match` with weights).
    Matching(Vec<Match>),
}

/// Requests that match go to this arm, whatever the weight.
#[derive(Debug, Clone)]
pub struct Force {
    /// Which requests.
    pub matches: Match,
    /// Where they go.
    pub arm: Arm,
}

/// A host that a route answers for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every host; asked last, where no route that names the host takes the request.
    Any,
    /// This name, in lower case, without a port.
    Exact(Box<str>),
    /// Every name that ends in a dot and this, at any depth (`*.example.com`).
    Below(Box<str>),
}

/// A host that cannot be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a host name; give a name like app.example.com, *.example.com or *, without a port")]
pub struct HostError(pub Box<str>);

/// One canary's routing.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whose route this is.
    pub canary: CanaryKey,
    /// The number of the rollout in progress or last done; a trip belongs to one.
    pub rollout: u64,
    /// The epoch that requests routed here belong to.
    pub epoch: EpochId,
    /// The coin that sends a request to the canary.
    pub coin: Coin,
    /// Hosts answered for.
    pub hosts: Vec<Host>,
    /// Which requests to them; every one if there are no entries.
    pub matches: Arc<[Match]>,
    /// What is changed of requests and responses on the way.
    pub edits: Arc<Edits>,
    /// How its backends are spoken to.
    pub upstream: Arc<Upstream>,
    /// Tried in order before the coin.
    pub forced: Vec<Force>,
    /// Who may meet the canary by the coin.
    pub audience: Audience,
    /// Endpoints of the primary.
    pub primary: Vec<Endpoint>,
    /// Endpoints of the canary; none when there is no canary.
    pub canary_endpoints: Vec<Endpoint>,
    /// How users keep their version; every request is tossed for where absent.
    pub stickiness: Option<Arc<Stickiness>>,
    /// What the canary gets copies of.
    pub mirror: Option<Mirror>,
    /// Requests at the canary at one time, in one process; the others go to the primary.
    pub canary_requests_max: Option<u32>,
    /// Whether a request that failed at the canary before any of its answer went out is sent to the primary, if it may be repeated.
    pub replays: bool,
}

/// An arm of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The route.
    pub route: RouteIndex,
    /// The arm.
    pub arm: Arm,
}

/// All routes, found by host.
#[derive(Debug, Default)]
pub struct RouteTable {
    generation: Generation,
    routes: Vec<Route>,
    exact: HashMap<Box<[u8]>, Candidates, FixedState>,
    below: HashMap<Box<[u8]>, Candidates, FixedState>,
    any: Candidates,
}

/// Who may answer for a host, the narrowest conditions first.
type Candidates = Vec<Found>;

/// A route, and which of its entries matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The route.
    pub route: RouteIndex,
    /// The place of the entry in [`Route::matches`]; 0 too where there is none.
    pub entry: u32,
}

/// Routes that do not make a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// Two routes want the same requests to one host.
    #[error("canaries {first} and {second} both answer for {host}; give each its own service.hosts or service.match")]
    SameHost {
        /// The host, as written.
        host: String,
        /// Who had it.
        first: CanaryKey,
        /// Who wants it too.
        second: CanaryKey,
    },
}

impl Host {
    /// Reads a host as written: a name, `*.name` or `*`.
    pub fn parse(written: &str) -> Result<Self, HostError> {
        if written == "*" {
            return Ok(Self::Any);
        }
        let name = written.strip_prefix("*.").unwrap_or(written);
        let label = |l: &str| {
            !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > HOST_BYTES_MAX || !name.split('.').all(label) {
            return Err(HostError(written.into()));
        }
        let lower = name.to_ascii_lowercase().into();
        Ok(if name.len() < written.len() { Self::Below(lower) } else { Self::Exact(lower) })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("every host"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl Route {
    /// A route that answers for nothing yet and sends all to the primary: a start for others.
    pub fn new(canary: CanaryKey) -> Self {
        Self {
            canary,
            rollout: 1,
            epoch: EpochId(1),
            coin: Coin::NEVER,
            hosts: Vec::new(),
            matches: Arc::default(),
            edits: Arc::default(),
            upstream: Arc::default(),
            forced: Vec::new(),
            audience: Audience::default(),
            primary: Vec::new(),
            canary_endpoints: Vec::new(),
            stickiness: None,
            mirror: None,
            canary_requests_max: None,
            replays: false,
        }
    }

    /// The endpoints of an arm.
    pub fn endpoints(&self, arm: Arm) -> &[Endpoint] {
        match arm {
            Arm::Primary => &self.primary,
            Arm::Canary => &self.canary_endpoints,
        }
    }

    /// The entry that a request was found by; none if the route has none.
    pub fn entry(&self, found: Found) -> Option<&Match> {
        self.matches.get(found.entry as usize)
    }

    /// Whether some requests to one host would belong to both, and neither has the better claim.
    pub fn takes_the_same_as(&self, other: &Self) -> bool {
        overlap(&self.matches, &other.matches)
    }
}

/// Whether two lists of entries have one in common; a list without any has the one that matches everything.
pub fn overlap(one: &[Match], other: &[Match]) -> bool {
    let is_any = |entries: &[Match]| entries.is_empty() || entries.iter().any(Match::is_any);
    (is_any(one) && is_any(other)) || one.iter().any(|entry| other.contains(entry))
}

impl RouteTable {
    /// Builds a table, or says which two routes want the same requests to one host.
    ///
    /// # Errors
    /// If two do.
    pub fn build(generation: Generation, routes: Vec<Route>) -> Result<Self, TableError> {
        let mut table = Self { generation, ..Self::default() };
        for (index, route) in routes.iter().enumerate() {
            let index = RouteIndex(u32::try_from(index).expect("fewer than 2^32 routes"));
            for host in &route.hosts {
                let candidates = match host {
                    Host::Any => &mut table.any,
                    Host::Exact(name) => table.exact.entry(name.as_bytes().into()).or_default(),
                    Host::Below(name) => table.below.entry(name.as_bytes().into()).or_default(),
                };
                if candidates.last().is_some_and(|last| last.route == index) {
                    // It names the host twice.
                    continue;
                }
                let other = candidates.iter().map(|found| &routes[found.route.0 as usize]);
                if let Some(first) = other.into_iter().find(|other| other.takes_the_same_as(route)) {
                    let (first, second) = (first.canary.clone(), route.canary.clone());
                    return Err(TableError::SameHost { host: host.to_string(), first, second });
                }
                let entries = u32::try_from(route.matches.len()).expect("fewer than 2^32 entries").max(1);
                candidates.extend((0..entries).map(|entry| Found { route: index, entry }));
            }
        }
        let of = |found: &Found| &routes[found.route.0 as usize];
        let narrowest_first = |one: &Found, other: &Found| {
            let rank = |found| of(found).entry(*found).map(Match::rank).unwrap_or_default();
            let by_name = || of(one).canary.cmp(&of(other).canary).then(one.entry.cmp(&other.entry));
            rank(other).cmp(&rank(one)).then_with(by_name)
        };
        let all = table.exact.values_mut().chain(table.below.values_mut()).chain([&mut table.any]);
        for candidates in all.filter(|candidates| candidates.len() > 1) {
            candidates.sort_by(narrowest_first);
        }
        table.routes = routes;
        Ok(table)
    }

    /// The table's number.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// All routes, in order of their index.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route at a place that this table gave out.
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[index.0 as usize]
    }

    /// The route for a request: by the exact name of its host, then the longest wildcard, then any; of those for one host, the one with
    /// the narrowest conditions that hold, as Gateway API ranks them.
    pub fn find(&self, request: &impl RequestView) -> Option<Found> {
        if self.exact.is_empty() && self.below.is_empty() {
            return self.first(&self.any, request);
        }
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = request.authority().and_then(|authority| normalise(authority, &mut buffer)).unwrap_or_default();
        if let Some(found) = self.exact.get(host).and_then(|candidates| self.first(candidates, request)) {
            return Some(found);
        }
        let mut rest = host;
        while let Some(dot) = rest.iter().position(|b| *b == b'.').filter(|_| !self.below.is_empty()) {
            rest = &rest[dot + 1..];
            if let Some(found) = self.below.get(rest).and_then(|candidates| self.first(candidates, request)) {
                return Some(found);
            }
        }
        self.first(&self.any, request)
    }

    fn first(&self, candidates: &Candidates, request: &impl RequestView) -> Option<Found> {
        let holds = |found: &&Found| self.route(found.route).entry(**found).is_none_or(|entry| entry.matches(request));
        candidates.iter().find(holds).copied()
    }
}

/// The host of an authority, in lower case, without port and final dot. None if it is longer than a name can be.
fn normalise<'a>(authority: &[u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let host = match authority {
        // An IPv6 literal keeps its brackets; the port comes after them (RFC 3986 §3.2.2).
        [b'[', ..] => &authority[..=authority.iter().position(|b| *b == b']')?],
        _ => authority.split(|b| *b == b':').next()?,
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}
