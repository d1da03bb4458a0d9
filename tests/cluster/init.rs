//! Taking over an app that is live: nothing fails, and what is there afterwards is what Flagger would have made.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use serin_plane::{Namespace, Suite};

use crate::fleet::{Fleet, PATIENCE};
use crate::shop::{APP, Manner, Shop, Trial};
use crate::users::{Users, told};

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("checklist_32_to_48_a_live_app_is_taken_over_without_a_failed_request", a_live_app_is_taken_over);
    suite.test("a_canary_that_cannot_be_honoured_says_so_in_its_status", what_cannot_be_honoured_is_said);
    suite.test("somebody_elses_hand_on_the_status_stops_the_stepping_and_is_told", a_foreign_writer);
    suite.test("a_canary_that_is_flaggers_is_left_to_flagger", a_canary_of_flaggers);
    suite.test("a_canary_that_is_deleted_takes_what_it_made_with_it", a_deleted_canary);
}

async fn a_live_app_is_taken_over(namespace: Namespace) -> Result<()> {
    let shop = Shop::open(&namespace, "1").await?;
    let fleet = Fleet::start(&namespace, 3).await?;
    let replicas = fleet.replicas().await?;
    shop.begin_to_watch_over(Trial::default()).await?;
    routed(&namespace, &fleet).await?;
    let users = Users::of(&replicas);
    shop.until_phase("Initialized").await?;
    shop.until_scaled(0).await?;
    // The last pod of the target is gone, and requests flow on.
    namespace
        .until("the target's pods are still there", PATIENCE, async || {
            Ok(namespace.pods(&format!("app={APP}")).await?.is_empty().then_some(()))
        })
        .await?;
    users.until_more(100).await?;
    told("init of a live app", &users.go_home().await, 0)?;
    what_was_made(&namespace, &shop).await
}

/// Waits until every replica routes the app's host: a Canary just made is known a moment later.
async fn routed(namespace: &Namespace, fleet: &Fleet) -> Result<()> {
    for replica in fleet.replicas().await? {
        namespace
            .until("a replica does not route the host", PATIENCE, async || {
                let request = hyper::Request::get("/").header("host", crate::shop::HOST);
                let request = request.body(http_body_util::Full::default()).context("a request")?;
                let mut client = serin_tests::client::Client::new(replica.edge);
                let answer = client.send(request, Duration::from_secs(5)).await;
                Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
            })
            .await?;
    }
    Ok(())
}

async fn what_was_made(namespace: &Namespace, shop: &Shop) -> Result<()> {
    let primary = namespace.api::<Deployment>().get("shop-primary").await?;
    let spec = primary.spec.clone().context("a spec")?;
    ensure!(spec.replicas == Some(2), "checklist 34: {:?}", spec.replicas);
    ensure!(spec.selector.match_labels == Some([("app".to_owned(), "shop-primary".to_owned())].into()), "checklist 35");
    ensure!(primary.owner_references().len() == 1, "checklist 53");
    let selector = async |name: &str| -> Result<Option<String>> {
        let service = namespace.api::<Service>().get(name).await?;
        Ok(service.spec.and_then(|spec| spec.selector?.remove("app")))
    };
    ensure!(selector("shop").await?.as_deref() == Some("shop-primary"), "checklist 44: what clients use");
    ensure!(selector("shop-primary").await?.as_deref() == Some("shop-primary"));
    ensure!(selector("shop-canary").await?.as_deref() == Some("shop"));
    let apex = namespace.api::<Service>().get("shop").await?;
    ensure!(apex.labels().get("mine").map(String::as_str) == Some("yes"), "checklist 46: its own labels stay");
    ensure!(apex.owner_references().is_empty(), "checklist 46: it was there before");
    ensure!(apex.annotations().contains_key("kustomize.toolkit.fluxcd.io/reconcile"), "checklist 47");
    let status = shop.canary().await?.data["status"].clone();
    ensure!(status["conditions"].as_array().map(Vec::len) == Some(1), "checklist 21: {status}");
    ensure!(status["conditions"][0]["status"] == "True", "checklist 22: {status}");
    ensure!(status["conditions"][0]["message"] == "Deployment initialization completed.", "checklist 21: {status}");
    for number in ["canaryWeight", "failedChecks", "iterations"] {
        ensure!(status[number] == 0, "checklist 25: {number} in {status}");
    }
    shop.until_told("Initialization done! shop.").await?;
    let told = shop.told().await?;
    ensure!(
        told.iter().any(|event| event.contains("shop-primary") && event.contains("not ready")),
        "checklist 43: {told:?}"
    );
    Ok(())
}

async fn what_cannot_be_honoured_is_said(namespace: Namespace) -> Result<()> {
    let shop = Shop::open(&namespace, "1").await?;
    Fleet::start(&namespace, 1).await?;
    shop.watch_over(Trial::default()).await?;
    let patch = json!({"spec": {"service": {"timeout": "soon"}}});
    shop.canaries().patch(APP, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let refused = |status: &serde_json::Value| {
        status["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Accepted" && condition["status"] == "False")
        })
    };
    let status = shop.until_status("the refusal is not told", refused).await?;
    ensure!(status["phase"] == "Initialized", "what was accepted stays in force: {status}");
    shop.until_told("spec.service.timeout: \"soon\" is no duration").await?;
    let patch = json!({"spec": {"service": {"timeout": null}}});
    shop.canaries().patch(APP, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    shop.until_status("the refusal stays", |status| !refused(status)).await?;
    Ok(())
}

