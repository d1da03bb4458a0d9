//! Follows the pods of the cluster: binds those that have no node, takes on those that do, and lets go of those that were deleted.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Shared;
use super::pod::{Life, is_gone};
use super::register::PODS_MAX;
use super::resident::Resident;
use super::schedule::NodeSpec;

/// How soon the API server is asked again after an error. It may be away on purpose, and tests measure how fast all is well again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Follows the pods until the node is stopped.
pub(super) struct Agent {
    pub(super) shared: Arc<Shared>,
    /// The pods that are here, by uid.
    pods: HashMap<String, Arc<Resident>>,
    /// Pods that are being bound. Each is tried until it is bound or gone.
    bound: HashSet<String>,
    /// While a new list comes in: the pods that are in it.
    listed: HashSet<String>,
}

impl Agent {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pods: HashMap::new(), bound: HashSet::new(), listed: HashSet::new() }
    }

    /// Runs until the node is stopped; then all pods end at once.
    pub(super) async fn run(mut self) {
        let api: Api<Pod> = Api::all(self.shared.client.clone());
        let mut events = pin!(watcher(api, watcher::Config::default()));
        let stopping = self.shared.stopping.clone();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stopping.cancelled() => break,
            };
            match event {
                Some(Ok(event)) => self.take(event),
                // The watch begins anew by itself.
                Some(Err(_)) => sleep(TRY_AGAIN).await,
                None => break,
            }
        }
        self.pods.values().for_each(|resident| resident.abandon());
    }

    fn take(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.see(pod);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.bound.retain(|uid| listed.contains(uid));
                self.pods.retain(|uid, resident| {
                    listed.contains(uid) || {
                        resident.abandon();
                        false
                    }
                });
            }
            Event::Apply(pod) => self.see(pod),
            Event::Delete(pod) => {
                let uid = pod.uid().unwrap_or_default();
                self.bound.remove(&uid);
                if let Some(resident) = self.pods.remove(&uid) {
                    resident.abandon();
                }
            }
        }
    }

    fn see(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        if let Some(resident) = self.pods.get(&uid) {
            return resident.follow(pod);
        }
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()) {
            None if pod.metadata.deletion_timestamp.is_some() => {}
            None => self.bind(pod),
            Some(node) if self.shared.nodes.iter().any(|ours| ours.name == node) => self.take_on(pod),
            Some(_) => {}
        }
    }

    /// Gives a pod to the fitting node that has the fewest.
    fn bind(&mut self, pod: Pod) {
        let spec = pod.spec.clone().unwrap_or_default();
        let load = |node: &NodeSpec| self.pods.values().filter(|resident| resident.is_on(&node.name)).count();
        let fitting = self.shared.nodes.iter().filter(|node| node.fits(&spec)).map(|node| (load(node), node));
        let found = fitting.filter(|(load, _)| *load < PODS_MAX).min_by_key(|(load, _)| *load);
        let node = found.map(|(_, node)| node.name.clone());
        // One that fits nowhere is said so once; its selector cannot change.
        if self.bound.insert(pod.uid().unwrap_or_default()) {
            let shared = Arc::clone(&self.shared);
            self.shared.lives.spawn(async move { shared.bind(&pod, node.as_deref()).await });
        }
    }

    fn take_on(&mut self, pod: Pod) {
        let taken = self.shared.addresses.lock().expect("nothing panics while it is held").take();
        // There are far more addresses than PODS_MAX lets pods in.
        let Some(address) = taken else { return };
        let uid = pod.uid().unwrap_or_default();
        let folder =
            self.shared.folder.join(format!("{}_{}_{uid}", pod.namespace().unwrap_or_default(), pod.name_any()));
        // Without its folder, the first log that cannot be opened says so in the pod's status.
        let _made = std::fs::create_dir_all(&folder);
        let resident = Arc::new(Resident::new(Arc::new(pod.clone()), address, folder));
        // It may have been deleted before we first saw it.
        resident.follow(pod);
        self.bound.remove(&uid);
        self.pods.insert(uid, Arc::clone(&resident));
        self.shared.remember(Arc::clone(&resident));
        let orders = resident.orders.subscribe();
        let life = Life { shared: Arc::clone(&self.shared), resident, orders };
        self.shared.lives.spawn(life.live());
    }
}

impl Shared {
    /// Binds a pod to a node, or says that there is none for it; as often as it takes.
    async fn bind(&self, pod: &Pod, node: Option<&str>) {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        while !self.stopping.is_cancelled() {
            let done = match node {
                Some(node) => {
                    let binding = Binding {
                        metadata: ObjectMeta { name: Some(name.clone()), uid: pod.uid(), ..ObjectMeta::default() },
                        target: ObjectReference {
                            api_version: Some("v1".into()),
                            kind: Some("Node".into()),
                            name: Some(node.into()),
                            ..ObjectReference::default()
                        },
                    };
                    let bound =
                        api.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await;
                    bound.map(drop)
                }
                None => {
                    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                        "message": "no node fits the pod's selectors, or all that do are full" });
                    let patch = Patch::Strategic(
                        json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } }),
                    );
                    api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)
                }
            };
            match done {
                Ok(()) => return,
                Err(error) if is_gone(&error) => return,
                Err(_) => sleep(TRY_AGAIN).await,
            }
        }
    }
}
