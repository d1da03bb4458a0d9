//! The edge as a whole: threads, sockets, and the handle by which tables come in and counts go out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::Fds;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use rustls::ServerConfig;
use serin_analysis::Checkpoint;
use serin_measure::{BootId, CanaryKey, Cell, EpochId, Snapshot};
use serin_route::{RETRIES_MAX, RouteTable};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::adapter::{Adapter, ENDPOINTS_TRIED_MAX};
use crate::connection::Connections;
use crate::counts::{Counting, EdgeCounts};
use crate::direct::alarm::Watchman;
use crate::direct::{Lane, Pool};
use crate::listen::{Listen, Tls};
use crate::meters::Meters;
use crate::published::Published;
use crate::settings::Settings;
use crate::streams::Streams;
use crate::thread::Desk;
use crate::tripwire::Tripped;

/// Connections waiting to be accepted per listener and thread; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Read and write buffer of a client connection in bytes, as long as it lives. None: what is read or written has a buffer of its
/// own while it is there, and an idle connection has nothing.
const L4_BUFFER_BYTES: usize = 0;
/// Idle connections kept to all backends of one thread.
const POOL_SIZE: usize = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why not. It is no `source`, because the sentence tells it already.
    pub why: io::Error,
}

/// An edge whose addresses are bound. Clients can connect and are served once [`Bound::serve`] is called, so that the
/// first table can be published before the first request is routed.
#[derive(Debug)]
pub struct Bound {
    handle: EdgeHandle,
    settings: Arc<Settings>,
    /// By listener, in the order of the settings.
    tls: Vec<Option<Arc<ServerConfig>>>,
    addresses: Vec<SocketAddr>,
    sockets: Vec<Vec<Socket>>,
    tripped: mpsc::UnboundedReceiver<Tripped>,
}

/// A running edge. Dropping it does not stop it; [`Edge::stop`] does.
#[derive(Debug)]
pub struct Edge {
    handle: EdgeHandle,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// Where tables come in and counts go out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EdgeHandle {
    published: Arc<ArcSwap<Published>>,
    /// Tables that a thread may still hold. Whoever publishes the next one frees them: to free ten thousand routes takes
    /// milliseconds, which no request should wait for.
    retired: Arc<Mutex<Vec<Arc<Published>>>>,
    meters: Arc<Meters>,
    counting: Arc<Counting>,
    draining: Arc<AtomicBool>,
}

impl Bound {
    /// Binds every address. A port that somebody else holds is an error here.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub fn bind(settings: Settings, boot: BootId) -> Result<Self, BindError> {
        let settings = Arc::new(Settings { threads: settings.threads.max(1), ..settings });
        let acceptor = |listen: &Listen| {
            let tls = listen.tls.as_ref().map(Tls::server_config).transpose();
            let wrong = |error| BindError { address: listen.address, why: io::Error::other(error) };
            tls.map_err(wrong)
        };
        let tls = settings.listen.iter().map(acceptor).collect::<Result<_, _>>()?;
        let (sockets, addresses) = bind(&settings)?;
        let (report, tripped) = mpsc::unbounded_channel();
        let handle = EdgeHandle {
            published: Arc::default(),
            retired: Arc::default(),
            meters: Arc::new(Meters::new(boot, settings.threads, report)),
            counting: Arc::default(),
            draining: Arc::default(),
        };
        Ok(Self { handle, settings, tls, addresses, sockets, tripped })
    }

    /// The handle, by which tables can be published already.
    pub fn handle(&self) -> EdgeHandle {
        self.handle.clone()
    }

    /// Where it listens, with the ports that were taken for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts the threads. Beside the edge comes what its tripwires take out of traffic, each run once.
    pub fn serve(self) -> (Edge, mpsc::UnboundedReceiver<Tripped>) {
        let Self { handle, settings, tls, addresses: _, sockets, tripped } = self;
        let (stop, stopped) = watch::channel(false);
        let threads = sockets.into_iter().enumerate().map(|(thread, sockets)| {
            let (settings, tls) = (settings.clone(), tls.clone());
            let (handle, stopped) = (handle.clone(), stopped.clone());
            let worker = Worker { thread, sockets, settings, tls, handle, stopped };
            std::thread::Builder::new()
                .name(format!("edge-{thread}"))
                .spawn(move || worker.run())
                .expect("the process may start threads")
        });
        let threads = threads.collect();
        (Edge { handle, stop, threads }, tripped)
    }
}

impl Edge {
    /// The handle.
    pub fn handle(&self) -> EdgeHandle {
        self.handle.clone()
    }

    /// Stops accepting, lets requests in flight finish for at most `patience`, and returns. Blocks.
    pub fn stop(self, patience: Duration) {
        self.handle.draining.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        let deadline = std::time::Instant::now() + patience;
        while std::time::Instant::now() < deadline && self.threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Threads that are still busy end with the process.
    }
}

