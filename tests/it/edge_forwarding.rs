//! What a backend is told of where a request comes from, whichever way it was carried.

use serin_measure::Arm;
use serin_proxy::{Forwarding, Settings};
use serin_route::{Edits, HeaderEdits, Route};

use crate::edge::{TestEdge, drawn, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok};

/// The fields that a backend got of a request, by name, in order.
async fn told(forwarding: Forwarding, edits: Edits, request: &str) -> Vec<(String, String)> {
    let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
    let settings = Settings { forwarding, ..settings() };
    let canary = [backend.address()];
    let route = Route { edits: edits.into(), ..drawn(Arm::Canary, &canary, &canary) };
    let edge = TestEdge::start(settings, vec![route]);
    Wire::connect(edge.address).await.ask(request).await.expect("an answer");
    let head = backend.heads()[0].to_lowercase();
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

const SPOOFED: &str = "host: podinfo:80\r\nx-forwarded-for: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nforwarded: for=x\r\n\
                       x-serin-arm: primary\r\n\r\n";

/// The direct exchange takes the first in a run of its own; pingora-proxy takes the second in any.
const LINES: [&str; 2] = ["GET /a HTTP/1.1", "GET http://podinfo:80/a HTTP/1.1"];

#[test]
fn a_backend_learns_who_asks_and_what_a_client_says_of_itself_is_left_out() {
    run(async {
        for line in LINES {
            let fields = told(Forwarding::default(), Edits::default(), &format!("{line}\r\n{SPOOFED}")).await;
            let values = |name: &str| {
                fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
            };
            assert_eq!(values("x-forwarded-for"), ["127.0.0.1"], "{line}");
            assert_eq!(values("x-forwarded-proto"), ["http"]);
            assert_eq!(values("x-forwarded-host"), ["podinfo:80"]);
            assert_eq!(values("x-serin-arm"), ["canary"]);
            assert_eq!(values("forwarded"), [""; 0]);
            assert_eq!((values("x-request-id")[0].len(), values("traceparent")[0].len()), (36, 55));
            assert_eq!(fields.len(), 7, "{fields:?}");
        }
    });
}

#[test]
fn a_proxy_in_front_is_believed_where_it_is_trusted() {
    run(async {
        for line in LINES {
            let forwarding = Forwarding { trusted_hops: 1, x_forwarded: true, forwarded: true, ..Forwarding::none() };
            let fields = told(forwarding, Edits::default(), &format!("{line}\r\n{SPOOFED}")).await;
            let expected = [
                ("host", "podinfo:80"),
                ("x-serin-arm", "primary"),
                ("x-forwarded-for", "198.51.100.7, 127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "podinfo:80"),
                ("forwarded", "for=x, for=127.0.0.1;host=\"podinfo:80\";proto=http"),
            ];
            for (name, value) in expected {
                assert!(fields.contains(&(name.to_owned(), value.to_owned())), "{name}: {value} in {fields:?}");
            }
            assert_eq!(fields.len(), expected.len(), "{fields:?}");
        }
    });
}

#[test]
fn what_a_canary_sets_wins_over_what_would_be_told() {
    run(async {
        for line in LINES {
            let set = [("X-Forwarded-Proto".to_owned(), "https".to_owned())].into();
            let request = HeaderEdits::new(&[].into(), &set, &["x-request-id".to_owned()]).expect("they can be made");
            let edits = Edits { request, ..Edits::default() };
            let fields = told(Forwarding::default(), edits, &format!("{line}\r\n{SPOOFED}")).await;
            let named = |name: &str| fields.iter().filter(|(n, _)| n == name).collect::<Vec<_>>();
            assert_eq!(named("x-forwarded-proto"), [&("x-forwarded-proto".to_owned(), "https".to_owned())]);
            assert!(named("x-request-id").is_empty(), "{fields:?}");
        }
    });
}
