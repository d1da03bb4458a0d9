//! The asking end: the clients of one proxy, as a state of each connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll};

use crate::load::{CLIENT, Pace, Plan, token};

/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1024;
/// Requests that may wait for a connection: more is an overload, which is told as one.
const WAITING_MAX: usize = 100_000;

/// One connection of a client.
struct Client {
    stream: TcpStream,
    /// When its request was due; none while it is idle.
    due: Option<Instant>,
    request: usize,
    sent: usize,
    head: Vec<u8>,
    answer: Answer,
}

enum Answer {
    Head,
    Body { left: usize, from: usize },
}

/// The clients of one proxy.
pub(crate) struct Clients {
    plan: Plan,
    number: usize,
    all: Vec<Client>,
    idle: Vec<usize>,
    /// Whether anything new is asked.
    pub(crate) asks: bool,
    waiting: VecDeque<Instant>,
    next: Instant,
    pub(crate) requests: u64,
    pub(crate) failed: Vec<String>,
    pub(crate) latency: [Histogram<u64>; 2],
}

impl Clients {
    pub(crate) fn connect(plan: Plan, number: usize, poll: &Poll) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3);
        let connections = plan.connections;
        let mut clients = Self {
            plan,
            number,
            all: Vec::new(),
            idle: Vec::new(),
            asks: false,
            waiting: VecDeque::new(),
            next: Instant::now(),
            requests: 0,
            failed: Vec::new(),
            latency: [histogram()?, histogram()?],
        };
        for _ in 0..connections {
            clients.open(poll)?;
        }
        Ok(clients)
    }

    /// A window begins: what was before does not count.
    pub(crate) fn begin(&mut self) {
        self.requests = 0;
        self.failed.clear();
        self.latency.iter_mut().for_each(Histogram::reset);
        self.next = Instant::now();
        self.asks = true;
    }

    /// Whether everything is answered.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.idle.len() == self.all.len()
    }

    pub(crate) fn open(&mut self, poll: &Poll) -> Result<()> {
        let index = self.all.len();
        let stream = connect(self.plan.target, self.number, index, poll)?;
        self.all.push(Client { stream, due: None, request: 0, sent: 0, head: Vec::new(), answer: Answer::Head });
        self.idle.push(index);
        Ok(())
    }

    /// Sends what is due, and says whether something was.
    pub(crate) fn send_due(&mut self, now: Instant, random: &mut fastrand::Rng) -> bool {
        let Pace::Open(rate) = self.plan.pace else { return self.asks && self.ask_all(random) };
        while self.asks && self.next <= now {
            self.waiting.push_back(self.next);
            // Gaps as between independent users: exponential.
            let gap = -(1.0 - random.f64()).ln() / rate;
            self.next += Duration::from_secs_f64(gap);
        }
        let mut any = false;
        while !self.waiting.is_empty()
            && let Some(index) = self.idle.pop()
            && let Some(due) = self.waiting.pop_front()
        {
            self.ask(index, due, random);
            any = true;
        }
        if self.waiting.len() > WAITING_MAX {
            self.failed.push(format!("more than {WAITING_MAX} requests wait for a connection"));
            self.waiting.clear();
        }
        any
    }

    /// Every idle connection asks, and says whether there was one.
    pub(crate) fn ask_all(&mut self, random: &mut fastrand::Rng) -> bool {
        let any = !self.idle.is_empty();
        while let Some(index) = self.idle.pop() {
            self.ask(index, Instant::now(), random);
        }
        any
    }

    fn ask(&mut self, index: usize, due: Instant, random: &mut fastrand::Rng) {
        let client = &mut self.all[index];
        client.request = random.usize(..self.plan.requests.len());
        (client.due, client.sent) = (Some(due), 0);
        client.head.clear();
        client.answer = Answer::Head;
        if let Err(error) = client.send_on(&self.plan.requests) {
            self.failed.push(format!("sending: {error}"));
        }
    }

    pub(crate) fn event(
        &mut self,
        index: usize,
        event: &Event,
        scratch: &mut [u8],
        poll: &Poll,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        let Some(client) = self.all.get_mut(index) else { return Ok(()) };
        if event.is_writable()
            && let Err(error) = client.send_on(&self.plan.requests)
        {
            self.failed.push(format!("sending: {error}"));
        }
        if !event.is_readable() {
            return Ok(());
        }
        match client.read_on(scratch) {
            Ok(None) => return Ok(()),
            Ok(Some(from)) => {
                let now = Instant::now();
                if let Some(due) = client.due.take() {
                    self.requests += 1;
                    let took = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
                    self.latency[from].saturating_record(took.max(1));
                }
                if self.plan.closes {
                    client.stream = connect(self.plan.target, self.number, index, poll)?;
                }
            }
            Err(why) if client.due.take().is_some() => {
                self.failed.push(why);
                client.stream = connect(self.plan.target, self.number, index, poll)?;
            }
            // A connection that is closed while nobody asks is opened anew.
            Err(_) => {
                client.stream = connect(self.plan.target, self.number, index, poll)?;
                return Ok(());
            }
        }
        if self.asks && self.plan.pace == Pace::Closed {
            self.ask(index, Instant::now(), random);
        } else {
            self.idle.push(index);
        }
        Ok(())
    }
}

fn connect(target: SocketAddr, group: usize, index: usize, poll: &Poll) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    poll.registry().register(&mut stream, token(CLIENT, group, index), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

impl Client {
    fn send_on(&mut self, requests: &[Vec<u8>]) -> io::Result<()> {
        if self.due.is_none() {
            return Ok(());
        }
        let request = &requests[self.request];
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                // Not connected yet, or no room: there will be an event.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there. Says who answered if the answer is whole.
    fn read_on(&mut self, scratch: &mut [u8]) -> Result<Option<usize>, String> {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err("the connection was closed before the answer was whole".to_owned()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(None);
                }
                Err(error) => return Err(format!("reading: {error}")),
            };
            if let Some(from) = self.take(&scratch[..count])? {
                return Ok(Some(from));
            }
            // Less than there was room for is all there was; more is another event.
            if count < scratch.len() {
                return Ok(None);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        if let Answer::Body { left, from } = &mut self.answer {
            *left = left.checked_sub(bytes.len()).ok_or("more came than was said")?;
            return Ok((*left == 0).then_some(*from));
        }
        let kept = !self.head.is_empty();
        if kept {
            self.head.extend_from_slice(bytes);
        }
        let come = if kept { &self.head[..] } else { bytes };
        let Some((length, body, from)) = head(come)? else {
            if !kept {
                self.head.extend_from_slice(bytes);
            }
            return if self.head.len() < HEAD_MAX { Ok(None) } else { Err("a head without an end".to_owned()) };
        };
        let left = (length + body).checked_sub(come.len()).ok_or("more came than was said")?;
        self.answer = Answer::Body { left, from };
        Ok((left == 0).then_some(from))
    }
}

/// Length of an answer's head, of its body, and who gave it.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize, usize)>, String> {
    let mut room = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut room);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no answer: {error}")),
    };
    if parsed.code != Some(200) {
        return Err(format!("status {:?}", parsed.code));
    }
    let field = |name: &str| parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let body = field("content-length").and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let from = usize::from(field("x-from").is_some_and(|header| header.value == b"canary"));
    Ok(Some((length, body.ok_or("no content-length")?, from)))
}
