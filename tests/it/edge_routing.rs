//! Where requests go, on the wire: by weight, by force, by audience, by host, and when an arm is empty.

use serin_measure::{Arm, CanaryKey, Coin, EpochCounts};
use serin_proxy::Refusal;
use serin_route::{Audience, Force, HeaderMatch, Host, Match, ParameterMatch, PathMatch, Route, StringMatch};

use crate::edge::{GET, TestEdge, percent, route, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok};

/// Two backends that name their arm, and an edge before them.
struct Split {
    edge: TestEdge,
    backends: [WireBackend; 2],
}

impl Split {
    async fn start(change: impl FnOnce(Route) -> Route) -> Self {
        let backends = [Self::backend(Arm::Primary).await, Self::backend(Arm::Canary).await];
        let route = route(&[backends[0].address()], &[backends[1].address()]);
        Self { edge: TestEdge::start(settings(), vec![change(route)]), backends }
    }

    async fn backend(arm: Arm) -> WireBackend {
        WireBackend::saying(ok(arm.as_str()), Then::Keep).await
    }

    /// Sends one request with these fields, and says who answered.
    async fn ask(&self, fields: &str) -> String {
        let mut client = Wire::connect(self.edge.address).await;
        let answer = client.ask(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).await.expect("an answer");
        answer.text()
    }

    /// What is counted once these requests are through, with what the backends counted.
    async fn settled(&self, requests: u64) -> EpochCounts {
        let counts = self.edge.settled(requests).await;
        for (arm, backend) in Arm::ALL.into_iter().zip(&self.backends) {
            let record = counts.arm(arm);
            let heads = backend.heads().len() as u64;
            assert_eq!(record.evidence.routed + record.other.routed, heads, "requests at the {arm}");
        }
        counts
    }
}

/// Sends 20 requests with these fields; they all go to `arm`, and as many are evidence.
#[track_caller]
fn check(change: impl FnOnce(Route) -> Route, fields: &str, arm: Arm, evidence: u64) {
    const REQUESTS: u64 = 20;
    run(async {
        let split = Split::start(change).await;
        for _ in 0..REQUESTS {
            assert_eq!(split.ask(fields).await, arm.as_str(), "{fields:?}");
        }
        let counts = split.settled(REQUESTS).await;
        let record = counts.arm(arm);
        assert_eq!((record.evidence.routed, record.other.routed), (evidence, REQUESTS - evidence), "{fields:?}");
        assert_eq!(counts.cell().n, evidence, "{fields:?}");
    });
}

const HOST: &str = "host: podinfo\r\n";

fn header(name: &str, value: StringMatch) -> Match {
    Match::on(vec![HeaderMatch::new(name, value)])
}

fn exact(value: &str) -> StringMatch {
    StringMatch::Exact(value.into())
}

#[test]
fn a_weight_of_0_or_100_is_certain_and_no_evidence() {
    check(|route| Route { coin: percent(0.0), ..route }, HOST, Arm::Primary, 0);
    check(|route| Route { coin: percent(100.0), ..route }, HOST, Arm::Canary, 0);
}

#[test]
fn a_weight_between_splits_by_the_toss_of_a_coin() {
    run(async {
        const REQUESTS: u64 = 1_000;
        let split = Split::start(|route| Route { coin: percent(30.0), ..route }).await;
        let mut client = Wire::connect(split.edge.address).await;
        let mut canary = 0;
        for _ in 0..REQUESTS {
            let answer = client.ask(GET).await.expect("an answer");
            canary += u64::from(answer.text() == "canary");
        }
        let counts = split.settled(REQUESTS).await;
        assert_eq!(counts.canary.evidence.routed, canary);
        assert_eq!(counts.primary.evidence.routed, REQUESTS - canary);
        // Five standard deviations of 14.5: one run in 1.7 million falls outside.
        assert!((228..=372).contains(&canary), "{canary} of {REQUESTS} at 30 %");
    });
}

