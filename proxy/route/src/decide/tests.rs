//! Deciding, by tables and by properties.

use proptest::prelude::*;
use serin_measure::{Arm, Assignment, CanaryKey, Coin, EpochId};

use super::*;
use crate::{Endpoint, Force, Generation, HeaderMatch, Host, Match, StringMatch, TableError};

struct Request {
    authority: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
}

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn authority(&self) -> Option<&[u8]> {
        self.authority.map(str::as_bytes)
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes())
    }
}

fn request(headers: &[(&'static str, &str)]) -> Request {
    Request {
        authority: Some("app.example.com"),
        headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
    }
}

fn route(percent: f64) -> Route {
    let endpoint = |port| Endpoint { address: ([127, 0, 0, 1], port).into() };
    Route {
        canary: CanaryKey::new("default", "podinfo"),
        rollout: 1,
        epoch: EpochId(7),
        coin: Coin::from_percent(percent).expect("a percentage"),
        hosts: vec![Host::Any],
        forced: Vec::new(),
        audience: Audience::Everyone,
        primary: vec![endpoint(1), endpoint(2), endpoint(3)],
        canary_endpoints: vec![endpoint(4)],
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(Generation(1), routes).expect("hosts are distinct")
}

fn header(name: &str, value: StringMatch) -> Match {
    Match { headers: vec![HeaderMatch::new(name, value)] }
}

fn exact(value: &str) -> StringMatch {
    StringMatch::Exact(value.into())
}

#[track_caller]
fn check(route: Route, request: &Request, coin: u32, expected: Option<(Arm, Assignment)>) {
    let decision = decide(&table(vec![route]), request, &Untripped, Ticket { coin, pick: 0 });
    assert_eq!(decision.ok().map(|d| (d.arm, d.assignment)), expected);
}

const LOW: u32 = 0;
const HIGH: u32 = u32::MAX;

#[test]
fn the_coin_decides_below_its_threshold_and_is_not_tossed_when_certain() {
    use Assignment::{Drawn, Forced};
    check(route(10.0), &request(&[]), LOW, Some((Arm::Canary, Drawn)));
    check(route(10.0), &request(&[]), 429_496_728, Some((Arm::Canary, Drawn)));
    check(route(10.0), &request(&[]), 429_496_729, Some((Arm::Primary, Drawn)));
    check(route(0.0), &request(&[]), LOW, Some((Arm::Primary, Forced)));
    check(route(100.0), &request(&[]), HIGH, Some((Arm::Canary, Forced)));
}

#[test]
fn a_forced_header_or_cookie_wins_over_the_coin() {
    let cookie = StringMatch::regex("^(.*?;)?(type=insider)(;.*)?$").expect("Flagger's example compiles");
    let forced = |matches, arm| Route { forced: vec![Force { matches, arm }], ..route(10.0) };
    let check = |matches, headers: &[(&'static str, &str)], coin, expected| {
        check(forced(matches, Arm::Canary), &request(headers), coin, Some(expected));
    };
    use Assignment::{Drawn, Forced};
    check(header("X-Canary", exact("always")), &[("x-canary", "always")], HIGH, (Arm::Canary, Forced));
    check(header("X-Canary", exact("always")), &[("x-canary", "Always")], HIGH, (Arm::Primary, Drawn));
    check(header("X-Canary", exact("always")), &[], HIGH, (Arm::Primary, Drawn));
    check(header("cookie", cookie.clone()), &[("Cookie", "a=b;type=insider;c=d")], HIGH, (Arm::Canary, Forced));
    check(header("cookie", cookie), &[("Cookie", "type=insiders")], HIGH, (Arm::Primary, Drawn));
    check(
        header("cookie", StringMatch::regex("a=1; b=2").expect("compiles")),
        &[("cookie", "a=1"), ("cookie", "b=2")],
        HIGH,
        (Arm::Canary, Forced),
    );
    check(header("x", StringMatch::regex("a|b").expect("compiles")), &[("x", "ab")], HIGH, (Arm::Primary, Drawn));
    check(header("x", StringMatch::Prefix("in".into())), &[("x", "out"), ("x", "in-1")], HIGH, (Arm::Canary, Forced));
    check(header("x", StringMatch::Suffix("-1".into())), &[("x", "in-1")], HIGH, (Arm::Canary, Forced));
}

#[test]
fn checklist_110_entries_are_ored_and_headers_within_one_anded() {
    let both = Match { headers: vec![HeaderMatch::new("a", exact("1")), HeaderMatch::new("b", exact("2"))] };
    let matching =
        || Route { audience: Audience::Matching(vec![both.clone(), header("c", exact("3"))]), ..route(10.0) };
    use Assignment::{Drawn, Forced};
    check(matching(), &request(&[("a", "1")]), LOW, Some((Arm::Primary, Forced)));
    check(matching(), &request(&[("a", "1"), ("b", "2")]), LOW, Some((Arm::Canary, Drawn)));
    check(matching(), &request(&[("c", "3")]), HIGH, Some((Arm::Primary, Drawn)));
}

#[test]
fn an_empty_arm_is_seen_before_the_coin() {
    let no_canary = Route { canary_endpoints: Vec::new(), ..route(10.0) };
    let no_primary = Route { primary: Vec::new(), ..route(10.0) };
    let nothing = Route { canary_endpoints: Vec::new(), ..no_primary.clone() };
    check(no_canary, &request(&[]), HIGH, Some((Arm::Primary, Assignment::Empty)));
    check(no_primary, &request(&[]), LOW, Some((Arm::Canary, Assignment::Empty)));
    check(nothing, &request(&[]), LOW, None);
}

#[test]
fn a_tripped_route_sends_everything_to_the_primary_even_what_was_forced() {
    struct Tripped;
    impl Live for Tripped {
        fn tripped(&self, _: RouteIndex) -> bool {
            true
        }
    }
    let force = Force { matches: header("x", exact("1")), arm: Arm::Canary };
    let table = table(vec![Route { forced: vec![force], ..route(50.0) }]);
    let decision = decide(&table, &request(&[("x", "1")]), &Tripped, Ticket { coin: LOW, pick: 0 }).expect("routed");
    assert_eq!((decision.arm, decision.assignment), (Arm::Primary, Assignment::Forced));
}

#[test]
fn hosts_are_found_exactly_then_by_the_longest_wildcard_then_any() {
    let named = |name: &str, hosts: &[&str]| Route {
        canary: CanaryKey::new("default", name),
        hosts: hosts.iter().map(|h| Host::parse(h).expect("a host")).collect(),
        ..route(10.0)
    };
    let with_any = table(vec![
        named("a", &["app.example.com"]),
        named("b", &["*.example.com"]),
        named("c", &["*.eu.example.com"]),
        named("d", &["*"]),
    ]);
    let without = table(vec![named("a", &["app.example.com"])]);
    let find = |table: &RouteTable, authority: &str| {
        table.find(Some(authority.as_bytes())).map(|i| table.route(i).canary.name().to_owned())
    };
    for (authority, expected) in [
        ("app.example.com", "a"),
        ("APP.Example.com.:8080", "a"),
        ("x.example.com", "b"),
        ("x.y.example.com:80", "b"),
        ("x.eu.example.com", "c"),
        ("example.com", "d"),
        ("[::1]:80", "d"),
        ("", "d"),
    ] {
        assert_eq!(find(&with_any, authority).as_deref(), Some(expected), "{authority}");
    }
    assert_eq!(find(&without, "other.example.com"), None);
    assert_eq!(find(&without, &"x".repeat(300)), None);
    assert_eq!(without.find(None), None);
    let missing = decide(
        &without,
        &Request { authority: Some("nobody"), headers: vec![] },
        &Untripped,
        Ticket { coin: 0, pick: 0 },
    );
    assert_eq!(missing, Err(Unrouted::UnknownHost));
}

#[test]
fn two_routes_for_one_host_are_refused_and_one_route_may_name_it_twice() {
    let twice = Route { hosts: vec![Host::Any, Host::Any], ..route(1.0) };
    let other = Route { canary: CanaryKey::new("default", "other"), ..route(1.0) };
    assert!(RouteTable::build(Generation(1), vec![twice.clone()]).is_ok());
    let error = RouteTable::build(Generation(1), vec![twice, other]).expect_err("both answer for every host");
    assert!(matches!(error, TableError::SameHost { .. }));
    assert_eq!(
        error.to_string(),
        "canaries podinfo.default and other.default both answer for every host; give each its own service.hosts"
    );
}

#[test]
fn a_written_host_is_a_name_a_wildcard_or_a_star() {
    assert_eq!(Host::parse("*"), Ok(Host::Any));
    assert_eq!(Host::parse("App.Example.com"), Ok(Host::Exact("app.example.com".into())));
    assert_eq!(Host::parse("*.example.com"), Ok(Host::Below("example.com".into())));
    for wrong in ["", "*.", "a..b", "http://a", "a:80", "a b", "*a.com", &"a".repeat(64)] {
        assert!(Host::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn shares_converge_to_the_weight_and_to_equal_endpoints() {
    const SEED: u64 = 20;
    const DRAWS: u32 = 200_000;
    let mut random = fastrand::Rng::with_seed(SEED);
    for percent in [1.0, 12.5, 50.0, 99.0] {
        let table = table(vec![route(percent)]);
        let (mut canary, mut first) = (0_u32, 0_u32);
        for _ in 0..DRAWS {
            let decision = decide(&table, &request(&[]), &Untripped, Ticket::from(random.u64(..))).expect("routed");
            canary += u32::from(decision.arm == Arm::Canary);
            first += u32::from(decision.arm == Arm::Primary && decision.endpoint == 0);
        }
        let close = |seen: u32, share: f64| {
            let sigma = (f64::from(DRAWS) * share * (1.0 - share)).sqrt();
            assert!(
                (f64::from(seen) - f64::from(DRAWS) * share).abs() < 5.0 * sigma,
                "seed {SEED}: {seen} of {DRAWS}, share {share}"
            );
        };
        close(canary, percent / 100.0);
        close(first, (1.0 - percent / 100.0) / 3.0);
    }
}

proptest! {
    #[test]
    fn a_match_never_leaks(value in "[a-z]{0,8}", coin: u32, pick: u32, percent in 0.0..=100.0_f64) {
        let route = Route { audience: Audience::Matching(vec![header("x-user", exact("insider"))]), ..route(percent) };
        let table = table(vec![route]);
        let decision = decide(&table, &request(&[("x-user", &value)]), &Untripped, Ticket { coin, pick }).expect("routed");
        prop_assert!(decision.arm == Arm::Primary || value == "insider");
        prop_assert!(decision.assignment != Assignment::Drawn || value == "insider");
        prop_assert!(decision.endpoint < table.route(decision.route).endpoints(decision.arm).len());
    }

    #[test]
    fn arbitrary_authorities_never_panic(authority in proptest::collection::vec(any::<u8>(), 0..300)) {
        let hosts = vec![Host::parse("*.example.com").expect("a host")];
        table(vec![Route { hosts, ..route(1.0) }]).find(Some(&authority));
    }
}
