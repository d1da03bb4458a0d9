//! Both ends of a proxy in one thread that never sleeps: clients that ask and backends that answer.
//!
//! A thread that sleeps has to be woken, and on a virtual machine waking another core is dear for whoever does it: with a load that
//! sleeps, the faster a proxy is, the more it pays to wake somebody. This one spins on its own core, so what is measured is the proxy.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::backend::{Backend, Served};
use crate::client::Clients;
use crate::process::{Process, Used};

/// Events taken at once, and bytes read at once.
const EVENTS: usize = 1_024;
const READ_BYTES: usize = 256 * 1024;
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

/// Which clients these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group(usize);

const LISTENER: usize = 0;
const BACKEND: usize = 1;
pub(crate) const CLIENT: usize = 2;

/// A token: the kind in two bits, the group in six, then the index.
pub(crate) const fn token(kind: usize, group: usize, index: usize) -> Token {
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
