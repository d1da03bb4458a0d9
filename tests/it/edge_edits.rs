//! What is changed of requests and responses on the way, as the backend and the client see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_route::{Cors, Edits, HeaderEdits, Match, PathMatch, PathRewrite, Route, StringMatch};

use crate::edge::{TestEdge, route, run, settings};
use crate::wire::{Then, Wire, WireBackend};

fn header_edits(add: &[(&str, &str)], set: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
    let map = |fields: &[(&str, &str)]| -> BTreeMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let remove: Vec<String> = remove.iter().map(|name| (*name).to_owned()).collect();
    HeaderEdits::new(&map(add), &map(set), &remove).expect("they can be made")
}

/// Sends `request` by a route with these edits to a backend that answers `response`; both heads as they arrived, line by line, the
/// fields with their names in lower case and in order of names.
async fn through(edits: Edits, path: Option<PathMatch>, request: &str, response: &'static str) -> [Vec<String>; 2] {
    let backend = WireBackend::saying(response, Then::Keep).await;
    let matches = path.map(|path| Match { path: Some(path), ..Match::default() });
    let route =
        Route { edits: Arc::new(edits), matches: matches.into_iter().collect(), ..route(&[backend.address()], &[]) };
    let edge = TestEdge::start(settings(), vec![route]);
    let answer = Wire::connect(edge.address).await.ask(request).await.expect("an answer");
    let lines = |head: &str| {
        let field = |line: &str| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}", name.to_lowercase()),
            None => line.to_owned(),
        };
        let mut lines: Vec<String> = head.trim_end().split("\r\n").map(field).collect();
        lines[1..].sort();
        lines
    };
    [lines(&backend.heads()[0]), lines(&answer.head)]
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\nX-Old: 1\r\nX-Gone: 1\r\nx-gone: 2\r\n\
                      Content-Length: 0\r\n\r\n";

#[test]
fn checklist_197_fields_are_added_set_and_removed_both_ways() {
    run(async {
        let edits = Edits {
            request: header_edits(&[("x-more", "2")], &[("X-Old", "new")], &["x-gone"]),
            response: header_edits(&[("set-cookie", "a=b")], &[("x-old", "new")], &["X-Gone"]),
            ..Edits::default()
        };
        let request = "GET /a?b HTTP/1.1\r\nhost: podinfo\r\nx-old: 1\r\nx-more: 1\r\nX-Gone: 1\r\nX-OLD: 2\r\n\r\n";
        let [request, response] = through(edits, None, request, ANSWER).await;
        assert_eq!(
            request,
            ["GET /a?b HTTP/1.1", "host: podinfo", "x-more: 1", "x-more: 2", "x-old: new"],
            "what the backend got"
        );
        let expected = ["content-length: 0", "set-cookie: a=b", "x-old: new"];
        let is_connection = |line: &&String| line.starts_with("connection:") || line.starts_with("date:");
        assert_eq!(response[0], "HTTP/1.1 200 OK");
        assert_eq!(response[1..].iter().filter(|line| !is_connection(line)).collect::<Vec<_>>(), expected);
    });
}

#[test]
fn an_answer_of_many_heads_is_edited_in_the_last_one() {
    run(async {
        let edits = Edits { response: header_edits(&[("x-arm", "p")], &[], &["link"]), ..Edits::default() };
        let answer =
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nlink: </a>\r\ncontent-length: 0\r\n\r\n";
        let backend = WireBackend::saying(answer, Then::Keep).await;
        let route = Route { edits: Arc::new(edits), ..route(&[backend.address()], &[]) };
        let edge = TestEdge::start(settings(), vec![route]);
        let mut client = Wire::connect(edge.address).await;
        client.send("GET / HTTP/1.1\r\nhost: podinfo\r\n\r\n").await;
        let hints = client.head().await.expect("hints").to_lowercase();
        assert!(hints.contains("link: </a>") && !hints.contains("x-arm"), "{hints}");
        let head = client.head().await.expect("an answer").to_lowercase();
        assert!(!head.contains("link") && head.contains("x-arm: p"), "{head}");
    });
}

