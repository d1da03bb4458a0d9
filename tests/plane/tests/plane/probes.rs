//! What probes do to pods.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::Signal;
use serde_json::json;
use serin_plane::Namespace;

use crate::lifecycle::{first, is_ready};
use crate::objects::{SOON, pod, service};
use crate::wrote;

/// A script that makes a file when it gets SIGUSR1, and removes it again at the next.
const TOGGLES: &str = "trap 'test -e /state/sick && rm /state/sick || touch /state/sick' USR1; echo listening; while :; do sleep 0.1; done";

fn toggling(probe: &str) -> serde_json::Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "volumes": [{ "name": "state", "emptyDir": {} }],
        "containers": [{
            "name": "app", "image": "sh", "args": [TOGGLES],
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "volumeMounts": [{ "name": "state", "mountPath": "/state" }],
            probe: { "exec": { "command": ["sh", "-c", "! test -e /state/sick"] }, "periodSeconds": 1, "failureThreshold": 1 },
        }],
    })
}

pub(crate) async fn readiness(shop: Namespace) -> Result<()> {
    shop.apply(json!([pod("web", toggling("readinessProbe")), service("web")])).await?;
    wrote(&shop, "web", "listening").await?;
    for (count, ready) in [(1, true), (0, false), (1, true)] {
        shop.until_object("web", SOON, |pod: &Pod| first(pod).is_some_and(|status| status.ready == ready)).await?;
        shop.until("as many endpoints as are ready", SOON, async || {
            Ok((shop.endpoints("web", "http").await?.len() == count).then_some(()))
        })
        .await?;
        shop.plane().node().kill(&format!("{}/web", shop.name()), Signal::SIGUSR1)?;
    }
    Ok(())
}

pub(crate) async fn liveness(shop: Namespace) -> Result<()> {
    shop.apply(pod("web", toggling("livenessProbe"))).await?;
    wrote(&shop, "web", "listening").await?;
    shop.until_object("web", SOON, is_ready).await?;
    shop.plane().node().kill(&format!("{}/web", shop.name()), Signal::SIGUSR1)?;
    let restarted = |pod: &Pod| first(pod).is_some_and(|status| status.restart_count >= 1);
    shop.until_object("web", SOON, restarted).await?;
    Ok(())
}

pub(crate) async fn startup(shop: Namespace) -> Result<()> {
    let slow = json!({ "terminationGracePeriodSeconds": 1, "containers": [{
        "name": "app", "image": "sh", "args": ["sleep 2; touch /tmp/$HOSTNAME.started; sleep 600"],
        "startupProbe": { "exec": { "command": ["sh", "-c", "rm /tmp/$HOSTNAME.started"] }, "periodSeconds": 1, "failureThreshold": 30 },
        "livenessProbe": { "exec": { "command": ["true"] } },
        "readinessProbe": { "exec": { "command": ["true"] } },
    }] });
    let name = format!("slow-{}", shop.name());
    shop.apply(pod(&name, slow)).await?;
    let running = |pod: &Pod| first(pod).and_then(|status| status.state.as_ref()?.running.as_ref()).is_some();
    let pod = shop.until_object(&name, SOON, running).await?;
    ensure!(first(&pod).and_then(|status| status.started) == Some(false), "it has not started yet");
    ensure!(!is_ready(&pod), "it is not ready yet");
    let pod = shop.until_object(&name, SOON, is_ready).await?;
    ensure!(first(&pod).is_some_and(|status| status.restart_count == 0), "it was not restarted");
    Ok(())
}
