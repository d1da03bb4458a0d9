//! How runs ended, for the table at the end.

use serin_measure::CanaryKey;
use serin_rollout::Phase;

use crate::promises::{Commit, Observer};
use crate::scenario::{Health, Scenario};
use crate::tally::Tally;

/// Counts how every run ended, and those that the guard took back although their version was as good as the other.
pub(crate) fn runs(eyes: &Observer, scenario: &Scenario, tally: &mut Tally) {
    for app in &scenario.canaries {
        let of_app = eyes.books.history.iter().filter(|commit| commit.saved.canary == app.key);
        let commits: Vec<&Commit> = of_app.filter(|commit| commit.saved.state.rollout > 0).collect();
        for (at, commit) in commits.iter().enumerate() {
            let state = &commit.saved.state;
            let next = commits.get(at + 1).map(|next| next.saved.state.rollout);
            if next == Some(state.rollout) {
                continue;
            }
            let ending = ending(eyes, &app.key, commit);
            tally.add(ending, 1);
            // At its end the target may point elsewhere already.
            let first = commits.iter().find(|commit| commit.saved.state.rollout == state.rollout).unwrap_or(commit);
            let applied = &first.saved.state.applied;
            let version = applied.as_ref().and_then(|revision| revision.0.parse::<usize>().ok()).unwrap_or(1);
            let is_good = app.versions[version - 1] == Health::Good;
            if is_good && state.warm_up_until_ms.is_some() {
                tally.add(GOOD, 1);
                // An order to take out what was taken back for another reason carries no evidence.
                if state.trip.as_ref().is_some_and(|trip| trip.ln_e > 0.0) {
                    tally.add(GOOD_TAKEN_BACK, 1);
                }
            }
        }
    }
}

/// Runs of versions that fail as often as the one before.
pub(crate) const GOOD: &str = "good: runs of versions no worse than the primary";
/// Those of them that the guard took back.
pub(crate) const GOOD_TAKEN_BACK: &str = "good: of those taken back by evidence";

fn ending(eyes: &Observer, canary: &CanaryKey, commit: &Commit) -> &'static str {
    let state = &commit.saved.state;
    let told = |text: &str| commit.saved.events.iter().rev().take(4).any(|event| event.message.contains(text));
    match state.phase {
        Phase::Succeeded => "run: promoted",
        Phase::Failed if state.weight.percent() > 0 => "run: promotion failed, the canary serves",
        Phase::Failed if state.trip.is_some() => {
            if eyes.trips.by_tripwire(canary, state.run()) {
                "run: taken back by a tripwire"
            } else {
                "run: taken back by pooled evidence"
            }
        }
        Phase::Failed if told("threshold reached") => "run: taken back by checks",
        Phase::Failed if told("reverted") => "run: taken back, as the target went back",
        Phase::Failed => "run: taken back for readiness and the rest",
        Phase::Initializing
        | Phase::Initialized
        | Phase::Waiting
        | Phase::Progressing
        | Phase::WaitingPromotion
        | Phase::Promoting
        | Phase::Finalising => "run: overtaken by another release",
    }
}
