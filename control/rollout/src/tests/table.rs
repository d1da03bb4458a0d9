//! What every phase answers to everything that can happen, as one table for review.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::stage::Stage;
use super::{judging_word, plan, told, weight};
use crate::{Needs, Notice, Phase, State, desired, needs};

/// A situation: a name, the script that leads there, and what no script reaches.
struct Start {
    name: &'static str,
    script: &'static str,
    finish: fn(&mut State),
}

/// Something that happens in any situation.
struct Event {
    name: &'static str,
    applies: fn(&State) -> bool,
    prepare: fn(&mut State),
    script: &'static str,
}

fn nothing(_: &mut State) {}

fn always(_: &State) -> bool {
    true
}

const fn start(name: &'static str, script: &'static str) -> Start {
    Start { name, script, finish: nothing }
}

const fn event(name: &'static str, script: &'static str) -> Event {
    Event { name, applies: always, prepare: nothing, script }
}

const STARTS: [Start; 13] = [
    start("Initializing", "primary waiting: P\n release v1\n primary ready"),
    start("Failed, never initialized", "primary dead: P\n release v1\n primary ready"),
    start("Initialized", "release v1"),
    // No gate exists yet that leads to the waiting phases; they answer like the phases around them.
    Start { name: "Waiting", script: "release v1\n release v2", finish: |state| state.phase = Phase::Waiting },
    start("Progressing, no traffic yet", "release v1\n release v2"),
    start("Progressing", "release v1\n release v2\n tick"),
    Start {
        name: "WaitingPromotion",
        script: "release v1\n release v2\n tick 3",
        finish: |state| state.phase = Phase::WaitingPromotion,
    },
    start("Promoting", "release v1\n release v2\n tick 4"),
    start("Finalising", "release v1\n release v2\n tick 5"),
    start("Succeeded", "release v1\n release v2\n tick halt: C\n tick halt: C\n tick 6"),
    start("Failed", "release v1\n release v2\n tick\n tick halt: C\n tick halt: C\n tick"),
    start(
        "Failed promotion, all on the canary",
        "release v1\n release v2\n tick 4\n primary dead: P\n tick\n primary ready",
    ),
    start(
        "Failed promotion, primary on its way back",
        "release v1\n release v2\n tick 4\n primary dead: P\n tick\n release v3\n primary ready",
    ),
];

const EVENTS: [Event; 16] = [
    event("checks pass", "tick"),
    event("a check fails", "tick halt: C"),
    event("checks cannot tell", "tick wait: C"),
    event("primary waiting", "primary waiting: P\n tick"),
    event("primary dead", "primary dead: P\n tick"),
    event("canary waiting", "canary waiting: C\n tick"),
    event("canary dead", "canary dead: C\n tick"),
    event("new revision", "release v4"),
    event("promoted one again", "release v1"),
    Event { prepare: |state| state.failed_checks = 2, ..event("threshold reached", "tick") },
    Event {
        applies: State::is_analysing,
        prepare: |state| state.weight = weight(60),
        ..event("at maximum weight", "tick")
    },
    event("skipAnalysis", "skip on\n tick"),
    event("skip, canary dead", "skip on\n canary dead: C\n tick"),
    event("guard crosses", "guard crosses: G"),
    event("it only observes", "guard observe\n guard crosses: G"),
    event("warm-up over", "seconds 10"),
];

#[test]
fn every_phase_answers_every_event_as_reviewed() {
    let mut table = String::from(
        "P, C and G stand for what is said of primary, canary or checks, and guard. An empty line: nothing changes.\n",
    );
    let mut graph = BTreeSet::new();
    for start in &STARTS {
        let mut stage = Stage::new(plan()).after(start.script);
        (start.finish)(&mut stage.state);
        write!(table, "\n{}\n", heading(start.name, &stage)).expect("a string takes everything");
        for event in EVENTS.iter().filter(|event| (event.applies)(&stage.state)) {
            let (row, phase) = row(event, stage.clone());
            writeln!(table, "{row}").expect("a string takes everything");
            graph.insert((stage.state.phase, phase));
        }
    }
    table.push_str("\nThe graph\n");
    for from in Phase::ALL {
        let to = graph.iter().filter(|(phase, _)| *phase == from).map(|(_, phase)| phase.as_str());
        writeln!(table, "  {from:<16} -> {}", to.collect::<Vec<_>>().join(", ")).expect("a string takes everything");
    }
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("transitions", table);
    });
}

fn heading(name: &str, stage: &Stage) -> String {
    let (state, desired) = (&stage.state, desired(&stage.plan, &stage.state));
    let Needs { primary, canary, checks } = needs(&stage.plan, state);
    let asks: Vec<&str> = [(primary, "primary"), (canary, "canary"), (checks, "checks")]
        .into_iter()
        .filter_map(|(is_asked, fact)| is_asked.then_some(fact))
        .collect();
    format!(
        "{name}: weight {}, failed {}, primary {}, canary {}; asks for {}",
        state.weight,
        state.failed_checks,
        desired.primary,
        desired.canary.as_ref().map_or("none", |revision| &revision.0),
        if asks.is_empty() { "nothing".to_owned() } else { asks.join(", ") },
    )
}

fn row(event: &Event, mut stage: Stage) -> (String, Phase) {
    (event.prepare)(&mut stage.state);
    let before = stage.state.clone();
    let mut notices = Vec::new();
    for line in event.script.lines() {
        notices.extend(stage.play(line.trim()).into_iter().flat_map(|beat| beat.notices));
    }
    let after = &stage.state;
    let name = event.name;
    if notices.is_empty() && before == (State { ticked_ms: before.ticked_ms, ..after.clone() }) {
        return (format!("  {name:<18} |"), after.phase);
    }
    let primary = desired(&stage.plan, after).primary;
    let judging = judging_word(after.epoch.judging);
    let columns = format!(
        "  {name:<18} | {:<16} {:>3} {} {primary} {judging:<7}",
        after.phase, after.weight, after.failed_checks
    );
    let news = said(&before, after, &notices).join(&format!("\n  {:<18} |{:33} | ", "", ""));
    (format!("{columns} | {news}").trim_end().to_owned(), after.phase)
}

/// The events, and why it does not move if that is said anew.
fn said(before: &State, after: &State, notices: &[Notice]) -> Vec<String> {
    let hold = after.hold.iter().filter(|hold| before.hold.as_ref() != Some(hold));
    told(notices).chain(hold.map(|hold| format!("(held: {hold})"))).collect()
}
