//! Sends requests as users do, and reports what came back.
//!
//! An *open loop* sends on a schedule, whether or not earlier answers have come, as independent users do; a *closed loop*
//! sends as fast as answers come, over a fixed number of connections. Both send each request once: what failed, failed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HOST;
use hyper::{HeaderMap, Method, Request, Uri};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Client;
use crate::report::{Report, Times};

/// Connections of an open loop. More requests than this can only be in flight when something stalls, and then the
/// time that the later ones wait for a connection counts as their latency.
const OPEN_CONNECTIONS: usize = 64;

/// How long a request may take unless the caller says otherwise: longer than anything the harness's backends do, short of a test's patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// On a schedule, this many a second, evenly spaced.
    Open {
        /// Requests a second; above 0.
        per_second: f64,
    },
    /// The next one on each connection as soon as its last answer is there.
    Closed,
}

/// A load to be started. Change the public fields before that.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where requests go.
    pub target: SocketAddr,
    /// When they are sent.
    pub pace: Pace,
    /// Connections kept alive; at most this many requests are in flight.
    pub connections: usize,
    /// No more requests than this are sent.
    pub requests_max: u64,
    /// No request is sent later than this after the start.
    pub lasting: Duration,
    /// A request without a whole answer after this time is a [`Fault::Timeout`](crate::client::Fault::Timeout).
    pub timeout: Duration,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: Uri,
    /// The `Host` header. The target's address unless changed.
    pub host: String,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body of each request.
    pub body: Bytes,
    /// Gives each request an `x-request-id` of its own: its number, from 0.
    pub request_ids: bool,
}

impl Load {
    /// An open loop of so many requests a second for so long, over at most 64 connections.
    #[must_use]
    pub fn open(target: SocketAddr, per_second: f64, lasting: Duration) -> Self {
        Self::new(target, Pace::Open { per_second }, OPEN_CONNECTIONS, lasting)
    }

    /// A closed loop over so many connections for so long.
    #[must_use]
    pub fn closed(target: SocketAddr, connections: usize, lasting: Duration) -> Self {
        Self::new(target, Pace::Closed, connections, lasting)
    }

    fn new(target: SocketAddr, pace: Pace, connections: usize, lasting: Duration) -> Self {
        Self {
            target,
            pace,
            connections,
            requests_max: u64::MAX,
            lasting,
            timeout: TIMEOUT,
            method: Method::GET,
            path: Uri::from_static("/"),
            host: target.to_string(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            request_ids: false,
        }
    }

    /// Starts it in the background.
    ///
    /// # Panics
    /// If there is no connection, no rate, or a host that is no header value.
    #[must_use]
    pub fn start(self) -> Running {
        assert!(self.connections > 0, "a load needs a connection");
        assert!(!matches!(self.pace, Pace::Open { per_second } if per_second <= 0.0), "an open loop needs a rate");
        let (stop, _) = watch::channel(false);
        let shared =
            Arc::new(Shared { load: self, start: Instant::now(), next: AtomicU64::new(0), report: Mutex::default() });
        let mut workers = JoinSet::new();
        for _ in 0..shared.load.connections {
            workers.spawn(work(Arc::clone(&shared), stop.subscribe()));
        }
        Running { shared, stop, workers }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// As [`Load::start`].
    pub async fn run(self) -> Report {
        self.start().finished().await
    }

    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        let host = self.host.parse().expect("the host is a header value");
        request.headers_mut().insert(HOST, host);
        if self.request_ids {
            request.headers_mut().insert("x-request-id", number.into());
        }
        request
    }
}

/// A load that is under way. Dropping it cuts off its connections.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Running {
    /// How long ago it started: the clock in which a [`Report`] counts.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn so_far(&self) -> Report {
        self.shared.report().clone()
    }

    /// Sends nothing more, awaits the answers still due, and returns what it saw.
    pub async fn stop(self) -> Report {
        self.stop.send_replace(true);
        self.finished().await
    }

    /// Awaits its own end: the last request or the last moment.
    ///
    /// # Panics
    /// If a worker panicked, with its panic.
    pub async fn finished(mut self) -> Report {
        while let Some(ended) = self.workers.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.so_far()
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    start: Instant,
    /// The number of the next request to send.
    next: AtomicU64,
    report: Mutex<Report>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        // Counts are whole after each line, so a panic elsewhere leaves nothing broken.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next request's number and the moment it is due; `None` when the load is over.
    fn take(&self) -> Option<(u64, Duration)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.load.pace {
            // A rate's 53 bits of precision are enough: a number beyond them would be due in ten thousand years.
            Pace::Open { per_second } => Duration::try_from_secs_f64(number as f64 / per_second).ok()?,
            Pace::Closed => self.start.elapsed(),
        };
        (number < self.load.requests_max && due < self.load.lasting).then_some((number, due))
    }
}

/// One connection's share of the load.
async fn work(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut client = Client::new(shared.load.target);
    while let Some((number, due)) = shared.take() {
        tokio::select! {
            biased;
            _stopped = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep_until(shared.start + due) => {}
        }
        let sent = shared.start.elapsed();
        let outcome = client.send(shared.load.request(number), shared.load.timeout).await;
        let done = shared.start.elapsed();
        shared.report().add(&outcome, Times { due, sent, done });
    }
}
