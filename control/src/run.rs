//! `serin run`: reads, binds, joins, serves, and drains when told to. Where the workloads come from is the only difference
//! between files, the command line and a cluster.

mod alone;
mod cluster;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use serin_config::{Set, SettingsSpec, Severity};
use serin_measure::BootId;
use serin_proxy::{Bound, Edge, Forwarding, Listen, Settings};
use serin_runtime::cluster::Seal;
use serin_runtime::store::Store;
use serin_runtime::watch::{Reading, read};
use serin_runtime::{Board, Clock, Controller, Site, Workload, admin};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::arguments::{LogFormat, RunArguments};
use crate::assemble::{Plane, pass_on_trips};
use crate::doors::{self, Kept};
use crate::paint::complain;
use crate::{logs, quick};

/// Where traffic is served if nobody says otherwise: on this machine only.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Threads of the control side: the loop, the admin listener, readiness.
const CONTROL_THREADS: usize = 2;
/// How long closing may take. The state is saved already; what is left is to make one file of it, or to give the Lease back and
/// the last counts to whoever leads.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long the last answers to admins may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The signal of a write beyond the file size limit (signal(7)); it would end the process.
const SIGXFSZ: i32 = 25;

/// Everything that is known before anything is started.
struct Start {
    workloads: Vec<Workload>,
    settings: SettingsSpec,
    listen: Vec<Listen>,
    /// Certificates that are read again when their files change.
    kept: Vec<Kept>,
    source: Source,
}

/// Where workloads come from.
enum Source {
    /// A directory, with what was read from it.
    Directory { path: PathBuf, state: PathBuf, set: Box<Set> },
    /// The command line.
    Arguments,
    /// A cluster.
    Cluster,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let Some(start) = prepare(arguments)? else { return Ok(ExitCode::FAILURE) };
    logs::start(arguments.log_format.unwrap_or_else(|| match start.settings.log_format() {
        serin_config::LogFormat::Text => LogFormat::Text,
        serin_config::LogFormat::Json => LogFormat::Json,
    }));
    serin_proxy::use_small_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(serin_proxy::give_way)
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(serve(arguments, start))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration; none if it has errors, which are then told.
fn prepare(arguments: &RunArguments) -> Result<Option<Start>> {
    if !arguments.primary.is_empty() {
        let workloads = vec![quick::workload(arguments)?];
        let (settings, listen) = (SettingsSpec::default(), plain(&arguments.listen));
        return Ok(Some(Start { workloads, settings, listen, kept: Vec::new(), source: Source::Arguments }));
    }
    if arguments.kubernetes {
        let (workloads, settings) = (Vec::new(), SettingsSpec::default());
        let listen = plain(&arguments.listen);
        return Ok(Some(Start { workloads, settings, listen, kept: Vec::new(), source: Source::Cluster }));
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
    let (mut listen, mut kept) = (plain(&arguments.listen), Vec::new());
    if arguments.listen.is_empty() && !set.listeners.is_empty() {
        listen.clear();
        for listener in &set.listeners {
            match doors::open(&listener.value, &arguments.config) {
                Ok((open, certificates)) => {
                    listen.push(open);
                    kept.extend(certificates);
                }
                Err(error) => {
                    complain(&listener.problem_at("spec.tls", format!("{error:#}"), None).to_string());
                    return Ok(None);
                }
            }
        }
    }
    let settings = set.settings.as_ref().map(|settings| settings.value.spec.clone()).unwrap_or_default();
    let source =
        Source::Directory { path: arguments.config.clone(), state: arguments.state.clone(), set: Box::new(set) };
    Ok(Some(Start { workloads: interpreted.workloads, settings, listen, kept, source }))
}

/// Listeners as the command line names them, or where traffic is served if nobody says otherwise.
fn plain(addresses: &[SocketAddr]) -> Vec<Listen> {
    let addresses = if addresses.is_empty() { &[LISTEN_DEFAULT][..] } else { addresses };
    addresses.iter().copied().map(Listen::plain).collect()
}

/// Starts everything, and returns when the process was told to stop and what was in flight has ended.
async fn serve(arguments: &RunArguments, start: Start) -> Result<()> {
    let signals = Signals::catch()?;
    match start.source {
        Source::Cluster => cluster::serve(arguments, start, signals).await,
        Source::Directory { .. } | Source::Arguments => alone::serve(arguments, start, signals).await,
    }
}

/// A process whose addresses are bound.
struct Process {
    signals: Signals,
    bound: Bound,
    admin_address: SocketAddr,
    /// Until somebody answers there.
    admin: Option<TcpListener>,
    plane: Arc<Plane>,
    board: Arc<Board>,
    clock: Clock,
    boot: BootId,
    stop: CancellationToken,
    stop_admin: CancellationToken,
    /// Who answers the admins, from then on.
    answering: Option<JoinHandle<std::io::Result<()>>>,
}

impl Process {
    async fn bind(arguments: &RunArguments, start: &Start, signals: Signals) -> Result<Self> {
        let boot = boot()?;
        let bound = Bound::bind(edge_settings(arguments, start), boot)?;
        let admin_address = arguments.admin.unwrap_or_else(|| start.settings.admin());
        let admin = TcpListener::bind(admin_address)
            .await
            .with_context(|| format!("cannot listen on {admin_address} for the admin API"))?;
        let (plane, board, clock) = (Arc::new(Plane(bound.handle())), Arc::default(), Clock::start());
        let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        let (admin_address, admin) = (admin.local_addr()?, Some(admin));
        Ok(Self { signals, bound, admin_address, admin, plane, board, clock, boot, stop, stop_admin, answering: None })
    }

    /// Answers on the admin listener: healthy at once, ready when the edge is open.
    fn answer_admins(&mut self, seal: Option<Arc<OnceLock<Seal>>>) {
        if let Some(admin) = self.admin.take() {
            let (board, plane, stop) = (self.board.clone(), self.plane.clone(), self.stop_admin.clone());
            let answering = tokio::spawn(admin::serve(admin, board, plane, env!("CARGO_PKG_VERSION"), seal, stop));
            self.answering = Some(answering);
        }
    }

    /// Opens the edge: the first table is in force.
    fn open<S: Store, W: Site>(mut self, controller: Controller<S, Plane, W>) -> Running {
        self.answer_admins(None);
        let Self { signals, bound, admin_address, board, stop, stop_admin, answering, .. } = self;
        let addresses = bound.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %addresses, admin = %admin_address, "serving");
        let (edge, tripped) = bound.serve();
        tokio::spawn(pass_on_trips(tripped, controller.tell()));
        let control = tokio::spawn(controller.run(stop.clone()));
        Running { signals, edge, board, control, stop, stop_admin, answering }
    }
}

/// A process that serves.
struct Running {
    signals: Signals,
    edge: Edge,
    board: Arc<Board>,
    control: JoinHandle<()>,
    stop: CancellationToken,
    stop_admin: CancellationToken,
    answering: Option<JoinHandle<std::io::Result<()>>>,
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

