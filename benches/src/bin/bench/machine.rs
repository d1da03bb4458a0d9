//! What the figures were measured on.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Processor, kernel, versions: what somebody needs who compares.
pub(crate) fn describe() -> Vec<(String, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim().to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let control = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    [
        ("processor", model),
        ("cores", cores.to_string()),
        ("kernel", kernel.trim().to_owned()),
        ("memory", memory),
        ("TCP", control.trim().to_owned()),
        ("nginx", version("nginx", "-v")),
        ("HAProxy", version("haproxy", "-v")),
        ("Envoy", version("envoy", "--version")),
        ("Traefik", version("traefik", "version")),
        ("Caddy", version("caddy", "version")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The first number with points in what a program says of itself.
fn version(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return "none".to_owned() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let words = said.split(|c: char| c.is_whitespace() || c == '/' || c == 'v' || c == '-');
    words.into_iter().find(is_version).unwrap_or("unknown").to_owned()
}

/// Keeps this thread, and those it starts, on one core.
pub(crate) fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("a proxy and its load need two cores")
}
