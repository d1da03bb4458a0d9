//! Users who keep the version that they met, and what of them is evidence.

use std::collections::HashMap;
use std::sync::Arc;

use serin_measure::{Arm, Coin, EpochId};
use serin_route::{Cookie, CookieAttributes, Cookies, HashKey, Hashing, Route, Stickiness};

use crate::edge::{TestEdge, percent, route, run, settings};
use crate::wire::{Message, Then, Wire, WireBackend, ok};

/// An edge before two versions, and a client of it.
struct Shop {
    edge: TestEdge,
    versions: [WireBackend; 2],
    client: Wire,
}

impl Shop {
    async fn open() -> Self {
        let versions =
            [WireBackend::saying(ok("primary"), Then::Keep).await, WireBackend::saying(ok("canary"), Then::Keep).await];
        let edge = TestEdge::start(settings(), Vec::new());
        let client = Wire::connect(edge.address).await;
        Self { edge, versions, client }
    }

    /// Splits by this coin, from now on in an epoch of its own.
    fn split(&self, epoch: u64, coin: Coin, stickiness: &Stickiness) {
        let [primary, canary] = [0, 1].map(|version| [self.versions[version].address()]);
        let stickiness = Some(Arc::new(stickiness.clone()));
        self.edge.publish(vec![Route { epoch: EpochId(epoch), coin, stickiness, ..route(&primary, &canary) }]);
    }

    async fn ask(&mut self, field: &str) -> Message {
        let request = format!("GET /a HTTP/1.1\r\nhost: shop\r\n{field}\r\n");
        self.client.ask(&request).await.expect("an answer")
    }
}

fn cookies(primary: bool) -> Stickiness {
    let attributes =
        CookieAttributes { max_age_s: Some(86_400), path: Some("/".into()), ..CookieAttributes::default() };
    let cookie = |name, value| Cookie::new(name, value, &attributes);
    Stickiness::Cookies(Cookies {
        canary: Some(cookie("flagger-cookie", "abcdefghij")),
        primary: primary.then(|| cookie("primary-cookie", "klmnopqrst")),
        former: Some(Cookie::taken_back("flagger-cookie", "zzzzzzzzzz", &attributes)),
    })
}

#[test]
fn checklist_117_119_who_meets_the_canary_gets_a_cookie_and_keeps_it_and_is_evidence_once() {
    run(async {
        let mut shop = Shop::open().await;
        shop.split(1, percent(50.0), &cookies(false));
        let mut tossed = 0;
        let met = loop {
            let answer = shop.ask("").await;
            tossed += 1;
            match (answer.text().as_str(), answer.field("set-cookie")) {
                ("canary", Some(cookie)) => break cookie.to_owned(),
                ("primary", None) => {}
                (version, cookie) => panic!("{version} set {cookie:?}"),
            }
        };
        assert_eq!(met, "flagger-cookie=abcdefghij; Max-Age=86400; Path=/");
        for _ in 0..50 {
            let answer = shop.ask("cookie: a=b; flagger-cookie=abcdefghij\r\n").await;
            assert_eq!((answer.text().as_str(), answer.field("set-cookie")), ("canary", None));
        }
        let counts = shop.edge.settled(tossed + 50).await;
        let [primary, canary] = [Arm::Primary, Arm::Canary].map(|arm| counts.arm(arm).evidence.routed);
        assert_eq!((primary + canary, canary), (tossed, 1), "only the tosses are evidence");
        assert_eq!(counts.canary.other.routed, 50);
    });
}

#[test]
fn checklist_120_who_meets_the_primary_keeps_it_if_it_has_a_cookie_too() {
    run(async {
        let mut shop = Shop::open().await;
        shop.split(1, percent(50.0), &cookies(true));
        let mut set = HashMap::new();
        while set.len() < 2 {
            let answer = shop.ask("").await;
            set.insert(answer.text(), answer.field("set-cookie").expect("either sets one").to_owned());
        }
        assert!(set["primary"].starts_with("primary-cookie=klmnopqrst; ") && set["canary"].starts_with("flagger-"));
        for _ in 0..50 {
            let answer = shop.ask("cookie: primary-cookie=klmnopqrst\r\n").await;
            assert_eq!((answer.text().as_str(), answer.field("set-cookie")), ("primary", None));
        }
    });
}

