//! Deciding, by tables and by properties.

use std::sync::Arc;

use proptest::prelude::*;
use serin_measure::{Arm, Assignment, CanaryKey, Coin, EpochId};

use super::*;
use crate::sample::{Request, request, to};
use crate::{
    Cookie, CookieAttributes, Cookies, Endpoint, Force, Generation, HashKey, HeaderMatch, Host, Match, Mirror,
    PathMatch, StringMatch, TableError,
};

fn route(percent: f64) -> Route {
    let endpoint = |port| Endpoint { address: ([127, 0, 0, 1], port).into() };
    Route {
        epoch: EpochId(7),
        coin: Coin::from_percent(percent).expect("a percentage"),
        hosts: vec![Host::Any],
        primary: vec![endpoint(1), endpoint(2), endpoint(3)],
        canary_endpoints: vec![endpoint(4)],
        ..Route::new(CanaryKey::new("default", "podinfo"))
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(Generation(1), routes).expect("hosts are distinct")
}

fn header(name: &str, value: StringMatch) -> Match {
    Match::on(vec![HeaderMatch::new(name, value)])
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
    let both = Match::on(vec![HeaderMatch::new("a", exact("1")), HeaderMatch::new("b", exact("2"))]);
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
    let find = |table: &RouteTable, authority: Option<&str>| {
        let request = Request { authority: authority.map(str::to_owned), ..Request::default() };
        table.find(&request).map(|found| table.route(found.route).canary.name().to_owned())
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
        assert_eq!(find(&with_any, Some(authority)).as_deref(), Some(expected), "{authority}");
    }
    assert_eq!(find(&without, Some("other.example.com")), None);
    assert_eq!(find(&without, Some(&"x".repeat(300))), None);
    assert_eq!(find(&without, None), None);
    let missing = decide(
        &without,
        &Request { authority: Some("nobody".to_owned()), ..Request::default() },
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
        "canaries podinfo.default and other.default both answer for every host; give each its own service.hosts or \
         service.match"
    );
}

/// Canaries for one host, each with its entries, in the order of their names.
fn shared(entries: Vec<Vec<Match>>) -> RouteTable {
    let named = |(number, matches): (usize, Vec<Match>)| Route {
        canary: CanaryKey::new("default", &number.to_string()),
        matches: matches.into(),
        ..route(10.0)
    };
    table(entries.into_iter().enumerate().map(named).collect())
}

fn path(path: PathMatch) -> Match {
    Match { path: Some(path), ..Match::default() }
}

#[test]
fn routes_for_one_host_are_tried_as_gateway_api_ranks_them() {
    let with = |path, header: &str| Match { headers: vec![HeaderMatch::new(header, exact("1"))], ..path };
    let table = shared(vec![
        vec![],
        vec![path(PathMatch::elements("/shop"))],
        vec![path(PathMatch::elements("/shop/cart"))],
        vec![path(PathMatch::exact("/shop/cart/1"))],
        vec![Match { method: Some(exact("POST")), ..path(PathMatch::elements("/shop")) }],
        vec![with(path(PathMatch::elements("/shop")), "x")],
        vec![path(PathMatch::exact("/")), path(PathMatch::exact("/index"))],
        // The same rank as the sixth: the name decides.
        vec![with(path(PathMatch::elements("/shop")), "y")],
    ]);
    let find = |request: &Request| table.find(request).map(|found| (found.route.0, found.entry));
    let headed = |headers: &[(&'static str, &str)]| Request { target: "/shop", ..request(headers) };
    for (request, expected) in [
        (to("/else"), (0, 0)),
        (to("/shopping"), (0, 0)),
        (to("/shop?cart"), (1, 0)),
        (to("/shop/cart/2"), (2, 0)),
        (to("/shop/cart/1?x"), (3, 0)),
        (Request { method: "POST", ..to("/shop/x") }, (4, 0)),
        (headed(&[("x", "1")]), (5, 0)),
        (headed(&[("x", "1"), ("y", "1")]), (5, 0)),
        (headed(&[("y", "1")]), (7, 0)),
        (to("/"), (6, 0)),
        (to("/index"), (6, 1)),
    ] {
        assert_eq!(find(&request), Some(expected), "{request:?}");
    }
}

#[test]
fn a_route_with_a_condition_of_its_own_comes_before_one_for_everybody_whatever_their_names() {
    let https = || vec![Match { scheme: Some(exact("https")), ..Match::default() }];
    let secure = Request { scheme: "https", ..to("/") };
    for (entries, expected) in [(vec![vec![], https()], [0, 1]), (vec![https(), vec![]], [1, 0])] {
        let table = shared(entries);
        let find = |request| table.find(request).map(|found| found.route.0);
        assert_eq!([find(&to("/")), find(&secure)], expected.map(Some));
    }
    assert_eq!(shared(vec![vec![Match::nobody()]]).find(&to("/")), None);
}

#[test]
fn what_no_condition_of_a_host_takes_goes_to_a_wider_host() {
    let narrow = Route {
        canary: CanaryKey::new("default", "narrow"),
        hosts: vec![Host::parse("app.example.com").expect("a host")],
        matches: [path(PathMatch::elements("/api"))].into(),
        ..route(10.0)
    };
    let wide = Route { hosts: vec![Host::parse("*.example.com").expect("a host")], ..route(10.0) };
    let find = |table: &RouteTable, request| table.find(&request).map(|found| found.route.0);
    let both = table(vec![narrow.clone(), wide]);
    assert_eq!((find(&both, to("/api/x")), find(&both, to("/x"))), (Some(0), Some(1)));
    let alone = table(vec![narrow]);
    assert_eq!((find(&alone, to("/api")), find(&alone, to("/x"))), (Some(0), None));
}

#[test]
fn routes_for_one_host_may_not_want_the_same() {
    let entries = |matches: Vec<Match>| Route { matches: matches.into(), ..route(1.0) };
    let api = || path(PathMatch::elements("/api"));
    let regex = |pattern: &str| path(PathMatch::regex(pattern).expect("it compiles"));
    for (one, other, is_fine) in [
        (vec![], vec![], false),
        (vec![], vec![Match::default()], false),
        (vec![], vec![api()], true),
        (vec![api()], vec![path(PathMatch::elements("/api/"))], false),
        (vec![api(), regex("/a.*")], vec![regex("/b.*"), regex("/a.*")], false),
        (vec![regex("/a.*")], vec![regex("/b.*")], true),
    ] {
        let other_name = CanaryKey::new("default", "other");
        let routes = vec![entries(one), Route { canary: other_name, ..entries(other) }];
        assert_eq!(RouteTable::build(Generation(1), routes.clone()).is_ok(), is_fine, "{routes:?}");
    }
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
        prop_assert!(decision.endpoint < table.route(decision.found.route).endpoints(decision.arm).len());
    }

    #[test]
    fn arbitrary_authorities_never_panic(authority in ".{0,300}") {
        let hosts = vec![Host::parse("*.example.com").expect("a host")];
        table(vec![Route { hosts, ..route(1.0) }]).find(&Request { authority: Some(authority), ..Request::default() });
    }
}

/// A canary with so many places, none of which is free, or all; what was taken and given back.
#[derive(Default)]
struct Places {
    are_full: bool,
    taken: std::cell::Cell<i32>,
    failed: Option<Unit>,
}

impl Live for Places {
    fn take_place(&self, _: RouteIndex, _: u32) -> bool {
        if !self.are_full {
            self.taken.set(self.taken.get() + 1);
        }
        !self.are_full
    }

    fn give_place_back(&self, _: RouteIndex) {
        self.taken.set(self.taken.get() - 1);
    }

    fn has_failed(&self, _: RouteIndex, unit: Unit) -> bool {
        self.failed == Some(unit)
    }
}

fn decided(route: Route, request: &Request, live: &impl Live, coin: u32) -> Decision {
    decide(&table(vec![route]), request, live, Ticket { coin, pick: 0 }).expect("it goes somewhere")
}

#[test]
fn a_full_canary_is_looked_at_before_the_coin_and_a_place_is_kept_by_who_goes_there_alone() {
    use Assignment::{Capped, Drawn, Forced};
    let limited = |percent| Route { canary_requests_max: Some(1), ..route(percent) };
    let insider = Force { matches: header("x-insider", exact("yes")), arm: Arm::Canary };
    let forcing = || Route { forced: vec![insider.clone()], ..limited(10.0) };
    for (route, headers, are_full, coin, expected, taken) in [
        (limited(10.0), &[][..], false, LOW, (Arm::Canary, Drawn), 1),
        (limited(10.0), &[], false, HIGH, (Arm::Primary, Drawn), 0),
        (limited(10.0), &[], true, LOW, (Arm::Primary, Capped), 0),
        (limited(10.0), &[], true, HIGH, (Arm::Primary, Capped), 0),
        (limited(0.0), &[], true, HIGH, (Arm::Primary, Forced), 0),
        (limited(100.0), &[], true, HIGH, (Arm::Primary, Capped), 0),
        (forcing(), &[("x-insider", "yes")], false, HIGH, (Arm::Canary, Forced), 1),
        (forcing(), &[("x-insider", "yes")], true, HIGH, (Arm::Primary, Capped), 0),
    ] {
        let live = Places { are_full, ..Places::default() };
        let decision = decided(route, &request(headers), &live, coin);
        assert_eq!((decision.arm, decision.assignment), expected);
        assert_eq!((live.taken.get(), decision.has_place), (taken, taken == 1));
    }
}

fn cookies() -> Stickiness {
    let cookie = |name, value| Some(Cookie::new(name, value, &CookieAttributes::default()));
    Stickiness::Cookies(Cookies {
        canary: cookie("c", "new"),
        primary: cookie("p", "old"),
        former: cookie("c", "gone"),
    })
}

#[test]
fn checklist_117_119_120_122_124_a_cookie_follows_a_toss_and_is_followed_and_nothing_follows_from_a_certain_coin() {
    use Assignment::{Drawn, Forced, Sticky};
    let at = |percent| Route { stickiness: Some(Arc::new(cookies())), ..route(percent) };
    let (none, of) = (CookieSet::Nothing, CookieSet::Of);
    for (percent, shown, coin, expected) in [
        (10.0, "", LOW, (Arm::Canary, Drawn, of(Arm::Canary))),
        (10.0, "", HIGH, (Arm::Primary, Drawn, of(Arm::Primary))),
        (10.0, "c=new", HIGH, (Arm::Canary, Sticky, none)),
        (10.0, "p=old", LOW, (Arm::Primary, Sticky, none)),
        // Of another run, so it is tossed for.
        (10.0, "c=gone", LOW, (Arm::Canary, Drawn, of(Arm::Canary))),
        // Rolled back, or promoted: nobody is held.
        (0.0, "c=new", LOW, (Arm::Primary, Forced, none)),
        (0.0, "c=gone", LOW, (Arm::Primary, Forced, CookieSet::Former)),
        (0.0, "", LOW, (Arm::Primary, Forced, none)),
        (100.0, "p=old", HIGH, (Arm::Canary, Forced, none)),
    ] {
        let decision = decided(at(percent), &request(&[("cookie", shown)]), &Untripped, coin);
        assert_eq!((decision.arm, decision.assignment, decision.cookie), expected, "{percent} {shown}");
    }
}

#[test]
fn a_hashed_user_is_scored_while_this_weight_tosses_for_him_and_until_he_has_failed() {
    use Assignment::{Drawn, Forced, Sticky};
    let at = |highest: f64, percent: f64| {
        let highest = Coin::from_percent(highest).expect("a percentage");
        let hashing = Hashing { key: HashKey::Header("x-user".into()), salt: 1, highest };
        Route { stickiness: Some(Arc::new(Stickiness::Hash(hashing))), ..route(percent) }
    };
    let user = |name: &'static str| request(&[("x-user", name)]);
    let unit = decided(at(0.0, 50.0), &user("anna"), &Untripped, LOW).unit.expect("she is tossed for");
    let (share, arm) =
        (f64::from(unit.0) / 65_536.0 * 100.0, decided(at(0.0, 50.0), &user("anna"), &Untripped, LOW).arm);
    assert_eq!(arm, if share < 50.0 { Arm::Canary } else { Arm::Primary });
    let assigned = |route, live: &Places| decided(route, &user("anna"), live, LOW).assignment;
    let fresh = Places::default();
    assert_eq!(assigned(at(0.0, 50.0), &fresh), Drawn);
    assert_eq!(assigned(at(share + 1.0, share + 2.0), &fresh), Sticky, "she met the canary at an earlier weight");
    assert_eq!(assigned(at(0.0, 50.0), &Places { failed: Some(unit), ..Places::default() }), Sticky);
    assert_eq!(assigned(at(0.0, 0.0), &fresh), Forced);
    let nobody = decided(at(0.0, 50.0), &request(&[]), &fresh, LOW);
    assert_eq!((nobody.arm, nobody.assignment, nobody.unit), (Arm::Canary, Forced, None));
}

#[test]
fn what_changes_nothing_and_goes_to_the_primary_is_copied_in_its_share() {
    let copies = |mirror: Mirror, percent, method: &'static str| {
        let table = table(vec![Route { mirror: Some(mirror), ..route(percent) }]);
        let request = Request { method, ..Request::default() };
        let mut random = fastrand::Rng::with_seed(3);
        let mut tickets = (0..10_000).map(|_| Ticket::from(random.u64(..)));
        let decisions = tickets.by_ref().map(|ticket| decide(&table, &request, &Untripped, ticket).expect("it goes"));
        decisions.filter(|decision| decision.is_mirrored).map(|decision| assert_eq!(decision.arm, Arm::Primary)).count()
    };
    let share = |percent| Mirror { share: Coin::from_percent(percent).expect("a percentage"), ..Mirror::ALL };
    assert_eq!([copies(Mirror::ALL, 0.0, "GET"), copies(Mirror::ALL, 0.0, "POST")], [10_000, 0]);
    assert_eq!(copies(Mirror { unsafe_methods: true, ..Mirror::ALL }, 0.0, "POST"), 10_000);
    assert!((850..1_150).contains(&copies(share(10.0), 0.0, "GET")));
    assert!((4_800..5_200).contains(&copies(Mirror::ALL, 50.0, "GET")), "what the canary gets itself is not copied");
}
