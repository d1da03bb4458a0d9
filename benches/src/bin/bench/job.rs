//! What is asked of every proxy alike: a tenth of the requests to the canary by the coin, others by a header or a cookie, to two
//! groups of backends, on connections that are kept.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::load::{Pace, Plan};

/// The core of the load and the backends; the proxy has the other one.
pub(crate) const LOAD_CORE: usize = 1;
/// One request of so many has the header, and one the cookie.
const SPECIAL: usize = 50;

pub(crate) const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The host of a route. With one route there is only the first.
pub(crate) fn host(number: usize) -> String {
    format!("shop-{number}.example.com")
}

/// How fast a job is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// The next request when the last one is answered.
    Closed,
    /// So many a second.
    Fixed(f64),
    /// So much of what nginx does in the headline.
    OfNginx(f64),
    /// Once; then connections are held.
    Held,
}

/// One kind of traffic, and who carries it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) entries: Vec<Entry>,
    pub(crate) rate: Rate,
    pub(crate) connections: usize,
    /// Bytes of an answer.
    answer: usize,
    /// A body that is sent with each request, in bytes.
    upload: usize,
    /// Whether each request has a connection of its own.
    closes: bool,
    pub(crate) threads: usize,
    pub(crate) canary_delay: Duration,
}

/// A proxy in a job.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As it is told in tables.
    pub(crate) name: String,
    pub(crate) peer: &'static str,
    /// Hosts, each with a route of its own.
    pub(crate) routes: usize,
    /// Tables put in force each second.
    pub(crate) swaps: u32,
}

/// The name of the headline.
pub(crate) const HEADLINE: &str = "small";

const FAST: &[&str] = &["nginx", "haproxy", "serin", "relay"];
const ALL: &[&str] = &["nginx", "haproxy", "serin", "relay", "envoy", "traefik", "caddy"];
const NO_RELAY: &[&str] = &["nginx", "haproxy", "serin"];

fn entries(peers: &[&'static str]) -> Vec<Entry> {
    peers.iter().map(|peer| Entry { name: (*peer).to_owned(), peer, routes: 1, swaps: 0 }).collect()
}

impl Job {
    /// All of them, the headline first: rates are shares of it.
    pub(crate) fn all() -> Vec<Self> {
        let of = |name, peers| Self {
            name,
            entries: entries(peers),
            rate: Rate::Closed,
            connections: 64,
            answer: 30,
            upload: 0,
            closes: false,
            threads: 1,
            canary_delay: Duration::ZERO,
        };
        // One that is called `rate-N` is a point at N in the picture of latencies (`Report::latencies`).
        let share = |name, share, peers| Self { rate: Rate::OfNginx(share), ..of(name, peers) };
        let routes = [10, 1_000, 10_000].into_iter().flat_map(|routes| {
            ["nginx", "haproxy", "edge"].map(|peer| Entry { name: format!("{peer} {routes}"), peer, routes, swaps: 0 })
        });
        let swaps =
            [0, 10, 100].map(|swaps| Entry { name: format!("edge {swaps}/s"), peer: "edge", routes: 10_000, swaps });
        vec![
            of(HEADLINE, ALL),
            Self { answer: 1 << 10, ..of("1k", FAST) },
            Self { answer: 64 << 10, ..of("64k", FAST) },
            Self { answer: 1 << 20, connections: 16, ..of("1m", FAST) },
            Self { upload: 1 << 10, ..of("post-1k", FAST) },
            Self { closes: true, ..of("connection-per-request", FAST) },
            Self { threads: 2, ..of("2-threads-1-core", NO_RELAY) },
            share("rate-30", 0.3, ALL),
            share("rate-60", 0.6, ALL),
            share("rate-80", 0.8, FAST),
            Self { entries: routes.collect(), ..of("routes", &[]) },
            Self { entries: swaps.into(), ..share("swaps", 0.6, &[]) },
            Self {
                rate: Rate::Fixed(3_000.0),
                connections: 1_000,
                canary_delay: Duration::from_secs(1),
                ..of("slow-canary", NO_RELAY)
            },
            Self { rate: Rate::Held, connections: 10_000, ..of("idle-10000", NO_RELAY) },
        ]
    }

    /// What is asked of one of its proxies. `nginx` is what it does each second in the headline.
    pub(crate) fn plan(&self, entry: &Entry, target: SocketAddr, nginx: f64) -> Plan {
        let pace = match self.rate {
            Rate::Closed | Rate::Held => Pace::Closed,
            Rate::Fixed(rate) => Pace::Open(rate),
            Rate::OfNginx(share) => Pace::Open(share * nginx),
        };
        let requests = self.requests(entry.routes);
        Plan { target, connections: self.connections, pace, requests, closes: self.closes }
    }

    /// For each host the same, and now and then one that a rule sends to the canary.
    fn requests(&self, routes: usize) -> Vec<Vec<u8>> {
        let count = (2 * SPECIAL).max(routes);
        (0..count).map(|number| self.request(number, &host(number % routes))).collect()
    }

    fn request(&self, number: usize, host: &str) -> Vec<u8> {
        let method = if self.upload > 0 { "POST" } else { "GET" };
        let path = self.answer;
        let mut text = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n");
        match number % (2 * SPECIAL) {
            0 => text.push_str("X-Canary: always\r\n"),
            SPECIAL => text.push_str("Cookie: session=8f14e45fceea167a; canary=always\r\n"),
            _ => {}
        }
        if self.closes {
            text.push_str("Connection: close\r\n");
        }
        if self.upload > 0 {
            text.push_str(&format!("Content-Length: {}\r\n", self.upload));
        }
        text.push_str("\r\n");
        text.push_str(&"x".repeat(self.upload));
        text.into_bytes()
    }
}
