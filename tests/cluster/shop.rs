//! The app under rollout: a Deployment whose versions behave as the test says, and the Canary that watches over it.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use serin_plane::Namespace;

use crate::fleet::PATIENCE;

/// The app's name: of its Deployment, its Service and its Canary.
pub(crate) const APP: &str = "shop";
/// The host that users ask for.
pub(crate) const HOST: &str = "shop.example.com";

/// How a version behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Good,
    /// Answers every request with 500.
    Dead,
    /// Answers after so many milliseconds.
    Slow(u32),
}

/// How a release is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) interval_s: u32,
    pub(crate) threshold: u32,
    pub(crate) step: u32,
    pub(crate) max: u32,
}

impl Default for Trial {
    fn default() -> Self {
        Self { interval_s: 1, threshold: 3, step: 20, max: 60 }
    }
}

/// The app.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) namespace: Namespace,
}

impl Shop {
    /// The app as it was before there was a Canary: a Deployment of this version, and a Service that selects it.
    pub(crate) async fn open(namespace: &Namespace, version: &str) -> Result<Self> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": APP, "labels": {"mine": "yes"}},
            "spec": {"selector": {"app": APP}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        });
        namespace.apply(json!([deployment(version, Manner::Good), service])).await?;
        namespace.until_rolled_out(APP, PATIENCE).await?;
        Ok(Self { namespace: namespace.clone() })
    }

    /// Puts a Canary over it.
    pub(crate) async fn begin_to_watch_over(&self, trial: Trial) -> Result<()> {
        self.namespace.apply(canary(trial)).await.map(|_| ())
    }

    /// Puts a Canary over it, and waits until the primary serves.
    pub(crate) async fn watch_over(&self, trial: Trial) -> Result<()> {
        self.begin_to_watch_over(trial).await?;
        self.until_phase("Initialized").await?;
        self.until_scaled(0).await
    }

    /// Gives the Canary another trial.
    pub(crate) async fn try_by(&self, trial: Trial) -> Result<()> {
        self.begin_to_watch_over(trial).await
    }

    /// The app with a Canary over it that is initialised.
    pub(crate) async fn under_watch(namespace: &Namespace, trial: Trial) -> Result<Self> {
        let shop = Self::open(namespace, "1").await?;
        shop.watch_over(trial).await?;
        Ok(shop)
    }

    /// Releases another version, as `kubectl set image` would: the size stays.
    pub(crate) async fn release(&self, version: &str, manner: Manner) -> Result<()> {
        let template = &deployment(version, manner)["spec"]["template"];
        let patch = json!({"spec": {"template": template}});
        let api = self.namespace.api::<Deployment>();
        api.patch(APP, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The Canary as it is now.
    pub(crate) async fn canary(&self) -> Result<DynamicObject> {
        self.canaries().get(APP).await.context("reading the Canary")
    }

    pub(crate) fn canaries(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
        Api::namespaced_with(self.namespace.plane().client(), self.namespace.name(), &kind)
    }

    /// Waits until the Canary's status is so, and returns it.
    pub(crate) async fn until_status(&self, what: &str, mut so: impl FnMut(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let status = self.namespace.until(what, PATIENCE, async || {
            // The API server may be away in between.
            if let Ok(canary) = self.canary().await {
                last = canary.data["status"].clone();
            }
            Ok(so(&last).then(|| last.clone()))
        });
        let status = status.await;
        status.with_context(|| format!("the status is {last}"))
    }

    /// Waits until the Canary is in this phase.
    pub(crate) async fn until_phase(&self, phase: &str) -> Result<Value> {
        self.until_status(&format!("the Canary is not {phase}"), |status| status["phase"] == phase).await
    }

    /// Waits until the canary has at least this weight in a run.
    pub(crate) async fn until_weight(&self, percent: u64) -> Result<Value> {
        let what = format!("the canary has not {percent} %");
        self.until_status(&what, |status| status["canaryWeight"].as_u64().is_some_and(|weight| weight >= percent)).await
    }

    /// Waits until the target asks for so many replicas.
    pub(crate) async fn until_scaled(&self, replicas: i32) -> Result<()> {
        let so = |found: &Deployment| found.spec.as_ref().and_then(|spec| spec.replicas) == Some(replicas);
        self.namespace.until_object(APP, PATIENCE, so).await.map(|_| ())
    }

    /// What was told of the Canary, oldest first.
    pub(crate) async fn told(&self) -> Result<Vec<String>> {
        let mut events = self.namespace.api::<Event>().list(&ListParams::default()).await?.items;
        events.retain(|event| event.involved_object.kind.as_deref() == Some("Canary"));
        events.sort_by_key(|event| event.first_timestamp.as_ref().map(|time| time.0));
        Ok(events.into_iter().filter_map(|event| event.message).collect())
    }

    /// Waits until this was told of the Canary, and returns the whole sentence.
    pub(crate) async fn until_told(&self, words: &str) -> Result<String> {
        let what = format!("{words:?} was not told");
        self.namespace
            .until(&what, Duration::from_secs(20), async || {
                Ok(self.told().await?.into_iter().find(|sentence| sentence.contains(words)))
            })
            .await
    }
}

fn deployment(version: &str, manner: Manner) -> Value {
    let mut arguments =
        vec!["--listen=$(POD_IP):8080".to_owned(), format!("--version={version}"), "--linger-ms=700".to_owned()];
    match manner {
        Manner::Good => {}
        Manner::Dead => arguments.push("--fail=1".to_owned()),
        Manner::Slow(ms) => arguments.push(format!("--delay-ms={ms}")),
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": APP},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": APP}},
            "template": {
                "metadata": {"labels": {"app": APP}},
                "spec": {"containers": [{
                    "name": "app", "image": "backend", "args": arguments,
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }]},
            },
        },
    })
}

fn canary(trial: Trial) -> Value {
    let Trial { interval_s, threshold, step, max } = trial;
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": APP},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
            "progressDeadlineSeconds": 300,
            "service": {"port": 80, "targetPort": 8080, "hosts": [HOST]},
            "analysis": {
                "interval": format!("{interval_s}s"), "threshold": threshold, "stepWeight": step, "maxWeight": max,
                "metrics": [
                    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
                    {"name": "request-duration", "interval": "1m", "thresholdRange": {"max": 400}},
                ],
            },
        },
    })
}
