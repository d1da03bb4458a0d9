//! `make bench`: Serin and the proxies people use, on the same job, on the same core, in turns; what a request costs each.
//!
//! ```text
//!   core 0: proxies, one at a time while the others are stopped      core 1: clients and backends, in one thread that never sleeps (`load`)
//! ```
//!
//! Absolute figures are this machine's alone, so everything is told as a ratio to nginx in the same run. `benches/README.md` says why
//! each recipe is fair.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells what it measures")]

mod backend;
mod calls;
mod client;
mod edge;
mod job;
mod load;
mod machine;
mod peer;
mod plot;
mod process;
mod recipe;
mod relay;
mod report;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use job::{Entry, HEADLINE, Job, LOAD_CORE, Rate, local};
use load::{Group, Load, Plan};
use peer::{CANARY, PRIMARY, Peer, Place, Running};
use process::Used;
use report::{Figure, MEASURE, Report};

/// As in `serin`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What share of the requests meets the canary, and how far off a proxy may be that does the job.
const CANARY_SHARE: f64 = 0.02 + 0.98 * 0.1;
const SHARE_TOLERANCE: f64 = 0.015;
/// Before anything counts: connections and tables are made.
const WARM_UP: Duration = Duration::from_secs(1);
const WARM_UPS_MAX: usize = 4;
/// How long whoever was stopped has to look around.
const COME_BACK: Duration = Duration::from_millis(20);
/// Connections that warm up a proxy whose memory is measured.
const HELD_WARM_UP: usize = 64;
/// Memory is the same each time.
const HELD_ROUNDS_MAX: usize = 3;
/// Ports of proxies, below those that the kernel gives away.
const FIRST_PORT: u16 = 18_100;

/// What is asked on the command line.
struct Asked {
    rounds: usize,
    seconds: f64,
    jobs: Vec<String>,
    peers: Vec<String>,
    into: PathBuf,
}

