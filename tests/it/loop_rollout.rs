//! Whole rollouts on a real `serin`, under load: what ends well, what is taken back, and what users see of it.
//!
//! Numbers in names are those of the compatibility checklist.

use std::time::Duration;

use anyhow::Result;
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::files::{BackendFile, CanaryFile};
use serin_tests::load::Load;

use crate::loop_stage::{CANARY_FILE, NAME, NEW, OLD, Stage, canary, ms_between, nobody, passed, story, times_told};

/// Requests a second, unless a test says otherwise.
const RATE: f64 = 150.0;

/// How long after the admin API has told a change a request may still go the old way: it may have been sent, though not
/// yet routed, when we looked.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// Failed requests that a dead canary may cost: about 15 until the guard is sure in its warm-up, the rest in flight.
const FAILED_MAX: u64 = 30;

/// A Canary whose guard does not act.
fn unguarded() -> CanaryFile {
    CanaryFile { threshold: 2, analysis: "guard: { mode: \"off\" }".to_owned(), ..canary() }
}

#[tokio::test]
async fn a_good_release_is_promoted_in_flaggers_steps_and_words_81_82_85_91_93_95() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    let ended = stage.phase("Succeeded").await?;
    let promoted = load.elapsed();
    passed(&load, promoted + Duration::from_secs(1)).await?;
    let seen = load.stop().await;

    let expected = [
        "Initialization done! podinfo.default",
        "New revision detected! Scaling up podinfo.default",
        "Starting canary analysis for podinfo.default",
        "Advance podinfo.default canary weight 20",
        "Advance podinfo.default canary weight 40",
        "Advance podinfo.default canary weight 60",
        "Copying podinfo.default template spec to podinfo-primary.default",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down podinfo.default",
    ];
    assert_eq!(story(&ended), expected);
    assert_eq!((ended.primary.revision.as_str(), ended.weight, ended.failed_checks), (NEW, 0.0, 0));
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert!(
        seen.versions[OLD].last_sent <= promoted + SETTLED_AFTER,
        "{:?} was served after {promoted:?}",
        seen.versions
    );
    Ok(())
}

#[tokio::test]
async fn a_dead_release_is_rolled_back_by_the_guard_before_thirty_requests_fail_145_212() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::FailAlways)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    let ended = stage.phase("Failed").await?;
    let rolled_back = load.elapsed();
    passed(&load, rolled_back + Duration::from_secs(1)).await?;
    let seen = load.stop().await;

    println!("a dead canary cost {} of {} requests", seen.failed, seen.requests);
    assert!((1..=FAILED_MAX).contains(&seen.failed), "{} requests failed", seen.failed);
    assert!(seen.versions[NEW].last_sent <= rolled_back + SETTLED_AFTER, "{seen:?} after {rolled_back:?}");
    assert_eq!(seen.answered_by(NEW), stage.backend(NEW).requests(), "nothing reaches it that no user sent");
    let [.., why, end] = story(&ended)[..] else { panic!("{:?}", ended.events) };
    assert!(why.starts_with("Rolling back podinfo.default ") && why.contains(" canary requests failed ("), "{why}");
    assert_eq!(end, "Canary failed! Scaling down podinfo.default");
    assert_eq!((ended.weight, ended.failed_checks, ended.primary.revision.as_str()), (0.0, 0, OLD));
    Ok(())
}

#[tokio::test]
async fn a_release_that_fails_no_more_than_the_primary_is_promoted() -> Result<()> {
    // Thresholds allow one failure in ten, so that only the guard, which allows 0.5 points more than the primary, could act.
    let canary = CanaryFile {
        success_rate_min: Some(90.0),
        analysis: "guard: { tolerance: 0.5%, warmup: 1s }".to_owned(),
        ..canary()
    };
    let both = Behaviour::FailFraction(0.02);
    let stage = Stage::set(&canary, &[(OLD, both), (NEW, both)]).await?;
    let load = stage.load(200.0);
    stage.release(NEW)?;
    let ended = stage.until("the rollout did not end", |now| ["Succeeded", "Failed"].contains(&&*now.phase)).await?;
    let seen = load.stop().await;

    assert_eq!(ended.phase, "Succeeded", "{:#?}", ended.events);
    assert_eq!(times_told(&ended, "Rolling back"), 0);
    assert!(seen.versions.values().all(|tally| tally.failures > 0), "both arms fail: {:?}", seen.versions);
    Ok(())
}