impl EdgeHandle {
    /// Puts a table in force for every request that comes from now on.
    pub fn publish(&self, table: RouteTable) {
        let instruments = self.meters.instruments(&table);
        let former = self.published.swap(Arc::new(Published { table, instruments }));
        let free: Vec<_> = {
            let mut retired = self.retired.lock();
            let free = retired.extract_if(.., |table| Arc::strong_count(table) == 1).collect();
            retired.push(former);
            free
        };
        drop(free);
    }

    /// Leaves a checkpoint with the canary's tripwire, or takes it away. Nothing happens for a canary without a route.
    pub fn arm(&self, canary: &CanaryKey, checkpoint: Option<Checkpoint>) {
        if let Some(tripwire) = self.meters.tripwire(canary) {
            tripwire.arm(checkpoint);
        }
    }

    /// Whether a tripwire has taken this run of the canary out of traffic.
    pub fn is_tripped(&self, canary: &CanaryKey, rollout: u64) -> bool {
        self.meters.tripwire(canary).is_some_and(|tripwire| tripwire.is_tripped(rollout))
    }

    /// Takes a run of a canary out of traffic, as its tripwire would.
    pub fn trip(&self, canary: &CanaryKey, rollout: u64, ln_e: f64) {
        self.meters.tripwire_or_new(canary).trip(rollout, ln_e);
    }

    /// The runs that are out of traffic, the newest of each canary.
    pub fn tripped(&self) -> Vec<Tripped> {
        self.meters.tripped()
    }

    /// This start of the process, under which it counts.
    pub fn boot(&self) -> BootId {
        self.meters.boot()
    }

    /// The evidence cells of a canary's epochs that may still change.
    pub fn cells(&self, canary: &CanaryKey) -> Vec<(EpochId, Cell)> {
        self.meters.cells(canary)
    }

    /// Everything counted since the start, of one canary or of all.
    pub fn snapshot(&self, canary: Option<&CanaryKey>) -> Snapshot {
        self.meters.snapshot(canary)
    }

    /// What was not routed, and connections.
    pub fn counts(&self) -> EdgeCounts {
        self.counting.read()
    }

