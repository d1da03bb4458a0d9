//! Files that nothing is wrong with, for tests that change one thing in them.

use crate::problem::Problem;
use crate::set::{Set, SourceFile, read_files};

/// A Canary that nothing is wrong with.
pub(crate) const CANARY: &str = "\
apiVersion: flagger.app/v1beta1
kind: Canary
metadata:
  name: podinfo
spec:
  targetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: podinfo
  service:
    port: 80
  analysis:
    interval: 30s
    threshold: 5
    stepWeight: 10
    metrics:
      - name: request-success-rate
        thresholdRange:
          min: 99
        interval: 1m
";

/// A Backend that nothing is wrong with.
pub(crate) const BACKEND: &str = "\
apiVersion: serin.dev/v1alpha1
kind: Backend
metadata: { name: podinfo }
spec:
  release: \"6.0.1\"
  versions:
    - { name: \"6.0.0\", endpoints: [\"127.0.0.1:9001\"] }
    - { name: \"6.0.1\", endpoints: [\"127.0.0.1:9002\"] }
";

/// Reads files of these names and texts.
pub(crate) fn read(texts: &[(&str, &str)]) -> Set {
    let file = |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), bytes: text.as_bytes().to_vec() };
    read_files(&texts.iter().map(file).collect::<Vec<_>>())
}

/// All problems of a set as they are shown.
pub(crate) fn rendered(set: &Set) -> String {
    let problems: Vec<String> = set.problems.iter().map(Problem::to_string).collect();
    problems.join("\n")
}

/// Checks what is said of a single file.
#[track_caller]
pub(crate) fn check(text: &str, problems: &str) {
    assert_eq!(rendered(&read(&[("a.yaml", text)])), problems, "of\n{text}");
}

/// One change to a text that is right, and what is said of it.
#[track_caller]
pub(crate) fn check_change(text: &str, from: &str, to: &str, problems: &str) {
    assert!(text.contains(from), "{from} is in the text");
    check(&text.replacen(from, to, 1), problems);
}
