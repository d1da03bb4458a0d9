//! The little language of the stories: one happening a line. A line that cannot be read ends the test and is quoted.
//!
//! ```text
//!   release v2                      the target points at v2 from now on
//!   tick / tick 3                   one interval passes / three, and the checks pass
//!   tick halt: TEXT                 ... and a check fails, saying TEXT
//!   tick wait: TEXT                 ... and the checks cannot tell yet
//!   canary waiting: TEXT            from now on it is seen like this; also `primary`, `dead`, and `canary ready`
//!   guard crosses: TEXT             evidence passes its limit
//!   seconds 10                      time passes, without a tick
//!   steps 20 to 60 / steps 10 50    the plan is edited; also `fixed 30`, `threshold 2`, `skip on`, `guard off`
//!   restart                         the state is written down and read back
//!   # TEXT                          is for the reader
//! ```

use serin_analysis::Verdict;
use serin_measure::Arm;

use super::{revision, weight};
use crate::{GuardMode, Readiness, Revision, Steps, Strategy, Weight};

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    Release(Revision),
    Ticks(u64, Verdict),
    Seen(Arm, Readiness),
    GuardCrosses(String),
    Seconds(u64),
    Edit(Edit),
    Restart,
    Remark,
}

/// A change to the plan other than a release.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Edit {
    Strategy(Strategy),
    Threshold(u32),
    Skip(bool),
    Guard(GuardMode),
}

/// Reads one line.
#[track_caller]
pub(super) fn parse(line: &str) -> Happening {
    if line.is_empty() || line.starts_with('#') {
        return Happening::Remark;
    }
    let (words, text) = line.split_once(": ").unwrap_or((line, ""));
    let words: Vec<&str> = words.split_whitespace().collect();
    let text = text.to_owned();
    match (words.as_slice(), text.is_empty()) {
        (["release", name], true) => Happening::Release(revision(name)),
        (["tick"], true) => Happening::Ticks(1, Verdict::Pass),
        (["tick", "halt"], false) => Happening::Ticks(1, Verdict::Halt { message: text }),
        (["tick", "wait"], false) => Happening::Ticks(1, Verdict::Wait { reason: text }),
        (["tick", times], true) => Happening::Ticks(number(times, line), Verdict::Pass),
        (["primary", how @ ..], _) => Happening::Seen(Arm::Primary, readiness(how, text, line)),
        (["canary", how @ ..], _) => Happening::Seen(Arm::Canary, readiness(how, text, line)),
        (["guard", "crosses"], false) => Happening::GuardCrosses(text),
        (["seconds", seconds], true) => Happening::Seconds(number(seconds, line)),
        (["restart"], true) => Happening::Restart,
        (words, true) => Happening::Edit(edit(words, line)),
        (_, false) => unreadable(line),
    }
}

#[track_caller]
fn edit(words: &[&str], line: &str) -> Edit {
    let percent = |word: &str| -> Weight { weight(number(word, line)) };
    let weighted = |steps: Steps| Edit::Strategy(Strategy::Weighted(steps));
    match words {
        ["fixed", weight] => Edit::Strategy(Strategy::Fixed(percent(weight))),
        ["steps", step, "to", max] => weighted(Steps::by(percent(step), percent(max)).expect("steps move")),
        ["steps", listed @ ..] => {
            weighted(Steps::listed(listed.iter().map(|word| percent(word)).collect()).expect("steps rise"))
        }
        ["threshold", checks] => Edit::Threshold(number(checks, line).try_into().expect("a threshold is small")),
        ["skip", "on"] => Edit::Skip(true),
        ["skip", "off"] => Edit::Skip(false),
        ["guard", "enforce"] => Edit::Guard(GuardMode::Enforce),
        ["guard", "observe"] => Edit::Guard(GuardMode::Observe),
        ["guard", "off"] => Edit::Guard(GuardMode::Off),
        _ => unreadable(line),
    }
}

#[track_caller]
fn readiness(how: &[&str], why: String, line: &str) -> Readiness {
    match (how, why.is_empty()) {
        (["ready"], true) => Readiness::Ready,
        (["waiting"], false) => Readiness::Waiting(why),
        (["dead"], false) => Readiness::Dead(why),
        _ => unreadable(line),
    }
}

#[track_caller]
fn number(word: &str, line: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} should be a whole number in the script line {line:?}"))
}

#[track_caller]
fn unreadable(line: &str) -> ! {
    panic!("cannot read the script line {line:?}; the language is at the top of script.rs")
}

#[test]
#[should_panic(expected = "cannot read the script line \"canary is fine\"")]
fn a_line_that_cannot_be_read_is_quoted() {
    parse("canary is fine");
}

#[test]
#[should_panic(expected = "\"soon\" should be a whole number in the script line \"seconds soon\"")]
fn a_number_that_is_none_is_quoted_with_its_line() {
    parse("seconds soon");
}
