//! Says what is wrong with what a person wrote: where it stands, what was given, and what would be right.
//!
//! A [`Finding`] is about a value and knows only a field path; a [`Problem`] also knows the file, the line and the
//! column. [`crate::Document::problem`] turns the first into the second.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object cannot be used as it is written.
    Error,
    /// The object is used, but perhaps not in the way its writer meant.
    Warning,
}

/// One thing wrong in one file, ready to be shown.
///
/// `Display` gives `file:line:column: path: message`, with `warning: ` before the path of a warning and, where there
/// is help, a second line that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as it was given to the reader.
    pub file: String,
    /// Line in the file, counted from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Column in characters, counted from 1; 0 where the whole file is meant.
    pub column: u32,
    /// The field, such as `spec.analysis.stepWeight`; `None` where no field is to blame.
    pub path: Option<String>,
    /// What is wrong: a sentence without its full stop.
    pub message: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
    /// Whether the object can be used all the same.
    pub severity: Severity,
}

impl Problem {
    /// An error about a file as a whole, such as one that is too large to be read.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            path: None,
            message: message.into(),
            help: None,
            severity: Severity::Error,
        }
    }

    /// The same problem with a line of help under it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The order in which problems are read: by file, then from the top of the file.
    pub fn by_place(&self, other: &Self) -> Ordering {
        (&self.file, self.line, self.column, &self.path).cmp(&(&other.file, other.line, other.column, &other.path))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// One thing wrong in a decoded value, named by its field path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field, such as `spec.versions[1].endpoints[0]`.
    pub path: String,
    /// What is wrong: a sentence without its full stop.
    pub message: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
    /// Whether the object can be used all the same.
    pub severity: Severity,
}

/// Findings as they are gathered, with the sentences that every check shares.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(path.into(), message.into(), Severity::Error)
    }

    pub(crate) fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(path.into(), message.into(), Severity::Warning)
    }

    fn add(&mut self, path: String, message: String, severity: Severity) -> &mut Finding {
        self.0.push(Finding { path, message, help: None, severity });
        self.0.last_mut().expect("a finding was pushed on the line above")
    }

    /// Reports a text that is absent or empty, and hands on one that is there.
    pub(crate) fn required<'a>(&mut self, path: impl Into<String>, text: Option<&'a str>) -> Option<&'a str> {
        match text {
            None => self.error(path, "is missing"),
            Some("") => self.error(path, "is empty"),
            Some(text) => return Some(text),
        };
        None
    }

    /// Reports a number outside `range`; one that is absent is nobody's fault.
    pub(crate) fn within(&mut self, path: impl Into<String>, given: Option<i64>, range: RangeInclusive<i64>) {
        match given {
            Some(given) if given < *range.start() => {
                self.error(path, format!("{given} is less than {}", range.start()));
            }
            Some(given) if given > *range.end() => {
                self.error(path, format!("{given} is more than {}", range.end()));
            }
            Some(_) | None => {}
        }
    }

    /// Reports a word that is not among `words`; one that is absent is nobody's fault.
    pub(crate) fn one_of(&mut self, path: impl Into<String>, given: Option<&str>, words: &[&str]) {
        if let Some(given) = given
            && !words.contains(&given)
        {
            self.error(path, not_one_of(given, words));
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

impl Finding {
    pub(crate) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

/// `"x" is not one of a, b`; with a single choice, `"x" is not a`.
pub(crate) fn not_one_of(given: &str, words: &[&str]) -> String {
    match words {
        [only] => format!("{} is not {only}", quoted(given)),
        words => format!("{} is not one of {}", quoted(given), words.join(", ")),
    }
}

/// What a person wrote, in quotes, made safe for a terminal and cut where it would hide the sentence around it.
pub(crate) fn quoted(given: &str) -> String {
    /// Characters of a value that a message repeats: enough to recognise it by.
    const QUOTED_CHARS_MAX: usize = 60;
    let mut shown: String = given.chars().take(QUOTED_CHARS_MAX).collect();
    if shown.len() < given.len() {
        shown.push('…');
    }
    format!("\"{}\"", shown.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            file: "canaries.yaml".into(),
            line: 14,
            column: 19,
            path: Some("spec.analysis.stepWeight".into()),
            message: "130 is more than 100".into(),
            help: None,
            severity: Severity::Error,
        }
    }

    #[track_caller]
    fn check(problem: &Problem, rendered: &str) {
        assert_eq!(problem.to_string(), rendered);
    }

    #[test]
    fn a_problem_is_shown_by_its_place_then_its_field_then_its_sentence() {
        check(&problem(), "canaries.yaml:14:19: spec.analysis.stepWeight: 130 is more than 100");
    }

    #[test]
    fn help_stands_on_a_line_of_its_own() {
        check(
            &problem().with_help("a weight is a percentage"),
            "canaries.yaml:14:19: spec.analysis.stepWeight: 130 is more than 100\n  help: a weight is a percentage",
        );
    }

    #[test]
    fn a_warning_says_that_it_is_one() {
        let warning = Problem { severity: Severity::Warning, ..problem() };
        check(&warning, "canaries.yaml:14:19: warning: spec.analysis.stepWeight: 130 is more than 100");
    }

    #[test]
    fn a_problem_of_the_whole_file_has_no_line() {
        check(&Problem::of_file("a.yaml", "is not UTF-8 text"), "a.yaml: is not UTF-8 text");
    }

    #[test]
    fn a_quoted_value_is_cut_and_cannot_steer_a_terminal() {
        assert_eq!(quoted("it's \"so\"\u{1b}[2J"), "\"it's \"so\"\\u{1b}[2J\"");
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
    }
}
