//! Draws rollouts for people: phase, weight, both versions side by side, why it holds, what happened last.

use anstyle::{AnsiColor, Style};
use serin_runtime::admin::rollouts::{ArmView, EvidenceView, RolloutList, RolloutView};

/// Width of the weight bar in characters.
const BAR_WIDTH: usize = 20;
/// Events shown per rollout.
const EVENTS_SHOWN: usize = 6;

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Lines are cut here, so that redrawing stays in place.
    pub(crate) width: usize,
}

impl Look {
    /// As wide as the terminal, and uncut where there is none. Colours are taken away on the way out where they do not
    /// belong.
    pub(crate) fn here() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        Self { width: size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0).unwrap_or(usize::MAX) }
    }
}

/// All rollouts as trees.
pub(crate) fn tree(list: &RolloutList, look: Look) -> String {
    let mut lines = Vec::new();
    for problem in &list.refused_config {
        lines.push(paint(red(), &format!("configuration refused, the last good one is in force: {problem}")));
    }
    if list.rollouts.is_empty() {
        lines.push("no rollouts: there is no Canary in the configuration".to_owned());
    }
    for rollout in &list.rollouts {
        lines.extend(one(rollout));
    }
    lines.iter().flat_map(|line| line.lines()).map(|line| cut(line, look.width)).collect::<Vec<_>>().join("\n")
}

/// One rollout as a single line, for logs and pipes.
pub(crate) fn line(rollout: &RolloutView) -> String {
    let arm = |arm: &ArmView| format!("{} {}/{} failed", revision(arm), arm.failures, arm.requests);
    let last = rollout.events.last().map_or("", |event| event.message.as_str());
    format!(
        "{}/{} {} weight {} % | primary {} | canary {} | {last}",
        rollout.namespace,
        rollout.name,
        rollout.phase,
        rollout.weight,
        arm(&rollout.primary),
        arm(&rollout.canary)
    )
}

fn one(rollout: &RolloutView) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {}  {}",
        paint(bold(), &format!("{}/{}", rollout.namespace, rollout.name)),
        paint(phase_style(&rollout.phase), &rollout.phase),
        paint(dim(), &format!("run {}, every {} s", rollout.rollout, seconds(rollout.interval_ms)))
    )];
    lines.push(format!(
        "├─ weight   {} {:>3} %  (promotion after {} %)",
        bar(rollout.weight),
        rollout.weight,
        rollout.max_weight
    ));
    lines.push(paint(
        dim(),
        &format!(
            "│  {:<8} {:<16} {:>9} {:>8} {:>8} {:>9} {:>9}",
            "", "version", "requests", "failed", "rate", "p50 ms", "p99 ms"
        ),
    ));
    lines.push(arm("primary", &rollout.primary));
    lines.push(arm("canary", &rollout.canary));
    for check in &rollout.checks {
        let value = check.value.map_or_else(|| "no value".to_owned(), |value| format!("{value:.2}"));
        let style = if check.outcome == "failed" { red() } else { Style::new() };
        lines.push(format!("├─ check    {} {value} {}", check.name, paint(style, &check.outcome)));
    }
    lines.push(format!("├─ failed   {} of {} checks", rollout.failed_checks, rollout.threshold));
    lines.push(format!("├─ guard    {}", guard(&rollout.evidence)));
    if let Some(alarm) = &rollout.alarm {
        lines.push(format!("├─ {}", paint(red(), &format!("ALARM    {alarm}"))));
    }
    // After a trip the guard's line has said it already.
    if let Some(holds) = rollout.holds.as_ref().filter(|_| rollout.evidence.trip.is_none()) {
        lines.push(format!("├─ holds    {holds}"));
    }
    lines.push("└─ events".to_owned());
    let newest = rollout.events.len().saturating_sub(EVENTS_SHOWN);
    for event in &rollout.events[newest..] {
        let style = if event.level == "Warning" { AnsiColor::Yellow.on_default() } else { Style::new() };
        let time = event.at.get(11..19).unwrap_or(&event.at);
        lines.push(format!("   {} {}", paint(dim(), time), paint(style, &event.message)));
    }
    lines
}

fn arm(name: &str, arm: &ArmView) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let rate = match arm.requests {
        0 => "-".to_owned(),
        requests => format!("{:.2} %", 100.0 * arm.failures as f64 / requests as f64),
    };
    let line = format!(
        "{:<16} {:>9} {:>8} {rate:>8} {:>9} {:>9}",
        revision(arm),
        arm.requests,
        arm.failures,
        number(arm.p50_ms),
        number(arm.p99_ms)
    );
    format!("├─ {name:<8} {line}")
}

fn revision(arm: &ArmView) -> &str {
    arm.revision.as_deref().unwrap_or("-")
}

