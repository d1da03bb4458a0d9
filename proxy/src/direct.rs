//! The direct exchange: HTTP/1.1 from a client to HTTP/1.1 at a backend, by a loop of ours on the connection that Pingora's listener
//! accepted.
//!
//! ```text
//!   bytes ─▶ request (parsed where they lie) ─▶ decide ─▶ compose ─▶ exchange ─▶ response ─▶ compose ─▶ client
//!               │                                             │           ▲
//!               └─ refused: by one rule for all               └─ pool ────┘       alarm: limits on every read and write
//! ```
//!
//! Nothing is turned into a map and back, and nothing is allocated for a request whose body comes with its head. What it does not do (HTTP/1.0, upgrades, targets
//! that are no path) goes to pingora-proxy with its bytes as they came; that is settled before the toss, by the request alone.

pub(crate) mod alarm;
pub(crate) mod buffer;
pub(crate) mod compose;
mod exchange;
mod framing;
mod pass_on;
mod pool;
mod request;
mod response;
mod splice;
mod turn;

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pingora_core::protocols::Stream;
use serin_route::{HeaderEdits, Unrouted, Upstream};
use tokio::io::AsyncWriteExt;

pub(crate) use exchange::{After, Order};
pub(crate) use pool::Pool;

use crate::attempt::Attempt;
use crate::counts::Refusal;
use crate::forward::{Origin, Passage};
use crate::settings::Settings;
use crate::thread::{Decided, Desk};
use crate::tries::Tries;
use alarm::{Alarm, Watchman};
use compose::Making;
use request::{HEADERS_MAX, Request, Unusable, is_idempotent};

/// Longest request head in bytes. nginx allows 32 KiB in all by default; cookies of several applications fit in 64.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What one thread needs to carry requests.
pub(crate) struct Lane {
    pub(crate) desk: Arc<Desk>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) watchman: Arc<Watchman>,
}

/// What becomes of a head.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Its end has not come.
    Partial,
    /// It is for pingora-proxy.
    HandOver,
    /// It is carried out directly. Of what was read, so many bytes are used: the head, and what came of the body.
    Direct(Order, usize),
    /// It is no request.
    Refused(Refusal),
    /// A browser asks whether it may. The connection may be used again after so many bytes, as below.
    Preflight { answer: Box<HeaderEdits>, used: Option<usize> },
    /// It goes nowhere. The connection may be used again after so many bytes, if all of the request has come.
    Unrouted { why: Refusal, used: Option<usize>, is_head: bool },
    /// Its body is none, which is seen only now.
    BadBody(Order),
}

impl Lane {
    /// Looks at what has come, and decides on a request if it is whole. `out` gets what is to be sent.
    pub(crate) fn admit(&self, bytes: &[u8], origin: Origin, out: &mut Vec<u8>) -> Admission {
        let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let request = match request::parse(bytes, &mut room) {
            Ok(Some(mut request)) => {
                request.scheme = origin.scheme();
                request.peer = origin.peer;
                request.trusted_hops = self.settings.forwarding.trusted_hops;
                request
            }
            Ok(None) if bytes.len() < HEAD_BYTES_MAX => return Admission::Partial,
            Ok(None) => return Admission::Refused(Refusal::HeadTooLarge),
            Err(Unusable::Malformed) => return Admission::Refused(Refusal::Malformed),
            Err(Unusable::Coding) => return Admission::Refused(Refusal::Coding),
        };
        if request.method == "CONNECT" {
            return Admission::Refused(Refusal::Connect);
        }
        if self.settings.direct && is_for_us(&request) {
            self.order(bytes, &request, origin.peer, out)
        } else {
            Admission::HandOver
        }
    }

    fn order(&self, bytes: &[u8], request: &Request<'_, '_>, peer: Option<IpAddr>, out: &mut Vec<u8>) -> Admission {
        let head_bytes = request.facts.length;
        let mut body = request.facts.body.clone();
        let came = &bytes[head_bytes..];
        let taken = body.take(came);
        // If the connection can be used again after an answer of our own.
        let used = || {
            let is_whole = taken.is_ok() && body.is_over() && request.facts.keep_alive;
            taken.ok().filter(|_| is_whole).map(|taken| head_bytes + taken)
        };
        let (decision, route) = match self.desk.decide(request, Upstream::is_plain) {
            Ok(Decided::Taken(decision, route)) => (decision, route),
            Ok(Decided::NotTaken) => return Admission::HandOver,
            Err(unrouted) => {
                let why = match unrouted {
                    Unrouted::UnknownHost => Refusal::UnknownHost,
                    Unrouted::NoEndpoint => Refusal::NoEndpoint,
                };
                return Admission::Unrouted { why, used: used(), is_head: request.method == "HEAD" };
            }
        };
        let cors = route.edits().cors.as_ref();
        if let Some(answer) = cors.and_then(|cors| cors.preflight(request)) {
            return Admission::Preflight { answer: Box::new(answer), used: used() };
        }
        let answer_edits = cors.map(|cors| Box::new(cors.answer(request)));
        let mut arm_at = None;
        if taken.is_ok() {
            out.clear();
            let (edits, entry) = (route.edits(), route.entry(decision.found));
            let passage = Passage { peer, arm: decision.arm };
            let making = Making { edits, entry, forwarding: &self.settings.forwarding, passage };
            arm_at = compose::request(out, request, &making);
        }
        // What came in pieces is not kept, so it is tried once.
        let tries = if body.is_over() { Tries::of(route.upstream()) } else { Tries::default() };
        route.budget.earn();
        let order = Order {
            attempt: Attempt::begin(route, &decision),
            arm_at,
            body,
            is_head: request.method == "HEAD",
            is_idempotent: is_idempotent(request.method),
            keep_alive: request.facts.keep_alive,
            expects: request.facts.expects,
            has_written: false,
            answer_edits,
            tries,
        };
        let Ok(taken) = taken else { return Admission::BadBody(order) };
        out.extend_from_slice(&came[..taken]);
        Admission::Direct(order, head_bytes + taken)
    }

    /// Tells a client that there is no answer, and why; the connection is closed whether or not it reads this.
    pub(crate) async fn tell(&self, stream: &mut Stream, alarm: &Alarm, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        self.say(stream, alarm, answer.as_bytes()).await;
    }

    /// Writes an answer of our own, and says whether that worked.
    pub(crate) async fn say(&self, stream: &mut Stream, alarm: &Alarm, answer: &[u8]) -> bool {
        let written = async {
            stream.write_all(answer).await?;
            stream.flush().await
        };
        matches!(alarm.within(self.settings.downstream_write_timeout, written).await, Ok(Ok(())))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Whether the direct exchange does what a request asks for. It depends on nothing that is drawn.
fn is_for_us(request: &Request<'_, '_>) -> bool {
    !request.facts.is_old && !request.facts.upgrades && request.target.starts_with('/')
}