#[tokio::test]
async fn a_guard_that_observes_says_so_once_and_leaves_the_rollback_to_the_thresholds_87_89_146() -> Result<()> {
    let canary = CanaryFile { threshold: 2, analysis: "guard: { mode: observe }".to_owned(), ..canary() };
    let stage = Stage::set(&canary, &[(OLD, Behaviour::Ok), (NEW, Behaviour::FailAlways)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    let ended = stage.phase("Failed").await?;
    load.stop().await;

    assert_eq!(times_told(&ended, "Guard observes only, it would roll back podinfo.default: "), 1);
    assert_eq!(times_told(&ended, "Halt podinfo.default advancement success rate 0.00% < 99%"), 2);
    assert_eq!(times_told(&ended, "Rolling back podinfo.default failed checks threshold reached 2"), 1);
    // The check that reaches the threshold only counts; the tick after it rolls back: (threshold + 1) × interval.
    let took = ms_between(&ended, "canary weight 20", "Rolling back")?;
    assert!((3_000..3_900).contains(&took), "in traffic for {took} ms");
    Ok(())
}

#[tokio::test]
async fn silence_halts_after_a_full_interval_and_rolls_back_at_the_threshold_174() -> Result<()> {
    let stage = Stage::set(&unguarded(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    stage.release(NEW)?;
    let ended = stage.phase("Failed").await?;

    let halt = "Halt advancement no values found for serin metric request-success-rate probably podinfo.default is not \
                receiving traffic: running query failed: no values found";
    assert_eq!(times_told(&ended, halt), 2, "{:#?}", ended.events);
    assert_eq!(times_told(&ended, "Rolling back podinfo.default failed checks threshold reached 2"), 1);
    let first = ms_between(&ended, "canary weight 20", halt)?;
    assert!((1_000..1_900).contains(&first), "silence was held against it after {first} ms");
    Ok(())
}

#[tokio::test]
async fn a_slow_release_is_rolled_back_by_the_thresholds_170() -> Result<()> {
    let slow = Behaviour::Delay(Duration::from_millis(150));
    let canary = CanaryFile { threshold: 2, duration_ms_max: Some(120), ..canary() };
    let stage = Stage::set(&canary, &[(OLD, Behaviour::Ok), (NEW, slow)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    let ended = stage.phase("Failed").await?;
    let seen = load.stop().await;

    assert_eq!(times_told(&ended, "Halt podinfo.default advancement request duration "), 2, "{:#?}", ended.events);
    assert_eq!(times_told(&ended, "ms > 120ms"), 2);
    assert_eq!(times_told(&ended, "Rolling back podinfo.default failed checks threshold reached 2"), 1);
    assert_eq!(seen.failed, 0);
    Ok(())
}

#[tokio::test]
async fn a_release_that_accepts_no_connection_is_waited_for_without_failed_checks_152() -> Result<()> {
    let (old, later) = (Backend::start(OLD, Behaviour::Ok).await?, nobody());
    let file = BackendFile::new(NAME, &[(OLD, old.address()), (NEW, later)]);
    let stage = Stage::with(&canary(), &file, vec![old]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    let waiting =
        "canary backend podinfo.default not ready: waiting for rollout to finish: 0 of 1 endpoints accept connections";
    let seen = stage.until("nobody waits", |now| times_told(now, waiting) == 2).await?;
    assert_eq!((seen.phase.as_str(), seen.weight, seen.failed_checks), ("Progressing", 0.0, 0));
    assert_eq!(seen.holds.as_deref(), Some(waiting));

    let _new = Backend::start_at(later, NEW, Behaviour::Ok).await?;
    let ended = stage.phase("Succeeded").await?;
    assert_eq!((ended.primary.revision.as_str(), ended.failed_checks), (NEW, 0));
    assert_eq!(load.stop().await.failed, 0);
    Ok(())
}

#[tokio::test]
async fn a_newer_release_restarts_the_analysis_from_nothing_74() -> Result<()> {
    let newest = "6.0.2";
    let canary = CanaryFile { threshold: 10, ..unguarded() };
    let stage = Stage::set(&canary, &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok), (newest, Behaviour::Ok)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    stage.weight(40.0).await?;
    stage.backend(NEW).behave(Behaviour::FailAlways);
    stage.until("no check failed", |now| now.failed_checks >= 1).await?;
    stage.release(newest)?;
    let again = stage.until("the run was not restarted", |now| now.canary.revision == newest).await?;
    assert_eq!(times_told(&again, "New revision detected! Restarting analysis for podinfo.default"), 1);
    assert_eq!((again.phase.as_str(), again.weight, again.failed_checks), ("Progressing", 0.0, 0));
    assert_eq!((again.rollout, again.primary.revision.as_str()), (2, OLD));

    let ended = stage.phase("Succeeded").await?;
    load.stop().await;
    assert_eq!(times_told(&ended, "Advance podinfo.default canary weight 20"), 2);
    assert_eq!((ended.rollout, ended.primary.revision.as_str()), (2, newest));
    Ok(())
}

#[tokio::test]
async fn a_revert_ends_the_run_and_begins_no_other_216() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    let load = stage.load(RATE);
    stage.release(NEW)?;
    stage.weight(40.0).await?;
    stage.release(OLD)?;
    let ended = stage.phase("Failed").await?;
    let [.., why, end] = story(&ended)[..] else { panic!("{:?}", ended.events) };
    assert_eq!(why, "Rolling back podinfo.default target was reverted to the promoted revision 6.0.0");
    assert_eq!(end, "Canary failed! Scaling down podinfo.default");

    passed(&load, load.elapsed() + Duration::from_millis(2_500)).await?;
    let later = stage.rollout().await?;
    assert_eq!((later.phase.as_str(), later.weight, later.rollout), ("Failed", 0.0, 1));
    assert_eq!(later.events, ended.events, "two intervals later there is nothing to tell");
    assert_eq!(load.stop().await.failed, 0);
    Ok(())
}

#[tokio::test]
async fn the_weight_counts_among_matching_requests_only_115() -> Result<()> {
    let canary = CanaryFile {
        interval_s: 30,
        step_weight: 50,
        analysis: "match:\n  - headers:\n      x-user: { exact: insider }".to_owned(),
        ..canary()
    };
    let stage = Stage::set(&canary, &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    stage.release(NEW)?;
    // The first weight comes an interval after the release; a shorter one brings it now, and then there is time to look.
    stage.until("no run", |now| now.phase == "Progressing").await?;
    let soon = CanaryFile { interval_s: 1, ..canary.clone() };
    stage.config.write(CANARY_FILE, &soon.yaml())?;
    stage.weight(50.0).await?;
    stage.config.write(CANARY_FILE, &canary.yaml())?;

    let mut outsiders = Load::closed(stage.serin.listen(), 4, Duration::from_secs(30));
    outsiders.requests_max = 400;
    let mut insiders = outsiders.clone();
    insiders.headers.insert("x-user", "insider".parse()?);
    let (outsiders, insiders) = tokio::join!(outsiders.run(), insiders.run());
    assert_eq!(outsiders.answered_by(OLD), 400);
    // 200 expected; six standard deviations are 60.
    let drawn = insiders.answered_by(NEW);
    assert!((140..=260).contains(&drawn), "{drawn} of 400 matching requests at a weight of 50 %");
    assert_eq!(insiders.answered_by(OLD), 400 - drawn);
    Ok(())
}
