//! A backend to try Serin by hand: it names its version, and can be slow or fail on purpose.
#![allow(clippy::print_stdout, reason = "a program for people says where it listens")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serin_tests::backend::{Backend, Behaviour};
use tokio::signal::unix::{SignalKind, signal};

/// Answers every request with the name of a version.
#[derive(Debug, Parser)]
#[command(name = "backend")]
struct Flags {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// The version to be.
    #[arg(long, value_name = "NAME", default_value = "6.0.0")]
    version: String,
    /// Share of the requests to answer with 500, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fail: f64,
    /// Wait this long before each answer.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, conflicts_with = "fail")]
    delay_ms: u64,
    /// When told to stop (SIGTERM), go on answering for so long: until everybody who sends requests has heard of it.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    linger_ms: u64,
}

fn share(given: &str) -> Result<f64, String> {
    let share: f64 = given.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1".to_owned()) }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Flags { listen, version, fail, delay_ms, linger_ms } = Flags::parse();
    let behaviour = match delay_ms {
        0 => Behaviour::FailFraction(fail),
        delay_ms => Behaviour::Delay(Duration::from_millis(delay_ms)),
    };
    let backend = Backend::start_at(listen, &version, behaviour).await?;
    println!("version {version} answers on http://{}/", backend.address());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => tokio::time::sleep(Duration::from_millis(linger_ms)).await,
    }
    println!("version {version} answered {} requests", backend.requests());
    backend.stop().await;
    Ok(())
}
