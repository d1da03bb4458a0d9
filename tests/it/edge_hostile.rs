//! Bytes that somebody sends to be read in two ways. Each is refused, or reaches the backend as the one request that was matched and
//! measured: what is refused and what is not does not depend on the adapter that would carry it.

use serin_proxy::{Refusal, Settings};
use serin_tests::wait::until;

use crate::edge::{TestEdge, adapters, route, run};
use crate::wire::{PATIENCE, Wire, WireBackend, ok};

/// What is to become of some bytes.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Refused with this status, before any version was met.
    Refused(u16, Refusal),
    /// Met a version, whose body then turned out to be none: the client's fault.
    BadBody,
    /// One request, whose head at the backend begins so and whose body is this.
    Passed(&'static str, &'static str),
}

use Fate::{BadBody, Passed, Refused};

const MALFORMED: Fate = Refused(400, Refusal::Malformed);
const GET: Fate = Passed("GET / HTTP/1.1\r\n", "");
const POST: Fate = Passed("POST / HTTP/1.1\r\n", "hi");

async fn meets(settings: Settings, bytes: &[u8], fate: Fate) {
    let shown = bytes[..bytes.len().min(160)].escape_ascii().to_string();
    let backend = WireBackend::start(async |mut wire: Wire| {
        while let Some(request) = wire.request().await {
            wire.send(ok(&request.text())).await;
        }
    })
    .await;
    let edge = TestEdge::start(settings, vec![route(&[backend.address()], &[])]);
    let mut client = Wire::connect(edge.address).await;
    client.send(bytes).await;
    let answer = client.answer(false).await;
    let status = answer.as_ref().map(crate::wire::Message::status);
    match fate {
        Refused(expected, why) => {
            assert_eq!(status, Some(expected), "{shown}");
            let counted = async || Ok((edge.refused(why) == 1).then_some(()));
            until(why.as_str(), PATIENCE, counted).await.unwrap_or_else(|error| panic!("{error}: {shown}"));
            assert_eq!(backend.heads().len(), 0, "{shown}");
            edge.settled(0).await;
        }
        BadBody => {
            assert!(status.is_none_or(|status| status == 400), "{shown}: {status:?}");
            edge.settled(1).await;
        }
        Passed(head, body) => {
            assert_eq!(status, Some(200), "{shown}");
            assert_eq!(answer.map(|answer| answer.text()).as_deref(), Some(body), "{shown}");
            let heads = backend.heads();
            assert!(heads.len() == 1 && heads[0].starts_with(head), "{shown}: {heads:?}");
            edge.settled(1).await;
        }
    }
}

/// Every row on every adapter.
fn check(rows: &[(&str, Fate)]) {
    for settings in adapters() {
        for (bytes, fate) in rows {
            run(meets(settings.clone(), bytes.as_bytes(), *fate));
        }
    }
}