    /// Readiness goes first, then the listeners, then a bounded wait for what is in flight; the loop ends last, and after it
    /// whatever `closed` waits for.
    async fn drain(self, delay: Duration, patience: Duration, closed: impl Future<Output = ()>) {
        let Self { mut signals, edge, board, control, stop, stop_admin, answering } = self;
        tracing::info!("told to stop: readiness withdrawn, draining");
        board.drain();
        edge.handle().drain();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.told_to_stop() => {}
        }
        let drained = tokio::task::spawn_blocking(move || edge.stop(patience));
        tokio::select! {
            _ = drained => board.emptied(),
            // Told twice: what is in flight is given up.
            () = signals.told_to_stop() => {}
        }
        // The loop ends after the edge, so that a trip in the last requests is saved too.
        stop.cancel();
        let closed = async {
            if !control.is_finished() {
                let _ = control.await;
            }
            closed.await;
        };
        if tokio::time::timeout(CLOSE_WITHIN, closed).await.is_err() {
            tracing::warn!(
                "closing took too long; what was saved is saved, and what was counted last may not have been told"
            );
        }
        stop_admin.cancel();
        // An answer under way, as with the last counts, is given to its end.
        if let Some(answering) = answering {
            let _ = tokio::time::timeout(ANSWER_WITHIN, answering).await;
        }
    }
}

/// A number for this start of the process. JSON readers keep 53 bits of a number, which is enough for any fleet.
fn boot() -> Result<BootId> {
    Ok(BootId(getrandom::u64()? >> 11))
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
        direct: true,
        forwarding: forwarding(&start.settings.forwarding()),
        upstream_idle_timeout: upstream.idle_timeout(),
    }
}

fn forwarding(written: &serin_config::Forwarding) -> Forwarding {
    Forwarding {
        trusted_hops: written.trusted_hops(),
        x_forwarded: written.x_forwarded(),
        forwarded: written.forwarded(),
        request_id: written.request_id(),
        trace_context: written.trace_context(),
        arm: written.arm_header().map(Into::into),
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
