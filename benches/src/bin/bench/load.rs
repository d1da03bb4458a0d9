//! Both ends of a proxy in one thread that never sleeps: clients that ask and backends that answer.
//!
//! A thread that sleeps has to be woken, and on a virtual machine waking another core is dear for whoever does it: with a load that
//! sleeps, the faster a proxy is, the more it pays to wake somebody. This one spins on its own core, so what is measured is the proxy.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::backend::{Backend, Served};
use crate::process::{Process, Used};

/// Events taken at once, and bytes read at once.
const EVENTS: usize = 1_024;
const READ_BYTES: usize = 256 * 1024;
/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1024;
/// Requests that may wait for a connection: more is an overload, which is told as one.
const WAITING_MAX: usize = 100_000;
/// Connections under way at once while many are opened.
const OPENING_MAX: usize = 64;
/// How long the last answers of a window may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What to ask, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    /// Requests as they are sent; one is drawn each time.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Whether each request has a connection of its own.
    pub(crate) closes: bool,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When the last one of its connection was answered.
    Closed,
    /// At moments drawn beforehand, so many a second, whatever the answers do. A latency counts from that moment.
    Open(f64),
}

/// What was seen in a window, on both ends: from the first request to the last answer.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Those that were answered while it was asked.
    pub(crate) in_time: u64,
    /// How long was asked, and how long it took until all was answered.
    pub(crate) asked: Duration,
    pub(crate) lasted: Duration,
    /// Microseconds from the moment a request was due to its last byte; by who answered: primary, canary.
    pub(crate) latency: [Histogram<u64>; 2],
    /// What the proxy used meanwhile.
    pub(crate) before: Used,
    pub(crate) after: Used,
    /// Share of the time in which this thread had something to do.
    pub(crate) load_busy: f64,
}

/// The running ends.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    listeners: [TcpListener; 2],
    backends: Slab<Backend>,
    /// Answers that are held back, by when they are due: all for as long, so in order.
    delayed: VecDeque<(Instant, usize)>,
    canary_delay: Duration,
    groups: Vec<Option<Clients>>,
    scratch: Vec<u8>,
    random: fastrand::Rng,
}

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
struct Clients {
    plan: Plan,
    number: usize,
    all: Vec<Client>,
    idle: Vec<usize>,
    /// Whether anything new is asked.
    asks: bool,
    waiting: VecDeque<Instant>,
    next: Instant,
    requests: u64,
    failed: Vec<String>,
    latency: [Histogram<u64>; 2],
}

/// Which clients these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group(usize);

const LISTENER: usize = 0;
const BACKEND: usize = 1;
const CLIENT: usize = 2;

/// A token: the kind in two bits, the group in six, then the index.
const fn token(kind: usize, group: usize, index: usize) -> Token {
    Token(index << 8 | group << 2 | kind)
}

