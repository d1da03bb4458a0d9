//! The same conversations through both adapters: what the backend saw, what the client saw, and what was counted is the same, but for
//! what a reviewed table says pingora-proxy cannot do.
//!
//! Conversations are made from a seed: framings and sizes, splits of what either side says, and a break at any byte of an answer.
//! `SERIN_DIFFERENTIAL_SEED=n` runs one of them again.

use std::time::Duration;

use fastrand::Rng;
use serin_measure::{Arm, OutcomeClass};
use serin_proxy::Settings;

use crate::edge::{TestEdge, adapters, drawn, run};
use crate::wire::{Message, Then, Wire, WireBackend, ok};

/// Conversations in one run of the tests: some seconds.
const CONVERSATIONS: u64 = 250;

/// What each side says.
#[derive(Debug, Clone)]
struct Conversation {
    request: Vec<u8>,
    to_head: bool,
    /// What the backend says when it has read the request.
    answer: Vec<u8>,
    then: Then,
    /// Into how many writes each side's bytes are split.
    writes: usize,
}

/// What was seen of it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    /// Request line and fields in order of their names, and the body.
    backend: Vec<(Vec<String>, Vec<u8>)>,
    client: Option<Answer>,
    counted: Vec<(Arm, OutcomeClass, u64)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u16,
    fields: Vec<String>,
    body: Vec<u8>,
    whole: bool,
    interim: Vec<u16>,
}

impl Conversation {
    fn made_from(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let method = ["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"][rng.usize(..7)];
        let has_body = matches!(method, "POST" | "PUT");
        let mut request =
            format!("{method} /{}?q={seed} HTTP/1.1\r\nhost: podinfo\r\n", "x".repeat(size(&mut rng, 2_000)));
        for number in 0..rng.usize(..8) {
            request.push_str(&format!("X-Field-{number}: {}\r\n", "v".repeat(size(&mut rng, 500))));
        }
        if rng.u8(..8) == 0 {
            request.push_str("Connection: keep-alive, TE\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\n");
        }
        let mut request = request.into_bytes();
        body(&mut request, &mut rng, has_body, has_body, false);
        let answer = answer(&mut rng, method);
        let whole = answer.len();
        // Half of the answers are broken off somewhere, or followed by the end of the connection.
        let (cut, then) = match rng.u8(..8) {
            0..=3 => (whole, Then::Keep),
            4 => (whole, Then::Close),
            5 => (rng.usize(..=whole), Then::Close),
            6 => (rng.usize(..=whole), Then::Reset),
            _ => (rng.usize(..=whole), Then::Close),
        };
        // Without a length, only the end of the connection is the end of the body.
        let then = if ends_with_connection(&answer) && then == Then::Keep { Then::Close } else { then };
        Self { request, to_head: method == "HEAD", answer: answer[..cut].to_vec(), then, writes: 1 + rng.usize(..4) }
    }

    async fn through(&self, settings: Settings) -> Seen {
        let conversation = self.clone();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let backend = WireBackend::start(move |mut wire: Wire| {
            let (conversation, tell) = (conversation.clone(), tell.clone());
            async move {
                while let Some(request) = wire.request().await {
                    let _ = tell.send((lines(&request.head), request.body));
                    in_pieces(&mut wire, &conversation.answer, conversation.writes).await;
                    match conversation.then {
                        Then::Keep => {}
                        Then::Close => return,
                        Then::Reset => return wire.reset(),
                        Then::Silence => std::future::pending().await,
                    }
                }
            }
        })
        .await;
        let bystander = WireBackend::saying(ok("bystander"), Then::Keep).await;
        let edge = TestEdge::start(settings, vec![drawn(Arm::Canary, &[backend.address()], &[bystander.address()])]);
        let mut client = Wire::connect(edge.address).await;
        in_pieces(&mut client, &self.request, self.writes).await;
        let answer = client.answer(self.to_head).await.map(|answer| Answer::of(&answer));
        let counts = edge.settled(1).await;
        let counted = Arm::ALL.into_iter().flat_map(|arm| {
            let classes = counts.arm(arm).evidence.classes;
            OutcomeClass::ALL.into_iter().map(move |class| (arm, class, classes[class.index()]))
        });
        let counted = counted.filter(|(_, _, count)| *count > 0).collect();
        let mut seen = Seen { backend: Vec::new(), client: answer, counted };
        while let Ok(request) = told.try_recv() {
            seen.backend.push(request);
        }
        seen
    }
}

impl Answer {
    fn of(message: &Message) -> Self {
        let mut fields = lines(&message.head);
        fields.remove(0);
        // Ours and Pingora's own words about themselves, and how what follows is framed, which the body shows.
        let own = ["date", "connection", "server", "cache-control", "transfer-encoding"];
        fields.retain(|field| !own.iter().any(|name| field.split(':').next() == Some(*name)));
        Self {
            status: message.status(),
            fields,
            body: message.body.clone(),
            whole: message.whole,
            interim: message.interim.clone(),
        }
    }
}

