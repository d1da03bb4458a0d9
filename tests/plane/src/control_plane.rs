//! etcd, the API server and the controllers: their flags, their start, and outages of the API server.
//!
//! The ports are fixed, because in a network namespace of our own nobody else can have them. It also means one plane in a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serin_tests::wait::until;
use tokio::process::Child;

use crate::keys::Keys;
use crate::launch::{Launch, Output, Spawner};
use crate::network;

/// Where the API server listens, on all addresses.
pub(crate) const API_PORT: u16 = 6443;

const ETCD_CLIENTS: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// The API server needs 2 s on two idle cores. A cold page cache and a busy machine are allowed to make that much worse.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The end of a log that is told when a program does not come up, in lines.
const LOG_LINES_TOLD: usize = 20;

/// Threads stop at once, unless they have to wait for a processor.
const FROZEN_WITHIN: Duration = Duration::from_secs(10);

/// The controllers that tests need; without the aggregation of cluster roles, `view`, `edit` and `admin` allow nothing. No node
/// lifecycle, so nodes need no leases, and no scheduler, because our node binds pods.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,daemonset-controller,endpointslice-controller,\
    endpoints-controller,endpointslice-mirroring-controller,garbage-collector-controller,namespace-controller,\
    serviceaccount-controller,clusterrole-aggregation-controller,root-ca-certificate-publisher-controller,horizontal-pod-autoscaler-controller,job-controller";

/// How the API server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiServerOutage {
    /// Killed: connections break, new ones are refused.
    Killed,
    /// Stopped where it is: connections stay open and nothing is answered.
    Frozen,
}

/// The running programs.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    programs: PathBuf,
    folder: PathBuf,
    keys: Keys,
    spawner: Spawner,
    etcd: Child,
    api_server: Option<Child>,
    controllers: Option<Child>,
}

impl ControlPlane {
    /// Starts etcd and the API server, and does not wait for them.
    pub(crate) async fn start(programs: PathBuf, folder: PathBuf, keys: Keys, spawner: Spawner) -> Result<Self> {
        let etcd = launch(&spawner, &folder, etcd(&programs, &folder)).await?;
        let mut plane = Self { programs, folder, keys, spawner, etcd, api_server: None, controllers: None };
        plane.start_api_server().await?;
        Ok(plane)
    }

    /// Starts the controllers.
    pub(crate) async fn start_controllers(&mut self) -> Result<()> {
        let argv = controllers(&self.programs, &self.keys);
        self.controllers = Some(launch(&self.spawner, &self.folder, argv).await?);
        Ok(())
    }

    /// Starts the controllers anew, if they were started. In a cluster they elect a leader, who ends when it cannot keep its Lease; one that
    /// outlives the API server would come back to each kind of object when its own back-off says so, a minute later and in any order,
    /// and delete pods whose endpoints it has not taken out yet.
    pub(crate) async fn restart_controllers(&mut self) -> Result<()> {
        let Some(mut former) = self.controllers.take() else { return Ok(()) };
        former.kill().await.context("killing the controllers")?;
        self.start_controllers().await
    }

    /// Whether the API server was killed.
    pub(crate) fn is_away(&self) -> bool {
        self.api_server.is_none()
    }

    /// Starts the API server, or lets it go on, and does not wait until it answers.
    pub(crate) async fn start_api_server(&mut self) -> Result<()> {
        match &self.api_server {
            Some(frozen) => signal(frozen, Signal::SIGCONT),
            None => {
                let argv = api_server(&self.programs, &self.keys);
                self.api_server = Some(launch(&self.spawner, &self.folder, argv).await?);
                Ok(())
            }
        }
    }

    /// Takes the API server away.
    pub(crate) async fn stop_api_server(&mut self, outage: ApiServerOutage) -> Result<()> {
        match outage {
            ApiServerOutage::Frozen => {
                let frozen = self.api_server.as_ref().context("the API server is not there")?;
                signal(frozen, Signal::SIGSTOP)?;
                let pid = frozen.id().context("the API server has ended")?;
                // The signal is on its way to each thread; one that runs may still answer.
                until("the API server does not stop", FROZEN_WITHIN, async || Ok(is_stopped(pid)?.then_some(()))).await
            }
            ApiServerOutage::Killed => {
                let mut killed = self.api_server.take().context("the API server is not there")?;
                killed.kill().await.context("killing the API server")
            }
        }
    }

