//! `make demo`: a good release and a bad one, under load, on a real `serin`, in about a minute.
//!
//! Here are the flags, the ports, Ctrl-C and the exit code; the story is in the library.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people tells its story")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serin_tests::outcome::{BAD, GOOD, OLD};
use serin_tests::process::{binary, free_port};
use serin_tests::story::Script;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Releases a good version and a bad one through Serin, under load, and tells what users saw of it.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Flags {
    /// A shorter story, for CI: intervals of one second.
    #[arg(long)]
    short: bool,
    /// Where Serin takes traffic on 127.0.0.1; 0 takes any free port.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    listen_port: u16,
    /// Where Serin answers admins on 127.0.0.1; 0 takes any free port.
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    admin_port: u16,
    /// The first of three ports in a row for the versions; 0 takes any free ports.
    #[arg(long, value_name = "PORT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=65_533))]
    backend_port: u16,
    /// Requests a second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
}

/// How the demo ended, if nothing broke.
enum End {
    CameTrue,
    DidNot,
    Stopped(&'static str),
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo(Flags::parse()).await {
        Ok(End::CameTrue) => ExitCode::SUCCESS,
        Ok(End::DidNot) => ExitCode::FAILURE,
        Ok(End::Stopped(by)) => {
            println!("\nStopped by {by}. The proxy, the backends and the load have ended; nothing is left running.");
            // What a shell expects of a program that Ctrl-C ended: 128 + SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\nThe demo could not go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(flags: Flags) -> Result<End> {
    binary()?;
    let home = tempfile::Builder::new().prefix("serin-demo-").tempdir().context("making a temporary directory")?;
    let script = script(&flags, &home)?;
    greet(&script);
    let mut tell = |line: &str| println!("{line}");
    let outcome = tokio::select! {
        biased;
        by = stopped() => return Ok(End::Stopped(by?)),
        outcome = script.play(&mut tell) => outcome,
    };
    let came_true = outcome.inspect(|outcome| println!("\n{outcome}")).map(|outcome| outcome.came_true());
    if !matches!(came_true, Ok(true)) {
        println!("\nThe files of this story are kept in {}", home.keep().display());
    }
    Ok(if came_true? { End::CameTrue } else { End::DidNot })
}

fn script(flags: &Flags, home: &TempDir) -> Result<Script> {
    let (interval_s, calm, after) = if flags.short { (1, 500, 2_000) } else { (5, 3_000, 5_000) };
    let backend = |offset| match flags.backend_port {
        0 => Ok(local(0)),
        first => port(first + offset, "--backend-port"),
    };
    Ok(Script {
        home: home.path().to_owned(),
        listen: port(flags.listen_port, "--listen-port")?,
        admin: port(flags.admin_port, "--admin-port")?,
        backends: [backend(0)?, backend(1)?, backend(2)?],
        interval_s,
        rate: flags.rate,
        calm: Duration::from_millis(calm),
        after: Duration::from_millis(after),
    })
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The address of this port, or of a free one for 0.
///
/// It is tried here, without `SO_REUSEPORT`: Serin's own listeners share their port between threads, and so could begin
/// to share it with another program instead of failing.
fn port(wanted: u16, flag: &str) -> Result<SocketAddr> {
    let address = local(if wanted == 0 { free_port() } else { wanted });
    match TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!(
                "another program already listens on {address}: stop it, or choose another port with {flag} (0 takes any free one)"
            )
        }
        Err(error) => Err(error).with_context(|| format!("listening on {address}, which {flag} changes")),
    }
}

fn greet(script: &Script) {
    let Script { listen, admin, .. } = script;
    println!("A service with three versions, and Serin in front of it:");
    println!("  {OLD} is trusted, {GOOD} is good, {BAD} fails.");
    println!("  traffic   http://{listen}/");
    println!("  admin     http://{admin}/api/v1/rollouts");
    println!("  config    {}   (edit it meanwhile, if you like)", script.config().display());
    println!("  log       {}", script.log().display());
    println!("Ctrl-C stops everything.");
}

/// Returns when somebody wants the demo to stop, and says by what.
async fn stopped() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "the terminal's end",
    })
}
