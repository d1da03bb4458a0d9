//! One replica behind a wall: packets are dropped, really, and nobody is told.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use serin_plane::{Cut, Namespace, Suite};

use crate::fleet::{Fleet, PATIENCE, Replica};
use crate::shop::{APP, Manner, Shop, Trial};
use crate::users::{Users, told};

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("a_replica_that_is_cut_off_trips_by_itself_and_is_heard_later", a_replica_is_cut_off);
    suite.test("a_replica_that_loses_sight_of_the_cluster_holds_everything_up", a_replica_is_blind);
    suite.test("a_leader_that_is_cut_off_is_replaced_and_follows_later", a_leader_is_cut_off);
}

async fn walled(namespace: &Namespace) -> Result<Fleet> {
    Fleet::start_with(namespace, 3, json!({"serin.dev/own-network": "true"})).await
}

async fn another(fleet: &Fleet, leader: &Replica) -> Result<Replica> {
    fleet.replicas().await?.into_iter().find(|replica| replica != leader).context("there are three")
}

/// From everybody but its users and the pods it serves: the API server, and the other replicas.
async fn cut_off(fleet: &Fleet, replica: &Replica) -> Result<()> {
    let node = fleet.namespace.plane().node();
    let others = fleet.replicas().await?.into_iter().filter(|other| other != replica);
    let addresses = others.filter_map(|other| match other.edge.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let others = addresses.collect();
    node.partition(&fleet.called(&replica.pod), Cut::FromApi).await?;
    node.partition(&fleet.called(&replica.pod), Cut::FromPeers(others)).await
}

async fn a_replica_is_cut_off(namespace: Namespace) -> Result<()> {
    let fleet = walled(&namespace).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 30, ..Trial::default() }).await?;
    let leader = fleet.leader().await?;
    let lonely = another(&fleet, &leader).await?;
    shop.release("2", Manner::Dead).await?;
    shop.until_weight(20).await?;
    cut_off(&fleet, &lonely).await?;
    // Only the lonely one has users: nobody else can find out.
    let users = Users::of(std::slice::from_ref(&lonely));
    users.until_more(600).await?;
    let failed = users.so_far().failed;
    users.until_more(300).await?;
    ensure!(users.so_far().failed == failed, "its own tripwire has taken the canary out: {failed} failed");
    ensure!(failed > 0, "the canary was in traffic");
    fleet.namespace.plane().node().heal(&fleet.called(&lonely.pod)).await?;
    shop.until_phase("Failed").await?;
    shop.until_told("Rolling back shop.").await?;
    let (_, own) = (0, serin_analysis::failures_needed(0.2, serin_analysis::WARM_UP_TOLERANCE, own_stake()));
    println!("its own stake allows {own} failures in warm-up, plus what was in flight");
    told("a replica that is cut off with a dead canary", &users.go_home().await, u64::from(own) + 30)
}

fn own_stake() -> serin_analysis::Stake {
    serin_analysis::Stake { stake: 0.25 / 3.0, ..serin_analysis::Stake::default() }
}

/// Its users, its pods and the other replicas reach it, and nobody tells it that the API server is silent: it would go on sending
/// requests to pods that are long gone.
async fn a_replica_is_blind(namespace: Namespace) -> Result<()> {
    let fleet = walled(&namespace).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 2, max: 80, ..Trial::default() }).await?;
    let leader = fleet.leader().await?;
    let blind = another(&fleet, &leader).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(20).await?;
    let node = fleet.namespace.plane().node();
    node.partition(&fleet.called(&blind.pod), Cut::FromApi).await?;
    fleet
        .namespace
        .until("nobody waits for the replica that is blind", PATIENCE, async || {
            let holds = fleet.rollout(APP).await?.and_then(|rollout| rollout.holds).unwrap_or_default();
            Ok(holds.contains("do not see the cluster").then_some(()))
        })
        .await?;
    ensure!(shop.canary().await?.data["status"]["phase"] == "Progressing", "nothing is promoted under it");
    node.heal(&fleet.called(&blind.pod)).await?;
    shop.until_phase("Succeeded").await?;
    users.until_more(100).await?;
    told("a replica that loses sight of the cluster", &users.go_home().await, 0)
}

async fn a_leader_is_cut_off(namespace: Namespace) -> Result<()> {
    let fleet = walled(&namespace).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 2, max: 80, ..Trial::default() }).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(20).await?;
    let former = fleet.leader().await?;
    cut_off(&fleet, &former).await?;
    let next = fleet.leader_but(&[former.pod.clone()].into()).await?;
    println!("{} leads after {}", next.pod, former.pod);
    // While a replica that serves is silent, nothing advances; it is heard again, and the rollout goes on.
    fleet.namespace.plane().node().heal(&fleet.called(&former.pod)).await?;
    shop.until_phase("Succeeded").await?;
    users.until_more(100).await?;
    told("a leader that is cut off", &users.go_home().await, 0)
}
