//! What a controller relies on in an API server, as a table of calls that runs against any client.
//!
//! The same rows run on [`super::InProcess`] and on a real server, so that the first cannot drift from the second.
//! Outcomes hold no uids, times or versions: `@a` stands for a name of the row's own, and a version is named by the
//! step that first had it. Every expectation was seen on a server of 1.37.2 with its deployment controller and garbage
//! collector.
//!
//! A namespace on a real server should be fresh, and needs the kinds of Flagger's definitions.

mod apply;
mod delete;
mod patch;
mod read;
mod status;
mod step;
mod write;

use serde_json::Value;

use self::step::{Memory, Step};

/// A story of calls about objects of its own.
#[derive(Debug)]
pub(super) struct Row {
    name: &'static str,
    steps: Vec<Step>,
}

/// What a row came to, one line for each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The sentence the row is about.
    pub row: &'static str,
    /// What each step should give.
    pub expected: Vec<String>,
    /// What each step gave.
    pub seen: Vec<String>,
}

impl Outcome {
    /// The steps that did not give what they should, in words; empty where all is as expected.
    pub fn differences(&self) -> Vec<String> {
        let both = self.expected.iter().zip(&self.seen).enumerate();
        both.filter(|(_, (expected, seen))| expected != seen)
            .map(|(number, (expected, seen))| {
                format!("{}, step {number}\n  expected: {expected}\n      seen: {seen}", self.row)
            })
            .collect()
    }
}

fn row(name: &'static str, steps: Vec<Step>) -> Row {
    Row { name, steps }
}

fn rows() -> Vec<Row> {
    [write::rows(), patch::rows(), status::rows(), apply::rows(), read::rows(), delete::rows()]
        .into_iter()
        .flatten()
        .collect()
}

/// Runs every row in a namespace, one after the other.
pub async fn run(client: &kube::Client, namespace: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        let mut memory = Memory::new(namespace, number);
        let (mut expected, mut seen) = (Vec::new(), Vec::new());
        for step in row.steps {
            seen.push(step.run(client, &mut memory).await);
            expected.push(step.expected);
        }
        outcomes.push(Outcome { row: row.name, expected, seen });
    }
    outcomes
}

/// An object of a row: its own name, and a label by which the row finds it.
fn named(name: &str) -> Value {
    serde_json::json!({"name": name, "labels": {"row": "@r"}})
}
