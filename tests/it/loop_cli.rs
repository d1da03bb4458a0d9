//! The command line against a real `serin`: a split without files, `get`, `wait`, `validate`.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::load::Load;
use serin_tests::process::Launch;
use serin_tests::wait::until;

use crate::loop_stage::{END_WITHIN, NEW, OLD, PATIENCE, Stage, canary, nobody, serin};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that asks a running serin, anywhere.
async fn ask(admin: SocketAddr, arguments: &[&str]) -> Result<Output> {
    let admin = admin.to_string();
    serin(&[arguments, &["--admin", &admin]].concat(), &std::env::temp_dir()).await
}

#[tokio::test]
async fn without_files_it_splits_by_weight_and_measures_both_versions() -> Result<()> {
    let primary = Backend::start("a", Behaviour::Ok).await?;
    let canary = Backend::start("b", Behaviour::FailAlways).await?;
    let home = tempfile::tempdir()?;
    let launch = Launch::split(primary.address(), canary.address(), 30, home.path().join("serin.log"));
    let serin = launch.start().await?;
    let admin = serin.admin();
    let quick = async || admin.rollout("quick").await?.context("there is one rollout");
    until("the split did not begin", PATIENCE, async || Ok((quick().await?.weight == 30.0).then_some(()))).await?;

    let mut load = Load::closed(serin.listen(), 8, Duration::from_secs(30));
    load.requests_max = 1_000;
    let seen = load.run().await;
    // 300 expected; six standard deviations are 87. A version that fails is measured, and never taken away.
    let drawn = seen.answered_by("b");
    assert!((213..=387).contains(&drawn), "{drawn} of 1,000 at a weight of 30 %");
    assert_eq!((seen.failed, seen.answered_by("a")), (drawn, 1_000 - drawn));
    let now = until("not everything was counted", PATIENCE, async || {
        let now = quick().await?;
        Ok((now.primary.requests + now.canary.requests == 1_000).then_some(now))
    })
    .await?;
    assert_eq!((now.primary.failures, now.canary.requests, now.canary.failures), (0, drawn, drawn));
    assert!(now.primary.p99_ms > 0.0 && now.canary.p99_ms > 0.0);
    assert_eq!((now.weight, now.phase.as_str()), (30.0, "Progressing"));
    assert!(serin.terminate(END_WITHIN).await?.success());
    Ok(())
}

#[tokio::test]
async fn get_wait_and_validate_tell_people_and_pipelines_how_it_stands() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    let admin = stage.serin.admin().0;
    let load = stage.load(100.0);
    let wait = async |arguments: &[&str]| ask(admin, &[&["wait", "podinfo"], arguments].concat()).await;

    let late = wait(&["--for", "promoted", "--revision", NEW, "--timeout", "300ms"]).await?;
    assert_eq!((late.status.code(), &*stdout(&late)), (Some(3), ""));
    assert_eq!(stderr(&late), "serin: podinfo is still Initialized at weight 0 %\n");
    stage.release(NEW)?;
    let good = wait(&["--for", "promoted", "--revision", NEW, "--timeout", "1m"]).await?;
    assert_eq!((good.status.code(), &*stderr(&good)), (Some(0), ""));
    assert_eq!(stdout(&good), "default/podinfo Succeeded: Promotion completed! Scaling down podinfo.default\n");
    let other = wait(&["--for", "failed"]).await?;
    assert_eq!((other.status.code(), stdout(&other)), (Some(1), stdout(&good)));
    load.stop().await;

    let tree = ask(admin, &["get"]).await?;
    let shown = stdout(&tree);
    assert_eq!(tree.status.code(), Some(0));
    assert!(!shown.contains('\x1b'), "nothing but text goes to what is not a terminal: {shown}");
    assert!(shown.starts_with("default/podinfo Succeeded  run 1, every 1 s\n"), "{shown}");
    assert!(shown.ends_with("Promotion completed! Scaling down podinfo.default\n"), "{shown}");
    let one = ask(admin, &["get", "podinfo", "--output", "json"]).await?;
    let json: serde_json::Value = serde_json::from_slice(&one.stdout)?;
    assert_eq!(json["rollouts"][0]["phase"], "Succeeded");
    assert_eq!(json["rollouts"][0]["primary"]["revision"], NEW);
    let none = ask(admin, &["get", "podinfos"]).await?;
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(
        stderr(&none),
        "serin: there is no canary podinfos in namespace default; `serin get` lists what there is\n"
    );

    let valid = serin(&["validate", "config"], stage.home.path()).await?;
    assert_eq!((valid.status.code(), &*stdout(&valid)), (Some(0), "config: ready to run: podinfo.default\n"));
    assert_eq!(stderr(&valid), "");
    Ok(())
}

#[tokio::test]
async fn without_a_server_people_are_told_what_to_do() -> Result<()> {
    let admin = nobody();
    for command in [&["get"][..], &["wait", "podinfo", "--for", "promoted"]] {
        let output = ask(admin, command).await?;
        assert_eq!((output.status.code(), &*stdout(&output)), (Some(1), ""));
        let expected = format!(
            "serin: no Serin answers on {admin}: start one with `serin run`, or name its admin address with --admin\n"
        );
        assert_eq!(stderr(&output), expected);
    }
    Ok(())
}

#[tokio::test]
async fn health_is_ok_and_a_started_serin_is_ready_209() -> Result<()> {
    let backend = Backend::start("a", Behaviour::Ok).await?;
    let home = tempfile::tempdir()?;
    let serin = Launch::split(backend.address(), backend.address(), 50, home.path().join("serin.log")).start().await?;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(serin.admin().page(path).await?, "OK", "{path}");
    }
    assert!(serin.admin().page("/metrics").await?.contains("\nflagger_info{"));
    Ok(())
}
