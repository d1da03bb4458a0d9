//! A small HTTP/1.1 server that says which version it is, and misbehaves in a chosen way that can change while it runs.
//!
//! Where it behaves, hyper speaks; where it misbehaves on the wire (a reset, a body cut short), the connection is taken
//! away from hyper and the bytes are written by hand, because hyper would not let them out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Seed of the draws of [`Behaviour::FailFraction`]: the same requests in the same order fail in every run.
const FAIL_SEED: u64 = 6_002;

/// Request ids remembered; later ones are not counted. Bounds memory at about 100 MB.
const IDS_MAX: usize = 1_000_000;

/// What a cut answer promises, in bytes, and what it gives.
const CUT_PROMISED: usize = 1_000;
const CUT_GIVEN: &str = "only this";

/// What a backend does with the next request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers 200 with the version's name.
    Ok,
    /// Answers 500 to this share of the requests (0 to 1), drawn with a fixed seed, and 200 to the others.
    FailFraction(f64),
    /// Answers 500.
    FailAlways,
    /// Answers 200 after this long.
    Delay(Duration),
    /// Resets the connection (RST) without an answer.
    ResetBeforeHead,
    /// Answers 200, declares a longer body than it sends, and closes.
    CutBody,
    /// Reads the request and never answers; resets the connection when the backend stops.
    Hang,
}

/// A running backend. Dropping it lets answers in flight finish and closes everything else.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    version: String,
    requests: AtomicU64,
    connections: AtomicU64,
    manner: Mutex<Manner>,
    /// How often each `x-request-id` came; `None` while they are not remembered.
    ids: Mutex<Option<HashMap<String, u64>>>,
}

/// What decides about the next answer.
#[derive(Debug)]
struct Manner {
    behaviour: Behaviour,
    draws: Rng,
}

impl Backend {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(version: &str, behaviour: Behaviour) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), version, behaviour).await
    }

    /// Starts one at this address.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn start_at(address: SocketAddr, version: &str, behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("backend {version} cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            version: version.to_owned(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            manner: Mutex::new(Manner { behaviour, draws: Rng::with_seed(FAIL_SEED) }),
            ids: Mutex::new(None),
        });
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), stopped));
        Ok(Self { address, shared, stop, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The version it says it is.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// Changes what it does from the next request on. Requests that hang go on hanging.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared.manner).behaviour = behaviour;
    }

    /// Requests whose head has arrived.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Counts requests by their `x-request-id` from now on, up to a million ids; what was counted before is forgotten.
    pub fn remember_ids(&self) {
        *lock(&self.shared.ids) = Some(HashMap::new());
    }

    /// How often each `x-request-id` came since [`Backend::remember_ids`]; empty if that was never called.
    #[must_use]
    pub fn ids(&self) -> HashMap<String, u64> {
        lock(&self.shared.ids).clone().unwrap_or_default()
    }

    /// Stops it, and returns when its port is closed and every connection has ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // It ends by itself; a panic in it has been printed already.
        let _ended = (&mut self.accepting).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Locks, also after a panic elsewhere: each of our critical sections is one assignment or one look.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(stream, Arc::clone(&shared), stopped.clone()));
                }
                // Out of files, or a connection gone before it was taken: others may still come.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What a connection has to do by hand.
