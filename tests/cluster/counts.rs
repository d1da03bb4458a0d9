//! What the leader tells of three replicas is what users have sent, to the last request.

use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serin_plane::{Namespace, Suite};

use serin_tests::report::{Failed, Failure};
use serin_tests::rollouts::Admin;

use crate::fleet::{Fleet, PATIENCE};
use crate::shop::{APP, Manner, Shop, Trial};
use crate::users::Users;

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("merged_counts_are_what_users_sent_also_across_a_restart", merged_counts);
}

async fn merged_counts(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let trial = Trial { step: 50, max: 50, ..Trial::default() };
    let shop = Shop::under_watch(&namespace, trial).await?;
    // The first step comes within a moment and the next one never, so that all requests of the run are counted in it.
    shop.release("2", Manner::Good).await?;
    shop.until_weight(50).await?;
    shop.try_by(Trial { interval_s: 600, ..trial }).await?;
    let before = counted(&fleet).await?;
    let (begun, calls) = (Instant::now(), api_calls(&fleet).await?);
    let replicas = fleet.replicas().await?;
    let mut users = Users::of(&replicas);
    users.until_more(600).await?;
    // A replica that does not lead is restarted in good order, and gives its last counts away before it ends. Its users stay until
    // its door is closed, so some of their requests come after the leader's last ordinary question.
    let leader = fleet.leader().await?;
    let leaving = replicas.iter().find(|replica| **replica != leader).expect("there are three");
    namespace.api::<Pod>().delete(&leaving.pod, &kube::api::DeleteParams::default()).await?;
    users.until_refused().await?;
    users.leave(leaving).await;
    fleet.until_ready(3).await?;
    users.until_more(300).await?;
    let seen = users.go_home().await;
    let (minutes, made) = (begun.elapsed().as_secs_f64() / 60.0, api_calls(&fleet).await?.saturating_sub(calls));
    println!("three replicas made {made} calls to the API server in {minutes:.2} minutes of one canary's trial");
    let answered = |failure: &Failure| matches!(failure.what, Failed::Status(_));
    ensure!(!seen.failures.iter().any(answered), "{:?}", seen.failures);
    // Who found the door closed was not counted.
    let expected = before + seen.requests - seen.failed;
    let mut last = 0;
    let counted = namespace.until("the counts are not what users sent", PATIENCE, async || {
        last = counted(&fleet).await?;
        Ok((last == expected).then_some(()))
    });
    let told = counted.await;
    println!("users sent {} requests; the leader counted {last} of {expected}", seen.requests);
    told?;
    for replica in fleet.replicas().await? {
        println!("{} has {} MiB", replica.pod, fleet.memory_mib(&replica)?);
    }
    Ok(())
}

/// Calls to the API server so far, by the replicas that are there now.
async fn api_calls(fleet: &Fleet) -> Result<u64> {
    let mut calls = 0;
    for replica in fleet.replicas().await? {
        let page = Admin(replica.admin).page("/metrics").await?;
        let of_calls = page.lines().filter(|line| line.starts_with("serin_api_server_calls_total{"));
        calls += of_calls.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(calls)
}

/// Requests of the run that have ended, on both arms, as the leader tells it.
async fn counted(fleet: &Fleet) -> Result<u64> {
    let rollout = fleet.rollout(APP).await?.unwrap_or_default();
    Ok(rollout.primary.requests + rollout.canary.requests)
}
