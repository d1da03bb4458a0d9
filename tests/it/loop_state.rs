//! The state directory and the process around it: a disk that takes nothing, a second process, a newer format, a taken
//! port, an orderly end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::StatusCode;
use nix::sys::signal::Signal;
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::client::{self, Fault};
use serin_tests::files::{BackendFile, ConfigDir};
use serin_tests::process::{Launch, Serin, is_free};
use serin_tests::rollouts::Admin;
use serin_tests::wait::until;

use crate::loop_stage::{
    BACKEND_FILE, CANARY_FILE, END_WITHIN, NAME, NEW, OLD, PATIENCE, Stage, canary, passed, times_told,
};

/// Failed requests that a canary may cost that dies after seconds of good answers: these speak for it, so the guard is sure
/// later than of one that was never well. 20 to 29 are usual.
const FAILED_MAX: u64 = 50;

/// Sets the largest size to which a running process may write a file (`prlimit` of util-linux); none takes the limit away.
fn limit_files(serin: &Serin, bytes: Option<u64>) -> Result<()> {
    let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let pid = serin.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={soft}:")]).status();
    ensure!(status.context("running prlimit, which util-linux brings")?.success(), "prlimit cannot limit {pid}");
    Ok(())
}

async fn save_failures(admin: Admin) -> Result<u64> {
    let page = admin.page("/metrics").await?;
    let value = page.lines().find_map(|line| line.strip_prefix("serin_state_save_failures_total "));
    value.context("the metric is there from the start")?.parse().context("a counter is a number")
}

#[tokio::test]
async fn a_full_disk_holds_a_good_release_and_not_the_brake_on_a_bad_one() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok), (NEW, Behaviour::Ok)]).await?;
    let load = stage.load(150.0);
    stage.release(NEW)?;
    stage.weight(20.0).await?;
    // Nothing may grow beyond the size that the database's log has now; serin's own log is far smaller.
    let full = fs::metadata(stage.home.path().join("state/serin.db-wal"))?.len();
    ensure!(stage.serin.log().len() as u64 * 4 < full, "the limit must leave room to tell about it");
    limit_files(&stage.serin, Some(full))?;

    let alarmed = stage.until("nobody is alarmed", |now| now.alarm.is_some()).await?;
    let alarm = alarmed.alarm.clone().unwrap_or_default();
    assert!(
        alarm.starts_with("state cannot be saved, so nothing advances (a bad canary is still taken off): "),
        "{alarm}"
    );
    let admin = stage.serin.admin();
    until("saving is not tried again", PATIENCE, async || Ok((save_failures(admin).await? >= 4).then_some(()))).await?;
    let held = stage.rollout().await?;
    assert_eq!(
        (held.phase.as_str(), held.weight),
        ("Progressing", alarmed.weight),
        "what is not saved does not advance"
    );
    assert_eq!(held.alarm, alarmed.alarm);
    assert_eq!(stage.serin.log().matches("state cannot be saved").count(), 1, "{}", stage.serin.log());
    assert_eq!(load.so_far().failed, 0);

    stage.backend(NEW).behave(Behaviour::FailAlways);
    let braked = stage.phase("Failed").await?;
    assert_eq!((braked.weight, braked.saved), (0.0, false));
    passed(&load, load.elapsed() + Duration::from_millis(500)).await?;
    let seen = load.stop().await;
    println!("a dead canary cost {} requests while nothing could be saved", seen.failed);
    assert!((1..=FAILED_MAX).contains(&seen.failed), "{} requests failed", seen.failed);

    limit_files(&stage.serin, None)?;
    let saved = stage.until("the rollback was not saved", |now| now.saved && now.alarm.is_none()).await?;
    assert_eq!(saved.events, braked.events);
    let Stage { serin, config, backends, home } = stage;
    assert_eq!(serin.log().matches("state is saved again").count(), 1);
    let serin = serin.crash()?.start().await?;
    let stage = Stage { serin, config, backends, home };
    let after = stage.rollout().await?;
    assert_eq!((after.phase.as_str(), after.weight, after.saved), ("Failed", 0.0, true));
    assert_eq!(times_told(&after, "Canary failed! Scaling down podinfo.default"), 1);
    Ok(())
}

/// Starts what cannot run, and checks that it ends with code 1, says this in its last line, and holds no port.
async fn check_refused(launch: Launch, says: &str) -> Result<()> {
    let mut serin = launch.clone().spawn()?;
    let ended = until("it did not end", END_WITHIN, async || serin.ended()).await?;
    assert_eq!(ended.code(), Some(1), "{}", serin.log());
    let log = serin.log();
    assert_eq!(log.lines().last().unwrap_or_default(), says);
    Ok(())
}

/// The same launch with another log and other ports.
fn beside(stage: &Stage, name: &str) -> Launch {
    let mut launch = Launch::configured(stage.config.path(), &stage.home.path().join("state"));
    launch.log = stage.home.path().join(name);
    launch
}