#[test]
fn checklist_122_124_a_rollback_frees_everybody_and_an_old_cookie_is_taken_back() {
    run(async {
        let mut shop = Shop::open().await;
        shop.split(1, percent(50.0), &cookies(false));
        shop.split(2, Coin::NEVER, &cookies(false));
        let held = shop.ask("cookie: flagger-cookie=abcdefghij\r\n").await;
        assert_eq!((held.text().as_str(), held.field("set-cookie")), ("primary", None));
        let old = shop.ask("cookie: flagger-cookie=zzzzzzzzzz\r\n").await;
        let back = "flagger-cookie=zzzzzzzzzz; Max-Age=-1; Path=/";
        assert_eq!((old.text().as_str(), old.field("set-cookie")), ("primary", Some(back)));
        let new = shop.ask("").await;
        assert_eq!((new.text().as_str(), new.field("set-cookie")), ("primary", None));
    });
}

#[test]
fn a_hashed_user_keeps_the_canary_while_the_weight_rises_and_loses_it_at_a_rollback() {
    run(async {
        let mut shop = Shop::open().await;
        let hashing =
            |highest| Stickiness::Hash(Hashing { key: HashKey::Header("x-user".into()), salt: 0x5e71, highest });
        let (tenth, half) = (percent(10.0), percent(50.0));
        let mut met: HashMap<usize, String> = HashMap::new();
        for (epoch, highest, coin) in [(1, Coin::NEVER, tenth), (2, tenth, half), (3, half, Coin::NEVER)] {
            shop.split(epoch, coin, &hashing(highest));
            for user in 0..200 {
                let field = format!("x-user: user-{user}\r\n");
                let version = shop.ask(&field).await.text();
                assert_eq!(shop.ask(&field).await.text(), version, "he is sent to one version");
                let former = met.insert(user, version.clone()).unwrap_or_default();
                match epoch {
                    3 => assert_eq!(version, "primary"),
                    _ => assert!(former != "canary" || version == "canary", "user {user} has lost it"),
                }
            }
            let canaries = met.values().filter(|version| *version == "canary").count();
            let expected = [5..40, 70..130, 0..1][usize::try_from(epoch).expect("small") - 1].clone();
            assert!(expected.contains(&canaries), "{canaries} of 200 in epoch {epoch}");
        }
        let counts = shop.edge.settled(1_200).await;
        let drawn = counts.primary.evidence.routed + counts.canary.evidence.routed;
        assert!((600..800).contains(&drawn), "all of the first weight, and who was not decided by it: {drawn}");
    });
}

#[test]
fn a_hashed_user_fails_once() {
    run(async {
        let failing = "HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_owned();
        let backend = WireBackend::saying(failing, Then::Keep).await;
        let edge = TestEdge::start(settings(), Vec::new());
        let hashing = Hashing { key: HashKey::Address, salt: 1, highest: Coin::NEVER };
        let stickiness = Some(Arc::new(Stickiness::Hash(hashing)));
        let address = [backend.address()];
        edge.publish(vec![Route { coin: percent(50.0), stickiness, ..route(&address, &address) }]);
        let mut client = Wire::connect(edge.address).await;
        for _ in 0..10 {
            assert_eq!(client.ask("GET /a HTTP/1.1\r\nhost: shop\r\n\r\n").await.expect("an answer").status(), 500);
        }
        let counts = edge.settled(10).await;
        let cell = counts.cell();
        assert_eq!((cell.n, cell.a + cell.b, cell.in_flight()), (1, 1, 0), "one user, one coin: {counts:?}");
    });
}