/// The first line, then the fields by name, in lower case.
fn lines(head: &str) -> Vec<String> {
    let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    let mut fields: Vec<String> = lines
        .map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}: {}", name.to_lowercase(), value.trim()),
            None => line,
        })
        .collect();
    fields.sort();
    std::iter::once(first).chain(fields).collect()
}

async fn in_pieces(wire: &mut Wire, bytes: &[u8], writes: usize) {
    for piece in bytes.chunks(bytes.len().div_ceil(writes).max(1)) {
        wire.send(piece).await;
        tokio::task::yield_now().await;
    }
}

/// A length: often small, sometimes at an edge, now and then as large as it gets.
fn size(rng: &mut Rng, most: usize) -> usize {
    match rng.u8(..4) {
        0 => 0,
        1 => rng.usize(..20.min(most)),
        2 => rng.usize(..most),
        _ => [1, 2, 4_095, 4_096, 16_384, 32_767, 32_768, 32_769, 65_536][rng.usize(..9)].min(most),
    }
}

/// Ends a head and appends a body.
fn body(message: &mut Vec<u8>, rng: &mut Rng, has_body: bool, is_framed: bool, may_end: bool) {
    let data: Vec<u8> = (0..size(rng, 200_000)).map(|place| u8::try_from(place % 251).unwrap_or(0)).collect();
    match rng.u8(..3) {
        _ if !is_framed => message.extend_from_slice(b"\r\n"),
        0 if may_end => {
            message.extend_from_slice(b"\r\n");
            message.extend_from_slice(&data);
        }
        0 | 1 => {
            message.extend_from_slice(format!("Content-Length: {}\r\n\r\n", data.len()).as_bytes());
            message.extend_from_slice(if has_body { &data } else { &[] });
        }
        _ => {
            message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            if has_body {
                for chunk in data.chunks(1 + size(rng, 70_000)) {
                    message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    message.extend_from_slice(chunk);
                    message.extend_from_slice(b"\r\n");
                }
                message.extend_from_slice(b"0\r\n\r\n");
            }
        }
    }
}

fn answer(rng: &mut Rng, method: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    if rng.u8(..10) == 0 {
        answer.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
    }
    let status = [200, 200, 200, 201, 204, 304, 301, 404, 500, 503][rng.usize(..10)];
    answer.extend_from_slice(format!("HTTP/1.1 {status} Some Words\r\n").as_bytes());
    for number in 0..rng.usize(..8) {
        answer.extend_from_slice(format!("X-Answer-{number}: {}\r\n", "w".repeat(size(rng, 500))).as_bytes());
    }
    let has_body = method != "HEAD" && !matches!(status, 204 | 304);
    body(&mut answer, rng, has_body, status != 204, has_body);
    answer
}

fn ends_with_connection(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let head =
        text.rsplit("http/1.1 ").next().unwrap_or_default().split("\r\n\r\n").next().unwrap_or_default().to_owned();
    !head.contains("content-length:") && !head.contains("transfer-encoding:") && !head.starts_with("204")
}

/// What is known to differ, and why that is right.
fn is_reviewed(direct: &Seen, pingora: &Seen) -> bool {
    let same_but_body = |one: &Answer, other: &Answer| {
        let is_begin = one.body.starts_with(&other.body) || other.body.starts_with(&one.body);
        (one.status, &one.interim, &one.fields) == (other.status, &other.interim, &other.fields) && is_begin
    };
    let (Some(one), Some(other)) = (&direct.client, &pingora.client) else {
        return false;
    };
    // Of an answer that is cut, how much the client gets depends on what was under way: it sees that it is cut both times.
    let is_cut = !one.whole && !other.whole && same_but_body(one, other);
    is_cut && direct.backend == pingora.backend && direct.counted == pingora.counted
}

#[test]
fn both_adapters_make_the_same_of_the_same_conversation() {
    let asked = std::env::var("SERIN_DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = asked.map_or(0..CONVERSATIONS, |seed: u64| seed..seed + 1);
    let mut different = Vec::new();
    for seed in seeds {
        let conversation = Conversation::made_from(seed);
        let [direct, pingora] = adapters().map(|settings| {
            let patient = Settings { upstream_read_timeout: Duration::from_secs(5), ..settings };
            run(conversation.through(patient))
        });
        if direct != pingora && !is_reviewed(&direct, &pingora) {
            let head = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
            let (asks, says) = (head(&conversation.request), head(&conversation.answer));
            println!("seed {seed}: {asks}\n  answered {says} then {:?}", conversation.then);
            println!("  direct  {}\n  pingora {}", short(&direct), short(&pingora));
            different.push(seed);
        }
    }
    assert!(different.is_empty(), "seeds {different:?} differ");
}

fn short(seen: &Seen) -> String {
    let backend: Vec<_> = seen.backend.iter().map(|(lines, body)| (lines, body.len())).collect();
    let client = seen.client.as_ref().map(|answer| (answer.status, &answer.fields, answer.body.len(), answer.whole));
    let text = format!("backend {backend:?} client {client:?} counted {:?}", seen.counted);
    text.chars().take(1_500).collect()
}