#[derive(Clone, Copy, Debug)]
enum ByHand {
    Reset,
    Cut,
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    // Without it, an answer of two writes waits for the peer's delayed acknowledgement. Harmless if the peer is gone.
    let _nodelay = stream.set_nodelay(true);
    let version = shared.version.clone();
    let (ask, mut asked) = mpsc::channel(1);
    let service = {
        let stopped = stopped.clone();
        service_fn(move |request| answer(Arc::clone(&shared), ask.clone(), stopped.clone(), request))
    };
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    let by_hand = loop {
        tokio::select! {
            biased;
            Some(by_hand) = asked.recv() => break by_hand,
            // The peer may end a connection as it likes; what it missed is on its own record.
            _ended = &mut connection => return,
            () = told(&mut stopped), if !stopping => {
                stopping = true;
                pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    misbehave(connection.into_parts().io.into_inner(), by_hand, &version).await;
}

/// Does to the connection what hyper would not. The peer may already be gone, which is no worse for it.
async fn misbehave(mut stream: TcpStream, by_hand: ByHand, version: &str) {
    match by_hand {
        ByHand::Reset => {
            // With nothing lingering, the close that follows sends RST instead of FIN.
            let _lingers = stream.set_zero_linger();
        }
        ByHand::Cut => {
            let answer =
                format!("HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: {CUT_PROMISED}\r\n\r\n{CUT_GIVEN}");
            let _written = stream.write_all(answer.as_bytes()).await;
            let _closed = stream.shutdown().await;
        }
    }
}

/// Answers one request, or hands the connection over and waits for it to be taken away.
async fn answer(
    shared: Arc<Shared>,
    ask: mpsc::Sender<ByHand>,
    mut stopped: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.count(request.headers());
    let planned = shared.plan();
    drain(request.into_body()).await;
    let status = match planned {
        Planned::Answer(status) => status,
        Planned::Late(delay) => {
            tokio::time::sleep(delay).await;
            StatusCode::OK
        }
        Planned::ByHand(what) => by_hand(&ask, what).await,
        Planned::Never => {
            told(&mut stopped).await;
            by_hand(&ask, ByHand::Reset).await
        }
    };
    Ok(shared.response(status))
}

/// Asks for the connection to be taken away from hyper, which ends this request with it.
async fn by_hand(ask: &mpsc::Sender<ByHand>, what: ByHand) -> StatusCode {
    // The receiver lives as long as the connection that polls this, and one request at a time is served.
    let _taken = ask.send(what).await;
    std::future::pending().await
}

/// Returns once the backend is to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error means that the backend is gone, which is the same.
    let _told = stopped.wait_for(|stopped| *stopped).await;
}

/// Reads the request's body to its end, so that the connection stays in step; its content matters to nobody.
async fn drain(mut body: Incoming) {
    while let Some(Ok(_frame)) = body.frame().await {}
}

/// What happens to one request, after any draw.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Answer(StatusCode),
    Late(Duration),
    ByHand(ByHand),
    Never,
}

impl Shared {
    fn count(&self, headers: &HeaderMap) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(ids) = &mut *lock(&self.ids) else {
            return;
        };
        let Some(id) = headers.get("x-request-id").and_then(|id| id.to_str().ok()) else {
            return;
        };
        if let Some(times) = ids.get_mut(id) {
            *times += 1;
        } else if ids.len() < IDS_MAX {
            ids.insert(id.to_owned(), 1);
        }
    }

    fn plan(&self) -> Planned {
        let mut manner = lock(&self.manner);
        let behaviour = manner.behaviour;
        match behaviour {
            Behaviour::Ok => Planned::Answer(StatusCode::OK),
            Behaviour::FailFraction(share) if manner.draws.f64() < share => {
                Planned::Answer(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Behaviour::FailFraction(_) => Planned::Answer(StatusCode::OK),
            Behaviour::FailAlways => Planned::Answer(StatusCode::INTERNAL_SERVER_ERROR),
            Behaviour::Delay(delay) => Planned::Late(delay),
            Behaviour::ResetBeforeHead => Planned::ByHand(ByHand::Reset),
            Behaviour::CutBody => Planned::ByHand(ByHand::Cut),
            Behaviour::Hang => Planned::Never,
        }
    }

    fn response(&self, status: StatusCode) -> Response<Full<Bytes>> {
        let body = format!("{}\n", self.version);
        Response::builder()
            .status(status)
            .header("x-version", &self.version)
            .header("content-type", "text/plain; charset=utf-8")
            .body(Full::new(body.into()))
            .expect("a version is a header value")
    }
}