#[test]
fn request_lines() {
    let with_host = |line: &str| format!("{line}\r\nhost: podinfo\r\n\r\n");
    let rows: Vec<(String, Fate)> = [
        ("GET  / HTTP/1.1", MALFORMED),
        ("GET /\tHTTP/1.1", MALFORMED),
        (" GET / HTTP/1.1", MALFORMED),
        ("GET / HTTP/1.1 ", MALFORMED),
        ("GET /a b HTTP/1.1", MALFORMED),
        ("GET / HTTP/1.2", MALFORMED),
        ("GET / HTTP/2.0", MALFORMED),
        ("GET / http/1.1", MALFORMED),
        ("GET /", MALFORMED),
        ("G@T / HTTP/1.1", MALFORMED),
        ("G\0T / HTTP/1.1", MALFORMED),
        ("GET /\0 HTTP/1.1", MALFORMED),
        ("GET /\u{7f} HTTP/1.1", MALFORMED),
        ("GET /#part HTTP/1.1", MALFORMED),
        ("GET * HTTP/1.1", MALFORMED),
        ("GET podinfo HTTP/1.1", MALFORMED),
        ("GET http://other/ HTTP/1.1", MALFORMED),
        ("GET http://user@podinfo/ HTTP/1.1", MALFORMED),
        ("GET ftp://podinfo/ HTTP/1.1", MALFORMED),
        ("GET http:///x HTTP/1.1", MALFORMED),
        ("CONNECT podinfo:443 HTTP/1.1", Refused(405, Refusal::Connect)),
        ("GET /%00 HTTP/1.1", Passed("GET /%00 HTTP/1.1\r\n", "")),
        ("GET //other/x HTTP/1.1", Passed("GET //other/x HTTP/1.1\r\n", "")),
        ("GET /../a/./b?c=//d HTTP/1.1", Passed("GET /../a/./b?c=//d HTTP/1.1\r\n", "")),
        ("GET http://podinfo/x HTTP/1.1", Passed("GET ", "")),
    ]
    .map(|(line, fate)| (with_host(line), fate))
    .into();
    let rows: Vec<_> = rows.iter().map(|(bytes, fate)| (bytes.as_str(), *fate)).collect();
    check(&rows);
    check(&[
        ("GET / HTTP/1.1\nhost: podinfo\n\n", MALFORMED),
        ("GET / HTTP/1.1\r\nhost: podinfo\n\r\n", MALFORMED),
        ("GET / HTTP/1.1\r\nhost: podinfo\r\n\n", MALFORMED),
        ("GET / HTTP/1.1\rhost: podinfo\r\n\r\n", MALFORMED),
        ("\nGET / HTTP/1.1\r\nhost: podinfo\r\n\r\n", MALFORMED),
        ("\r\nGET / HTTP/1.1\r\nhost: podinfo\r\n\r\n", GET),
    ]);
}

/// A GET with these fields.
fn with_fields(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")
}

fn check_fields(rows: &[(&str, Fate)]) {
    let rows: Vec<(String, Fate)> = rows.iter().map(|(fields, fate)| (with_fields(fields), *fate)).collect();
    let rows: Vec<_> = rows.iter().map(|(bytes, fate)| (bytes.as_str(), *fate)).collect();
    check(&rows);
}

#[test]
fn hosts() {
    check_fields(&[
        ("x: y", MALFORMED),
        ("host: podinfo\r\nhost: podinfo", MALFORMED),
        ("host: podinfo\r\nhost: other", MALFORMED),
        ("host: podinfo\r\nHOST: other", MALFORMED),
        ("host: podinfo other", MALFORMED),
        ("host: podinfo, other", MALFORMED),
        ("host: user@podinfo", MALFORMED),
        ("host: podinfo:80:80", MALFORMED),
        ("host: podinfo:x", MALFORMED),
        ("host: [::1", MALFORMED),
        ("host: [::1]x", MALFORMED),
        ("host: podinfo/x", MALFORMED),
        ("host: podinfo\\x", MALFORMED),
        ("host: pod\tinfo", MALFORMED),
        ("host: podinfo:8080", GET),
        ("host: PODINFO", GET),
        ("host: [::1]:80", GET),
        ("host:podinfo", GET),
    ]);
}

#[test]
fn fields() {
    check_fields(&[
        ("host : podinfo", MALFORMED),
        ("host\t: podinfo", MALFORMED),
        (" x: y\r\nhost: podinfo", MALFORMED),
        ("host: podinfo\r\nx: a\r\n b", MALFORMED),
        ("host: podinfo\r\nx: a\r\n\tb", MALFORMED),
        ("host: podinfo\r\n: y", MALFORMED),
        ("host: podinfo\r\nx", MALFORMED),
        ("host: podinfo\r\nx y: z", MALFORMED),
        ("host: podinfo\r\nx(y: z", MALFORMED),
        ("host: podinfo\r\nx: a\0b", MALFORMED),
        ("host: podinfo\r\nx: a\rb", MALFORMED),
        ("host: podinfo\r\nx: a\u{1}b", MALFORMED),
        ("host: podinfo\r\nx: a\u{7f}b", MALFORMED),
        ("host: podinfo\r\nx: \u{e9}", GET),
        ("host: podinfo\r\nx:", GET),
        ("host: podinfo\r\nconnection: host", MALFORMED),
        ("host: podinfo\r\nconnection: close, x-user\r\nx-user: a", MALFORMED),
        ("host: podinfo\r\nconnection: Cookie\r\ncookie: a=b", MALFORMED),
        ("host: podinfo\r\nconnection: @", MALFORMED),
        ("host: podinfo\r\nconnection: x-nothing", GET),
        ("host: podinfo\r\nconnection: keep-alive, TE\r\nte: trailers", GET),
    ]);
}

