//! What people get wrong in files: said by `serin validate`, and survived by a running `serin`.
//!
//! Each folder of `tests/broken` is a configuration with one mistake, which its name tells.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_tests::backend::Behaviour;
use serin_tests::files::BackendFile;
use serin_tests::load::Running;
use serin_tests::process::Launch;
use serin_tests::wait::until;

use crate::loop_stage::{BACKEND_FILE, END_WITHIN, NAME, NEW, OLD, PATIENCE, Stage, canary, passed, serin};

/// The mistakes that are told and forgiven: Kubernetes prunes unknown fields, so they cannot be refused (checklist 10).
const FORGIVEN: [&str; 1] = ["unknown-field"];

/// Bytes of a file that nobody wrote by hand.
const HUGE_BYTES: usize = 10 << 20;

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files or folders directly in a folder, by name.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// A run of `serin` as a person sees it: what it wrote, then its exit code.
fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    format!("{}{}{code}\n", text(&output.stderr), text(&output.stdout))
}

/// Lines that tell an error: each has a place, and is neither help nor a warning.
fn errors(output: &Output) -> usize {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    told.lines().filter(|line| line.starts_with("shop.yaml:") && !line.contains(" warning: ")).count()
}

#[tokio::test]
async fn each_mistake_is_told_once_with_its_place() -> Result<()> {
    let broken = tests().join("broken");
    let mut catalogue = String::new();
    for case in names_in(&broken)? {
        let output = serin(&["validate", &case], &broken).await?;
        let is_forgiven = FORGIVEN.contains(&case.as_str());
        assert_eq!(errors(&output), usize::from(!is_forgiven), "{case}: {}", shown(&output));
        assert_eq!(output.status.code(), Some(i32::from(!is_forgiven)), "{case}");
        writeln!(catalogue, "## {case}\n{}", shown(&output))?;
    }
    insta::assert_snapshot!(catalogue);
    Ok(())
}

#[tokio::test]
async fn a_file_of_ten_megabytes_is_refused_unread() -> Result<()> {
    let home = tempfile::tempdir()?;
    fs::create_dir(home.path().join("config"))?;
    fs::write(home.path().join("config/shop.yaml"), huge())?;
    let output = serin(&["validate", "config"], home.path()).await?;
    insta::assert_snapshot!(shown(&output), @"
    shop.yaml: has 10485760 bytes, 1048576 are read at most
      help: split it into several files
    config: 1 error
    exit code 1
    ");
    Ok(())
}

/// Comments without end.
fn huge() -> String {
    let mut text = "# all the versions that there ever were\n".repeat(HUGE_BYTES / 40 + 1);
    text.truncate(HUGE_BYTES);
    text
}

/// What other tools' users have: the manifests of Flagger's own documentation, and files of other kinds beside them.
#[tokio::test]
async fn manifests_of_a_cluster_are_accepted_or_refused_by_path() -> Result<()> {
    let corpus = tests().join("corpus");
    let mut catalogue = String::new();
    for file in names_in(&corpus)? {
        let alone = tempfile::tempdir()?;
        fs::create_dir(alone.path().join("config"))?;
        fs::copy(corpus.join(&file), alone.path().join("config").join(&file))?;
        let output = serin(&["validate", "config"], alone.path()).await?;
        writeln!(catalogue, "## {file}\n{}", shown(&output))?;
    }
    insta::assert_snapshot!(catalogue);
    Ok(())
}

#[tokio::test]
async fn serin_does_not_start_on_a_broken_configuration_and_says_why() -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut launch = Launch::configured(&tests().join("broken/missing-version"), &home.path().join("state"));
    launch.log = home.path().join("serin.log");
    let mut serin = launch.spawn()?;
    let ended = until("it did not end", END_WITHIN, async || serin.ended()).await?;
    assert_eq!(ended.code(), Some(1));
    let log = serin.log();
    assert!(log.starts_with("shop.yaml:5:12: spec.release: missing version: \"1.0.1\""), "{log}");
    assert!(log.trim_end().ends_with("missing-version cannot be used, 1 to be mended"), "{log}");
    assert!(!home.path().join("state").exists(), "nothing was begun");
    Ok(())
}

