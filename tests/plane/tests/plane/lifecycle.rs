//! How pods end, by themselves and by others.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use nix::sys::signal::Signal;
use serde_json::json;
use serin_plane::Namespace;

use crate::objects::{SOON, deployment, pod, script, service, web};
use crate::workloads::version;
use crate::{the_pod, wrote};

pub(crate) fn first(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    first(pod).is_some_and(|status| status.ready)
}

fn waits_for(pod: &Pod) -> Option<&str> {
    first(pod)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

pub(crate) async fn crash_loop(shop: Namespace) -> Result<()> {
    shop.apply(deployment("web", 1, script("echo crashing; exit 7"))).await?;
    let name = the_pod(&shop, "app=web").await?;
    let pod = shop
        .until_object(&name, SOON, |pod: &Pod| {
            waits_for(pod) == Some("CrashLoopBackOff") && first(pod).is_some_and(|status| status.restart_count >= 2)
        })
        .await?;
    let last =
        first(&pod).and_then(|status| status.last_state.as_ref()?.terminated.as_ref()).map(|ended| ended.exit_code);
    ensure!(last == Some(7), "its last state is {last:?}");
    ensure!(shop.plane().node().log(&name)?.lines().count() >= 3, "each run wrote a line");
    Ok(())
}

pub(crate) async fn unknown_image(shop: Namespace) -> Result<()> {
    let image = format!("later-{}", shop.name());
    shop.apply(pod("web", json!({ "containers": [{ "name": "app", "image": format!("{image}:1") }] }))).await?;
    shop.until_object("web", SOON, |pod: &Pod| waits_for(pod) == Some("ImagePullBackOff")).await?;
    shop.plane().node().set_image(&image, ["sleep", "600"]);
    shop.until_object("web", SOON, is_ready).await?;
    Ok(())
}

pub(crate) async fn serves_to_the_end(shop: Namespace) -> Result<()> {
    let mut deployment = web("1", 1);
    deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"] =
        json!({ "preStop": { "sleep": { "seconds": 2 } } });
    shop.apply(json!([deployment, service("web")])).await?;
    shop.until_rolled_out("web", SOON).await?;
    let name = the_pod(&shop, "app=web").await?;
    let address = (shop.plane().node().address(&name)?, 8080).into();
    shop.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
    let began = Instant::now();
    // Not ready any more for new connections, but serving.
    shop.until("the endpoint is terminating and serving", Duration::from_secs(2), async || {
        let slices = shop.api::<EndpointSlice>().list(&ListParams::default()).await?;
        let mut endpoints = slices.items.iter().flat_map(|slice| slice.endpoints.iter());
        let own =
            endpoints.find(|endpoint| endpoint.target_ref.as_ref().is_some_and(|pod| pod.name.as_ref() == Some(&name)));
        let conditions = own.and_then(|endpoint| endpoint.conditions.as_ref());
        let so = conditions.map(|so| (so.ready, so.serving, so.terminating));
        Ok((so == Some((Some(false), Some(true), Some(true)))).then_some(()))
    })
    .await?;
    version(address).await.context("it serves while its hook runs")?;
    shop.until("the pod is gone", SOON, async || Ok(shop.api::<Pod>().get_opt(&name).await?.is_none().then_some(())))
        .await?;
    ensure!(began.elapsed() > Duration::from_secs(2), "it went before its hook had ended");
    ensure!(version(address).await.is_err(), "its process is still there");
    Ok(())
}

pub(crate) async fn ignores_sigterm(shop: Namespace) -> Result<()> {
    let deaf = script("trap 'echo asked to end' TERM; echo deaf; while :; do sleep 0.1; done");
    shop.apply(pod("web", deaf)).await?;
    wrote(&shop, "web", "deaf").await?;
    shop.api::<Pod>().delete("web", &DeleteParams::default()).await?;
    let began = Instant::now();
    shop.until("the pod is gone", SOON, async || Ok(shop.api::<Pod>().get_opt("web").await?.is_none().then_some(())))
        .await?;
    ensure!(began.elapsed() >= Duration::from_millis(900), "it had less than its grace");
    Ok(())
}

pub(crate) async fn killed(shop: Namespace) -> Result<()> {
    shop.apply(web("1", 1)).await?;
    shop.until_rolled_out("web", SOON).await?;
    let name = the_pod(&shop, "app=web").await?;
    let before = shop.plane().node().pid(&name)?;
    shop.plane().node().kill(&name, Signal::SIGKILL)?;
    let pod = shop
        .until_object(&name, SOON, |pod: &Pod| {
            is_ready(pod) && first(pod).is_some_and(|status| status.restart_count == 1)
        })
        .await?;
    let last = first(&pod).and_then(|status| status.last_state.as_ref()?.terminated.clone()).context("it ended")?;
    ensure!((last.exit_code, last.signal) == (137, Some(9)), "it ended with {} {:?}", last.exit_code, last.signal);
    ensure!(shop.plane().node().pid(&name)? != before, "it is the same process");
    Ok(())
}
