//! Figures, their medians and ratios: as a table, against the goals, and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::job::HEADLINE;
use crate::load::Seen;
use crate::process::Used;

/// Who is 1.
pub(crate) const MEASURE: &str = "nginx";
/// Percentiles of latency that are told.
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// What one proxy did in one round.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    /// User and system time of the proxy for each request, in microseconds.
    pub(crate) cpu_micros_per_request: f64,
    pub(crate) requests_per_second: f64,
    /// Of requests that the primary answered, in microseconds: 50, 99 and 99.9 %.
    pub(crate) latency_micros: [u64; 3],
    pub(crate) resident_bytes: u64,
    /// Context switches for each request.
    pub(crate) switches_per_request: f64,
    /// Share of time in which the proxy and the load were busy.
    pub(crate) proxy_busy: f64,
    pub(crate) load_busy: f64,
    /// Share of requests that the canary answered.
    pub(crate) canary_share: f64,
    /// Memory that each held connection takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_connection: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds, and bytes of a process")]
impl Figure {
    pub(crate) fn of(seen: &Seen) -> Self {
        let each = |before: u64, after: u64| (after - before) as f64 / seen.requests as f64;
        let lasted = seen.lasted.as_secs_f64();
        let [primary, canary] = &seen.latency;
        Self {
            cpu_micros_per_request: each(seen.before.cpu_us, seen.after.cpu_us),
            requests_per_second: seen.in_time as f64 / seen.asked.as_secs_f64(),
            latency_micros: PERCENTILES.map(|percent| primary.value_at_percentile(percent)),
            resident_bytes: seen.after.memory,
            switches_per_request: each(seen.before.switches, seen.after.switches),
            proxy_busy: (seen.after.cpu_us - seen.before.cpu_us) as f64 / 1e6 / lasted,
            load_busy: seen.load_busy,
            canary_share: canary.len() as f64 / (primary.len() + canary.len()) as f64,
            bytes_per_connection: None,
        }
    }

    pub(crate) fn held(connections: usize, before: &Used, after: &Used) -> Self {
        let each = after.memory.saturating_sub(before.memory) as f64 / connections as f64;
        Self { resident_bytes: after.memory, bytes_per_connection: Some(each), ..Self::default() }
    }
}

impl fmt::Display for Figure {
    #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bytes) = self.bytes_per_connection {
            return write!(f, "{:.1} MiB, {bytes:.0} bytes a connection", self.resident_bytes as f64 / 1_048_576.0);
        }
        let [p50, p99, p999] = self.latency_micros;
        write!(
            f,
            "{:.2} µs/request, {:.0}/s, p50 {p50} p99 {p99} p99.9 {p999} µs, busy {:.2} (load {:.2})",
            self.cpu_micros_per_request, self.requests_per_second, self.proxy_busy, self.load_busy
        )
    }
}

/// A ratio over several rounds.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// Everything that was measured.
pub(crate) struct Report {
    machine: Vec<(String, String)>,
    /// By job and proxy, in the order of rounds.
    figures: BTreeMap<(String, String), Vec<Figure>>,
    jobs: Vec<String>,
    left_out: Vec<(String, String, String)>,
    /// System calls for each request of the headline, by proxy and name.
    calls: BTreeMap<String, Vec<(String, f64)>>,
}

type Value = fn(&Figure) -> f64;

const CPU: Value = |figure| figure.cpu_micros_per_request;
#[expect(clippy::cast_precision_loss, reason = "microseconds")]
const P99: Value = |figure| figure.latency_micros[1] as f64;
#[expect(clippy::cast_precision_loss, reason = "microseconds")]
const P999: Value = |figure| figure.latency_micros[2] as f64;
#[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
const MEMORY: Value = |figure| figure.resident_bytes as f64;

