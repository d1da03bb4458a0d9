//! The plane as a whole: entered, started, taken apart.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::control_plane::{API_PORT, ApiServerOutage, ControlPlane};
use crate::keys::Keys;
use crate::launch::{self, Spawner};
use crate::network;
use crate::node::{Images, Node, NodeSpec};
use crate::objects::Applier;

/// How long a request to the API server may stay without an answer. Tests freeze it on purpose, and a wait without an end helps nobody.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// What a plane begins with.
#[derive(Clone, Debug)]
pub struct Options {
    /// CRDs as YAML. They are there before the controllers start: the garbage collector looks for new kinds only every 30 s.
    pub crds: Vec<String>,
    /// The programs behind images.
    pub images: Images,
    /// The nodes. All are this machine.
    pub nodes: Vec<NodeSpec>,
}

impl Default for Options {
    fn default() -> Self {
        Self { crds: Vec::new(), images: Images::default(), nodes: vec![NodeSpec::named("node-0")] }
    }
}

/// A running plane. One process can have one.
pub struct Plane {
    pub(crate) client: Client,
    pub(crate) applier: Applier,
    pub(crate) namespaces: AtomicU32,
    control: Mutex<ControlPlane>,
    node: Node,
    kubeconfig: PathBuf,
    times: Times,
    folder: TempDir,
}

/// How long the parts of a start took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Keys, etcd, and the API server until it was ready.
    pub api_server: Duration,
    /// CRDs until they were served.
    pub crds: Duration,
    /// Controllers started and nodes registered.
    pub node: Duration,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api_server, crds, node } = self;
        write!(f, "API server {api_server:.2?}, CRDs {crds:.2?}, controllers and node {node:.2?}")
    }
}

impl Plane {
    /// Moves this process into a network namespace of its own; and if it was started in order to become a pod's program, becomes it
    /// and does not come back. Call it first in `main`. [`crate::Suite::enter`] does.
    ///
    /// # Errors
    /// If there are threads already, or the system does not allow it.
    pub fn enter() -> Result<()> {
        launch::become_it();
        network::enter()
    }

    /// Starts a plane. All that it starts ends with this process.
    ///
    /// # Errors
    /// If its programs are not built, or one of them does not come up; with the ends of their logs.
    pub async fn start(options: Options) -> Result<Arc<Self>> {
        let began = Instant::now();
        sweep();
        let name = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&name).tempdir().context("making a folder")?;
        let keys = Keys::make(folder.path(), API_PORT).context("making keys")?;
        let kubeconfig = keys.kubeconfig.clone();
        let spawner = Spawner::start()?;
        let mut control = ControlPlane::start(programs()?, folder.path().to_owned(), keys, spawner.clone()).await?;
        let client = connect(&kubeconfig).await?;
        control.ready(&client).await?;
        let api_server = began.elapsed();

        let applier = Applier::new(client.clone());
        for crds in &options.crds {
            applier.apply_crds(crds).await?;
        }
        let crds = began.elapsed() - api_server;
        control.start_controllers().await?;
        let pods = folder.path().join("pods");
        let node = Node::start(client.clone(), spawner, options.nodes, options.images, pods).await?;
        let times = Times { api_server, crds, node: began.elapsed() - api_server - crds };
        let (control, namespaces) = (Mutex::new(control), AtomicU32::new(0));
        Ok(Arc::new(Self { client, applier, namespaces, control, node, kubeconfig, times, folder }))
    }

    /// Takes everything apart, and removes its files unless `SERIN_PLANE_KEEP` is set.
    pub async fn stop(&self) {
        self.node.stop().await;
        self.control.lock().await.stop().await;
        if std::env::var_os("SERIN_PLANE_KEEP").is_none() {
            // What cannot be removed is left to the system's own care of its temporary folder.
            let _removed = std::fs::remove_dir_all(self.folder.path());
        }
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// How to reach the API server with `kubectl` and the like, from inside the network namespace.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the API server listens, for the tests and for all pods.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        (network::API, API_PORT).into()
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How long the start took.
    #[must_use]
    pub const fn times(&self) -> Times {
        self.times
    }

    /// The folder of logs, keys and data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Takes the API server away.
    ///
    /// # Errors
    /// If it is away already.
    pub async fn stop_api_server(&self, outage: ApiServerOutage) -> Result<()> {
        self.control.lock().await.stop_api_server(outage).await
    }

    /// Brings the API server back, on the same port and with the same data, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_api_server(&self) -> Result<()> {
        let mut control = self.control.lock().await;
        let was_away = control.is_away();
        control.start_api_server().await?;
        control.ready(&self.client).await?;
        if was_away { control.restart_controllers().await } else { Ok(()) }
    }

    /// Flagger's CRDs, of the release that is pinned in `tests/plane/go/flagger`.
    ///
    /// # Errors
    /// If the plane is not built.
    pub fn flagger_crds() -> Result<String> {
        let path = programs()?.join("flagger-crd.yaml");
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// What the name of a plane's folder begins with; then comes its process.
const FOLDER: &str = "serin-plane-";

/// Removes what planes left behind whose process was killed before it could clean up. Each would be some 200 MB.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            // Another plane may be removing it just now.
            let _removed = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Where `tests/setup/plane.sh` has put the programs.
fn programs() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../setup/plane.sh");
    let told =
        Command::new(&script).arg("--where").output().with_context(|| format!("running {}", script.display()))?;
    let folder = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    ensure!(told.status.success() && !folder.is_empty(), "the test plane is not built: run `make plane`");
    Ok(folder.into())
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("reading our kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.read_timeout = Some(ANSWERED_WITHIN);
    Client::try_from(config).context("making a client")
}
