//! Which endpoint of an arm a request goes to. The arm was drawn before, and nothing here changes it.

use crate::decide::Live;
use crate::stickiness::HashKey;
use crate::table::{Place, Route};
use crate::view::RequestView;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two that are drawn, the one with fewer requests in flight (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001).
    #[default]
    LeastOfTwo,
    /// Any.
    Random,
    /// The same for the same key, as long as it is there; requests without the key go to the least of two. Keys move only from an endpoint
    /// that goes, or to one that comes (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
    Consistent(HashKey),
}

/// How an endpoint is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Requests in flight.
    pub in_flight: u32,
    /// The share of its requests that it gets by now, in percent: less than 100 while it is new.
    pub warmth: u32,
    /// Whether it is left out for a while.
    pub is_out: bool,
}

impl Condition {
    /// One that has nothing to do.
    pub const IDLE: Self = Self { in_flight: 0, warmth: 100, is_out: false };
}

/// The salt of keys for endpoints: all replicas and all restarts choose alike.
const SALT: u128 = 0x5e71_4e75;

/// The place of the endpoint in the arm's list, which is not empty.
pub(crate) fn pick(place: Place, route: &Route, request: &impl RequestView, live: &impl Live, random: u32) -> usize {
    let endpoints = route.endpoints(place.arm);
    let count = endpoints.len();
    if count == 1 {
        return 0;
    }
    let of = |endpoint| live.condition(place, endpoint);
    match &route.upstream.balance {
        Balance::Consistent(key) => match key.hash(request, SALT) {
            Some(hash) => {
                let score = |endpoint: &usize| mixed(hash ^ hash_of(endpoints[*endpoint].address));
                let there = (0..count).filter(|endpoint| !of(*endpoint).is_out).max_by_key(score);
                there.or_else(|| (0..count).max_by_key(score)).unwrap_or(0)
            }
            None => least_of_two(count, of, random),
        },
        Balance::Random => in_turn_from(draw(count, of, random), count, of),
        Balance::LeastOfTwo => least_of_two(count, of, random),
    }
}

fn least_of_two(count: usize, of: impl Fn(usize) -> Condition + Copy, random: u32) -> usize {
    let first = in_turn_from(draw(count, of, random), count, of);
    // The second is drawn among the others.
    let other = draw(count - 1, |other| of(beside(first, other)), half(mixed(random.into())));
    let second = in_turn_from(beside(first, other), count, of);
    if of(second).in_flight < of(first).in_flight { second } else { first }
}

/// The place in the whole list of one among the others.
const fn beside(first: usize, other: usize) -> usize {
    if other < first { other } else { other + 1 }
}

/// A place by a uniform random number. One that is new is drawn for good only as often as it is warm.
fn draw(count: usize, of: impl Fn(usize) -> Condition, random: u32) -> usize {
    let drawn = uniform(count, random);
    let warmth = of(drawn).warmth;
    let further = mixed(u64::from(random) << 32 | 1);
    if warmth < 100 && half(further) % 100 >= warmth { uniform(count, half(mixed(further))) } else { drawn }
}

/// The first from there on that is not left out; that one if all are.
fn in_turn_from(from: usize, count: usize, of: impl Fn(usize) -> Condition) -> usize {
    (from..count).chain(0..from).find(|endpoint| !of(*endpoint).is_out).unwrap_or(from)
}

/// A place in a list by a uniform random number (Lemire's multiply-shift; bias below count/2^32).
fn uniform(count: usize, random: u32) -> usize {
    let scaled = (count as u64 * u64::from(random)) >> 32;
    usize::try_from(scaled).expect("smaller than count")
}

fn half(number: u64) -> u32 {
    u32::try_from(number >> 32).expect("32 bits")
}