    /// Tells clients to close their connections after the next response, before the listeners close.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Binds one socket per address and thread. The first bind of an address is without SO_REUSEPORT, because with it a
/// second process of the same user would share the port without a word.
fn bind(settings: &Settings) -> Result<(Vec<Vec<Socket>>, Vec<SocketAddr>), BindError> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<Socket>> = (0..settings.threads.max(1)).map(|_| Vec::new()).collect();
    for wanted in settings.listen.iter().map(|listen| listen.address) {
        let failed = |why| BindError { address: wanted, why };
        let probe = std::net::TcpListener::bind(wanted).map_err(failed)?;
        let address = probe.local_addr().map_err(failed)?;
        drop(probe);
        for of_thread in &mut sockets {
            of_thread.push(listen(address).map_err(failed)?);
        }
        addresses.push(address);
    }
    Ok((sockets, addresses))
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// One thread of the edge before it runs.
struct Worker {
    thread: usize,
    sockets: Vec<Socket>,
    settings: Arc<Settings>,
    tls: Vec<Option<Arc<ServerConfig>>>,
    handle: EdgeHandle,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the process may start a runtime");
        let _in_runtime = runtime.enter();
        let ended = Arc::new(Notify::new());
        let watchman = Watchman::new();
        let pool = Arc::new(Pool::new(self.settings.upstream_idle_timeout, watchman.clone()));
        let connections = self.connections(&ended, &watchman, &pool);
        let mut fds = Fds::new();
        let mut services = Vec::new();
        for (index, (socket, tls)) in self.sockets.into_iter().zip(self.tls).enumerate() {
            let name = format!("edge-{}-{index}", self.thread);
            fds.add(name.clone(), socket.into_raw_fd());
            let mut service =
                Service::new(name.clone(), Connections { tls: tls.map(TlsAcceptor::from), ..connections.clone() });
            let buffers = L4BufferSettings::new(L4_BUFFER_BYTES, L4_BUFFER_BYTES);
            service.add_listener(ListenerConfig::tcp(name).l4_buffer(buffers));
            services.push(service);
        }
        let fds = Some(Arc::new(Mutex::new(fds)));
        runtime.block_on(async {
            tokio::spawn(watchman.clone().watch());
            tokio::spawn(pool.keep_clean());
            let listening =
                services.iter_mut().map(|service| service.start_service(fds.clone(), self.stopped.clone(), 1));
            futures::future::join_all(listening).await;
            watchman.stop();
            // Listeners are closed; what is in flight goes on until the last connection of any thread has ended.
            loop {
                let next_end = ended.notified();
                if self.handle.counting.open.load(Ordering::Relaxed) == 0 {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), next_end).await;
            }
        });
    }

    fn connections(&self, ended: &Arc<Notify>, watchman: &Arc<Watchman>, pool: &Arc<Pool>) -> Connections {
        let seed = getrandom::u64().expect("the operating system has entropy");
        let desk = Arc::new(Desk::new(self.thread, self.settings.clone(), self.handle.published.clone(), seed));
        let lane = Lane {
            desk: desk.clone(),
            settings: self.settings.clone(),
            draining: self.handle.draining.clone(),
            pool: pool.clone(),
            watchman: watchman.clone(),
        };
        let adapter = Adapter {
            desk,
            settings: self.settings.clone(),
            counting: self.handle.counting.clone(),
            draining: self.handle.draining.clone(),
        };
        let conf = ServerConf {
            threads: 1,
            upstream_keepalive_pool_size: POOL_SIZE,
            // Pingora counts tries; one is for a reused connection that turns out dead.
            max_retries: (ENDPOINTS_TRIED_MAX + 1) * (1 + RETRIES_MAX),
            ..ServerConf::default()
        };
        let proxy = Arc::new(pingora_proxy::http_proxy(&Arc::new(conf), adapter));
        let silence = self.settings.downstream_read_timeout + self.settings.upstream_read_timeout;
        let streams = Streams::new(proxy.clone(), watchman.clone(), silence, self.settings.keep_alive_timeout);
        Connections {
            lane: Arc::new(lane),
            proxy,
            streams: Arc::new(streams),
            settings: self.settings.clone(),
            counting: self.handle.counting.clone(),
            ended: ended.clone(),
            tls: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use serin_measure::{Arm, Assignment, Coin, Outcome};
    use serin_route::{Endpoint, Generation, Host, Route};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::direct::After;

    const REQUEST: &[u8] = b"GET /a?b HTTP/1.1\r\nhost: shop\r\nuser-agent: wrk\r\ncookie: a=b; canary=never\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nserver: x\r\n\r\nhi";

    /// A backend in a thread of its own, which answers every head for ever.
    fn backend() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                std::thread::spawn(move || {
                    let mut bytes = [0; 4_096];
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                        stream.write_all(ANSWER).expect("somebody reads");
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_table_is_freed_by_whoever_publishes_the_one_after_the_next() {
        let settings = Settings { listen: Vec::new(), threads: 1, ..Settings::default() };
        let handle = Bound::bind(settings, BootId(1)).expect("nothing is bound").handle();
        handle.publish(RouteTable::default());
        let first = Arc::downgrade(&handle.published.load_full());
        handle.publish(RouteTable::default());
        assert!(first.upgrade().is_some(), "a thread may be about to drop it, and should not be the last");
        handle.publish(RouteTable::default());
        assert!(first.upgrade().is_none());
        assert_eq!(handle.retired.lock().len(), 1);
    }

    #[test]
    fn a_request_on_kept_connections_allocates_nothing() {
        const WARM_UP: usize = 50;
        const COUNTED: usize = 200;
        let settings = Settings { listen: Vec::new(), threads: 1, ..Settings::default() };
        let bound = Bound::bind(settings, BootId(1)).expect("nothing is bound");
        let route = Route {
            coin: Coin::from_percent(10.0).expect("a percentage"),
            hosts: vec![Host::Any],
            primary: vec![Endpoint { address: backend() }],
            canary_endpoints: vec![Endpoint { address: backend() }],
            ..Route::new(CanaryKey::new("default", "shop"))
        };
        bound.handle.publish(RouteTable::build(Generation(1), vec![route]).expect("one route"));
        let (_stop, stopped) = watch::channel(false);
        let (settings, handle) = (bound.settings.clone(), bound.handle.clone());
        let (sockets, tls) = (Vec::new(), Vec::new());
        let worker = Worker { thread: 0, sockets, settings, tls, handle, stopped: stopped.clone() };
        let pool = Arc::new(Pool::new(Duration::from_secs(60), Watchman::new()));
        let connections = worker.connections(&Arc::default(), &Watchman::new(), &pool);
        let (mut client, server) = tokio::io::duplex(1 << 16);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut bytes = [0; 4_096];
                for _ in 0..WARM_UP + COUNTED {
                    client.write_all(REQUEST).await.expect("somebody reads");
                    let mut come = 0;
                    while !bytes[..come].ends_with(b"hi") {
                        come += client.read(&mut bytes[come..]).await.expect("an answer");
                    }
                }
            });
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut connection = connections.connection(Box::new(server));
        let mut serve = |requests: usize| {
            runtime.block_on(async {
                for _ in 0..requests {
                    assert_eq!(connections.one_request(&mut connection, &stopped).await, After::Next);
                }
            });
        };
        serve(WARM_UP);
        // A latency unlike all before it takes memory for its like, once, and is not what is counted here.
        let meter = bound.handle.published.load().instruments[0].meter.clone();
        for us in (0..26).flat_map(|power| [1_u64 << power, (1 << power) + (1 << power) / 2]) {
            for arm in Arm::ALL {
                meter.shard(0).routed(arm, Assignment::Forced);
                meter.shard(0).ended(arm, Assignment::Forced, Outcome::Status(200), Some(us));
            }
        }
        let counted = allocation_counter::measure(|| serve(COUNTED));
        // The pipe that stands for a connection may grow once or twice.
        assert!(counted.count_total <= 2, "{counted:?} in {COUNTED} requests");
        assert!(bound.handle.snapshot(None).iter().count() > 0);
    }
}
