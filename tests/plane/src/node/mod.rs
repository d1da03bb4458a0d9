//! The node: takes the place of scheduler and kubelet. On it, a pod is a few local processes.
//!
//! ```text
//! agent     follows all pods: binds, takes on, lets go
//!   pod        one life: network, volumes, init containers, containers, status, farewell
//!     container   start, watch, end, again
//!       health      startup, readiness, liveness
//!       action      what probes and hooks do
//! ```
//!
//! It leaves out what no test of ours needs: resources and evictions, images, users and capabilities, `postStart`, ephemeral
//! containers, volumes that change while a pod runs. What a pod asks for and does not get is said in its status.

mod action;
mod addresses;
mod agent;
mod backoff;
mod container;
mod environment;
mod expand;
mod fields;
mod health;
mod images;
mod journal;
mod pod;
mod register;
mod resident;
mod schedule;
mod sources;
mod status;
mod views;
mod volumes;
mod wire;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use images::Images;
pub use schedule::NodeSpec;
pub use wire::Cut;

use crate::launch::Spawner;
use addresses::Addresses;
use agent::Agent;
use journal::Journal;
use resident::Resident;

/// Pods that are remembered, so that a test can read the log of one that is gone.
const PODS_REMEMBERED_MAX: usize = 5_000;

/// Killed processes are gone within milliseconds; this is for a machine that is very busy.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The node of a plane. Pods are called by uid, by name, or by `NAMESPACE/NAME`.
pub struct Node {
    shared: Arc<Shared>,
}

/// What all parts of the node use.
struct Shared {
    client: Client,
    spawner: Spawner,
    nodes: Vec<NodeSpec>,
    images: Mutex<Images>,
    addresses: Mutex<Addresses>,
    journal: Journal,
    /// A folder for each pod is in it.
    folder: PathBuf,
    residents: Mutex<VecDeque<Arc<Resident>>>,
    lives: TaskTracker,
    stopping: CancellationToken,
}

impl Node {
    /// Registers the nodes, and runs pods from now on.
    pub(crate) async fn start(
        client: Client,
        spawner: Spawner,
        nodes: Vec<NodeSpec>,
        images: Images,
        folder: PathBuf,
    ) -> Result<Self> {
        for node in &nodes {
            register::register(&client, node).await?;
        }
        let shared = Arc::new(Shared {
            client,
            spawner,
            nodes,
            images: Mutex::new(images),
            addresses: Mutex::default(),
            journal: Journal::default(),
            folder,
            residents: Mutex::default(),
            lives: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        shared.lives.spawn(Agent::new(Arc::clone(&shared)).run());
        Ok(Self { shared })
    }

    /// Ends all pods at once.
    pub(crate) async fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.lives.close();
        // What is still there then dies with this process.
        let _stopped = timeout(STOPPED_WITHIN, self.shared.lives.wait()).await;
    }

    /// Lets an image stand for a program and its first arguments, from the next start of a container on.
    pub fn set_image<T: Into<String>>(&self, image: &str, argv: impl IntoIterator<Item = T>) {
        self.shared.images.lock().expect("nothing panics while it is held").set(image, argv);
    }

    /// The IP of a pod.
    ///
    /// # Errors
    /// If there is no such pod, or several.
    pub fn address(&self, pod: &str) -> Result<Ipv4Addr> {
        Ok(self.shared.resident(pod)?.address)
    }

    /// The process of the program in a pod's first container.
    ///
    /// # Errors
    /// If there is no such pod, or it does not run now.
    pub fn pid(&self, pod: &str) -> Result<u32> {
        let pid = self.shared.resident(pod)?.views.borrow().main.first().and_then(|view| view.pid);
        pid.with_context(|| format!("the first container of pod {pod} does not run"))
    }

    /// Sends a signal to the process group of a pod's first container, past Kubernetes: a crash, or a hang.
    ///
    /// # Errors
    /// If there is no such pod, or it does not run now.
    pub fn kill(&self, pod: &str, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(i32::try_from(self.pid(pod)?)?);
        killpg(group, signal).with_context(|| format!("sending {signal} to pod {pod}"))
    }

    /// What a pod's first container has written so far, over all its runs. Works for a pod that is gone, too.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn log(&self, pod: &str) -> Result<String> {
        let resident = self.shared.resident(pod)?;
        let first = resident.views.borrow().main.first().map(|view| view.name.clone());
        Ok(read(&resident.log(&first.unwrap_or_default())))
    }

    /// What a container has written so far, over all its runs.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn log_of(&self, pod: &str, container: &str) -> Result<String> {
        Ok(read(&self.shared.resident(pod)?.log(container)))
    }

    /// Cuts a pod off that has a network of its own (annotation `serin.dev/own-network: "true"`), beside the cuts it has already.
    /// Packets are dropped silently, both ways, on open connections too.
    ///
    /// # Errors
    /// If there is no such pod, or it has no network of its own.
    pub async fn partition(&self, pod: &str, cut: Cut) -> Result<()> {
        let resident = self.shared.resident(pod)?;
        resident.wire.get().with_context(|| format!("pod {pod} has no network of its own"))?.cut(&cut).await
    }

    /// Takes all cuts of a pod away.
    ///
    /// # Errors
    /// If there is no such pod, or it has no network of its own.
    pub async fn heal(&self, pod: &str) -> Result<()> {
        let resident = self.shared.resident(pod)?;
        resident.wire.get().with_context(|| format!("pod {pod} has no network of its own"))?.heal().await
    }

    /// What the node did with the pods of a namespace, and why.
    pub(crate) fn journal(&self, namespace: &str) -> Vec<String> {
        self.shared.journal.of(namespace)
    }

    /// The containers of a namespace that have ever run here, and what they wrote: pod, container, log.
    pub(crate) fn logs(&self, namespace: &str) -> Vec<(String, String, String)> {
        let residents = self.shared.residents.lock().expect("nothing panics while it is held");
        let own = residents.iter().filter(|resident| resident.namespace == namespace);
        let logs = own.flat_map(|resident| {
            let views = resident.views.borrow();
            let names: Vec<_> = views.init.iter().chain(&views.main).map(|view| view.name.clone()).collect();
            names.into_iter().map(|name| (resident.name.clone(), name.clone(), read(&resident.log(&name))))
        });
        logs.collect()
    }
}

fn read(log: &std::path::Path) -> String {
    // What a program writes need not be text; and it may not have written yet.
    std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Shared {
    fn remember(&self, resident: Arc<Resident>) {
        let mut residents = self.residents.lock().expect("nothing panics while it is held");
        if residents.len() == PODS_REMEMBERED_MAX {
            residents.pop_front();
        }
        residents.push_back(resident);
    }

    /// The pod that is called so; of several, the one that is still here.
    fn resident(&self, called: &str) -> Result<Arc<Resident>> {
        let residents = self.residents.lock().expect("nothing panics while it is held");
        let meant: Vec<_> = residents.iter().filter(|resident| resident.is(called)).collect();
        let here: Vec<_> = meant.iter().filter(|resident| !resident.orders.borrow().gone).collect();
        ensure!(here.len() < 2, "{} pods are called {called}: name the namespace too", here.len());
        match (here.first(), meant.last()) {
            (Some(resident), _) => Ok(Arc::clone(resident)),
            (None, Some(resident)) => Ok(Arc::clone(resident)),
            (None, None) => bail!("there is no pod {called} on this node"),
        }
    }
}
