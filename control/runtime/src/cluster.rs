//! Serin in a cluster: what is watched there, what is written there, who leads.
//!
//! ```text
//!   API server ─▶ watch ─▶ objects ─▶ compile ─▶ workloads ─▶ the loop ─▶ board
//!       ▲  ▲                  │                                 │  ▲        │
//!       │  └─ states ◀────────┼──────── saves, one fence ───────┘  │        │
//!       │                     │                     lease ─────────┘        │
//!       └────────── hands ◀───┴──── deeds ◀─────────────────────────────────┘
//! ```
//!
//! Wire types end here and in `interpret`; what a rollout does next is decided in `serin-rollout`.

mod compile;
mod contest;
mod copies;
mod deeds;
mod hands;
mod key;
mod lease;
mod names;
mod objects;
mod readiness;
pub(crate) mod seal;
mod site;
mod slice;
mod states;
mod status;
mod tellings;
mod template;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::core::DynamicObject;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serin_measure::{BootId, CanaryKey};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use key::KeyError;
pub use seal::Seal;
pub use site::ClusterSite;

pub(crate) use site::FLEET_PATH;

use crate::board::Board;
use crate::clock::Clock;
use crate::controller::Tell;
use crate::store::Store;
use crate::workload::Workload;
use compile::{Compiler, Meaning};
use hands::Hands;
use lease::{Candidate, Terms};
use objects::{Name, Shared};
use states::States;
use template::Library;

/// Annotation on the primary: the revision that was copied to it.
const REVISION_ANNOTATION: &str = "serin.dev/revision";
/// How long to wait before asking an API server again that gave no answer at the start.
const START_AGAIN: Duration = Duration::from_secs(1);

/// How this process runs in the cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace in which Serin itself runs: its Lease, its key, its fleet's Service.
    pub own_namespace: String,
    /// The only namespace whose Canaries are looked at; all of them if none is given.
    pub namespace: Option<String>,
    /// The headless Service whose endpoints are Serin's own pods.
    pub fleet_service: String,
    /// The name of that Service's port for the admin listener.
    pub fleet_port: String,
    /// The Lease by which one process is elected.
    pub lease: String,
    /// How long a leader may be silent before another one is elected.
    pub lease_duration: Duration,
    /// Who this process is, for people; its boot is appended.
    pub identity: String,
    /// Where the admin listener of this process is reached by the others.
    pub own: SocketAddr,
    /// Take providers that mean a mesh for Serin's own routing.
    pub inline_providers: bool,
}

impl Options {
    /// The Service behind which the processes of the fleet are.
    fn fleet(&self) -> Name {
        Name::new(&self.own_namespace, &self.fleet_service)
    }
}

/// The name of the Secret that holds the fleet's key.
const KEY_SECRET: &str = "serin-fleet";

/// A process that has found its cluster, and knows what is in it.
pub struct Cluster {
    options: Options,
    client: Client,
    shared: Shared,
    library: Library,
    states: States,
    compiler: Compiler,
    meaning: tokio::sync::watch::Sender<Arc<Meaning>>,
    /// Whether the Lease is held and valid; false while another process leads.
    is_current: tokio::sync::watch::Sender<bool>,
    seal: Seal,
    boot: BootId,
    stop: CancellationToken,
}

impl Cluster {
    /// Gets the fleet's key and waits until everything in the cluster was seen once. Retries as long as it takes: without a
    /// cluster there is nothing to serve, and readiness says so.
    ///
    /// # Errors
    /// If the key cannot be used.
    pub async fn find(
        client: Client,
        options: Options,
        boot: BootId,
        stop: CancellationToken,
    ) -> Result<Self, KeyError> {
        let seal = loop {
            match key::fleet_key(&client, &options.own_namespace, KEY_SECRET).await {
                Ok(seal) => break seal,
                Err(unusable @ KeyError::Unusable { .. }) => return Err(unusable),
                Err(why @ KeyError::Unavailable { .. }) => warn!(%why, "waiting for the cluster"),
            }
            tokio::time::sleep(START_AGAIN).await;
        };
        let (shared, library) = (Shared::default(), Library::default());
        watch::start(&client, options.namespace.as_deref(), &options.fleet(), &shared, &stop);
        let mut changes = shared.watch();
        while !shared.read(objects::Objects::is_complete) {
            // The sender lives as long as `shared`.
            let _ = changes.changed().await;
        }
        let states = States::new(client.clone(), options.namespace.clone(), boot, library.clone());
        let compiler = Compiler::new(options.inline_providers);
        let meaning = tokio::sync::watch::Sender::new(Arc::default());
        let is_current = tokio::sync::watch::Sender::new(false);
        Ok(Self { options, client, shared, library, states, compiler, meaning, is_current, seal, boot, stop })
    }