/// Looks on until the running serin refuses its configuration, or does so no more; returns what it says.
async fn refused(stage: &Stage, is_refused: bool, what: &str) -> Result<Vec<String>> {
    let admin = stage.serin.admin();
    until(what, PATIENCE, async || {
        let refused = admin.rollouts().await?.refused_config;
        Ok((refused.is_empty() != is_refused).then_some(refused))
    })
    .await
}

/// Whether the metrics page agrees with the API about a refused configuration.
async fn is_refused_metric(stage: &Stage) -> Result<bool> {
    Ok(stage.serin.admin().page("/metrics").await?.contains("\nserin_config_refused 1\n"))
}

/// What users saw meanwhile: everything answered, and by the version that was there before.
async fn unharmed(load: Running) {
    let seen = load.stop().await;
    assert_eq!((seen.failed, seen.answered_by(OLD)), (0, seen.requests), "{seen:?}");
    assert!(seen.requests > 0);
}

#[tokio::test]
async fn a_broken_file_beside_a_running_serin_is_reported_and_leaves_traffic_alone() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok)]).await?;
    let load = stage.load(100.0);
    let broken = tests().join("broken");
    let mut cases = vec![("a file of ten megabytes".to_owned(), huge())];
    for case in names_in(&broken)?.into_iter().filter(|case| !FORGIVEN.contains(&case.as_str())) {
        let text = fs::read_to_string(broken.join(&case).join("shop.yaml"))?;
        cases.push((case, text));
    }
    for (case, text) in cases {
        stage.config.write("shop.yaml", &text)?;
        let told = refused(&stage, true, &format!("{case} was not reported")).await?;
        assert!(told.iter().all(|problem| problem.starts_with("shop.yaml:")), "{case}: {told:?}");
        assert!(is_refused_metric(&stage).await?, "{case}");
        stage.config.remove("shop.yaml")?;
        refused(&stage, false, &format!("the removal of {case} was not seen")).await?;
        assert!(!is_refused_metric(&stage).await?, "{case}");
    }
    unharmed(load).await;
    assert_eq!(stage.rollout().await?.phase, "Initialized");
    Ok(())
}

#[tokio::test]
async fn the_version_that_serves_cannot_be_taken_away() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    let load = stage.load(100.0);
    let without_old = BackendFile::new(NAME, &[(NEW, stage.backend(NEW).address())]);
    stage.config.write(BACKEND_FILE, &without_old.yaml())?;
    let told = refused(&stage, true, "the edit was not refused").await?;
    let expected = "canary podinfo.default serves version \"6.0.0\" of backend podinfo now, and it is no longer listed; \
                    list it under versions until another one is promoted";
    assert_eq!(told, [expected]);
    assert_eq!(stage.rollout().await?.phase, "Initialized", "no rollout begins by an edit that was refused");
    unharmed(load).await;

    let load = stage.load(100.0);
    let addresses = [(OLD, stage.backend(OLD).address()), (NEW, stage.backend(NEW).address())];
    let both = BackendFile { release: NEW.to_owned(), ..BackendFile::new(NAME, &addresses) };
    stage.config.write(BACKEND_FILE, &both.yaml())?;
    refused(&stage, false, "the mended edit was not accepted").await?;
    stage.phase("Succeeded").await?;
    // Now that another one is promoted it may go.
    stage.config.write(BACKEND_FILE, &without_old.yaml())?;
    until("the edit was not accepted", PATIENCE, async || {
        Ok((stage.serin.log().matches("configuration accepted").count() == 2).then_some(()))
    })
    .await?;
    passed(&load, load.elapsed() + Duration::from_millis(200)).await?;
    assert_eq!(load.stop().await.failed, 0);
    Ok(())
}
