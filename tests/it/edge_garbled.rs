//! Requests with bytes changed, left out, put in or doubled, through both adapters: a backend sees the same request both ways, or
//! none.
//!
//! `SERIN_GARBLED_SEED=n` runs one of them again; `SERIN_GARBLED=n` runs so many (`make fuzz`).

use std::time::Duration;

use fastrand::Rng;
use serin_measure::Arm;
use serin_proxy::{Refusal, Settings};

use crate::edge::{TestEdge, adapters, drawn, run};
use crate::wire::{Wire, WireBackend, ok};

/// Requests in one run of the tests: some seconds.
const REQUESTS: u64 = 80;
/// How long a client may take for what it leaves out.
const PATIENCE: Duration = Duration::from_millis(150);
/// What changes the meaning of a head, or of a chunk's size.
const SHARP: &[u8] = b"\r\n\0\t :,;0af+-\"\x7f\x80_/";

/// What was seen of it.
#[derive(Debug, PartialEq)]
struct Seen {
    /// The head that the backend got first, line by line in order of names.
    backend: Option<Vec<String>>,
    /// The first status, or none if the connection was closed without one.
    status: Option<u16>,
    /// Why it was not carried.
    refused: Vec<Refusal>,
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let heads = [
        "GET /a?b HTTP/1.1\r\nhost: podinfo\r\naccept: */*\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nsum: 1\r\n\r\n",
        "HEAD http://podinfo/a HTTP/1.1\r\nhost: podinfo\r\nconnection: keep-alive, x\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: podinfo\r\nconnection: keep-alive\r\ncookie: a=b\r\n\r\n",
        "PUT /a HTTP/1.1\r\nhost: podinfo:80\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi",
    ];
    let mut bytes = heads[rng.usize(..heads.len())].as_bytes().to_vec();
    for _ in 0..=rng.usize(..3) {
        garble(&mut bytes, rng);
    }
    bytes
}

fn garble(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..bytes.len());
    let sharp = SHARP[rng.usize(..SHARP.len())];
    match rng.u8(..5) {
        0 => bytes[at] = sharp,
        1 => bytes[at] = rng.u8(..),
        2 => bytes.insert(at, sharp),
        3 => drop(bytes.remove(at)),
        // A line, or a part of one, comes twice.
        _ => {
            let end = (at + 1 + rng.usize(..24)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

async fn through(bytes: &[u8], settings: Settings) -> Seen {
    let backend = WireBackend::start(async |mut wire: Wire| {
        while let Some(head) = wire.head().await {
            wire.send(ok("hi")).await;
            wire.body(&head).await;
        }
    });
    let backend = backend.await;
    let settings = Settings {
        downstream_read_timeout: PATIENCE,
        keep_alive_timeout: PATIENCE,
        upstream_read_timeout: 4 * PATIENCE,
        ..settings
    };
    let edge = TestEdge::start(settings, vec![drawn(Arm::Canary, &[backend.address()], &[backend.address()])]);
    let mut client = Wire::connect(edge.address).await;
    client.send(bytes).await;
    let (answer, _) = client.rest().await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let refused = Refusal::ALL.into_iter().filter(|why| edge.refused(*why) > 0).collect();
    let lines = |head: String| {
        let mut lines: Vec<String> = head.trim_end().split("\r\n").map(str::to_lowercase).collect();
        lines[1..].sort();
        lines
    };
    Seen { backend: backend.heads().into_iter().next().map(lines), status, refused }
}

/// pingora-proxy reads a second request only when the first one is over, and closes when more has come: what follows the first
/// may be refused by the direct exchange alone. And it sends a head before it looks at the body, and reads some chunks and trailers
/// that are none; the direct exchange sends nothing of a request whose body is seen to be none.
fn is_reviewed(direct: &Seen, pingora: &Seen) -> bool {
    let is_same_first = direct.backend == pingora.backend && direct.status == pingora.status;
    let is_no_body = direct.backend.is_none() && direct.status == Some(400) && direct.refused.is_empty();
    (is_same_first || is_no_body) && pingora.refused.is_empty()
}

#[test]
fn a_backend_sees_the_same_of_a_garbled_request_both_ways_or_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SERIN_GARBLED_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SERIN_GARBLED").unwrap_or(REQUESTS),
    };
    let (mut different, mut carried, all) = (Vec::new(), 0, seeds.end - seeds.start);
    for seed in seeds {
        let bytes = request(&mut Rng::with_seed(seed));
        let [direct, pingora] = adapters().map(|settings| run(through(&bytes, settings)));
        carried += u64::from(direct.status == Some(200));
        if direct != pingora && !is_reviewed(&direct, &pingora) {
            println!("seed {seed}: {}\n  direct  {direct:?}\n  pingora {pingora:?}", bytes.escape_ascii());
            different.push(seed);
        }
    }
    // One of them may be none; of many, some are still requests.
    assert!(carried > 0 || all == 1, "nothing was carried");
    assert!(different.is_empty(), "seeds {different:?} differ");
}
