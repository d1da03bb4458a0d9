//! `serin run`: reads, binds, joins, serves, and drains when told to.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_config::{Set, SettingsSpec, Severity};
use serin_measure::BootId;
use serin_proxy::{Bound, Edge, Settings};
use serin_runtime::store::{Store as _, sqlite::Sqlite};
use serin_runtime::watch::{Reading, read, watch as watch_files};
use serin_runtime::{Board, Controller, Workload, admin};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::arguments::{LogFormat, RunArguments};
use crate::assemble::{Plane, pass_on_trips};
use crate::paint::complain;
use crate::{logs, quick};

/// Where traffic is served if nobody says otherwise: on this machine only.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Threads of the control side: the loop, the admin listener, readiness.
const CONTROL_THREADS: usize = 2;
/// How long the state may take to be closed. It is saved already; what is left is to make one file of it.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The signal of a write beyond the file size limit (signal(7)); it would end the process.
const SIGXFSZ: i32 = 25;

/// Everything that is known before anything is started.
struct Start {
    workloads: Vec<Workload>,
    settings: SettingsSpec,
    listen: Vec<SocketAddr>,
    source: Source,
}

/// Where workloads come from.
enum Source {
    /// A directory, with what was read from it.
    Directory { path: PathBuf, state: PathBuf, set: Box<Set> },
    /// The command line.
    Arguments,
}

