//! What a rollout promises: the transition table, whole rollouts as stories, and invariants on random walks.

mod limits;
mod script;
mod stage;
mod story;
mod table;
mod walk;
mod walker;

use serin_measure::CanaryKey;

use crate::{Guard, GuardMode, Judging, Notice, Plan, Revision, Steps, Strategy, Target, Weight};

/// A plan that stories and tables vary: 20, 40, 60, two failed checks, a tick a minute, a deadline of three minutes.
fn plan() -> Plan {
    Plan {
        canary: CanaryKey::new("test", "podinfo"),
        target: Target { kind: "Deployment".to_owned(), name: "podinfo".to_owned() },
        revision: revision("v1"),
        strategy: Strategy::Weighted(Steps::by(weight(20), weight(60)).expect("20 to 60 moves")),
        skip_analysis: false,
        threshold: 2,
        interval_ms: 60_000,
        progress_deadline_ms: 180_000,
        checks: Vec::new(),
        guard: Guard { mode: GuardMode::Enforce, tolerance: 0.01, warm_up_ms: 10_000 },
    }
}

fn revision(name: &str) -> Revision {
    Revision(name.to_owned())
}

fn weight(percent: u64) -> Weight {
    Weight::new(percent).expect("weights in tests are between 0 and 100")
}

/// How an epoch is judged, in a word.
fn judging_word(judging: Judging) -> &'static str {
    match judging {
        Judging::Off => "off",
        Judging::WarmUp(_) => "warm-up",
        Judging::Full(_) => "full",
    }
}

/// Each event on one line.
fn told(notices: &[Notice]) -> impl Iterator<Item = String> {
    notices.iter().map(|notice| match notice {
        Notice::Event { level, message } => format!("{}: {message}", level.as_str()),
    })
}