fn main() -> Result<()> {
    // One program in several parts: the floor is a proxy too.
    match std::env::args().nth(1).as_deref() {
        Some("relay") => return relay::run(),
        Some("edge") => return edge::run(),
        _ => {}
    }
    let asked = Asked::read()?;
    machine::stay_on(LOAD_CORE)?;
    let folder = std::env::temp_dir().join(format!("serin-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = Bench::new(asked, &folder)?.run();
    let _ = fs::remove_dir_all(&folder);
    measured
}

/// A run of the benchmark.
struct Bench<'a> {
    asked: Asked,
    folder: &'a Path,
    load: Load,
    report: Report,
    /// Proxies so far, each of which has a port and a folder of its own.
    started: u16,
}

impl<'a> Bench<'a> {
    fn new(asked: Asked, folder: &'a Path) -> Result<Self> {
        let (load, report) = (Load::new(PRIMARY, CANARY)?, Report::new(machine::describe()));
        Ok(Self { asked, folder, load, report, started: 0 })
    }

    fn run(mut self) -> Result<()> {
        let jobs = Job::all().into_iter().filter(|job| self.asked.wants_job(job.name)).collect::<Vec<_>>();
        for job in &jobs {
            self.job(job)?;
        }
        self.report.write(&self.asked.into)?;
        plot::write(&self.report, &self.asked.into)?;
        println!("{}", self.report.goals());
        Ok(())
    }

    fn job(&mut self, job: &Job) -> Result<()> {
        let nginx = self.nginx(job)?;
        self.load.delay_canary(job.canary_delay);
        let entries: Vec<Entry> =
            job.entries.iter().filter(|entry| self.asked.wants_peer(entry.peer)).cloned().collect();
        if job.rate == Rate::Held {
            return self.held(job, &entries);
        }
        let mut lanes = Vec::new();
        for entry in entries {
            // One that cannot do a job, or is not there, is told and left out.
            match self.begin(job, &entry, nginx) {
                Ok((running, group)) => lanes.push((entry, running, group)),
                Err(why) => self.leave_out(job, &entry, &why),
            }
        }
        let mut out = Vec::new();
        for round in 0..self.asked.rounds {
            // Turns, so that what else the machine does meets all of them; each round begins with another one.
            let first = round % lanes.len().max(1);
            for (entry, running, group) in lanes.iter().cycle().skip(first).take(lanes.len()) {
                if out.contains(&entry.name) {
                    continue;
                }
                let lasting = Duration::from_secs_f64(self.asked.seconds);
                match self.window(entry, running, *group, lasting) {
                    Ok(figure) => {
                        eprintln!("{} round {}: {} {figure}", job.name, round + 1, entry.name);
                        self.report.take(job.name, &entry.name, figure);
                    }
                    Err(why) => {
                        self.leave_out(job, entry, &why);
                        out.push(entry.name.clone());
                    }
                }
            }
        }
        if job.name == HEADLINE {
            for (entry, running, group) in &lanes {
                if let Err(why) = self.count_calls(entry, running, *group) {
                    eprintln!("system calls of {} are not counted: {why:#}", entry.name);
                }
            }
        }
        self.load.disconnect();
        Ok(())
    }

    fn leave_out(&mut self, job: &Job, entry: &Entry, why: &anyhow::Error) {
        eprintln!("{}: {} is left out: {why:#}", job.name, entry.name);
        self.report.left_out(job.name, &entry.name, &format!("{why:#}"));
    }

    /// What nginx does each second in the headline; measured now if it was not yet and somebody needs it.
    fn nginx(&mut self, job: &Job) -> Result<f64> {
        if !matches!(job.rate, Rate::OfNginx(_)) {
            return Ok(0.0);
        }
        if self.report.rate(HEADLINE, MEASURE).is_none() {
            let all = Job::all();
            let headline = all.first().context("there is a headline")?;
            let entry = headline.entries.first().context("nginx comes first")?;
            let (running, group) = self.begin(headline, entry, 0.0)?;
            let figure = self.window(entry, &running, group, Duration::from_secs(2))?;
            self.report.take(HEADLINE, MEASURE, figure);
            self.load.disconnect();
        }
        self.report.rate(HEADLINE, MEASURE).context("it was measured")
    }

    fn start(&mut self, job: &Job, entry: &Entry) -> Result<(Running, SocketAddr)> {
        let peers = Peer::all();
        let peer = peers.iter().find(|peer| peer.name == entry.peer).context("no such proxy")?;
        self.started += 1;
        let folder = self.folder.join(self.started.to_string());
        fs::create_dir_all(&folder)?;
        let listen = local(FIRST_PORT + self.started);
        let place = Place { listen, threads: job.threads, entry, folder: &folder };
        Ok((peer.start(&place)?, listen))
    }

    /// Starts a proxy and warms it up; it is stopped then.
    fn begin(&mut self, job: &Job, entry: &Entry, nginx: f64) -> Result<(Running, Group)> {
        let (running, listen) = self.start(job, entry)?;
        let group = self.load.connect(job.plan(entry, listen, nginx))?;
        let warmed = self.warm_up(entry, &running, group);
        running.process.pause(true);
        if warmed.is_err() {
            self.load.leave(group);
        }
        warmed.map(|()| (running, group))
    }

    /// Until it does what it has to: some listen before they know where to, and Serin begins with the canary in its first second.
    fn warm_up(&mut self, entry: &Entry, running: &Running, group: Group) -> Result<()> {
        let mut last = Ok(());
        for _ in 0..WARM_UPS_MAX {
            last = self.load.window(group, WARM_UP, &running.process).and_then(|seen| {
                let share = Figure::of(&seen).canary_share;
                let is_off = (share - CANARY_SHARE).abs() > SHARE_TOLERANCE;
                ensure!(
                    !is_off || entry.peer == "relay",
                    "it sends {share:.3} to the canary, and not {CANARY_SHARE:.3}"
                );
                Ok(())
            });
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn window(&mut self, entry: &Entry, running: &Running, group: Group, lasting: Duration) -> Result<Figure> {
        running.process.pause(false);
        // It does first what it has missed.
        std::thread::sleep(COME_BACK);
        let scraping = running.scrape_within(lasting);
        let seen = self.load.window(group, lasting, &running.process);
        if let Some(scraping) = scraping {
            let _ = scraping.join();
        }
        running.process.pause(true);
        Ok(Figure::of(&seen.with_context(|| entry.name.clone())?))
    }

    fn held(&mut self, job: &Job, entries: &[Entry]) -> Result<()> {
        for round in 0..self.asked.rounds.min(HELD_ROUNDS_MAX) {
            for entry in entries {
                match self.hold(job, entry) {
                    Ok((before, after)) => {
                        let figure = Figure::held(job.connections, &before, &after);
                        eprintln!("{} round {}: {} {figure}", job.name, round + 1, entry.name);
                        self.report.take(job.name, &entry.name, figure);
                    }
                    Err(why) => self.leave_out(job, entry, &why),
                }
                self.load.disconnect();
            }
        }
        Ok(())
    }

    /// Memory before and with all connections open, of a proxy that has carried some.
    fn hold(&mut self, job: &Job, entry: &Entry) -> Result<(Used, Used)> {
        let (running, listen) = self.start(job, entry)?;
        let plan = job.plan(entry, listen, 0.0);
        let group = self.load.connect(Plan { connections: HELD_WARM_UP, ..plan.clone() })?;
        self.warm_up(entry, &running, group)?;
        self.load.leave(group);
        self.load.hold(plan, &running.process)
    }

    fn count_calls(&mut self, entry: &Entry, running: &Running, group: Group) -> Result<()> {
        running.process.pause(false);
        let counting = calls::Counting::start(&running.process)?;
        let seen = self.load.window(group, Duration::from_secs(2), &running.process);
        let calls = counting.stop(seen?.requests)?;
        running.process.pause(true);
        self.report.take_calls(&entry.name, calls);
        Ok(())
    }
}

impl Asked {
    fn read() -> Result<Self> {
        let mut asked = Self {
            rounds: 15,
            seconds: 1.0,
            jobs: Vec::new(),
            peers: Vec::new(),
            into: PathBuf::from("benches/results"),
        };
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
        let jobs: Vec<&str> = Job::all().iter().map(|job| job.name).collect();
        let peers: Vec<&str> = Peer::all().iter().map(|peer| peer.name).collect();
        for (what, asked, known) in [("--job", &asked.jobs, jobs), ("--peer", &asked.peers, peers)] {
            let unknown = asked.iter().find(|name| !known.contains(&name.as_str()));
            ensure!(unknown.is_none(), "{what} {unknown:?} is not known; there are: {}", known.join(" "));
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