impl Report {
    pub(crate) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, figures: BTreeMap::new(), jobs: Vec::new(), left_out: Vec::new(), calls: BTreeMap::new() }
    }

    pub(crate) fn take(&mut self, job: &str, peer: &str, figure: Figure) {
        if !self.jobs.iter().any(|known| known == job) {
            self.jobs.push(job.to_owned());
        }
        self.figures.entry((job.to_owned(), peer.to_owned())).or_default().push(figure);
    }

    /// Says why a proxy is left out of a job; what was measured of it there is not told.
    pub(crate) fn left_out(&mut self, job: &str, peer: &str, why: &str) {
        self.figures.remove(&(job.to_owned(), peer.to_owned()));
        self.left_out.push((job.to_owned(), peer.to_owned(), why.to_owned()));
    }

    pub(crate) fn take_calls(&mut self, peer: &str, calls: Vec<(String, f64)>) {
        self.calls.insert(peer.to_owned(), calls);
    }

    /// Of one job and proxy.
    fn of(&self, job: &str, peer: &str) -> Option<&Vec<Figure>> {
        self.figures.get(&(job.to_owned(), peer.to_owned()))
    }

    /// Requests a second that a proxy answered, the median.
    pub(crate) fn rate(&self, job: &str, peer: &str) -> Option<f64> {
        Some(median_of(self.of(job, peer)?, |figure| figure.requests_per_second))
    }

    /// One against another, round by round.
    fn ratio(&self, value: Value, one: (&str, &str), other: (&str, &str)) -> Option<Ratio> {
        let (ones, others) = (self.of(one.0, one.1)?, self.of(other.0, other.1)?);
        let mut ratios: Vec<f64> =
            ones.iter().zip(others).map(|(one, other)| value(one) / value(other)).filter(|r| r.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio { median: median(&ratios), least: *ratios.first()?, most: *ratios.last()? })
    }

    /// Jobs and, for each proxy, the median of its CPU time for a request to nginx's.
    pub(crate) fn bars(&self) -> Vec<(String, Vec<(String, f64)>)> {
        let bar = |job: &String| {
            let of_job = self.figures.keys().filter(|(of, _)| of == job);
            let ratios = of_job
                .filter_map(|(_, peer)| Some((peer.clone(), self.ratio(CPU, (job, peer), (job, MEASURE))?.median)));
            let mut ratios: Vec<(String, f64)> = ratios.collect();
            ratios.sort_by(|(_, one), (_, other)| one.total_cmp(other));
            (job.clone(), ratios)
        };
        self.jobs.iter().map(bar).filter(|(_, bars): &(_, Vec<_>)| bars.len() > 1).collect()
    }

    /// For each proxy its latencies at the rates that were held: share of nginx's rate, and the medians of the percentiles.
    #[expect(clippy::cast_precision_loss, reason = "microseconds")]
    pub(crate) fn latencies(&self) -> BTreeMap<String, Vec<(f64, [f64; 3])>> {
        let mut lines: BTreeMap<String, Vec<(f64, [f64; 3])>> = BTreeMap::new();
        for ((job, peer), figures) in &self.figures {
            let Some(share) = job.strip_prefix("rate-").and_then(|text| text.parse().ok()) else { continue };
            let at = |index: usize| {
                let mut values: Vec<f64> = figures.iter().map(|figure| figure.latency_micros[index] as f64).collect();
                values.sort_by(f64::total_cmp);
                median(&values)
            };
            lines.entry(peer.clone()).or_default().push((share, [at(0), at(1), at(2)]));
        }
        lines
    }

    /// All figures of all jobs.
    fn table(&self) -> String {
        let mut text = String::from(
            "| job | proxy | CPU to nginx's (least–most) | µs/request | requests/s | p50 µs | p99 µs | p99.9 µs | switches/request | MiB |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for job in &self.jobs {
            for ((_, peer), figures) in self.figures.iter().filter(|((of, _), _)| of == job) {
                let of = |value: Value| median_of(figures, value);
                if figures.iter().any(|figure| figure.bytes_per_connection.is_some()) {
                    let _ = writeln!(text, "| {job} | {peer} | | | | | | | | {:.1} |", of(MEMORY) / 1_048_576.0);
                    continue;
                }
                let ratio = self.ratio(CPU, (job, peer), (job, MEASURE)).map_or_else(String::new, |r| r.to_string());
                #[expect(clippy::cast_precision_loss, reason = "microseconds")]
                let p50 = of(|figure| figure.latency_micros[0] as f64);
                let _ = writeln!(
                    text,
                    "| {job} | {peer} | {ratio} | {:.2} | {:.0} | {p50:.0} | {:.0} | {:.0} | {:.3} | {:.1} |",
                    of(CPU),
                    of(|figure| figure.requests_per_second),
                    of(P99),
                    of(P999),
                    of(|figure| figure.switches_per_request),
                    of(MEMORY) / 1_048_576.0,
                );
            }
        }
        text
    }

    /// What we want, and what there is.
    pub(crate) fn goals(&self) -> String {
        let mut text = String::from("| figure | goal | measured (least–most) | |\n|---|--:|--:|---|\n");
        let mut row = |what: &str, goal: f64, ratio: Option<Ratio>| {
            let Some(ratio) = ratio else { return };
            let met = if ratio.median <= goal { "met" } else { "**not met**" };
            let _ = writeln!(text, "| {what} | ≤ {goal} | {ratio} | {met} |");
        };
        let serin = |value, job, peer| self.ratio(value, (job, "serin"), (job, peer));
        row("CPU per request, small answers, to nginx", 0.75, serin(CPU, HEADLINE, MEASURE));
        row("… to HAProxy", 0.85, serin(CPU, HEADLINE, "haproxy"));
        row("… to Envoy", 0.25, serin(CPU, HEADLINE, "envoy"));
        row("… to a relay of bytes", 1.25, serin(CPU, HEADLINE, "relay"));
        row("p99 at 60 % of what nginx can, to nginx", 1.0, serin(P99, "rate-60", MEASURE));
        row("CPU per request, 64 kB, to nginx", 0.8, serin(CPU, "64k", MEASURE));
        row("… 1 MB", 0.8, serin(CPU, "1m", MEASURE));
        row("… POST of 1 kB", 0.8, serin(CPU, "post-1k", MEASURE));
        row("… a connection for each request", 1.05, serin(CPU, "connection-per-request", MEASURE));
        row(
            "CPU per request, 10,000 routes to 10",
            1.05,
            self.ratio(CPU, ("routes", "edge 10000"), ("routes", "edge 10")),
        );
        row("memory with 10,000 idle connections, to nginx", 1.0, serin(MEMORY, "idle-10000", MEASURE));
        row(
            "p99.9 with 10 swaps/s of 10,000 routes, to none",
            1.1,
            self.ratio(P999, ("swaps", "edge 10/s"), ("swaps", "edge 0/s")),
        );
        text
    }

    /// Writes `results.json` and `results.md` into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let machine: serde_json::Map<String, serde_json::Value> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let rounds = |((job, peer), rounds): (&(String, String), &Vec<Figure>)| {
            json!({"job": job, "proxy": peer, "rounds": rounds}).to_string()
        };
        // A line for each proxy in each job, for whoever compares two runs.
        let figures: Vec<String> = self.figures.iter().map(rounds).collect();
        let rest = [
            format!("\"machine\": {}", json!(machine)),
            format!("\"figures\": [\n{}\n]", figures.join(",\n")),
            format!("\"leftOut\": {}", json!(self.left_out)),
            format!("\"systemCalls\": {}", json!(self.calls)),
        ];
        fs::write(folder.join("results.json"), format!("{{\n{}\n}}\n", rest.join(",\n")))?;
        fs::write(folder.join("results.md"), self.page())?;
        Ok(())
    }

    fn page(&self) -> String {
        let machine: Vec<String> = self.machine.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut text =
            format!("# Results\n\nMade by `make bench`. {}\n\n## Goals\n\n{}\n", machine.join(" · "), self.goals());
        let _ = writeln!(
            text,
            "## All figures\n\nMedians of all rounds; latencies are of requests that the primary answered. Who answers fewer requests a second \
             than others at a fixed rate did not hold it.\n"
        );
        let _ = writeln!(text, "{}", self.table());
        if !self.calls.is_empty() {
            let _ = writeln!(text, "## System calls for each request of the headline\n");
        }
        for (peer, calls) in &self.calls {
            let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let _ = writeln!(text, "- {peer}: {}", calls.join(" · "));
        }
        for (job, peer, why) in &self.left_out {
            let _ = writeln!(text, "- left out: {peer} in {job}: {why}");
        }
        text
    }
}

fn median_of(figures: &[Figure], value: Value) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// Of numbers in order.
fn median(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
