//! What controllers make of pods here: Deployments, DaemonSets, Jobs, and Flagger's Canary.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use serin_plane::Namespace;
use serin_tests::client::get;

use crate::objects::{SOON, pod, script, service, web};

/// A backend answers within a millisecond, and the machine may be busy.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The version that a backend says it is.
pub(crate) async fn version(address: SocketAddr) -> Result<String> {
    let answer = get(address, "/", ANSWERED_WITHIN).await.map_err(|fault| anyhow!("{address}: {fault:?}"))?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

pub(crate) async fn serves(shop: Namespace) -> Result<()> {
    shop.apply(json!([web("1", 2), service("web")])).await?;
    shop.until_rolled_out("web", SOON).await?;
    let endpoints = shop
        .until("two endpoints", SOON, async || {
            Ok(Some(shop.endpoints("web", "http").await?).filter(|found| found.len() == 2))
        })
        .await?;
    for endpoint in endpoints {
        ensure!(version(endpoint).await?.contains('1'), "{endpoint} is not version 1");
    }
    Ok(())
}

pub(crate) async fn rolls_out(shop: Namespace) -> Result<()> {
    shop.apply(json!([web("1", 2), service("web")])).await?;
    shop.until_rolled_out("web", SOON).await?;
    shop.apply(web("2", 2)).await?;
    shop.until_rolled_out("web", SOON).await?;
    shop.until("only version 2 behind the Service", SOON, async || {
        let endpoints = shop.endpoints("web", "http").await?;
        for endpoint in &endpoints {
            match version(*endpoint).await {
                Ok(version) if version.contains('2') => {}
                _ => return Ok(None),
            }
        }
        Ok((endpoints.len() == 2).then_some(()))
    })
    .await?;
    shop.until("the old pods are gone", SOON, async || Ok((shop.pods("app=web").await?.len() == 2).then_some(()))).await
}

pub(crate) async fn daemon_set(shop: Namespace) -> Result<()> {
    shop.apply(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } },
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": script("exec sleep 600") },
        },
    }))
    .await?;
    let ready =
        |count: i32| move |set: &DaemonSet| set.status.as_ref().is_some_and(|status| status.number_ready == count);
    shop.until_object("agent", SOON, ready(2)).await?;
    // How Flagger stops a DaemonSet.
    for (selector, count) in [(json!({ "flagger.app/scale-to-zero": "true" }), 0), (json!({ "disk": "ssd" }), 1)] {
        let patch = json!({ "spec": { "template": { "spec": { "nodeSelector": selector } } } });
        shop.api::<DaemonSet>().patch("agent", &PatchParams::default(), &Patch::Merge(patch)).await?;
        shop.until("as many pods as nodes fit", SOON, async || {
            Ok((shop.pods("app=agent").await?.len() == count).then_some(()))
        })
        .await?;
        let cleared = json!({ "spec": { "template": { "spec": { "nodeSelector": null } } } });
        shop.api::<DaemonSet>().patch("agent", &PatchParams::default(), &Patch::Merge(cleared)).await?;
    }
    Ok(())
}

pub(crate) async fn job(shop: Namespace) -> Result<()> {
    let step = |name: &str, wants: &str| {
        json!({ "name": name, "image": "sh", "args": [format!("test \"$(cat /work/steps 2>/dev/null | tr -d '\\n')\" = '{wants}' && echo {name} >> /work/steps")],
            "volumeMounts": [{ "name": "work", "mountPath": "/work" }] })
    };
    shop.apply(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "steps" },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "restartPolicy": "Never",
            "initContainers": [step("a", ""), step("b", "a")],
            "containers": [step("c", "ab")],
            "volumes": [{ "name": "work", "emptyDir": {} }],
        } } },
    }))
    .await?;
    shop.until_object("steps", SOON, |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1)))
        .await?;
    // The job's pod stays as it ended, until it is deleted.
    shop.apply(pod(
        "done",
        json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": "sh", "args": ["exit 3"] }] }),
    ))
    .await?;
    let done = shop
        .until_object("done", SOON, |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed"))
        })
        .await?;
    let status = done.status.context("it has a status")?.container_statuses.unwrap_or_default();
    let code = status[0].state.as_ref().and_then(|state| state.terminated.as_ref()).map(|ended| ended.exit_code);
    ensure!(code == Some(3), "it ended with {code:?}");
    Ok(())
}

pub(crate) async fn flagger(shop: Namespace) -> Result<()> {
    let canary = json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": { "name": "web" },
        "spec": {
            "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
            "service": { "port": 80 },
            "analysis": { "interval": "1s", "threshold": 2, "maxWeight": 50, "stepWeight": 10 },
        },
    });
    let made = shop.apply(canary).await?;
    let uid = made[0].metadata.uid.clone().context("it has a uid")?;
    let owner = json!([{ "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "web", "uid": uid }]);
    shop.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "owned", "ownerReferences": owner },
    }))
    .await?;
    let kind = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
    let canaries: Api<kube::api::DynamicObject> = Api::namespaced_with(shop.plane().client(), shop.name(), &kind);
    canaries.delete("web", &DeleteParams::default()).await?;
    // Soon, because the CRD was there before the garbage collector was.
    shop.until("what the Canary owned is gone", Duration::from_secs(20), async || {
        Ok(shop.api::<ConfigMap>().get_opt("owned").await?.is_none().then_some(()))
    })
    .await
}
