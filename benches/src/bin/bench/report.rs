//! Figures, their medians and ratios, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::job::Load;
use crate::process::Used;

/// Who is 1.
const MEASURE: &str = "nginx";

/// What one proxy did in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// User and system time of the proxy for each request, in microseconds.
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    memory: f64,
    /// Context switches for each request.
    switches: f64,
}

impl Figure {
    pub(crate) fn new(load: &Load, before: &Used, after: &Used) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let each = |count: u64| count as f64 / load.requests.max(1) as f64;
        #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
        let memory = after.memory as f64;
        Self {
            cpu_us: each(after.cpu_us - before.cpu_us),
            per_second: load.per_second,
            p50_us: load.p50_us,
            p99_us: load.p99_us,
            memory,
            switches: each(after.switches - before.switches),
        }
    }

    fn to_json(self) -> Value {
        json!({
            "cpuMicrosPerRequest": self.cpu_us, "requestsPerSecond": self.per_second, "p50Micros": self.p50_us,
            "p99Micros": self.p99_us, "residentBytes": self.memory, "switchesPerRequest": self.switches,
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} µs/request, {:.0}/s, p99 {:.0} µs", self.cpu_us, self.per_second, self.p99_us)
    }
}

/// Everything that was measured.
pub(crate) struct Report {
    machine: Vec<(String, String)>,
    /// By job and proxy, in the order of rounds.
    figures: BTreeMap<(String, String), Vec<Figure>>,
    jobs: Vec<String>,
    left_out: Vec<Value>,
}

impl Report {
    pub(crate) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, figures: BTreeMap::new(), jobs: Vec::new(), left_out: Vec::new() }
    }

    pub(crate) fn take(&mut self, job: &str, peer: &str, figure: Figure) {
        if !self.jobs.iter().any(|known| known == job) {
            self.jobs.push(job.to_owned());
        }
        self.figures.entry((job.to_owned(), peer.to_owned())).or_default().push(figure);
    }

    pub(crate) fn left_out(&mut self, job: &str, peer: &str, why: &str) {
        self.left_out.push(json!({"job": job, "proxy": peer, "why": why}));
    }

    /// CPU time to nginx's, round by round: the median, and the smallest and largest.
    fn ratio(&self, job: &str, peer: &str) -> Option<(f64, f64, f64)> {
        let of = |peer: &str| self.figures.get(&(job.to_owned(), peer.to_owned()));
        let mut ratios: Vec<f64> =
            of(peer)?.iter().zip(of(MEASURE)?).map(|(figure, measure)| figure.cpu_us / measure.cpu_us).collect();
        ratios.sort_by(f64::total_cmp);
        Some((median(&ratios), *ratios.first()?, *ratios.last()?))
    }

    /// The table that the README quotes.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| job | proxy | CPU to nginx's (least–most) | µs/request | requests/s | p99 µs | MiB |\n|---|---|--:|--:|--:|--:|--:|\n",
        );
        for job in &self.jobs {
            let of_job = self.figures.iter().filter(|((name, _), _)| name == job);
            for ((_, peer), figures) in of_job {
                let of = |value: fn(&Figure) -> f64| median_of(figures, value);
                let ratio = self
                    .ratio(job, peer)
                    .map_or_else(String::new, |(middle, least, most)| format!("{middle:.2} ({least:.2}–{most:.2})"));
                text.push_str(&format!(
                    "| {job} | {peer} | {ratio} | {:.2} | {:.0} | {:.0} | {:.1} |\n",
                    of(|figure| figure.cpu_us),
                    of(|figure| figure.per_second),
                    of(|figure| figure.p99_us),
                    of(|figure| figure.memory) / 1_048_576.0,
                ));
            }
        }
        text
    }

    /// Writes `results.json` and `results.md` into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|((job, peer), figures)| {
                let rounds: Vec<Value> = figures.iter().map(|figure| figure.to_json()).collect();
                json!({"job": job, "proxy": peer, "rounds": rounds})
            })
            .collect();
        let all = json!({"machine": machine, "figures": figures, "leftOut": self.left_out});
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(&all)?)?;
        let machine: Vec<String> = self.machine.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        fs::write(folder.join("results.md"), format!("{}\n\n{}", machine.join(" · "), self.table()))?;
        Ok(())
    }
}

fn median_of(figures: &[Figure], value: fn(&Figure) -> f64) -> f64 {
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
