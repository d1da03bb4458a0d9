//! `make bench`: Serin and the proxies people use, on the same job, on the same core, in turns; what a request costs each.
//!
//! Proxies share core 0, one at a time; the load and the backends share core 1. Absolute figures are this machine's alone, so
//! everything is told as a ratio to nginx in the same run. `benches/README.md` says why each recipe is fair.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells what it measures")]

mod job;
mod machine;
mod peer;
mod process;
mod relay;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use job::Job;
use peer::Peer;
use report::{Figure, Report};

/// What is asked on the command line.
struct Asked {
    rounds: usize,
    seconds: u64,
    jobs: Vec<String>,
    peers: Vec<String>,
    into: PathBuf,
}

fn main() -> Result<()> {
    // One program in several parts: the floor is a proxy too.
    if std::env::args().nth(1).as_deref() == Some("relay") {
        return relay::run();
    }
    let asked = Asked::read()?;
    let jobs: Vec<Job> = Job::all().into_iter().filter(|job| asked.wants_job(job.name)).collect();
    ensure!(
        !jobs.is_empty(),
        "no such job; there are: {}",
        Job::all().iter().map(|job| job.name).collect::<Vec<_>>().join(" ")
    );
    let mut report = Report::new(machine::describe());
    for job in jobs {
        let backends = job.start_backends().context("starting the backends")?;
        let mut peers: Vec<Peer> = Peer::all().into_iter().filter(|peer| asked.wants_peer(peer.name)).collect();
        // One that cannot do a job, or is not there, is told and left out.
        peers.retain(|peer| match peer.try_start(&job, &backends) {
            Ok(()) => true,
            Err(why) => {
                eprintln!("{}: {} is left out: {why:#}", job.name, peer.name);
                report.left_out(job.name, peer.name, &format!("{why:#}"));
                false
            }
        });
        for round in 0..asked.rounds {
            // Turns, so that what else the machine does meets all of them; each round begins with another one.
            let first = round % peers.len().max(1);
            for peer in peers.iter().cycle().skip(first).take(peers.len()) {
                let figure = measure(peer, &job, &backends, Duration::from_secs(asked.seconds))?;
                eprintln!("{} round {}: {} {figure}", job.name, round + 1, peer.name);
                report.take(job.name, peer.name, figure);
            }
        }
    }
    report.write(&asked.into)?;
    println!("{}", report.table());
    Ok(())
}

fn measure(peer: &Peer, job: &Job, backends: &job::Backends, lasting: Duration) -> Result<Figure> {
    let running = peer.start(job, backends)?;
    // Connections, tables and memory are there before anything is counted.
    job.load(peer.address(), Duration::from_secs(1))?;
    let before = running.used()?;
    let load = job.load(peer.address(), lasting)?;
    let after = running.used()?;
    ensure!(load.failed == 0, "{}: {} of {} requests failed with {}", job.name, load.failed, load.requests, peer.name);
    Ok(Figure::new(&load, &before, &after))
}

impl Asked {
    fn read() -> Result<Self> {
        let mut asked =
            Self { rounds: 5, seconds: 5, jobs: Vec::new(), peers: Vec::new(), into: PathBuf::from("benches/results") };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => asked.rounds = value()?.parse().context("--rounds takes a number")?,
                "--seconds" => asked.seconds = value()?.parse().context("--seconds takes a number")?,
                "--job" => asked.jobs.push(value()?),
                "--peer" => asked.peers.push(value()?),
                "--into" => asked.into = value()?.into(),
                other => anyhow::bail!("{other} is not known; there are --rounds --seconds --job --peer --into"),
            }
        }
        Ok(asked)
    }

    fn wants_job(&self, name: &str) -> bool {
        self.jobs.is_empty() || self.jobs.iter().any(|job| job == name)
    }

    fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| peer == name)
    }
}
