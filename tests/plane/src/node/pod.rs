//! The life of one pod on the node, from its volumes to its last word to the API server.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::container::{LOOK_AGAIN, Restart, Runner};
use super::resident::{OWN_NETWORK, Orders, Resident};
use super::sources::{Problem, Sources};
use super::status::status;
use super::views::{Place, Slot, State, Views};
use super::volumes::{Volumes, Writer};
use super::wire::Wire;

/// How soon a request to the API server is made again that failed. It may be away on purpose.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// A pod and whoever runs it.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) resident: Arc<Resident>,
    pub(super) orders: watch::Receiver<Orders>,
}

impl Life {
    /// Runs the pod until it is gone from the API server.
    pub(super) async fn live(mut self) {
        let ended = CancellationToken::new();
        let driven = async {
            self.drive().await;
            ended.cancel();
        };
        tokio::join!(driven, self.report(&ended));
        // A pod that ran to its end stays until it is deleted.
        drop(self.orders.wait_for(|orders| orders.stop_by.is_some()).await);
        self.say_farewell().await;
        if let Some(wire) = self.resident.wire.get() {
            wire.remove().await;
        }
        // Logs are kept, for the tests to read.
        let _removed = std::fs::remove_dir_all(self.resident.folder.join("volumes"));
        self.shared.addresses.lock().expect("nothing panics while it is held").give_back(self.resident.address);
    }

    /// Prepares the pod and runs its containers to their ends.
    async fn drive(&self) {
        let pod = Arc::clone(&self.orders.borrow().pod);
        let Some(volumes) = self.prepare(&pod).await else { return self.finish_all() };
        let spec = pod.spec.clone().unwrap_or_default();
        let restart = match spec.restart_policy.as_deref() {
            Some("Never") => Restart::Never,
            Some("OnFailure") => Restart::OnFailure,
            _ => Restart::Always,
        };
        let volumes = Arc::new(volumes);
        let runner = |container: &Container, place, restart| Runner {
            shared: Arc::clone(&self.shared),
            resident: Arc::clone(&self.resident),
            container: container.clone(),
            slot: Slot { views: Arc::clone(&self.resident.views), place },
            restart,
            orders: self.orders.clone(),
            volumes: Arc::clone(&volumes),
        };
        let mut sidecars = tokio::task::JoinSet::new();
        for (index, container) in spec.init_containers.iter().flatten().enumerate() {
            let place = Place::Init(index);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.spawn(runner(container, place, Restart::Always).run());
                self.wait_for(|views| views.init[index].started || views.init[index].finished).await;
            } else {
                let again = if restart == Restart::Never { Restart::Never } else { Restart::OnFailure };
                runner(container, place, again).run().await;
                if self.resident.views.borrow().init[index].outcome() != Some(0) {
                    return self.finish_all();
                }
            }
        }
        let main = spec.containers.iter().enumerate();
        join_all(main.map(|(index, container)| runner(container, Place::Main(index), restart).run())).await;
        // Sidecars end with the pod. If it was deleted they are about to end by themselves.
        if self.orders.borrow().stop_by.is_some() {
            while sidecars.join_next().await.is_some() {}
        }
        sidecars.shutdown().await;
    }

    async fn wait_for(&self, so: impl FnMut(&Views) -> bool) {
        // The sender lives in the resident, which we hold.
        let mut views = self.resident.views.subscribe();
        drop(views.wait_for(so).await);
    }

    /// What no container will be started for any more.
    fn finish_all(&self) {
        self.resident.views.send_modify(|views| {
            views.init.iter_mut().chain(&mut views.main).for_each(|view| view.finished = true);
        });
    }

    /// Makes network and volumes as soon as all is there for them; none if the pod has to go first.
    async fn prepare(&self, pod: &Pod) -> Option<Volumes> {
        let mut orders = self.orders.clone();
        loop {
            if orders.borrow().stop_by.is_some() {
                return None;
            }
            let problem = match self.try_prepare(pod).await {
                Ok(volumes) => return Some(volumes),
                Err(problem) => problem,
            };
            self.shared.journal.note(&self.resident, "", problem.reason, &problem.message);
            self.resident.views.send_modify(|views| {
                let waiting = || State::Waiting { reason: "ContainerCreating", message: problem.message.clone() };
                views.init.iter_mut().chain(&mut views.main).for_each(|view| view.state = waiting());
            });
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                _stop = orders.wait_for(|orders| orders.stop_by.is_some()) => {}
            }
        }
    }

    async fn try_prepare(&self, pod: &Pod) -> Result<Volumes, Problem> {
        let resident = &*self.resident;
        if pod.annotations().get(OWN_NETWORK).is_some_and(|wanted| wanted == "true") {
            let made =
                resident.wire.get_or_try_init(|| Wire::make(&self.shared.spawner, resident.address, &resident.folder));
            made.await.map_err(|error| Problem::config(format!("its own network: {error:#}")))?;
        }
        let sources = Sources { client: self.shared.client.clone(), namespace: resident.namespace.clone() };
        let writer = Writer { pod, address: resident.address, sources: &sources };
        writer.write_all(&resident.folder.join("volumes")).await
    }

    /// Keeps the pod's status up to date until its containers have ended, and once more then.
    async fn report(&self, ended: &CancellationToken) {
        let (mut views, mut orders) = (self.resident.views.subscribe(), self.orders.clone());
        let mut told = None;
        let mut conditions: Vec<PodCondition> = Vec::new();
        loop {
            let last = ended.is_cancelled();
            let seen = views.borrow_and_update().clone();
            let Orders { pod, gone, .. } = orders.borrow_and_update().clone();
            if gone {
                return;
            }
            let resident = &*self.resident;
            let status = status(&pod, resident.address, resident.taken_on, &seen, &conditions, Timestamp::now());
            if told.as_ref() != Some(&status) {
                let patch = json!({ "metadata": { "uid": resident.uid }, "status": status });
                match self.api().patch_status(&resident.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    Ok(_) => {
                        conditions = status.conditions.clone().unwrap_or_default();
                        told = Some(status);
                    }
                    Err(error) if is_gone(&error) => return,
                    Err(error) => {
                        self.shared.journal.note(resident, "", "the status was not taken", &error.to_string());
                        sleep(TRY_AGAIN).await;
                        continue;
                    }
                }
            }
            if last {
                return;
            }
            tokio::select! {
                _changed = views.changed() => {}
                _changed = orders.changed() => {}
                () = ended.cancelled() => {}
            }
        }
    }

    /// Takes the pod out of the API server: its containers have ended, so nothing stands in the way.
    async fn say_farewell(&self) {
        let preconditions = Preconditions { uid: Some(self.resident.uid.clone()), resource_version: None };
        let at_once =
            DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }.preconditions(preconditions);
        while !self.orders.borrow().gone {
            match self.api().delete(&self.resident.name, &at_once).await {
                Ok(_) => return,
                Err(error) if is_gone(&error) => return,
                Err(_) => sleep(TRY_AGAIN).await,
            }
        }
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.resident.namespace)
    }
}

/// The pod is not there, or another one has its name.
pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}
