//! System calls of a process, counted by strace. It slows the process down, so nothing else is measured meanwhile.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;

/// How long strace takes to attach.
const ATTACH: Duration = Duration::from_millis(500);
/// Calls that are rarer than one in so many requests are not told.
const RARE: f64 = 0.005;

/// A count under way.
pub(crate) struct Counting {
    strace: Child,
}

impl Counting {
    pub(crate) fn start(process: &Process) -> Result<Self> {
        let pids = process.family().into_iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]);
        let strace = Command::new("strace")
            .args(["-c", "-f", "-q"])
            .args(pids)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("strace is not there; `make bench` installs it")?;
        std::thread::sleep(ATTACH);
        Ok(Self { strace })
    }

    /// Calls for each of so many requests, the most frequent first.
    pub(crate) fn stop(self, requests: u64) -> Result<Vec<(String, f64)>> {
        let interrupted = Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status()?;
        ensure!(interrupted.success(), "strace has ended before");
        let output = self.strace.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        // % time, seconds, usecs/call, calls, [errors,] syscall
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let count = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.first()?.parse::<f64>().ok()?;
            let calls: u64 = fields.get(3)?.parse().ok()?;
            let name = fields.last().filter(|name| **name != "total")?;
            Some(((*name).to_owned(), calls as f64 / requests as f64))
        };
        let mut calls: Vec<(String, f64)> =
            text.lines().filter_map(count).filter(|(_, count)| *count >= RARE).collect();
        ensure!(!calls.is_empty(), "{}", text.lines().next().unwrap_or("it said nothing"));
        calls.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Ok(calls)
    }
}
