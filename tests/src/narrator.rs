//! Tells a rollout as it goes: one line when it moves, one for each new event. Pure; the demo prints what it says.

use std::collections::HashSet;
use std::time::Duration;

use crate::rollouts::{Arm, Event, Rollout};

/// What has been told so far.
#[derive(Debug, Default)]
pub struct Narrator {
    last: Option<Rollout>,
    told: HashSet<Event>,
}

impl Narrator {
    /// The lines for what is new in this look at a rollout, `at` so long after the start of the story; none if nothing moved.
    pub fn look(&mut self, at: Duration, now: &Rollout) -> Vec<String> {
        let mut lines = Vec::new();
        if self.last.as_ref().is_none_or(|last| moved(last, now)) {
            lines.push(format!("{} {}", clock(at), state(now)));
        }
        for event in &now.events {
            if self.told.insert(event.clone()) {
                let mark = if event.kind == "Warning" { "!" } else { "·" };
                lines.push(format!("{}   {mark} {}", clock(at), event.message));
            }
        }
        // The server forgets old events, and so may we.
        self.told.retain(|event| now.events.contains(event));
        self.last = Some(now.clone());
        lines
    }
}

/// The time column of every line.
#[must_use]
pub fn clock(at: Duration) -> String {
    format!("{:>7.1} s ", at.as_secs_f64())
}

/// Whether a person would want a new line. Counts and latencies change with each look and are told with the next move.
fn moved(last: &Rollout, now: &Rollout) -> bool {
    let place = |rollout: &Rollout| (rollout.weight * 10.0).round();
    last.phase != now.phase
        || place(last) != place(now)
        || last.canary.revision != now.canary.revision
        || last.primary.revision != now.primary.revision
        || last.failed_checks != now.failed_checks
        || last.holds != now.holds
        || last.alarm != now.alarm
}

fn state(now: &Rollout) -> String {
    let mut line = format!("{:<12} weight {:>3} %", now.phase, now.weight);
    if !now.primary.revision.is_empty() {
        line += &format!("  primary {}", now.primary.revision);
    }
    if !now.canary.revision.is_empty() && now.canary.revision != now.primary.revision {
        line += &format!("  canary {}", now.canary.revision);
        line += &counts(&now.canary);
    }
    if now.evidence.limit > 0.0 && now.weight > 0.0 {
        line += &format!("  evidence against it {:.1} of {:.1}", now.evidence.ln_e, now.evidence.limit);
    }
    if now.failed_checks > 0 {
        line += &format!("  failed checks {} of {}", now.failed_checks, now.threshold);
    }
    if let Some(reason) = &now.holds {
        line += &format!("  waits: {reason}");
    }
    if let Some(reason) = &now.alarm {
        line += &format!("  alarm: {reason}");
    }
    line
}

/// What an arm has done; nothing before its first request, and no latency before it is known.
fn counts(arm: &Arm) -> String {
    let Arm { requests, failures, p99_ms, .. } = arm;
    match (*requests > 0, *p99_ms > 0.0) {
        (false, _) => String::new(),
        (true, false) => format!(": {requests} requests, {failures} failed"),
        (true, true) => format!(": {requests} requests, {failures} failed, p99 {p99_ms:.1} ms"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(phase: &str, weight: f64, requests: u64, events: &[&str]) -> Rollout {
        let mut rollout = Rollout { phase: phase.to_owned(), weight, ..Rollout::default() };
        rollout.primary.revision = "6.0.0".to_owned();
        rollout.canary.revision = "6.0.1".to_owned();
        rollout.canary.requests = requests;
        rollout.canary.p99_ms = 2.5 * requests.min(1) as f64;
        let event = |message: &&str| Event { at: json!(1), kind: "Normal".to_owned(), message: (*message).to_owned() };
        rollout.events = events.iter().map(event).collect();
        rollout
    }

    #[test]
    fn each_move_and_each_event_is_told_once() {
        let looks = [
            rollout("Initialized", 0.0, 0, &["ready"]),
            rollout("Initialized", 0.0, 0, &["ready"]),
            rollout("Progressing", 20.0, 3, &["ready", "new revision", "weight 20"]),
            rollout("Progressing", 20.0, 90, &["new revision", "weight 20"]),
            rollout("Progressing", 40.0, 99, &["new revision", "weight 20"]),
        ];
        let mut narrator = Narrator::default();
        let told: Vec<String> =
            (0..).zip(&looks).flat_map(|(second, look)| narrator.look(Duration::from_secs(second), look)).collect();
        insta::assert_snapshot!(told.join("\n"), @"
        0.0 s  Initialized  weight   0 %  primary 6.0.0  canary 6.0.1
        0.0 s    · ready
        2.0 s  Progressing  weight  20 %  primary 6.0.0  canary 6.0.1: 3 requests, 0 failed, p99 2.5 ms
        2.0 s    · new revision
        2.0 s    · weight 20
        4.0 s  Progressing  weight  40 %  primary 6.0.0  canary 6.0.1: 99 requests, 0 failed, p99 2.5 ms
        ");
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        let mut stuck = rollout("Progressing", 20.0, 40, &[]);
        stuck.failed_checks = 2;
        stuck.threshold = 5;
        stuck.holds = Some("no requests".to_owned());
        stuck.alarm = Some("7 of 7 requests failed".to_owned());
        stuck.evidence.ln_e = 4.2;
        stuck.evidence.limit = 6.9;
        let told = Narrator::default().look(Duration::from_millis(1500), &stuck);
        let expected = "    1.5 s  Progressing  weight  20 %  primary 6.0.0  canary 6.0.1: 40 requests, 0 failed, p99 2.5 ms  \
            evidence against it 4.2 of 6.9  failed checks 2 of 5  waits: no requests  alarm: 7 of 7 requests failed";
        assert_eq!(told, [expected]);
    }
}