/// A POST with these fields and this body.
fn check_bodies(rows: &[(&str, &str, Fate)]) {
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: podinfo\r\n{fields}\r\n\r\n{body}");
    let rows: Vec<(String, Fate)> = rows.iter().map(|(fields, body, fate)| (post(fields, body), *fate)).collect();
    let rows: Vec<_> = rows.iter().map(|(bytes, fate)| (bytes.as_str(), *fate)).collect();
    check(&rows);
}

#[test]
fn lengths() {
    check_bodies(&[
        ("content-length: 2\r\ncontent-length: 2", "hi", MALFORMED),
        ("content-length: 2\r\nContent-Length: 3", "hi", MALFORMED),
        ("content-length: 2, 2", "hi", MALFORMED),
        ("content-length: +2", "hi", MALFORMED),
        ("content-length: -2", "hi", MALFORMED),
        ("content-length: 0x2", "hi", MALFORMED),
        ("content-length: 2 2", "hi", MALFORMED),
        ("content-length: 2a", "hi", MALFORMED),
        ("content-length: \"2\"", "hi", MALFORMED),
        ("content-length:", "hi", MALFORMED),
        ("content-length: 99999999999999999999", "hi", MALFORMED),
        ("content-length: 2\r\ntransfer-encoding: chunked", "0\r\n\r\n", MALFORMED),
        ("transfer-encoding: chunked\r\ncontent-length: 0", "0\r\n\r\n", MALFORMED),
        ("content-length: 2", "hi", POST),
        ("content-length:  2\t", "hi", POST),
    ]);
}

#[test]
fn codings() {
    const HI: &str = "2\r\nhi\r\n0\r\n\r\n";
    check_bodies(&[
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", HI, MALFORMED),
        ("transfer-encoding: chunked\r\nTransfer-Encoding: identity", HI, MALFORMED),
        ("transfer-encoding: chunked, chunked", HI, MALFORMED),
        ("transfer-encoding: chunked, gzip", HI, MALFORMED),
        ("transfer-encoding: identity", HI, MALFORMED),
        ("transfer-encoding: xchunked", HI, MALFORMED),
        ("transfer-encoding: chunked;q=1", HI, MALFORMED),
        ("transfer-encoding: \"chunked\"", HI, MALFORMED),
        ("transfer-encoding: chunked\u{b}", HI, MALFORMED),
        ("transfer-encoding : chunked", HI, MALFORMED),
        ("transfer-encoding:", HI, MALFORMED),
        ("transfer-encoding: ,", HI, MALFORMED),
        ("transfer-encoding: gzip, chunked", HI, Refused(501, Refusal::Coding)),
        ("transfer-encoding: Chunked", HI, POST),
        ("transfer-encoding: \tchunked ", HI, POST),
    ]);
    check(&[("POST / HTTP/1.0\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED)]);
}

/// Chunks are followed by the direct exchange alone; pingora-proxy gets chunked requests only from upgrades and absolute targets.
#[test]
fn chunks() {
    let rows: Vec<(&str, Fate)> = [
        "g\r\nhi\r\n0\r\n\r\n",
        "+2\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        " 2\r\nhi\r\n0\r\n\r\n",
        "2 \r\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhix\r\n0\r\n\r\n",
        "2;a\nb\r\nhi\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhi\r\n0\r\n\r\n",
        "10000000000000002\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\r\n\n",
        "2\r\nhi\r\n0\r\nx y: z\r\n\r\n",
        "2\r\nhi\r\n0\r\n folded: z\r\n\r\n",
    ]
    .into_iter()
    .map(|body| (body, BadBody))
    .chain([
        ("2;a=b\r\nhi\r\n0\r\n\r\n", POST),
        ("02\r\nhi\r\n00\r\n\r\n", POST),
        ("1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", POST),
    ])
    .collect();
    let [direct, _] = adapters();
    for (body, fate) in rows {
        let post = format!("POST / HTTP/1.1\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        run(meets(direct.clone(), post.as_bytes(), fate));
    }
}