#[tokio::test]
async fn a_second_process_on_the_same_state_is_refused_and_the_first_serves_on() -> Result<()> {
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok)]).await?;
    let load = stage.load(100.0);
    let state = stage.home.path().join("state");
    let second = beside(&stage, "second.log");
    let (listen, admin) = (second.listen, second.admin);
    let says = format!(
        "serin: the state in {} is in use by another process; end that one or give this one another --state",
        state.display()
    );
    check_refused(second, &says).await?;
    assert!(is_free(listen) && is_free(admin));
    assert_eq!(load.stop().await.failed, 0);
    Ok(())
}

#[tokio::test]
async fn a_state_of_a_newer_format_is_refused_and_left_as_it_is() -> Result<()> {
    let Stage { serin, config: _config, backends: _backends, home } =
        Stage::set(&canary(), &[(OLD, Behaviour::Ok)]).await?;
    let launch = serin.launch().clone();
    assert!(serin.terminate(END_WITHIN).await?.success());
    let file = home.path().join("state/serin.db");
    set_format(&file, 99)?;
    let before = fs::read(&file)?;
    let says = format!(
        "serin: the state in {} was written by a newer Serin (format 99, this one knows 1); run that version or start with another --state",
        file.display()
    );
    check_refused(launch, &says).await?;
    assert_eq!(fs::read(&file)?, before);
    Ok(())
}

/// Writes another `user_version` into a closed SQLite database: 4 bytes, big-endian, at offset 60 (SQLite, "Database File
/// Format", section 1.3).
fn set_format(database: &Path, format: u32) -> Result<()> {
    ensure!(!database.with_extension("db-wal").exists(), "serin closes its database when it ends");
    let file = fs::File::options().read(true).write(true).open(database)?;
    let mut found = [0; 4];
    file.read_exact_at(&mut found, 60)?;
    ensure!(u32::from_be_bytes(found) == 1, "the format of today is 1");
    file.write_all_at(&format.to_be_bytes(), 60)?;
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_refused_with_a_sentence_and_nothing_is_left_running() -> Result<()> {
    let home = tempfile::Builder::new().prefix("serin-loop-").tempdir()?;
    let config = ConfigDir::new(home.path().join("config"))?;
    let backend = Backend::start(OLD, Behaviour::Ok).await?;
    config.write(BACKEND_FILE, &BackendFile::new(NAME, &[(OLD, backend.address())]).yaml())?;
    config.write(CANARY_FILE, &canary().yaml())?;
    let launch = Launch::configured(config.path(), &home.path().join("state"));
    let Launch { listen, admin, .. } = launch.clone();

    let taken = TcpListener::bind(listen)?;
    check_refused(launch.clone(), &format!("serin: cannot listen on {listen}: Address already in use (os error 98)"))
        .await?;
    assert!(is_free(admin));
    drop(taken);

    let taken = TcpListener::bind(admin)?;
    let says = format!("serin: cannot listen on {admin} for the admin API: Address already in use (os error 98)");
    check_refused(launch.clone(), &says).await?;
    assert!(is_free(listen));
    drop(taken);

    let serin = launch.start().await.context("once its ports and its state are free it runs")?;
    assert!(serin.terminate(END_WITHIN).await?.success());
    Ok(())
}

#[tokio::test]
async fn sigterm_withdraws_readiness_serves_on_and_lets_slow_requests_end() -> Result<()> {
    let slow = Duration::from_millis(3_500);
    let stage = Stage::set(&canary(), &[(OLD, Behaviour::Ok)]).await?;
    let Stage { serin, config: _config, backends, home: _home } = stage;
    // The same again, with a delay for the load balancer to notice.
    let mut launch = serin.launch().clone();
    assert!(serin.terminate(END_WITHIN).await?.success());
    launch.arguments.extend(["--drain-delay".into(), "2s".into()]);
    let mut serin = launch.start().await?;
    let (listen, admin) = (serin.listen(), serin.admin().0);

    backends[0].behave(Behaviour::Delay(slow));
    let requests = backends[0].requests();
    let in_flight = tokio::spawn(client::get(listen, "/", PATIENCE));
    until("the slow request did not arrive", PATIENCE, async || Ok((backends[0].requests() > requests).then_some(())))
        .await?;
    backends[0].behave(Behaviour::Ok);
    serin.signal(Signal::SIGTERM)?;

    let ready = async || client::get(admin, "/readyz", PATIENCE).await.map(|answer| answer.status);
    until("readiness was not withdrawn", Duration::from_millis(1_500), async || {
        Ok((ready().await == Ok(StatusCode::SERVICE_UNAVAILABLE)).then_some(()))
    })
    .await?;
    let late = client::get(listen, "/", PATIENCE).await.map(|answer| answer.status);
    assert_eq!(late, Ok(StatusCode::OK), "until the delay is over whoever comes is served");
    until("the listener did not close", PATIENCE, async || {
        Ok((client::get(listen, "/", PATIENCE).await.err() == Some(Fault::Connect)).then_some(()))
    })
    .await?;
    assert!(serin.ended()?.is_none(), "a request is still in flight");
    let answer = in_flight.await?.map_err(|fault| anyhow::anyhow!("the slow request was cut off: {fault:?}"))?;
    assert_eq!((answer.status, answer.version.as_deref()), (StatusCode::OK, Some(OLD)));
    let ended = until("it did not end", END_WITHIN, async || serin.ended()).await?;
    assert_eq!(ended.code(), Some(0), "{}", serin.log());
    Ok(())
}