    /// Where states are kept.
    pub fn store(&self) -> impl Store + use<> {
        self.states.clone()
    }

    /// What the loop asks of the cluster.
    pub fn site(&self) -> ClusterSite {
        ClusterSite {
            shared: self.shared.clone(),
            meaning: self.meaning.subscribe(),
            is_current: self.is_current.subscribe(),
            fleet: (self.options.fleet(), self.options.fleet_port.clone()),
            own: self.options.own,
            client: reqwest::Client::new(),
            seal: self.seal.clone(),
        }
    }

    /// The seal on what the fleet says.
    pub fn seal(&self) -> Seal {
        self.seal.clone()
    }

    /// What the Canaries mean now.
    pub fn workloads(&mut self) -> Vec<Workload> {
        let meaning = self.shared.read(|objects| {
            let has = |canary: &CanaryKey| {
                objects.canaries.objects.contains_key(&Name::new(canary.namespace(), canary.name()))
            };
            self.library.keep_only(has);
            self.states.keep_only(has);
            self.compiler.compile(objects, &self.library)
        });
        for (canary, sentences) in &meaning.refusals {
            if self.meaning.borrow().refusals.get(canary) != Some(sentences) {
                warn!(%canary, why = %sentences.join("; "), "a Canary cannot be used as it is written");
            }
        }
        let workloads = meaning.compiled.values().map(|compiled| compiled.workload.clone()).collect();
        self.meaning.send_replace(Arc::new(meaning));
        workloads
    }

    /// Keeps the loop informed, stands for election, and acts while elected; until told to stop. What is returned has ended
    /// when the Lease was given back.
    pub fn run(mut self, tell: Tell, board: Arc<Board>, clock: Clock) -> JoinHandle<()> {
        let stop = self.stop.clone();
        let identity = format!("{}_{}", self.options.identity, self.boot);
        let terms = Terms {
            namespace: self.options.own_namespace.clone(),
            name: self.options.lease.clone(),
            identity,
            duration: self.options.lease_duration,
        };
        let may_act = self.is_current.subscribe();
        let candidate =
            Candidate::new(self.client.clone(), terms, tell.clone(), self.shared.clone(), self.is_current.clone());
        let hands = Hands {
            client: self.client.clone(),
            shared: self.shared.clone(),
            library: self.library.clone(),
            meaning: self.meaning.subscribe(),
            board: board.clone(),
            may_act,
            tell: tell.clone(),
            clock,
        };
        tokio::spawn(follow_states(self.states.clone(), tell.clone(), stop.clone()));
        tokio::spawn(hands.run(stop.clone()));
        let election = tokio::spawn(candidate.run(stop.clone()));
        tokio::spawn(async move {
            let mut changes = self.shared.watch();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    Ok(()) = changes.changed() => {}
                }
                let workloads = self.workloads();
                tell.configured(workloads).await;
                board.sees_the_cluster(self.shared.is_current());
            }
        });
        election
    }
}

/// Tells the loop every state that is saved, by whomever.
async fn follow_states(states: States, tell: Tell, stop: CancellationToken) {
    let mut events = watch::events(states.api(), watch::every()).boxed();
    let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let key = |object: &DynamicObject| CanaryKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.try_next() => event,
        };
        match event {
            Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                known.insert(key(&object));
                listed.insert(key(&object));
                match states.read(&object) {
                    Ok(saved) => tell.stored(vec![saved]).await,
                    Err(problem) => error!(%problem, "a state cannot be used"),
                }
            }
            Ok(Some(watcher::Event::Delete(object))) => {
                known.remove(&key(&object));
                tell.forgotten(vec![key(&object)]).await;
            }
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            // What was deleted while nobody watched is not listed any more.
            Ok(Some(watcher::Event::InitDone)) => {
                let gone = known.difference(&listed).cloned().collect();
                known = std::mem::take(&mut listed);
                tell.forgotten(gone).await;
            }
            Ok(None) => return info!("the watch on states has ended"),
            Err(error) => tracing::debug!(%error, "states cannot be watched; those in force stay"),
        }
    }
}
