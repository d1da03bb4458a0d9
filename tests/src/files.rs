//! The files that people write for Serin without a cluster: a directory, a `Backend` and a `Canary` in it.
//!
//! Files are replaced by rename, as careful editors do, so that a watcher never reads half of one.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory of configuration documents.
#[derive(Clone, Debug)]
pub struct ConfigDir {
    path: PathBuf,
}

impl ConfigDir {
    /// The directory at this path, made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a whole file, so that a reader sees the old text or the new one and nothing between.
    ///
    /// # Errors
    /// If the directory does not take it.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        // The name does not end in .yaml until the text is whole.
        let draft = self.path.join(format!(".{name}.new"));
        let place = self.path.join(name);
        fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &place).with_context(|| format!("replacing {}", place.display()))
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// If it is not there, or cannot be deleted.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.path.join(name);
        fs::remove_file(&place).with_context(|| format!("deleting {}", place.display()))
    }

    /// Changes the `release:` of the Backend in this file and nothing else, as a person with an editor would: that starts a rollout.
    ///
    /// # Errors
    /// If the file cannot be read or written, or has no line that begins with `release:`.
    pub fn release(&self, name: &str, version: &str) -> Result<()> {
        let place = self.path.join(name);
        let text = fs::read_to_string(&place).with_context(|| format!("reading {}", place.display()))?;
        let edited =
            with_release(&text, version).with_context(|| format!("{} has no release: line", place.display()))?;
        self.write(name, &edited)
    }
}

/// The text with another version in its first `release:` line; `None` if it has no such line.
fn with_release(text: &str, version: &str) -> Option<String> {
    let line = text.lines().find(|line| line.trim_start().starts_with("release:"))?;
    let indent = &line[..line.len() - line.trim_start().len()];
    Some(text.replacen(line, &format!("{indent}release: \"{version}\""), 1))
}

/// A `Backend` document: where each version of a service answers, and which one is released.
#[derive(Clone, Debug)]
pub struct BackendFile {
    /// Its name, by which a Canary refers to it.
    pub name: String,
    /// The version that people should get.
    pub release: String,
    /// Each version and its endpoints.
    pub versions: Vec<(String, Vec<SocketAddr>)>,
}

impl BackendFile {
    /// A Backend of this name that has released the first of these versions, one endpoint each.
    #[must_use]
    pub fn new(name: &str, versions: &[(&str, SocketAddr)]) -> Self {
        Self {
            name: name.to_owned(),
            release: versions.first().map(|(version, _)| (*version).to_owned()).unwrap_or_default(),
            versions: versions.iter().map(|(version, at)| ((*version).to_owned(), vec![*at])).collect(),
        }
    }

    /// The document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { name, release, versions } = self;
        let mut yaml = format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Backend\nmetadata:\n  name: {name}\nspec:\n  release: \"{release}\"\n  versions:\n"
        );
        for (version, endpoints) in versions {
            let endpoints: Vec<String> = endpoints.iter().map(|at| format!("\"{at}\"")).collect();
            let endpoints = endpoints.join(", ");
            writeln!(yaml, "    - {{ name: \"{version}\", endpoints: [{endpoints}] }}")
                .expect("a String takes every write");
        }
        yaml
    }
}

/// A `Canary` document: how a release of the Backend of the same name is tried. Change the public fields as needed.
#[derive(Clone, Debug)]
pub struct CanaryFile {
    /// Its name and its target's.
    pub name: String,
    /// Seconds between two analyses.
    pub interval_s: u32,
    /// Failed checks before a rollback.
    pub threshold: u32,
    /// Percent of the traffic added by each step.
    pub step_weight: u32,
    /// Percent of the traffic at which the canary is promoted.
    pub max_weight: u32,
    /// `request-success-rate` minimum, in percent; `None` leaves the metric out.
    pub success_rate_min: Option<f64>,
    /// `request-duration` maximum (p99), in milliseconds; `None` leaves the metric out.
    pub duration_ms_max: Option<u32>,
    /// Further lines of `spec.analysis`, indented from its own column: webhooks, matches, a guard. Empty by default.
    pub analysis: String,
    /// Further lines of `spec.service`, indented from its own column. Empty by default.
    pub service: String,
}