async fn a_foreign_writer(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 1).await?;
    let shop = Shop::under_watch(&namespace, Trial::default()).await?;
    // As Flagger writes: the status as a whole, under its own name, and again if somebody was faster.
    let params = kube::api::PostParams { field_manager: Some("flagger".to_owned()), ..Default::default() };
    namespace
        .until("the status cannot be written", PATIENCE, async || {
            let mut canary = shop.canary().await?;
            canary.data["status"]["phase"] = json!("Progressing");
            canary.data["status"]["canaryWeight"] = json!(20);
            Ok(shop.canaries().replace_status(APP, &params, &canary).await.ok())
        })
        .await?;
    let sentence = shop.until_told("flagger writes the status of this Canary too").await?;
    println!("told: {sentence}");
    shop.release("2", Manner::Good).await?;
    // A good release of another app would be under way by now; this one is not stepped, and its status is left to him.
    let status = shop
        .until_status("the condition is not there", |status| {
            let conditions = status["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|condition| condition["reason"] == "ForeignWriter"))
        })
        .await?;
    ensure!(status["phase"] == "Progressing" && status["canaryWeight"] == 20, "it is his: {status}");
    let rollout = fleet.rollout(APP).await?.context("there is a rollout")?;
    ensure!((rollout.phase.as_str(), rollout.weight) == ("Initialized", 0.0), "{rollout:?}");
    Ok(())
}

/// Flagger runs beside, and a Canary is for a mesh that Serin is not.
async fn a_canary_of_flaggers(namespace: Namespace) -> Result<()> {
    Fleet::start(&namespace, 1).await?;
    let shop = Shop::open(&namespace, "1").await?;
    let canary = json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "meshed"},
        "spec": {
            "provider": "istio",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "meshed"},
            "service": {"port": 80}, "analysis": {"interval": "10s", "threshold": 2, "stepWeight": 20},
        },
    });
    namespace.apply(json!([canary])).await?;
    let status = json!({"status": {
        "phase": "Progressing", "canaryWeight": 20, "failedChecks": 1, "iterations": 0, "lastAppliedSpec": "7f8d",
        "conditions": [],
    }});
    let params = PatchParams { field_manager: Some("flagger".to_owned()), ..PatchParams::default() };
    shop.canaries().patch_status("meshed", &params, &Patch::Merge(&status)).await?;
    // Serin looks at all Canaries in turn, and by the time another one is initialised it has looked at this one often.
    shop.watch_over(Trial::default()).await?;
    let found = shop.canaries().get("meshed").await?.data["status"].clone();
    for field in ["phase", "canaryWeight", "failedChecks", "lastAppliedSpec"] {
        ensure!(found[field] == status["status"][field], "{field} is Flagger's: {found}");
    }
    Ok(())
}

async fn a_deleted_canary(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 1).await?;
    let shop = Shop::under_watch(&namespace, Trial::default()).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Dead).await?;
    shop.until_phase("Failed").await?;
    users.go_home().await;
    shop.canaries().delete(APP, &kube::api::DeleteParams::background()).await?;
    namespace
        .until("the primary is still there", PATIENCE, async || {
            let primary = namespace.api::<Deployment>().get_opt("shop-primary").await?;
            let service = namespace.api::<Service>().get_opt("shop-canary").await?;
            Ok((primary.is_none() && service.is_none()).then_some(()))
        })
        .await?;
    ensure!(namespace.api::<Deployment>().get_opt(APP).await?.is_some(), "checklist 158: the target stays as it is");
    // Another Canary of the same name begins anew.
    shop.release("1", Manner::Good).await?;
    let target = json!({"spec": {"replicas": 2}});
    namespace.api::<Deployment>().patch(APP, &PatchParams::default(), &Patch::Merge(&target)).await?;
    shop.watch_over(Trial { step: 50, max: 50, ..Trial::default() }).await?;
    let status = shop.canary().await?.data["status"].clone();
    ensure!(status["canaryWeight"] == 0 && status["failedChecks"] == 0, "{status}");
    // Its first run has the number that tripped before, and is judged all the same: on its own requests alone.
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(50).await?;
    users.until_more(100).await?;
    let rollout = fleet.rollout(APP).await?.context("there is a rollout")?;
    ensure!(rollout.rollout == 1 && rollout.canary.failures == 0, "{rollout:?}");
    shop.until_phase("Succeeded").await?;
    shop.release("3", Manner::Dead).await?;
    shop.until_phase("Failed").await?;
    shop.until_told("Rolling back shop.").await?;
    told("a Canary that was deleted and made anew, with a dead release", &users.go_home().await, 40)
}
