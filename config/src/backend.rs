//! Serin's Backend: the versions of one service and where they run, for places without a cluster.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::address::Endpoint;
use crate::object::Object;
use crate::problem::{Finding, Findings, quoted};

/// Versions of one Backend. Two take part in a rollout; the rest is history, and a hundred are years of it.
pub const VERSIONS_MAX: usize = 100;
/// Endpoints of one version. Every worker thread keeps a pool of connections for each of them.
pub const ENDPOINTS_MAX: usize = 1_000;
/// Characters in a version's name. It becomes a metric's label, and a key of the store.
pub const VERSION_NAME_CHARS_MAX: usize = 128;

/// A service outside any cluster: its versions, and the one that is wanted.
pub type Backend = Object<BackendSpec>;

/// `Backend.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// Name of the version that is wanted; required. Another name starts a rollout.
    pub release: Option<String>,
    /// The versions that there are; required.
    pub versions: Option<Vec<Version>>,
}

/// One version of a Backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Its name, unique in the Backend; required.
    pub name: Option<String>,
    /// Where it runs, as `host:port`; at least one.
    pub endpoints: Option<Vec<String>>,
}

impl BackendSpec {
    /// The versions; empty where absent.
    pub fn versions(&self) -> &[Version] {
        self.versions.as_deref().unwrap_or_default()
    }
}

impl Version {
    /// The name; empty where absent, which validation reports.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The endpoints as they are written; empty where absent.
    pub fn endpoints(&self) -> &[String] {
        self.endpoints.as_deref().unwrap_or_default()
    }
}

impl Backend {
    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.metadata.check(&mut findings);
        let versions = self.spec.versions();
        match versions.len() {
            0 => findings.error("spec.versions", "is missing").help("list at least one version with its endpoints"),
            1..=VERSIONS_MAX => {}
            given => {
                findings.error("spec.versions", format!("has {given} entries, {VERSIONS_MAX} are the most"));
            }
        }
        let mut first_with = HashMap::new();
        for (index, version) in versions.iter().enumerate() {
            let path = format!("spec.versions[{index}]");
            check_version(&mut findings, &path, version);
            if let Some(first) = first_with.insert(version.name(), index).filter(|_| !version.name().is_empty()) {
                let name = quoted(version.name());
                findings.error(format!("{path}.name"), format!("{name} is also the name of spec.versions[{first}]"));
            }
        }
        check_release(&mut findings, self.spec.release.as_deref(), versions);
        findings.into_vec()
    }
}

fn check_release(findings: &mut Findings, release: Option<&str>, versions: &[Version]) {
    let Some(release) = findings.required("spec.release", release) else { return };
    // Without any version that is what is wrong, and it has been said.
    if versions.is_empty() || versions.iter().any(|version| version.name() == release) {
        return;
    }
    let names: Vec<&str> = versions.iter().map(Version::name).filter(|name| !name.is_empty()).collect();
    let finding =
        findings.error("spec.release", format!("missing version: {} is not among spec.versions", quoted(release)));
    /// Names that a help line lists; more would hide the sentence above it.
    const NAMES_SHOWN_MAX: usize = 10;
    match names.len() {
        0 => {}
        1..=NAMES_SHOWN_MAX => finding.help(format!("there are {}", names.join(", "))),
        more => finding.help(format!(
            "there are {} and {} more",
            names[..NAMES_SHOWN_MAX].join(", "),
            more - NAMES_SHOWN_MAX
        )),
    }
}

fn check_version(findings: &mut Findings, path: &str, version: &Version) {
    if let Some(name) = findings.required(format!("{path}.name"), version.name.as_deref()) {
        let chars = name.chars().count();
        if chars > VERSION_NAME_CHARS_MAX {
            findings.error(
                format!("{path}.name"),
                format!("has {chars} characters, {VERSION_NAME_CHARS_MAX} are the most"),
            );
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            findings.error(format!("{path}.name"), format!("{} holds a blank or a control character", quoted(name)));
        }
    }
    let endpoints = version.endpoints();
    match endpoints.len() {
        0 => findings.error(format!("{path}.endpoints"), "is missing").help("list at least one as host:port"),
        1..=ENDPOINTS_MAX => {}
        given => {
            findings.error(format!("{path}.endpoints"), format!("has {given} entries, {ENDPOINTS_MAX} are the most"));
            return;
        }
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if let Err(error) = endpoint.parse::<Endpoint>() {
            findings.error(format!("{path}.endpoints[{index}]"), error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(release: &str, versions: &[(&str, &[&str])]) -> Backend {
        let mut backend = Backend::default();
        backend.metadata.name = Some("podinfo".into());
        backend.spec.release = Some(release.into());
        let version = |(name, endpoints): &(&str, &[&str])| Version {
            name: Some((*name).into()),
            endpoints: Some(endpoints.iter().map(|endpoint| (*endpoint).into()).collect()),
        };
        backend.spec.versions = Some(versions.iter().map(version).collect());
        backend
    }

    #[track_caller]
    fn check(backend: &Backend, expected: &[&str]) {
        let found: Vec<String> = backend
            .validate()
            .into_iter()
            .map(|finding| {
                let help = finding.help.map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{}: {}{help}", finding.path, finding.message)
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_backend_releases_one_of_its_versions() {
        let versions: &[(&str, &[&str])] = &[("6.0.0", &["127.0.0.1:9001"]), ("6.0.1", &["app:9002", "[::1]:1"])];
        check(&backend("6.0.1", versions), &[]);
        check(
            &backend("6.0.2", versions),
            &["spec.release: missing version: \"6.0.2\" is not among spec.versions (there are 6.0.0, 6.0.1)"],
        );
    }

    #[test]
    fn everything_missing_is_told_at_once() {
        check(
            &Backend::default(),
            &[
                "metadata.name: is missing",
                "spec.versions: is missing (list at least one version with its endpoints)",
                "spec.release: is missing",
            ],
        );
        check(
            &backend("a", &[("a", &[])]),
            &["spec.versions[0].endpoints: is missing (list at least one as host:port)"],
        );
    }

    #[test]
    fn one_mistake_is_told_once() {
        check(&backend("a", &[]), &["spec.versions: is missing (list at least one version with its endpoints)"]);
    }

    #[test]
    fn names_are_unique_and_plain() {
        check(
            &backend("a", &[("a", &["a:1"]), ("b c", &["a:1"]), ("a", &["a:1"])]),
            &[
                "spec.versions[1].name: \"b c\" holds a blank or a control character",
                "spec.versions[2].name: \"a\" is also the name of spec.versions[0]",
            ],
        );
    }

    #[test]
    fn each_endpoint_is_judged_by_itself() {
        check(
            &backend("a", &[("a", &["a", "a:1", "a:0"])]),
            &[
                "spec.versions[0].endpoints[0]: \"a\" has no port; an endpoint is written host:port",
                "spec.versions[0].endpoints[2]: \"a:0\" has the port \"0\", which is not a number from 1 to 65535",
            ],
        );
    }

    #[test]
    fn lists_have_bounds() {
        let endpoints = vec!["a:1"; ENDPOINTS_MAX + 1];
        check(
            &backend("a", &[("a", &endpoints)]),
            &["spec.versions[0].endpoints: has 1001 entries, 1000 are the most"],
        );
        let names: Vec<String> = (0..=VERSIONS_MAX).map(|n| format!("v{n}")).collect();
        let versions: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), ["a:1"].as_slice())).collect();
        check(&backend("v0", &versions), &["spec.versions: has 101 entries, 100 are the most"]);
    }
}
