//! Decides what an interval in a Canary means.
//!
//! Two rules meet here. Flagger's schema wants the text to match `^[0-9]+(m|s)`, which has no end anchor: `1h` is
//! refused, `1m30s` and `10ms` pass, and so does `5seconds`. What passes is then read as a Go duration, and what cannot
//! be read counts as one minute (Flagger 1.44, `pkg/apis/flagger/v1beta1/canary.go`, `GetAnalysisInterval`). Flagger raises
//! whatever is below ten seconds to ten; Serin measures inline, so it takes intervals down to one second as written.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::problem::quoted;

/// What an absent or unreadable interval means to Flagger.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// The shortest interval that is honoured. A step that is decided on less than a second of traffic is decided on noise;
/// the guard, which brakes at once, does not wait for intervals.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// An interval as it is honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// How long it is.
    pub duration: Duration,
    /// What the writer should know where that is not what the text says.
    pub remark: Option<String>,
}

/// Why Flagger's schema refuses an interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is refused: an interval begins with whole minutes or seconds, such as 90s, 5m or 1m30s", quoted(given))]
pub struct IntervalRefused {
    /// The text.
    pub given: String,
    /// The same length in a form that is accepted, where there is one.
    pub instead: Option<String>,
}

/// Reads an interval as Flagger would, and raises one that is too short.
///
/// # Errors
///
/// [`IntervalRefused`] where Flagger's schema would not admit the text.
pub fn interval(text: Option<&str>) -> Result<Interval, IntervalRefused> {
    let Some(text) = text else {
        return Ok(Interval { duration: INTERVAL_DEFAULT, remark: None });
    };
    if !is_admitted(text) {
        return Err(IntervalRefused { given: text.to_owned(), instead: admitted_form(text) });
    }
    Ok(match text.parse::<GoDuration>() {
        Err(_) => Interval {
            duration: INTERVAL_DEFAULT,
            remark: Some(format!(
                "{} cannot be read as a duration, so it counts as 1m, as it does in Flagger",
                quoted(text)
            )),
        },
        Ok(duration) if duration.to_std() < INTERVAL_MIN => {
            Interval { duration: INTERVAL_MIN, remark: Some(format!("{text} is raised to 1s, the shortest interval")) }
        }
        Ok(duration) => Interval { duration: duration.to_std(), remark: None },
    })
}

/// What Flagger's schema asks of an interval, and ours with it.
pub(crate) const PATTERN: &str = "^[0-9]+(m|s)";

/// Whether a text matches [`PATTERN`].
pub(crate) fn is_admitted(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && unit.starts_with(['m', 's'])
}

/// `1h` is `60m`, `0.5m` is `30s`; `1d` and `soon` are nothing.
fn admitted_form(text: &str) -> Option<String> {
    let whole = text.parse::<GoDuration>().ok()?.to_std();
    let seconds = whole.as_secs();
    match (seconds / 60, seconds % 60) {
        _ if whole.subsec_nanos() != 0 || seconds == 0 => None,
        (minutes, 0) => Some(format!("{minutes}m")),
        (0, seconds) => Some(format!("{seconds}s")),
        (minutes, seconds) => Some(format!("{minutes}m{seconds}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: u64, remark: Option<&str>) {
        let expected = Interval { duration: Duration::from_millis(millis), remark: remark.map(str::to_owned) };
        assert_eq!(interval(Some(text)), Ok(expected), "of {text}");
    }

    #[track_caller]
    fn check_refused(text: &str, instead: Option<&str>) {
        let refused = IntervalRefused { given: text.to_owned(), instead: instead.map(str::to_owned) };
        assert_eq!(interval(Some(text)), Err(refused));
    }

    #[test]
    fn checklist_7_the_pattern_of_flagger_decides_what_is_refused() {
        check("1m30s", 90_000, None);
        check("30s", 30_000, None);
        check("90m", 5_400_000, None);
        check("1m0.5s", 60_500, None);
        check("007s", 7_000, None);
        check_refused("1h", Some("60m"));
        check_refused("1h0m30s", Some("60m30s"));
        check_refused("0.5m", Some("30s"));
        check_refused("-1s", None);
        check_refused("1.5s", None);
        check_refused("1d", None);
        check_refused("", None);
        check_refused("m", None);
        check_refused("10", None);
        check_refused(" 1m", None);
    }

    #[test]
    fn checklist_12_an_unreadable_interval_is_a_minute() {
        let remark =
            |text: &str| format!("\"{text}\" cannot be read as a duration, so it counts as 1m, as it does in Flagger");
        for text in ["5seconds", "1s-5s", "1m 30s", "99999999999999999999s", "3minutes"] {
            check(text, 60_000, Some(&remark(text)));
        }
        assert_eq!(interval(None), Ok(Interval { duration: INTERVAL_DEFAULT, remark: None }));
    }

    #[test]
    fn checklist_12_intervals_are_honoured_down_to_a_second() {
        check("1s", 1_000, None);
        check("5s", 5_000, None);
        check("10ms", 1_000, Some("10ms is raised to 1s, the shortest interval"));
        check("0s", 1_000, Some("0s is raised to 1s, the shortest interval"));
        check("0m", 1_000, Some("0m is raised to 1s, the shortest interval"));
    }

    #[test]
    fn a_refusal_says_how_an_interval_is_written() {
        assert_eq!(
            interval(Some("1h")).map_err(|error| error.to_string()),
            Err("\"1h\" is refused: an interval begins with whole minutes or seconds, such as 90s, 5m or 1m30s"
                .to_owned()),
        );
    }
}
