//! A process under measurement: pinned to a core, with everything it starts, and what they have used of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to listen.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A process that ends when this is dropped, with its children.
pub(crate) struct Process {
    child: Child,
}

/// What a process and its children have used since they began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// User and system time in microseconds.
    pub(crate) cpu_us: u64,
    /// Resident memory in bytes, now.
    pub(crate) memory: u64,
    /// Context switches, voluntary and not.
    pub(crate) switches: u64,
}

impl Process {
    /// Starts a command on a core, with nothing to say.
    pub(crate) fn start(core: usize, program: &str, arguments: &[String], log: &Path) -> Result<Self> {
        let log = fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string(), program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        Ok(Self { child })
    }

    /// Waits until somebody listens at an address.
    ///
    /// # Errors
    /// If nobody does, or if the process has ended: then it is another one that listens.
    pub(crate) fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(self.child.try_wait()?.is_none(), "it ended at once");
            ensure!(begun.elapsed() < START_WITHIN, "nobody listens at {address} after {START_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(50));
        ensure!(self.child.try_wait()?.is_none(), "it ended at once, and somebody else listens at {address}");
        Ok(())
    }

    /// Its processes, parents first.
    pub(crate) fn family(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// Stops all of it where it is, or lets it go on: whoever is not measured costs nothing.
    pub(crate) fn pause(&self, pauses: bool) {
        let signal = if pauses { Signal::STOP } else { Signal::CONT };
        for pid in self.family().into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }

    /// What it and its children have used.
    pub(crate) fn used(&self) -> Used {
        let mut used = Used::default();
        for pid in self.family() {
            used.cpu_us += cpu_us(pid);
            // What processes share counts once.
            let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            used.memory += 1_024 * line(&memory, "Pss:");
            for task in tasks(pid) {
                let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap_or_default();
                used.switches +=
                    line(&status, "voluntary_ctxt_switches:") + line(&status, "nonvoluntary_ctxt_switches:");
            }
        }
        used
    }
}

/// Time on a processor by the scheduler's own clock, which counts nanoseconds where `stat` counts ticks of ten milliseconds.
fn cpu_us(pid: u32) -> u64 {
    let of_task = |task: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks(pid).into_iter().filter_map(of_task).sum::<u64>() / 1_000
}

fn tasks(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn line(status: &str, name: &str) -> u64 {
    let found = status.lines().find_map(|line| line.strip_prefix(name));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A process and all that descend from it, parents first.
fn family(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the name, which may hold anything, come the state and the parent (proc(5)).
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
    }
    family
}

impl Drop for Process {
    fn drop(&mut self) {
        // Parents first: a master replaces workers that are killed.
        let family = family(self.child.id());
        for pid in family.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        // Their port is free when they are gone.
        while family.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads metrics once, as whoever collects them does.
pub(crate) fn scrape(admin: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(admin) else { return };
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
}