pub(crate) fn run(arguments: RunArguments) -> Result<ExitCode> {
    let Some(start) = prepare(&arguments)? else { return Ok(ExitCode::FAILURE) };
    logs::start(arguments.log_format.unwrap_or_else(|| match start.settings.log_format() {
        serin_config::LogFormat::Text => LogFormat::Text,
        serin_config::LogFormat::Json => LogFormat::Json,
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(serve(&arguments, start))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration; none if it has errors, which are then told.
fn prepare(arguments: &RunArguments) -> Result<Option<Start>> {
    if !arguments.primary.is_empty() {
        let workloads = vec![quick::workload(arguments)?];
        let listen = if arguments.listen.is_empty() { vec![LISTEN_DEFAULT] } else { arguments.listen.clone() };
        return Ok(Some(Start { workloads, settings: SettingsSpec::default(), listen, source: Source::Arguments }));
    }
    let shown = arguments.config.display();
    let Reading { interpreted, set } = read(&arguments.config).with_context(|| {
        format!("cannot read the configuration directory {shown}; name one with --config, or try `serin run --help`")
    })?;
    for problem in &interpreted.problems {
        complain(&problem.to_string());
    }
    if interpreted.has_errors() {
        let errors = interpreted.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        complain(&format!("serin: {shown} cannot be used, {errors} to be mended"));
        return Ok(None);
    }
    let written = set.listeners.iter().filter_map(|listener| listener.value.spec.address.as_deref()?.parse().ok());
    let mut listen = if arguments.listen.is_empty() { written.collect() } else { arguments.listen.clone() };
    if listen.is_empty() {
        listen.push(LISTEN_DEFAULT);
    }
    let settings = set.settings.as_ref().map(|settings| settings.value.spec.clone()).unwrap_or_default();
    let source =
        Source::Directory { path: arguments.config.clone(), state: arguments.state.clone(), set: Box::new(set) };
    Ok(Some(Start { workloads: interpreted.workloads, settings, listen, source }))
}

/// Starts everything, and returns when the process was told to stop and what was in flight has ended.
async fn serve(arguments: &RunArguments, start: Start) -> Result<()> {
    let signals = Signals::catch()?;
    let drain = start.settings.drain();
    let store = open(&start).await?;
    let saves = store.watch();
    let bound = Bound::bind(edge_settings(arguments, &start), BootId(getrandom::u64()?))?;
    let admin_address = arguments.admin.unwrap_or_else(|| start.settings.admin());
    let admin = TcpListener::bind(admin_address)
        .await
        .with_context(|| format!("cannot listen on {admin_address} for the admin API"))?;
    let (plane, board) = (Arc::new(Plane(bound.handle())), Arc::new(Board::default()));
    let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());

    if start.workloads.is_empty() {
        tracing::warn!("there is no Canary in the configuration, so every request is answered with 404");
    }
    let controller = Controller::start(Arc::new(store), plane.clone(), board.clone(), start.workloads).await?;
    let tell = controller.tell();
    let addresses = bound.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %addresses, admin = %admin.local_addr()?, "serving");
    let (edge, tripped) = bound.serve();

    tokio::spawn(pass_on_trips(tripped, tell.clone()));
    tokio::spawn(admin::serve(admin, board.clone(), plane.clone(), env!("CARGO_PKG_VERSION"), stop_admin.clone()));
    if let Source::Directory { path, set, .. } = start.source {
        tokio::spawn(watch_files(path, *set, tell, board.clone(), stop.clone()));
    }
    let control = tokio::spawn(controller.run(stop.clone()));
    let mut running = Running { signals, edge, board, control, stop };
    running.until_told_to_stop().await;
    running.drain(arguments.drain_delay, drain, saves).await;
    stop_admin.cancel();
    Ok(())
}

/// A process that serves.
struct Running {
    signals: Signals,
    edge: Edge,
    board: Arc<Board>,
    control: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// Waits for a signal. If the loop breaks off, the last table and the tripwires go on protecting users.
    async fn until_told_to_stop(&mut self) {
        tokio::select! {
            () = self.signals.told_to_stop() => {}
            ended = &mut self.control => {
                tracing::error!("the control loop broke off, nothing advances until a restart: {ended:?}");
                self.signals.told_to_stop().await;
            }
        }
    }

    /// Readiness goes first, then the listeners, then a bounded wait for what is in flight; the loop ends last.
    async fn drain(self, delay: Duration, patience: Duration, mut saves: watch::Receiver<u64>) {
        let Self { mut signals, edge, board, control, stop } = self;
        tracing::info!("told to stop: readiness withdrawn, draining");
        board.drain();
        edge.handle().drain();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.told_to_stop() => {}
        }
        let drained = tokio::task::spawn_blocking(move || edge.stop(patience));
        tokio::select! {
            _ = drained => {}
            // Told twice: what is in flight is given up.
            () = signals.told_to_stop() => {}
        }
        // The loop ends after the edge, so that a trip in the last requests is saved too.
        stop.cancel();
        let closed = async {
            if !control.is_finished() {
                let _ = control.await;
            }
            // When its last user is gone, the store closes.
            while saves.changed().await.is_ok() {}
        };
        if tokio::time::timeout(CLOSE_WITHIN, closed).await.is_err() {
            tracing::error!("the state could not be closed in time; what was saved is saved");
        }
    }
}

async fn open(start: &Start) -> Result<Sqlite> {
    match &start.source {
        Source::Directory { state, .. } => Ok(Sqlite::open(state)?),
        Source::Arguments => {
            let store = Sqlite::in_memory()?;
            store.save(start.workloads.iter().map(quick::initial).collect()).await?;
            Ok(store)
        }
    }
}

fn edge_settings(arguments: &RunArguments, start: &Start) -> Settings {
    let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (upstream, downstream) = (start.settings.upstream(), start.settings.downstream());
    Settings {
        listen: start.listen.clone(),
        threads: arguments.threads.map_or_else(|| start.settings.threads(available), usize::from),
        connections_max: downstream.connections_max(),
        keep_alive_timeout: downstream.keep_alive_timeout(),
        downstream_read_timeout: downstream.read_timeout(),
        downstream_write_timeout: downstream.write_timeout(),
        connect_timeout: upstream.connect_timeout(),
        upstream_read_timeout: upstream.read_timeout(),
        upstream_write_timeout: upstream.write_timeout(),
        upstream_idle_timeout: upstream.idle_timeout(),
    }
}

/// Signals are caught before anything is started: until then they would end the process on the spot.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Caught and ignored: a state file at its limit is an error to report, not a reason to die.
    _file_size: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            _file_size: catch(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