/// Every bit of the result depends on every bit of the number (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn hash_of(address: std::net::SocketAddr) -> u64 {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => u128::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits(),
    };
    let [high, low] = [ip >> 64, ip & u128::from(u64::MAX)].map(|half| u64::try_from(half).expect("64 bits"));
    mixed(mixed(low ^ u64::from(address.port()) << 32) ^ high)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use serin_measure::{Arm, CanaryKey};

    use super::*;
    use crate::sample::request;
    use crate::{Endpoint, RouteIndex, Upstream};

    const PLACE: Place = Place { route: RouteIndex(0), arm: Arm::Primary };

    struct Conditions(Vec<Condition>);

    impl Live for Conditions {
        fn condition(&self, _: Place, endpoint: usize) -> Condition {
            self.0[endpoint]
        }
    }

    fn route(count: u16, balance: Balance) -> Route {
        let primary = (1..=count).map(|port| Endpoint { address: ([127, 0, 0, 1], port).into() }).collect();
        let upstream = Arc::new(Upstream { balance, ..Upstream::default() });
        Route { primary, upstream, ..Route::new(CanaryKey::new("default", "shop")) }
    }

    /// How many of 10,000 requests each endpoint gets.
    fn shares(conditions: &[Condition], balance: Balance) -> Vec<u32> {
        let route = route(u16::try_from(conditions.len()).expect("few"), balance);
        let mut shares = vec![0; conditions.len()];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let live = Conditions(conditions.to_vec());
            shares[pick(PLACE, &route, &request(&[]), &live, random.u32(..))] += 1;
        }
        shares
    }

    const IDLE: Condition = Condition::IDLE;
    const OUT: Condition = Condition { is_out: true, ..IDLE };

    #[test]
    fn endpoints_that_are_alike_get_alike_and_busy_ones_less() {
        for balance in [Balance::LeastOfTwo, Balance::Random] {
            let even = shares(&[IDLE; 4], balance.clone());
            assert!(even.iter().all(|share| (2_300..2_700).contains(share)), "{balance:?}: {even:?}");
        }
        let busy = Condition { in_flight: 9, ..IDLE };
        let shared = shares(&[busy, IDLE, IDLE, IDLE], Balance::LeastOfTwo);
        assert_eq!(shared[0], 0, "whoever it is drawn with has less to do: {shared:?}");
    }

    #[test]
    fn a_new_endpoint_gets_more_as_it_grows_warm() {
        for (warmth, least, most) in [(1, 0, 700), (50, 1_100, 2_300), (100, 2_300, 2_700)] {
            let new = Condition { warmth, ..IDLE };
            let shared = shares(&[new, IDLE, IDLE, IDLE], Balance::LeastOfTwo);
            assert!((least..most).contains(&shared[0]), "{warmth} percent: {shared:?}");
        }
    }

    #[test]
    fn who_is_left_out_gets_nothing_unless_all_are() {
        for balance in [Balance::LeastOfTwo, Balance::Random, Balance::Consistent(HashKey::Header("x-user".into()))] {
            let shared = shares(&[OUT, IDLE, OUT], balance.clone());
            assert_eq!(shared, [0, 10_000, 0], "{balance:?}");
            assert!(shares(&[OUT; 3], balance).iter().all(|share| *share > 2_000));
        }
    }

    #[test]
    fn a_key_stays_with_its_endpoint_and_only_those_of_one_that_goes_move() {
        let balance = Balance::Consistent(HashKey::Header("x-user".into()));
        let chosen = |count: u16, out: Option<usize>| {
            let route = route(count, balance.clone());
            let mut conditions = vec![IDLE; count.into()];
            if let Some(out) = out {
                conditions[out] = OUT;
            }
            let live = Conditions(conditions);
            let names = (0..3_000).map(|number| format!("user-{number}"));
            let of = |name: String| {
                let place = pick(PLACE, &route, &request(&[("x-user", &name)]), &live, 0x5e71_4e75);
                (name, place)
            };
            names.map(of).collect::<HashMap<_, _>>()
        };
        let (all, without, with) = (chosen(5, None), chosen(5, Some(2)), chosen(6, None));
        for (name, place) in &all {
            assert!(*place == 2 || without[name] == *place, "{name} was moved for no reason");
            assert!(with[name] == 5 || with[name] == *place, "{name} was moved to one that was there");
        }
        let of = |place| all.values().filter(|chosen| **chosen == place).count();
        assert!((0..5).all(|place| (450..750).contains(&of(place))), "keys are spread");
    }
}
