//! The API server is away for a minute in mid-rollout: traffic flows, weights hold, tripwires trip, and all is made good later.
//!
//! Two fleets live through the same outage, one with a good canary and one with a dead one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serin_plane::{ApiServerOutage, Namespace, Suite};
use serin_tests::rollouts::Admin;
use tokio::time::{Instant, sleep_until};

use crate::fleet::{Fleet, PATIENCE, Replica};
use crate::shop::{APP, HOST, Manner, Shop, Trial};
use crate::users::{Users, told};

/// How long it is away.
const AWAY: Duration = Duration::from_secs(60);

pub(crate) fn tests(suite: &mut Suite) {
    suite.test_alone(
        "checklist_208_the_api_server_is_away_for_a_minute_with_a_good_and_with_a_dead_canary",
        the_api_server_is_away,
    );
}

/// A fleet in mid-rollout, with the canary at its first weight.
struct Stage {
    shop: Shop,
    replicas: Vec<Replica>,
    users: Users,
}

impl Stage {
    async fn set(namespace: &Namespace, manner: Manner) -> Result<Self> {
        let fleet = Fleet::start(namespace, 3).await?;
        let shop = Shop::under_watch(namespace, Trial { interval_s: 2, ..Trial::default() }).await?;
        let replicas = fleet.replicas().await?;
        shop.release("2", manner).await?;
        Ok(Self { shop, users: Users::of(&[]), replicas })
    }

    fn let_users_in(&mut self) {
        self.users = Users::of(&self.replicas);
    }

    /// The canary's weight, as each replica has it in force.
    async fn weights(&self) -> Result<Vec<f64>> {
        let mut weights = Vec::new();
        for replica in &self.replicas {
            let rollout = Admin(replica.admin).rollout(APP).await?;
            weights.push(rollout.context("it is listed")?.weight);
        }
        Ok(weights)
    }
}

async fn the_api_server_is_away(namespace: Namespace) -> Result<()> {
    let other = namespace.plane().namespace("dead").await?;
    let mut good = Stage::set(&namespace, Manner::Good).await?;
    good.let_users_in();
    let mut dead = Stage::set(&other, Manner::Dead).await?;
    dead.shop.until_weight(20).await?;
    // One long step: nothing but the guard can act in it. Users come in when nobody can tell the cluster of them.
    dead.shop.try_by(Trial { interval_s: 300, ..Trial::default() }).await?;
    settle(&dead).await?;
    good.shop.until_weight(20).await?;

    let back = Instant::now() + AWAY;
    namespace.plane().stop_api_server(ApiServerOutage::Killed).await?;
    let before = good.weights().await?;
    dead.let_users_in();
    dead.users.until_more(900).await?;
    let failed = dead.users.so_far().failed;
    dead.users.until_more(600).await?;
    let later = dead.users.so_far().failed;
    ensure!(later == failed, "braking needs no API server: {failed} failed, then {later}");
    ensure!(failed > 0, "the canary of {HOST} was in traffic");
    // The outage is the event; there is nothing to wait for but its length.
    sleep_until(back).await;
    let after = good.weights().await?;
    ensure!(before == after, "weights hold: {before:?} became {after:?}");
    namespace.plane().start_api_server().await?;

    good.shop.until_phase("Succeeded").await?;
    good.users.until_more(100).await?;
    told("the API server away for a minute, with a good canary", &good.users.go_home().await, 0)?;
    dead.shop.until_phase("Failed").await?;
    dead.shop.until_told("Rolling back shop.").await?;
    dead.users.until_more(100).await?;
    told("the API server away for a minute, with a dead canary", &dead.users.go_home().await, 60)?;
    other.close().await
}

/// Waits until the longer interval is in force everywhere: no check fails for want of requests any more.
async fn settle(stage: &Stage) -> Result<()> {
    for replica in &stage.replicas {
        stage
            .shop
            .namespace
            .until("the interval is not in force", PATIENCE, async || {
                let rollout = Admin(replica.admin).rollout(APP).await?;
                Ok(rollout.filter(|rollout| rollout.interval_ms == 300_000).map(|_| ()))
            })
            .await?;
    }
    Ok(())
}
