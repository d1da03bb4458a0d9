//! Whole rollouts: promoted, rolled back for failures, rolled back for latency, begun again by a newer release.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use serin_analysis::{Stake, WARM_UP_TOLERANCE, failures_needed};
use serin_plane::{Namespace, Suite};

use crate::fleet::Fleet;
use crate::shop::{Manner, Shop, Trial};
use crate::users::{RATE, Users, told};

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("checklist_82_to_97_a_good_release_is_promoted_and_the_primary_runs_it", a_good_release);
    suite.test("checklist_145_a_release_that_fails_every_request_is_rolled_back_within_the_stakes", a_dead_release);
    suite.test("a_release_that_is_half_a_second_slower_is_rolled_back", a_slow_release);
    suite.test("checklist_74_a_newer_release_in_mid_run_begins_again", a_newer_release);
}

async fn a_good_release(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial::default()).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(60).await?;
    let status = shop.until_phase("Succeeded").await?;
    ensure!(status["lastAppliedSpec"] == status["lastPromotedSpec"], "checklist 96: {status}");
    shop.until_scaled(0).await?;
    let answered = users.so_far().versions.get("2").map_or(0, |tally| tally.requests);
    ensure!(answered > 0, "the canary got real traffic");
    users.until_more(200).await?;
    let seen = users.go_home().await;
    told("a good release", &seen, 0)?;
    let primary = namespace.api::<Deployment>().get("shop-primary").await?;
    let containers = primary.spec.and_then(|spec| spec.template.spec).context("a pod")?.containers;
    ensure!(
        format!("{:?}", containers[0].args).contains("--version=2"),
        "the primary runs it: {:?}",
        containers[0].args
    );
    let story = shop.told().await?;
    for sentence in [
        "New revision detected! Scaling up shop.",
        "Starting canary analysis for shop.",
        "canary weight 20",
        "canary weight 40",
        "canary weight 60",
        "Copying shop.",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down shop.",
    ] {
        ensure!(story.iter().any(|told| told.contains(sentence)), "{sentence:?} was not told: {story:#?}");
    }
    Ok(())
}

/// How many failures the stakes allow, in one place: pooled by the leader, and at one of so many replicas.
fn allowed(weight: f64, replicas: f64) -> (u32, u32) {
    let needed = |stake| failures_needed(weight, WARM_UP_TOLERANCE, Stake { stake, ..Stake::default() });
    (needed(0.5), needed(0.25 / replicas))
}

async fn a_dead_release(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial { interval_s: 5, ..Trial::default() }).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Dead).await?;
    let status = shop.until_phase("Failed").await?;
    ensure!(status["canaryWeight"] == 0 && status["failedChecks"] == 0, "checklist 145: {status}");
    let sentence = shop.until_told("Rolling back shop.").await?;
    users.until_more(300).await?;
    let seen = users.go_home().await;
    let (pooled, own) = allowed(0.2, 3.0);
    // The leader asks five times a second and its order travels back; meanwhile requests go on being sent to the canary.
    let meanwhile = 0.2 * RATE * 0.5;
    println!(
        "the stakes allow {pooled} failures to the leader and {own} to each of three replicas, in warm-up; {sentence}"
    );
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of requests")]
    let most = u64::from(pooled.min(3 * own)) + meanwhile as u64;
    told("a dead release", &seen, most)?;
    shop.until_scaled(0).await?;
    ensure!(seen.versions["2"].failures == seen.failed, "nobody but the canary failed anybody");
    Ok(())
}

async fn a_slow_release(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial::default()).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Slow(500)).await?;
    shop.until_phase("Failed").await?;
    shop.until_told("failed checks threshold reached 3").await?;
    users.until_more(100).await?;
    told("a release that is 500 ms slower", &users.go_home().await, 0)
}

async fn a_newer_release(namespace: Namespace) -> Result<()> {
    let fleet = Fleet::start(&namespace, 3).await?;
    let shop = Shop::under_watch(&namespace, Trial { max: 80, ..Trial::default() }).await?;
    let users = Users::of(&fleet.replicas().await?);
    shop.release("2", Manner::Good).await?;
    shop.until_weight(40).await?;
    shop.release("3", Manner::Good).await?;
    shop.until_told("New revision detected! Restarting analysis for shop.").await?;
    shop.until_phase("Succeeded").await?;
    users.until_more(100).await?;
    let seen = users.go_home().await;
    told("a newer release in mid-run", &seen, 0)?;
    ensure!(seen.versions.contains_key("3"));
    Ok(())
}
