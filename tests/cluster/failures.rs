//! Replicas of Serin that die: the leader in every phase of a rollout, one that is added, one that is restarted.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serin_plane::{Namespace, Suite};

use crate::fleet::{Fleet, PATIENCE, Replica};
use crate::shop::{Manner, Shop, Trial};
use crate::users::{Users, told};

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("checklist_207_the_leader_is_killed_in_every_phase_of_a_rollout", the_leader_is_killed_in_every_phase);
    suite.test("the_leader_is_killed_while_a_dead_canary_is_in_traffic", the_leader_is_killed_with_a_dead_canary);
    suite.test("replicas_come_and_go_in_mid_run", replicas_come_and_go);
}

/// Kills whoever leads, and waits until another one does. Its users have noticed before, as a load balancer would have it.
async fn kill_the_leader(fleet: &Fleet, users: &mut Users) -> Result<Replica> {
    let leader = fleet.leader().await?;
    users.leave(&leader).await;
    fleet.namespace.plane().node().kill(&fleet.called(&leader.pod), Signal::SIGKILL)?;
    println!("killed the leader, {}", leader.pod);
    Ok(leader)
}

async fn the_leader_is_killed_in_every_phase(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 2, ..Trial::default() }).await?;
    let mut users = Users::of(&fleet.replicas().await?);
    let mut restarts = std::collections::BTreeMap::new();
    shop.release("2", Manner::Good).await?;
    for phase in ["Progressing", "Promoting", "Finalising"] {
        shop.until_status("the phase does not come", |status| {
            status["phase"] == phase && (phase != "Progressing" || status["canaryWeight"] == 40)
        })
        .await?;
        let killed = kill_the_leader(&fleet, &mut users).await?;
        let restarts = restarts.entry(killed.pod.clone()).or_insert(0);
        *restarts += 1;
        fleet.until_restarted(&killed, *restarts).await?;
        users.come_in_through(&killed, crate::users::RATE / 3.0);
    }
    shop.until_phase("Succeeded").await?;
    shop.until_scaled(0).await?;
    users.until_more(100).await?;
    told("the leader killed in every phase", &users.go_home().await, 0)?;
    let story = shop.told().await?;
    let promotions = story.iter().filter(|told| told.contains("Promotion completed!")).count();
    ensure!(promotions == 1, "a promotion is done and told once: {story:#?}");
    Ok(())
}

async fn the_leader_is_killed_with_a_dead_canary(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 5, ..Trial::default() }).await?;
    let mut users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Dead).await?;
    shop.until_weight(20).await?;
    // By now it may be rolled back already; whoever leads next has to come to the same.
    kill_the_leader(&fleet, &mut users).await?;
    shop.until_phase("Failed").await?;
    users.until_more(200).await?;
    let failed = users.so_far().failed;
    users.until_more(300).await?;
    ensure!(users.so_far().failed == failed, "nobody meets it any more");
    // Two replicas watch by themselves until somebody leads again.
    told("the leader killed with a dead canary", &users.go_home().await, 100)
}

async fn replicas_come_and_go(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 2).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 2, max: 80, ..Trial::default() }).await?;
    let before = fleet.replicas().await?;
    let mut users = Users::of(&before);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(20).await?;
    scale(&namespace, 3).await?;
    let replicas = fleet.until_ready(3).await?;
    for newcomer in replicas.iter().filter(|replica| !before.contains(replica)) {
        users.come_in_through(newcomer, crate::users::RATE / 3.0);
    }
    // One that does not lead is taken down in good order: Kubernetes tells it, and it drains.
    let leader = fleet.leader().await?;
    let leaving = replicas.iter().find(|replica| **replica != leader).expect("there are three");
    users.leave(leaving).await;
    let pods = namespace.api::<k8s_openapi::api::core::v1::Pod>();
    pods.delete(&leaving.pod, &kube::api::DeleteParams::default()).await?;
    fleet.until_ready(3).await?;
    shop.until_phase("Succeeded").await?;
    users.until_more(100).await?;
    told("replicas that come and go", &users.go_home().await, 0)
}

async fn scale(namespace: &Namespace, replicas: u32) -> Result<()> {
    let patch = serde_json::json!({"spec": {"replicas": replicas}});
    let deployments = namespace.api::<k8s_openapi::api::apps::v1::Deployment>();
    deployments.patch("serin", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await?;
    namespace
        .until("the new replica is not there", PATIENCE, async || {
            let pods = namespace.pods("app.kubernetes.io/name=serin").await?;
            Ok((pods.len() == replicas as usize).then_some(()))
        })
        .await
}
