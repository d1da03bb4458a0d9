//! What a directory of files comes to, and what a person is told about it, word for word.

use std::path::PathBuf;

use super::*;
use crate::samples::{BACKEND, CANARY, check, check_change, read, rendered};

#[test]
fn good_files_have_no_problems() {
    let set = read(&[("a.yaml", CANARY), ("b.yaml", BACKEND)]);
    assert_eq!(rendered(&set), "");
    assert_eq!((set.canaries.len(), set.backends.len()), (1, 1));
    assert_eq!(set.canaries[0].value.spec.analysis.as_ref().map(|analysis| analysis.threshold()), Some(5));
    assert_eq!(set.backends[0].value.spec.release.as_deref(), Some("6.0.1"));
}

#[test]
fn a_backend_must_release_a_version_that_it_has() {
    check_change(
        BACKEND,
        "release: \"6.0.1\"",
        "release: \"6.0.2\"",
        "a.yaml:5:12: spec.release: missing version: \"6.0.2\" is not among spec.versions\n  help: there are 6.0.0, 6.0.1",
    );
    check_change(
        BACKEND,
        "release: \"6.0.1\"",
        "release: 6.0",
        "a.yaml:5:12: spec.release: 6.0 is a number; a string is wanted\n  help: put it in quotes",
    );
    check_change(
        BACKEND,
        "127.0.0.1:9002",
        "127.0.0.1",
        "a.yaml:8:36: spec.versions[1].endpoints[0]: \"127.0.0.1\" has no port; an endpoint is written host:port",
    );
}

#[test]
fn our_kinds_in_another_version_are_told_the_right_one() {
    check_change(
        CANARY,
        "flagger.app/v1beta1",
        "flagger.app/v1alpha3",
        "a.yaml:1:13: apiVersion: \"flagger.app/v1alpha3\" is not what a Canary is read in\n  help: write flagger.app/v1beta1",
    );
    check_change(
        CANARY,
        "flagger.app/v1beta1",
        "flagger.io/v1beta1",
        "a.yaml:1:13: apiVersion: \"flagger.io/v1beta1\" is not what a Canary is read in\n  help: write flagger.app/v1beta1",
    );
    check_change(
        BACKEND,
        "serin.dev/v1alpha1",
        "flagger.app/v1beta1",
        "a.yaml:1:13: apiVersion: \"flagger.app/v1beta1\" is not what a Backend is read in\n  help: write serin.dev/v1alpha1",
    );
    check("kind: Canary\n", "a.yaml:1:1: apiVersion: is missing\n  help: write flagger.app/v1beta1");
    check("apiVersion: v1\n", "a.yaml:1:1: kind: is missing\n  help: such as Canary or Backend");
    check(
        "apiVersion: serin.dev/v1alpha1\nkind: Backnd\n",
        "a.yaml:2:7: kind: \"Backnd\" is none of the kinds that there are\n  help: Canary, MetricTemplate, AlertProvider, \
         Backend, Listener, Settings",
    );
}

#[test]
fn other_peoples_documents_are_left_alone() {
    let set = read(&[
        ("a.yaml", "apiVersion: v1\nkind: ConfigMap\ndata: {}\n"),
        ("b.yaml", "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\n"),
    ]);
    assert_eq!(
        rendered(&set),
        "a.yaml:1:1: warning: ConfigMap of v1 is not a kind that Serin reads, ignored\n\
         b.yaml:1:1: warning: Backend of gateway.envoyproxy.io/v1alpha1 is not a kind that Serin reads, ignored\n  help: \
         Serin's own Backend has apiVersion serin.dev/v1alpha1",
    );
    assert!(!set.has_errors());
}

#[test]
fn a_name_is_given_once() {
    let set = read(&[("a.yaml", CANARY), ("b.yaml", &format!("{BACKEND}---\n{CANARY}"))]);
    assert_eq!(rendered(&set), "b.yaml:13:9: metadata.name: Canary default/podinfo is already declared at a.yaml:4:9");
    assert_eq!((set.canaries.len(), set.backends.len()), (1, 1));
    let elsewhere = CANARY.replacen("name: podinfo", "name: podinfo\n  namespace: test", 1);
    assert_eq!(rendered(&read(&[("a.yaml", CANARY), ("b.yaml", &elsewhere)])), "");
}