#[test]
fn checklist_201_a_path_and_a_host_are_rewritten_and_the_query_stays() {
    run(async {
        let prefix = |new: &str| Some(PathRewrite::Prefix(new.into()));
        let full = Some(PathRewrite::Full("/all".into()));
        let elements = || Some(PathMatch::elements("/api"));
        for (path, condition, target, expected) in [
            (prefix("/"), elements(), "/api/x/?a=b?c", "/x/?a=b?c"),
            (prefix("/v2"), elements(), "/api", "/v2"),
            (prefix("/v2"), Some(PathMatch::prefix("/api")), "/apis?", "/v2s?"),
            (prefix("/v2"), None, "/a%2Fb", "/v2/a%2Fb"),
            (full, elements(), "/api/x?y", "/all?y"),
            (None, elements(), "/api/x?y", "/api/x?y"),
        ] {
            let edits = Edits { path, authority: Some("other:80".into()), ..Edits::default() };
            let request = format!("GET {target} HTTP/1.1\r\nhost: podinfo\r\n\r\n");
            let [request, _] = through(edits, condition, &request, ANSWER).await;
            assert_eq!(request, [format!("GET {expected} HTTP/1.1"), "host: other:80".to_owned()]);
        }
    });
}

#[test]
fn what_goes_to_pingora_is_edited_too() {
    run(async {
        let edits = Edits {
            request: header_edits(&[("x-more", "1")], &[], &[]),
            path: Some(PathRewrite::Prefix("/v2".into())),
            authority: Some("other".into()),
            ..Edits::default()
        };
        let target = "http://podinfo/api/x?y";
        let request = format!("GET {target} HTTP/1.1\r\nhost: podinfo\r\n\r\n");
        let [request, _] = through(edits, Some(PathMatch::elements("/api")), &request, ANSWER).await;
        assert_eq!(request, ["GET /v2/x?y HTTP/1.1", "host: other", "x-more: 1"]);
    });
}

#[test]
fn a_browser_of_another_origin_is_answered_as_the_policy_says() {
    run(async {
        let origins = vec![StringMatch::Exact("https://a.example".into())];
        let cors = Cors { origins, methods: Some("GET,PUT".into()), credentials: true, ..Cors::default() };
        // The policy wins over what the Canary sets beside it.
        let response = header_edits(&[], &[("access-control-allow-credentials", "false")], &[]);
        let edits = Edits { cors: Some(cors), response, ..Edits::default() };
        let answer = "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 2\r\n\r\nhi";
        let backend = WireBackend::saying(answer, Then::Keep).await;
        let route = Route { edits: Arc::new(edits), ..route(&[backend.address()], &[]) };
        let edge = TestEdge::start(settings(), vec![route]);
        for target in ["/a", "http://podinfo/a"] {
            let mut client = Wire::connect(edge.address).await;
            let mut ask = async |method: &str, origin: &str| {
                let fields =
                    format!("host: podinfo\r\norigin: https://{origin}\r\naccess-control-request-method: PUT\r\n");
                let answer =
                    client.ask(&format!("{method} {target} HTTP/1.1\r\n{fields}\r\n")).await.expect("an answer");
                let field = |name: &str| answer.field(&format!("access-control-allow-{name}")).map(str::to_owned);
                (answer.text(), field("origin"), field("methods"), field("credentials"))
            };
            let some = |text: &str| Some(text.to_owned());
            let preflight = ask("OPTIONS", "a.example").await;
            assert_eq!(
                preflight,
                (String::new(), some("https://a.example"), some("GET,PUT"), some("true")),
                "{target}"
            );
            assert_eq!(ask("PUT", "a.example").await, ("hi".to_owned(), some("https://a.example"), None, some("true")));
            // Who may not is left to the backend.
            assert_eq!(ask("OPTIONS", "b.example").await, ("hi".to_owned(), some("*"), None, some("false")));
        }
        edge.settled(4).await;
    });
}