impl CanaryFile {
    /// The canary of the demo: every 5 s another 20 % up to 60 %, a success rate of 99 %, a p99 of 500 ms, 5 failed checks.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            interval_s: 5,
            threshold: 5,
            step_weight: 20,
            max_weight: 60,
            success_rate_min: Some(99.0),
            duration_ms_max: Some(500),
            analysis: String::new(),
            service: String::new(),
        }
    }

    /// The document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { name, interval_s, threshold, step_weight, max_weight, .. } = self;
        let service = indented(&self.service);
        let metrics = self.metrics();
        let analysis = indented(&self.analysis);
        format!(
            "apiVersion: flagger.app/v1beta1
kind: Canary
metadata:
  name: {name}
spec:
  targetRef:
    apiVersion: serin.dev/v1alpha1
    kind: Backend
    name: {name}
  service:
    port: 80
{service}  analysis:
    interval: {interval_s}s
    threshold: {threshold}
    stepWeight: {step_weight}
    maxWeight: {max_weight}
{metrics}{analysis}"
        )
    }

    fn metrics(&self) -> String {
        let window = self.interval_s;
        let metric = |name: &str, range: String| {
            format!("      - name: {name}\n        thresholdRange:\n          {range}\n        interval: {window}s\n")
        };
        let success = self.success_rate_min.map(|min| metric("request-success-rate", format!("min: {min}")));
        let duration = self.duration_ms_max.map(|max| metric("request-duration", format!("max: {max}")));
        let metrics: String = success.into_iter().chain(duration).collect();
        if metrics.is_empty() { metrics } else { format!("    metrics:\n{metrics}") }
    }
}

/// Lines four columns further right.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> BackendFile {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        BackendFile::new("podinfo", &[("6.0.0", at(9001)), ("6.0.1", at(9002))])
    }

    #[test]
    fn a_backend_reads_as_a_person_would_write_it() {
        insta::assert_snapshot!(backend().yaml(), @r#"
        apiVersion: serin.dev/v1alpha1
        kind: Backend
        metadata:
          name: podinfo
        spec:
          release: "6.0.0"
          versions:
            - { name: "6.0.0", endpoints: ["127.0.0.1:9001"] }
            - { name: "6.0.1", endpoints: ["127.0.0.1:9002"] }
        "#);
    }

    #[test]
    fn a_canary_reads_as_a_person_would_write_it() {
        let mut canary = CanaryFile::new("podinfo");
        canary.duration_ms_max = None;
        canary.analysis = "guard:\n  mode: observe".to_owned();
        canary.service = "hosts: [app.example.com]".to_owned();
        insta::assert_snapshot!(canary.yaml(), @"
        apiVersion: flagger.app/v1beta1
        kind: Canary
        metadata:
          name: podinfo
        spec:
          targetRef:
            apiVersion: serin.dev/v1alpha1
            kind: Backend
            name: podinfo
          service:
            port: 80
            hosts: [app.example.com]
          analysis:
            interval: 5s
            threshold: 5
            stepWeight: 20
            maxWeight: 60
            metrics:
              - name: request-success-rate
                thresholdRange:
                  min: 99
                interval: 5s
            guard:
              mode: observe
        ");
    }

    #[test]
    fn a_release_changes_one_line_and_keeps_a_persons_edits() {
        let edited = backend().yaml().replace("spec:\n", "spec:\n  # mine\n");
        let released = with_release(&edited, "6.0.1").expect("it has a release");
        assert_eq!(released, edited.replace("release: \"6.0.0\"", "release: \"6.0.1\""));
        assert_eq!(with_release("kind: Canary\n", "6.0.1"), None);
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_draft() {
        let home = tempfile::tempdir().expect("a directory for temporary files");
        let dir = ConfigDir::new(home.path().join("config")).expect("the directory is new");
        dir.write("a.yaml", "one").expect("it is writable");
        dir.write("a.yaml", "two").expect("it is writable");
        assert_eq!(fs::read_to_string(dir.path().join("a.yaml")).expect("it was written"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1);
    }
}