#[test]
fn a_forced_header_or_cookie_wins_over_the_weight_and_is_no_evidence() {
    let insider = StringMatch::regex("^(.*?;)?(canary=always)(;.*)?$").expect("it compiles");
    let forced = |matches: Match, arm, coin| {
        let force = Force { matches, arm };
        move |route| Route { forced: vec![force], coin, ..route }
    };
    let never = || forced(header("X-Canary", exact("insider")), Arm::Canary, Coin::NEVER);
    check(never(), "host: podinfo\r\nx-canary: insider\r\n", Arm::Canary, 0);
    check(never(), "host: podinfo\r\nX-CANARY: insider\r\n", Arm::Canary, 0);
    check(never(), "host: podinfo\r\nx-canary: outsider\r\n", Arm::Primary, 0);
    check(never(), HOST, Arm::Primary, 0);
    let cookie = || forced(header("cookie", insider.clone()), Arm::Canary, Coin::NEVER);
    check(cookie(), "host: podinfo\r\ncookie: a=b;canary=always;c=d\r\n", Arm::Canary, 0);
    check(cookie(), "host: podinfo\r\ncookie: a=b; canary=alwaysnot\r\n", Arm::Primary, 0);
    let away = forced(header("x-canary", exact("never")), Arm::Primary, Coin::ALWAYS);
    check(away, "host: podinfo\r\nx-canary: never\r\n", Arm::Primary, 0);
}

#[test]
fn only_the_audience_meets_the_canary_by_the_coin() {
    let almost = Coin::from_k((1 << 32) - 1).expect("it is at most 2^32");
    let audience = || {
        let both = Match::on(vec![HeaderMatch::new("a", exact("1")), HeaderMatch::new("b", exact("2"))]);
        let any_of = vec![both, header("user-agent", StringMatch::Prefix("curl/".into()))];
        move |route| Route { audience: Audience::Matching(any_of), coin: almost, ..route }
    };
    check(audience(), "host: podinfo\r\na: 1\r\nb: 2\r\n", Arm::Canary, 20);
    check(audience(), "host: podinfo\r\nuser-agent: curl/8\r\n", Arm::Canary, 20);
    check(audience(), "host: podinfo\r\na: 1\r\n", Arm::Primary, 0);
    check(audience(), HOST, Arm::Primary, 0);
}

#[test]
fn an_empty_arm_leaves_its_requests_to_the_other_and_neither_is_scored() {
    let without_canary = |route| Route { canary_endpoints: Vec::new(), coin: percent(50.0), ..route };
    let without_primary = |route| Route { primary: Vec::new(), coin: percent(50.0), ..route };
    check(without_canary, HOST, Arm::Primary, 0);
    check(without_primary, HOST, Arm::Canary, 0);
    let forced = |route| {
        let force = Force { matches: Match::default(), arm: Arm::Canary };
        Route { forced: vec![force], ..without_canary(route) }
    };
    check(forced, HOST, Arm::Primary, 0);
}

#[test]
fn a_route_without_endpoints_answers_503() {
    run(async {
        let edge = TestEdge::start(settings(), vec![route(&[], &[])]);
        for times in 1..=3 {
            let answer = Wire::connect(edge.address).await.ask(GET).await.expect("an answer");
            assert_eq!((answer.status(), answer.text().as_str()), (503, "no endpoint is available\n"));
            assert_eq!(edge.refused(Refusal::NoEndpoint), times);
        }
        edge.settled(0).await;
    });
}

/// Routes for an exact name, one below, a deeper one below, and perhaps all others; each backend says which it is.
async fn by_host(any: bool) -> (TestEdge, Vec<WireBackend>) {
    let mut hosts = vec!["app.example.com", "*.example.com", "*.eu.example.com"];
    hosts.extend(any.then_some("*"));
    let (mut routes, mut backends) = (Vec::new(), Vec::new());
    for (number, host) in hosts.into_iter().enumerate() {
        let backend = WireBackend::saying(ok(host), Then::Keep).await;
        let canary = CanaryKey::new("test", &format!("app-{number}"));
        let hosts = vec![Host::parse(host).expect("a host")];
        routes.push(Route { canary, hosts, ..route(&[backend.address()], &[]) });
        backends.push(backend);
    }
    (TestEdge::start(settings(), routes), backends)
}

