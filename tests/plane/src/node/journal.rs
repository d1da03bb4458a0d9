//! What the node did and why, for whoever looks for the reason of a failed test.

use std::collections::VecDeque;
use std::sync::Mutex;

use k8s_openapi::jiff::Timestamp;

use super::resident::Resident;

/// Lines that are kept; a test looks at the last ones only.
const LINES_MAX: usize = 10_000;

/// The newest lines, of all pods.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<VecDeque<Line>>);

#[derive(Debug, PartialEq, Eq)]
struct Line {
    namespace: String,
    subject: String,
    text: String,
    at: Timestamp,
}

impl Journal {
    /// Adds a line, unless the container's last one said the same.
    pub(super) fn note(&self, resident: &Resident, container: &str, what: &str, why: &str) {
        let subject = format!("{} {container}", resident.name);
        let text = if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") };
        let mut lines = self.0.lock().expect("nothing panics while it is held");
        if lines.iter().rev().find(|line| line.subject == subject).is_some_and(|line| line.text == text) {
            return;
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line { namespace: resident.namespace.clone(), subject, text, at: Timestamp::now() });
    }

    /// The lines about pods of one namespace, oldest first.
    pub(super) fn of(&self, namespace: &str) -> Vec<String> {
        let lines = self.0.lock().expect("nothing panics while it is held");
        let own = lines.iter().filter(|line| line.namespace == namespace);
        own.map(|Line { subject, text, at, .. }| format!("{at:.3} {subject}: {text}")).collect()
    }
}