#[test]
fn there_is_one_settings_at_most() {
    let settings = "apiVersion: serin.dev/v1alpha1\nkind: Settings\nspec: {threads: 2, drain: 30s, logFormat: json}\n";
    let set = read(&[("a.yaml", settings), ("b.yaml", &settings.replace("threads: 2", "threads: 3"))]);
    assert_eq!(rendered(&set), "b.yaml:1:1: metadata.name: there can be only one Settings, the first is at a.yaml:1:1");
    assert_eq!(set.settings.map(|settings| settings.value.spec.threads), Some(Some(2)));
}

#[test]
fn two_listeners_cannot_share_an_address() {
    let listener = |name: &str, address: &str| {
        format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Listener\nmetadata: {{name: {name}}}\nspec: {{address: \"{address}\"}}\n"
        )
    };
    let same = [("a.yaml", &*listener("a", "127.0.0.1:80")), ("b.yaml", &*listener("b", "127.0.0.1:80"))];
    assert_eq!(rendered(&read(&same)), "b.yaml:4:17: spec.address: 127.0.0.1:80 is already taken by the Listener a");
    let any = [("a.yaml", &*listener("a", "127.0.0.1:0")), ("b.yaml", &*listener("b", "127.0.0.1:0"))];
    assert_eq!(rendered(&read(&any)), "");
    check(
        &listener("a", ":80"),
        "a.yaml:4:17: spec.address: \":80\" is not an IP address and a port\n  help: write 0.0.0.0:80 or [::]:80 for all \
         interfaces",
    );
}

#[test]
fn flaggers_other_kinds_are_read() {
    let text = "\
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: latency, namespace: istio-system}
spec:
  provider:
    type: prometheus
    address: http://prometheus:9090
    headers: {X-Scope-OrgID: [a, b]}
    secretRef: {name: prometheus}
    insecureSkipVerify: true
  query: |
    histogram_quantile(0.99, sum(rate(x{name=\"{{ target }}\"}[{{ interval }}])) by (le))
---
apiVersion: flagger.app/v1beta1
kind: AlertProvider
metadata: {name: on-call}
spec: {type: slack, channel: on-call, username: flagger, address: \"https://hooks.slack.com/x\", proxy: \"http://p\"}
";
    let set = read(&[("a.yaml", text)]);
    assert_eq!(rendered(&set), "");
    assert_eq!((set.metric_templates.len(), set.alert_providers.len()), (1, 1));
    let both = text.replace("channel: on-call", "secretRef: {name: a}").replace("type: prometheus", "type: promethus");
    check(
        &both,
        "a.yaml:6:11: spec.provider.type: \"promethus\" is not one of prometheus, influxdb, datadog, externalmetrics, \
         stackdriver, cloudwatch, newrelic, graphite, dynatrace, keptn, splunk\n  help: did you mean prometheus?\n\
         a.yaml:17:21: spec.secretRef: cannot stand beside address\n  help: keep the one that holds the address",
    );
}

#[test]
fn bytes_that_are_no_text_are_told_of() {
    let set = read_files(&[SourceFile { name: "a.yaml".into(), bytes: b"a: \xff".to_vec() }]);
    assert_eq!(rendered(&set), "a.yaml: is not UTF-8 text: byte 4 cannot be read");
}

#[test]
fn the_content_hash_tells_whether_there_is_anything_new() {
    let hash = |texts: &[(&str, &str)]| read(texts).content_hash;
    assert_eq!(hash(&[("a.yaml", CANARY)]), hash(&[("a.yaml", CANARY)]));
    assert_ne!(hash(&[("a.yaml", CANARY)]), hash(&[("b.yaml", CANARY)]));
    assert_ne!(hash(&[("a.yaml", CANARY)]), hash(&[("a.yaml", BACKEND)]));
    assert_ne!(hash(&[("a.yaml", "x"), ("b.yaml", "")]), hash(&[("a.yaml", ""), ("b.yaml", "x")]));
}

#[test]
fn documents_are_counted() {
    let half = "kind: X\n---\n".repeat(DOCUMENTS_MAX / 2);
    let set = read(&[("a.yaml", &half), ("b.yaml", &half), ("c.yaml", "kind: X\n---\nkind: X\n")]);
    let errors: Vec<_> = set.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "c.yaml:1:1: is left out from here on: 10000 documents are read at most");
}

/// A directory as people and Kubernetes leave it.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory for the test");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("the test's directory can be written");
    }
    dir
}

#[test]
fn a_directory_is_read_by_name_without_hidden_files_and_folders() {
    let dir = directory(&[
        ("b.yaml", BACKEND),
        ("a.yml", CANARY),
        (".hidden.yaml", "["),
        ("notes.txt", "["),
        ("big.yaml", &" ".repeat(FILE_BYTES_MAX + 1)),
    ]);
    fs::create_dir(dir.path().join("folder.yaml")).expect("the test's directory can be written");
    let set = read_dir(dir.path()).expect("the directory can be listed");
    assert_eq!(
        rendered(&set),
        "big.yaml: has 1048577 bytes, 1048576 are read at most\n  help: split it into several files",
    );
    assert_eq!((set.canaries[0].document.file(), set.backends[0].document.file()), ("a.yml", "b.yaml"));
}

#[cfg(unix)]
#[test]
fn the_links_of_a_config_map_are_followed() {
    use std::os::unix::fs::symlink;
    let dir = directory(&[]);
    let version = dir.path().join("..2026_11_23");
    fs::create_dir(&version).expect("the test's directory can be written");
    fs::write(version.join("a.yaml"), CANARY).expect("the test's directory can be written");
    symlink("..2026_11_23", dir.path().join("..data")).expect("links can be made");
    symlink("..data/a.yaml", dir.path().join("a.yaml")).expect("links can be made");
    symlink("..data/gone.yaml", dir.path().join("gone.yaml")).expect("links can be made");
    let set = read_dir(dir.path()).expect("the directory can be listed");
    assert_eq!(set.canaries.len(), 1);
    assert_eq!(rendered(&set), "gone.yaml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_its_own() {
    let dir = directory(&[]);
    assert!(read_dir(&dir.path().join("gone")).is_err());
}

/// Manifests as users write them; they are inputs, warts included.
#[test]
fn the_corpus_is_accepted() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    let set = read_dir(&corpus).expect("the corpus is part of the repository");
    assert!(!set.has_errors(), "{}", rendered(&set));
    let names: Vec<&str> = set.canaries.iter().map(|canary| canary.value.name()).collect();
    assert_eq!(names, ["podinfo-gateway", "podinfo-istio", "podinfo-multi-cluster"]);
    let warnings: Vec<&str> = set.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        warnings,
        [
            "ConfigMap of v1 is not a kind that Serin reads, ignored",
            "ConstraintTemplate of templates.gatekeeper.sh/v1beta1 is not a kind that Serin reads, ignored",
            "CanaryDeploymentSecurity of config.gatekeeper.sh/v1alpha1 is not a kind that Serin reads, ignored",
        ],
    );
}

#[test]
fn what_was_read_can_be_written_and_read_again() {
    let set = read(&[("a.yaml", CANARY)]);
    let canary = &set.canaries[0].value;
    let json = serde_json::to_string(canary).expect("a Canary is JSON");
    // JSON is YAML, too.
    let again = read(&[("a.yaml", &json)]);
    assert_eq!(rendered(&again), "");
    assert_eq!(&again.canaries[0].value, canary);
}

#[test]
fn an_object_can_point_at_its_own_fields() {
    let set = read(&[("a.yaml", CANARY)]);
    let problem = set.canaries[0].problem_at("spec.service.port", "is taken", Some("choose another".into()));
    assert_eq!(problem.to_string(), "a.yaml:11:11: spec.service.port: is taken\n  help: choose another");
}