fn guard(evidence: &EvidenceView) -> String {
    if let Some(trip) = &evidence.trip {
        return paint(red(), &format!("rolled it back: {trip}"));
    }
    if evidence.judging == "off" {
        return paint(dim(), &format!("{}, nothing to judge now", evidence.mode));
    }
    let tolerance = evidence
        .tolerance
        .map_or(String::new(), |share| format!(", tolerates {:.1} points more failures", share * 100.0));
    let acts = if evidence.mode == "enforce" { "rolls back at" } else { "would roll back at" };
    format!(
        "odds {} : 1 against it, {acts} {:.0} : 1 ({}{tolerance})",
        odds(evidence.odds),
        evidence.limit.exp(),
        evidence.judging
    )
}

/// Large odds are round, small ones are not hidden.
fn odds(odds: f64) -> String {
    if odds < 10.0 { format!("{odds:.1}") } else { format!("{odds:.0}") }
}

fn bar(weight: u8) -> String {
    let filled = (usize::from(weight) * BAR_WIDTH).div_ceil(100);
    format!(
        "{}{}",
        paint(AnsiColor::Cyan.on_default(), &"█".repeat(filled)),
        paint(dim(), &"░".repeat(BAR_WIDTH - filled))
    )
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { (ms / 1_000).to_string() } else { format!("{}.{:01}", ms / 1_000, ms % 1_000 / 100) }
}

fn phase_style(phase: &str) -> Style {
    match phase {
        "Succeeded" | "Initialized" => AnsiColor::Green.on_default(),
        "Failed" => red(),
        _ => AnsiColor::Cyan.on_default(),
    }
}

fn bold() -> Style {
    Style::new().bold()
}

fn dim() -> Style {
    Style::new().dimmed()
}

fn red() -> Style {
    AnsiColor::Red.on_default()
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Cuts a line to a width in characters; escape sequences take none.
fn cut(line: &str, width: usize) -> String {
    let (mut kept, mut shown, mut in_escape) = (String::with_capacity(line.len()), 0, false);
    for character in line.chars() {
        if character == '\x1b' {
            in_escape = true;
        }
        if in_escape {
            kept.push(character);
            in_escape = character != 'm';
        } else if shown < width {
            kept.push(character);
            shown += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_runtime::admin::rollouts::{CheckView, EventView, ServedView};

    fn rollout() -> RolloutView {
        let arm = |revision: &str, requests, failures| ArmView {
            revision: Some(revision.to_owned()),
            requests,
            failures,
            p50_ms: Some(1.25),
            p99_ms: Some(12.5),
        };
        let event = |level: &str, message: &str| EventView {
            at: "2026-11-23T14:03:11.250Z".to_owned(),
            level: level.to_owned(),
            message: message.to_owned(),
        };
        RolloutView {
            name: "podinfo".to_owned(),
            namespace: "default".to_owned(),
            target: "Backend/podinfo".to_owned(),
            phase: "Progressing".to_owned(),
            phase_since: "2026-11-23T14:03:01.000Z".to_owned(),
            weight: 20,
            max_weight: 60,
            rollout: 2,
            epoch: 7,
            primary: arm("6.0.0", 800, 0),
            canary: arm("6.0.1", 200, 3),
            served: ServedView { requests: 1_000, failures: 3 },
            failed_checks: 1,
            threshold: 5,
            interval_ms: 5_000,
            checks: vec![CheckView {
                name: "request-success-rate".to_owned(),
                value: Some(98.5),
                outcome: "failed".to_owned(),
            }],
            evidence: EvidenceView {
                mode: "enforce".to_owned(),
                judging: "warm-up".to_owned(),
                ln_e: 1.0,
                limit: 2000_f64.ln(),
                odds: 2.7,
                tolerance: Some(0.2),
                judged_seconds: 4.0,
                trip: None,
            },
            holds: Some("check failed (1 of 5 until rollback)".to_owned()),
            alarm: None,
            saved: true,
            events: vec![
                event("Normal", "Advance podinfo.default canary weight 20"),
                event("Warning", "Halt podinfo.default advancement success rate 98.50% < 99%"),
            ],
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_rollout_is_a_tree_that_a_person_can_read() {
        let list = RolloutList { rollouts: vec![rollout()], refused_config: Vec::new() };
        insta::assert_snapshot!(plain(&tree(&list, Look { width: 100 })));
    }

    #[test]
    fn without_a_terminal_it_is_a_line() {
        insta::assert_snapshot!(line(&rollout()), @"default/podinfo Progressing weight 20 % | primary 6.0.0 0/800 failed | canary 6.0.1 3/200 failed | Halt podinfo.default advancement success rate 98.50% < 99%");
    }

    #[test]
    fn lines_are_cut_to_the_terminal_and_colours_take_no_room() {
        assert_eq!(cut("\x1b[31mabc\x1b[0mdef", 4), "\x1b[31mabc\x1b[0md");
        let list = RolloutList { rollouts: vec![rollout()], refused_config: vec!["x".repeat(200)] };
        assert!(plain(&tree(&list, Look { width: 40 })).lines().all(|line| line.chars().count() <= 40));
    }
}