impl Load {
    /// Listens for the primary and the canary.
    pub(crate) fn new(primary: SocketAddr, canary: SocketAddr) -> Result<Self> {
        let poll = Poll::new()?;
        let listen = |index, address: SocketAddr| -> Result<TcpListener> {
            let mut listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
            poll.registry().register(&mut listener, token(LISTENER, 0, index), Interest::READABLE)?;
            Ok(listener)
        };
        let listeners = [listen(0, primary)?, listen(1, canary)?];
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            listeners,
            backends: Slab::new(),
            delayed: VecDeque::new(),
            canary_delay: Duration::ZERO,
            groups: Vec::new(),
            scratch: vec![0; READ_BYTES],
            random: fastrand::Rng::new(),
        })
    }

    /// How long the canary holds each answer back.
    pub(crate) fn delay_canary(&mut self, delay: Duration) {
        self.canary_delay = delay;
    }

    /// Clients for one more proxy.
    pub(crate) fn connect(&mut self, plan: Plan) -> Result<Group> {
        let number = self.groups.len();
        ensure!(number < 1 << 6, "too many groups for a token");
        let clients = Clients::connect(plan, number, &self.poll)?;
        self.groups.push(Some(clients));
        Ok(Group(number))
    }

    /// The clients of one proxy leave.
    pub(crate) fn leave(&mut self, Group(number): Group) {
        self.groups[number] = None;
    }

    /// All clients leave.
    pub(crate) fn disconnect(&mut self) {
        self.groups.clear();
    }

    /// Asks through a proxy for so long, and waits until all is answered.
    pub(crate) fn window(&mut self, Group(number): Group, lasting: Duration, proxy: &Process) -> Result<Seen> {
        let seed = u64::try_from(lasting.as_micros()).unwrap_or(1);
        // The same moments for everybody.
        self.random = fastrand::Rng::with_seed(seed);
        let before = proxy.used();
        self.clients(number)?.begin();
        let begun = Instant::now();
        let mut busy = Duration::ZERO;
        while begun.elapsed() < lasting {
            busy += self.turn()?;
        }
        self.clients(number)?.asks = false;
        let (asked, in_time) = (begun.elapsed(), self.clients(number)?.requests);
        let until = Instant::now() + ANSWERED_WITHIN;
        while !self.clients(number)?.is_done() && Instant::now() < until {
            busy += self.turn()?;
        }
        let lasted = begun.elapsed();
        let after = proxy.used();
        let clients = self.clients(number)?;
        ensure!(clients.failed.is_empty(), "{} requests failed: {}", clients.failed.len(), clients.failed[0]);
        ensure!(clients.is_done(), "requests were not answered within {ANSWERED_WITHIN:?}");
        ensure!(clients.requests > 0, "no request was answered");
        let (requests, latency) = (clients.requests, clients.latency.clone());
        let load_busy = busy.as_secs_f64() / lasted.as_secs_f64();
        Ok(Seen { requests, in_time, asked, lasted, latency, before, after, load_busy })
    }

    /// Opens so many connections, asks once on each, and says what the proxy used before and with all of them open.
    pub(crate) fn hold(&mut self, plan: Plan, proxy: &Process) -> Result<(Used, Used)> {
        let connections = plan.connections;
        let Group(number) = self.connect(Plan { connections: 0, ..plan })?;
        let before = proxy.used();
        let mut opened = 0;
        while opened < connections {
            let more = OPENING_MAX.min(connections - opened);
            opened += more;
            let Some(clients) = self.groups.get_mut(number).and_then(Option::as_mut) else { break };
            for _ in 0..more {
                clients.open(&self.poll)?;
            }
            clients.ask_all(&mut self.random);
            let until = Instant::now() + ANSWERED_WITHIN;
            while self.clients(number)?.requests < opened as u64 {
                ensure!(Instant::now() < until, "not all of {opened} connections were answered");
                self.turn()?;
            }
        }
        let clients = self.clients(number)?;
        ensure!(clients.failed.is_empty(), "{} requests failed: {}", clients.failed.len(), clients.failed[0]);
        Ok((before, proxy.used()))
    }

    fn clients(&mut self, number: usize) -> Result<&mut Clients> {
        self.groups.get_mut(number).and_then(Option::as_mut).context("the clients have left")
    }

    /// Looks once at what has come, and sends what is due. Returns how long that took, if there was something to do.
    fn turn(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            self.event(event)?;
        }
        let mut any = !events.is_empty();
        self.events = events;
        self.answer_delayed(begun)?;
        for clients in self.groups.iter_mut().flatten() {
            any |= clients.send_due(begun, &mut self.random);
        }
        Ok(if any { begun.elapsed() } else { Duration::ZERO })
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let token = event.token().0;
        let (kind, group, index) = (token & 3, token >> 2 & 63, token >> 8);
        match kind {
            LISTENER => self.accept(index)?,
            BACKEND => self.serve(index, event),
            CLIENT => {
                if let Some(clients) = self.groups.get_mut(group).and_then(Option::as_mut) {
                    clients.event(index, event, &mut self.scratch, &self.poll, &mut self.random)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        loop {
            let mut stream = match self.listeners[index].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let place = self.backends.vacant_entry();
            let token = token(BACKEND, 0, place.key());
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            place.insert(Backend::new(stream, index));
        }
    }

    fn serve(&mut self, index: usize, event: &Event) {
        let Some(backend) = self.backends.get_mut(index) else { return };
        let mut served = Served::Waiting;
        if event.is_writable() {
            served = backend.write_on();
        }
        if event.is_readable() && served != Served::Over {
            served = backend.read_on(&mut self.scratch, self.canary_delay);
        }
        match served {
            Served::Waiting => {}
            Served::Delayed => self.delayed.push_back((Instant::now() + self.canary_delay, index)),
            Served::Over => drop(self.backends.remove(index)),
        }
    }

    fn answer_delayed(&mut self, now: Instant) -> Result<()> {
        while self.delayed.front().is_some_and(|(due, _)| *due <= now) {
            let (_, index) = self.delayed.pop_front().context("there is one")?;
            if let Some(backend) = self.backends.get_mut(index)
                && backend.answer() == Served::Over
            {
                self.backends.remove(index);
            }
        }
        Ok(())
    }
}

impl Clients {
    fn connect(plan: Plan, number: usize, poll: &Poll) -> Result<Self> {
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
    fn begin(&mut self) {
        self.requests = 0;
        self.failed.clear();
        self.latency.iter_mut().for_each(Histogram::reset);
        self.next = Instant::now();
        self.asks = true;
    }

    /// Whether everything is answered.
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.idle.len() == self.all.len()
    }

    fn open(&mut self, poll: &Poll) -> Result<()> {
        let index = self.all.len();
        let stream = connect(self.plan.target, self.number, index, poll)?;
        self.all.push(Client { stream, due: None, request: 0, sent: 0, head: Vec::new(), answer: Answer::Head });
        self.idle.push(index);
        Ok(())
    }

    /// Sends what is due, and says whether something was.
    fn send_due(&mut self, now: Instant, random: &mut fastrand::Rng) -> bool {
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
    fn ask_all(&mut self, random: &mut fastrand::Rng) -> bool {
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

    fn event(
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