    /// Waits until the API server says that it is ready.
    pub(crate) async fn ready(&mut self, client: &Client) -> Result<()> {
        let Self { etcd, api_server, folder, .. } = self;
        let answered = until("the API server is not ready", READY_WITHIN, async || {
            for (name, child) in [("etcd", Some(&mut *etcd)), ("kube-apiserver", api_server.as_mut())] {
                let Some(child) = child else { bail!("{name} was stopped") };
                if let Some(status) = child.try_wait()? {
                    bail!("{name} has ended ({status})");
                }
            }
            let asked = http::Request::get("/readyz").body(Vec::new()).context("making a request")?;
            Ok(client.request_text(asked).await.is_ok().then_some(()))
        });
        let answered = answered.await;
        answered.map_err(|error| {
            let ends = ["etcd", "kube-apiserver"].map(|name| log_end(&folder.join(name).with_extension("log")));
            error.context(ends.join("\n"))
        })
    }

    /// Ends all of them, without ado: nothing here is meant to be read again.
    pub(crate) async fn stop(&mut self) {
        for child in [self.controllers.as_mut(), self.api_server.as_mut(), Some(&mut self.etcd)].into_iter().flatten() {
            // It fails only if it has ended already.
            let _killed = child.kill().await;
        }
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().context("the API server has ended")?;
    kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("sending {signal} to the API server"))
}

/// Whether all threads of a process are stopped: the state comes after the name, which is in parentheses.
fn is_stopped(pid: u32) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).context("listing threads")? {
        // A thread may end meanwhile.
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        if stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Starts a program; its log is `NAME.log`.
async fn launch(spawner: &Spawner, folder: &Path, argv: Vec<String>) -> Result<Child> {
    let program = Path::new(argv.first().expect("each has a program"));
    ensure!(program.is_file(), "{} is not there: `make plane` builds it", program.display());
    let name = folder.join(program.file_name().expect("it is a file"));
    spawner.spawn(&Launch::of(argv), &name.with_extension("launch"), Output::Log(name.with_extension("log"))).await
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the end of {}:\n{}", log.display(), lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n"))
}

fn command(program: PathBuf, flags: &[(&str, &str)]) -> Vec<String> {
    let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
    std::iter::once(program.display().to_string()).chain(flags).collect()
}

fn etcd(programs: &Path, folder: &Path) -> Vec<String> {
    let flags = [
        ("data-dir", &*folder.join("etcd").display().to_string()),
        ("listen-client-urls", ETCD_CLIENTS),
        ("advertise-client-urls", ETCD_CLIENTS),
        ("listen-peer-urls", ETCD_PEERS),
        ("initial-advertise-peer-urls", ETCD_PEERS),
        ("initial-cluster", &format!("default={ETCD_PEERS}")),
        // The data need not outlive the machine.
        ("unsafe-no-fsync", "true"),
        ("log-level", "warn"),
    ];
    command(programs.join("etcd"), &flags)
}

fn api_server(programs: &Path, keys: &Keys) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let flags = [
        ("etcd-servers", ETCD_CLIENTS),
        // On all addresses, so that pods in networks of their own reach it too.
        ("bind-address", "0.0.0.0"),
        ("secure-port", &*API_PORT.to_string()),
        // Without these two it looks for a default route, which our network does not have.
        ("advertise-address", &*network::API.to_string()),
        ("endpoint-reconciler-type", "none"),
        ("tls-cert-file", &*shown(&keys.server.0)),
        ("tls-private-key-file", &*shown(&keys.server.1)),
        ("client-ca-file", &*shown(&keys.authority)),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-signing-key-file", &*shown(&keys.tokens.0)),
        ("service-account-key-file", &*shown(&keys.tokens.1)),
        ("authorization-mode", "RBAC"),
        ("service-cluster-ip-range", "10.96.0.0/16"),
        ("allow-privileged", "true"),
        ("enable-priority-and-fairness", "false"),
        ("profiling", "false"),
        ("event-ttl", "30m"),
        // Where it would write a self-made certificate; it makes none, but wants the folder.
        ("cert-dir", &*shown(keys.authority.parent().expect("it is in a folder"))),
    ];
    command(programs.join("kube-apiserver"), &flags)
}

fn controllers(programs: &Path, keys: &Keys) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let flags = [
        ("kubeconfig", &*shown(&keys.kubeconfig)),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
        ("secure-port", "0"),
        ("use-service-account-credentials", "false"),
        ("service-account-private-key-file", &*shown(&keys.tokens.0)),
        ("root-ca-file", &*shown(&keys.authority)),
        // Its own default of 20 requests a second makes rollouts crawl.
        ("kube-api-qps", "500"),
        ("kube-api-burst", "1000"),
        ("horizontal-pod-autoscaler-sync-period", "2s"),
        ("controllers", CONTROLLERS),
    ];
    command(programs.join("kube-controller-manager"), &flags)
}