/// One request for each head: who answered, or our own status.
#[track_caller]
fn check_hosts(any: bool, expected: &[(&str, &str)]) {
    run(async {
        let (edge, backends) = by_host(any).await;
        for (head, expected) in expected {
            let mut client = Wire::connect(edge.address).await;
            let answer = client.ask(&format!("{head}\r\n")).await.expect("an answer");
            let answered = if answer.status() == 200 { answer.text() } else { answer.status().to_string() };
            assert_eq!(&answered, expected, "{head}");
        }
        let unknown = expected.iter().filter(|(_, answered)| *answered == "404").count() as u64;
        assert_eq!(edge.refused(Refusal::UnknownHost), unknown);
        let routed = expected.len() as u64 - unknown;
        edge.settled(routed).await;
        assert_eq!(backends.iter().map(|backend| backend.heads().len() as u64).sum::<u64>(), routed);
    });
}

#[test]
fn a_host_is_found_by_name_then_by_the_longest_wildcard_then_by_any() {
    check_hosts(
        true,
        &[
            ("GET / HTTP/1.1\r\nhost: app.example.com\r\n", "app.example.com"),
            ("GET / HTTP/1.1\r\nHost: APP.Example.com:8080\r\n", "app.example.com"),
            ("GET http://app.example.com/ HTTP/1.1\r\nhost: app.example.com\r\n", "app.example.com"),
            ("GET / HTTP/1.1\r\nhost: x.example.com\r\n", "*.example.com"),
            ("GET / HTTP/1.1\r\nhost: x.y.example.com\r\n", "*.example.com"),
            ("GET / HTTP/1.1\r\nhost: x.eu.example.com\r\n", "*.eu.example.com"),
            ("GET / HTTP/1.1\r\nhost: example.com\r\n", "*"),
            ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n", "*"),
            ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n", "*"),
        ],
    );
}

#[test]
fn a_host_that_nobody_answers_for_gets_404() {
    check_hosts(
        false,
        &[
            ("GET / HTTP/1.1\r\nhost: nobody\r\n", "404"),
            ("GET / HTTP/1.1\r\nhost: app.example.com\r\n", "app.example.com"),
            ("GET / HTTP/1.1\r\nhost: example.com\r\n", "404"),
            ("GET / HTTP/1.0\r\n", "404"),
        ],
    );
}

#[test]
fn canaries_share_a_host_by_path_method_header_and_query() {
    run(async {
        let path = |path| Match { path: Some(path), ..Match::default() };
        let shop = || path(PathMatch::elements("/shop"));
        let user = ParameterMatch { name: "user".into(), value: exact("a b") };
        let entries = [
            ("rest", vec![]),
            ("shop", vec![shop()]),
            ("order", vec![Match { method: Some(exact("POST")), ..shop() }]),
            ("beta", vec![Match { parameters: vec![user], ..shop() }]),
            ("exact", vec![path(PathMatch::exact("/shop/1")), path(PathMatch::regex("/[a-z]{3}").expect("a pattern"))]),
        ];
        let (mut routes, mut backends) = (Vec::new(), Vec::new());
        for (name, matches) in entries {
            let backend = WireBackend::saying(ok(name), Then::Keep).await;
            let canary = CanaryKey::new("test", name);
            routes.push(Route { canary, matches: matches.into(), ..route(&[backend.address()], &[]) });
            backends.push(backend);
        }
        let edge = TestEdge::start(settings(), routes);
        let mut client = Wire::connect(edge.address).await;
        for (line, expected) in [
            ("GET /", "rest"),
            ("GET /shopping", "rest"),
            ("GET /shop?x", "shop"),
            ("GET /shop/2", "shop"),
            ("DELETE /shop/2", "shop"),
            ("POST /shop/2", "order"),
            ("GET /shop/2?user=a+b", "beta"),
            ("GET /shop/2?user=a&user=a+b", "shop"),
            ("POST /shop/2?user=a%20b", "order"),
            ("GET /shop/1?user=a%20b", "exact"),
            ("GET /abc", "exact"),
        ] {
            let answer = client.ask(&format!("{line} HTTP/1.1\r\nhost: podinfo\r\n\r\n")).await.expect("an answer");
            assert_eq!(answer.text(), expected, "{line}");
        }
    });
}
