//! The API server goes away: pods run on, and all is well when it comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use nix::sys::signal::Signal;
use serde_json::json;
use serin_plane::{ApiServerOutage, Namespace};
use tokio::time::timeout;

use crate::objects::{SOON, service, web};
use crate::the_pod;
use crate::workloads::version;

pub(crate) async fn killed(shop: Namespace) -> Result<()> {
    outage(&shop, ApiServerOutage::Killed).await
}

pub(crate) async fn frozen(shop: Namespace) -> Result<()> {
    outage(&shop, ApiServerOutage::Frozen).await
}

async fn outage(shop: &Namespace, outage: ApiServerOutage) -> Result<()> {
    let plane = shop.plane();
    shop.apply(json!([web("1", 1), service("web")])).await?;
    shop.until_rolled_out("web", SOON).await?;
    let name = the_pod(shop, "app=web").await?;
    let address = (plane.node().address(&name)?, 8080).into();

    plane.stop_api_server(outage).await?;
    let asked = timeout(Duration::from_millis(500), shop.api::<ConfigMap>().get_opt("none")).await;
    match outage {
        ApiServerOutage::Killed => ensure!(matches!(asked, Ok(Err(_))), "it is dead, and answers {asked:?}"),
        ApiServerOutage::Frozen => ensure!(asked.is_err(), "it is frozen, and answers {asked:?}"),
    }
    version(address).await.context("a pod serves during the outage")?;
    // The node restarts it without being told to.
    let before = plane.node().pid(&name)?;
    plane.node().kill(&name, Signal::SIGKILL)?;
    shop.until("the pod is not restarted during the outage", SOON, async || {
        let restarted = plane.node().pid(&name).is_ok_and(|pid| pid != before);
        Ok((restarted && version(address).await.is_ok()).then_some(()))
    })
    .await?;

    plane.start_api_server().await?;
    shop.apply(web("2", 1)).await?;
    shop.until_rolled_out("web", SOON).await?;
    let name = the_pod(shop, "app=web").await?;
    let told = version((plane.node().address(&name)?, 8080).into()).await?;
    ensure!(told.contains('2'), "after the outage it says {told}");
    Ok(())
}
