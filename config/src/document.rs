//! Cuts a file into its YAML documents and keeps for each one where every field stands.
//!
//! A document is cut out before it is parsed, so that a mistake in one of them hides none of the others. The cut needs
//! no parser: `---` and `...` at the start of a line always end a document, whatever stands around them (YAML 1.2.2,
//! section 9.1.2: no scalar may contain such a line).

use std::sync::Arc;

use serde_json::Value;

use crate::node::{Node, Position, Shape};
use crate::path::FieldPath;
use crate::problem::{Finding, Problem, Severity};
use crate::yaml;

/// Bytes in one file: what a Kubernetes ConfigMap may hold. Every byte is parsed again at each edit, and
/// positions are kept for every value.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Documents of one file that cannot be read before the rest of it is given up: it is not the YAML it claims to be.
const UNREADABLE_MAX: usize = 100;

/// One YAML document of a file: a set of fields, each with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    file: Arc<str>,
    root: Arc<Node>,
}

/// What a file holds: the documents that could be read, and what kept the others from being read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The documents in the order of the file; empty ones are left out.
    pub documents: Vec<Document>,
    /// At most one problem for each document that could not be read.
    pub problems: Vec<Problem>,
}

/// Reads every document of `text`. `file` is the name that problems are shown with.
pub fn read_documents(file: &str, text: &str) -> Reading {
    let mut reading = Reading::default();
    if text.len() > FILE_BYTES_MAX {
        reading.problems.push(too_large(file, text.len() as u64));
        return reading;
    }
    let file: Arc<str> = file.into();
    for piece in pieces(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        if reading.problems.len() == UNREADABLE_MAX {
            let message = format!("{UNREADABLE_MAX} documents could not be read; the rest of the file is left out");
            reading.problems.push(Problem::of_file(&*file, message));
            break;
        }
        match yaml::read(piece.text) {
            Ok(nodes) => nodes.into_iter().for_each(|node| reading.add(&file, node, piece.lines_before)),
            Err(error) => reading.problems.push(Problem {
                line: error.at.line.max(1).saturating_add(piece.lines_before),
                column: error.at.column.max(1),
                help: error.help.map(str::to_owned),
                ..Problem::of_file(&*file, error.message)
            }),
        }
    }
    reading
}

/// The problem of a file that is larger than [`FILE_BYTES_MAX`].
pub(crate) fn too_large(file: &str, bytes: u64) -> Problem {
    Problem::of_file(file, format!("has {bytes} bytes, {FILE_BYTES_MAX} are read at most"))
        .with_help("split it into several files")
}

impl Reading {
    fn add(&mut self, file: &Arc<str>, mut root: Node, lines_before: u32) {
        root.shift_down(lines_before);
        let given = match &root.shape {
            Shape::Null => return,
            Shape::Map(_) => {
                self.documents.push(Document { file: Arc::clone(file), root: Arc::new(root) });
                return;
            }
            Shape::List(_) => "a list",
            Shape::Bool(_) | Shape::Number(_) | Shape::Text(_) => "a single value",
        };
        self.problems.push(Problem {
            line: root.at.line,
            column: root.at.column,
            help: Some("begin with apiVersion and kind".to_owned()),
            ..Problem::of_file(&**file, format!("a document is a set of fields, this one is {given}"))
        });
    }
}

impl Document {
    /// The name of the file that the document came from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The whole document.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The whole document as JSON.
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// The text of `apiVersion`, if there is one.
    pub fn api_version(&self) -> Option<&str> {
        self.root.text_of("apiVersion")
    }

    /// The text of `kind`, if there is one.
    pub fn kind(&self) -> Option<&str> {
        self.root.text_of("kind")
    }

    /// Where to point a person who looks for the field `path`; see [`Node::place_of`].
    pub fn position(&self, path: &str) -> Position {
        self.root.place_of(FieldPath::parse(path).steps())
    }

    /// Says where in this document a finding stands.
    pub fn problem(&self, finding: Finding) -> Problem {
        let at = self.position(&finding.path);
        self.problem_at(at, finding)
    }

    /// Says that a finding is about the key of its field rather than about what stands behind it.
    pub(crate) fn problem_of_key(&self, finding: Finding) -> Problem {
        let at = self.root.place_of_key(FieldPath::parse(&finding.path).steps());
        self.problem_at(at, finding)
    }

    fn problem_at(&self, at: Position, finding: Finding) -> Problem {
        let Finding { path, message, help, severity } = finding;
        Problem {
            file: self.file().to_owned(),
            line: at.line,
            column: at.column,
            path: (!path.is_empty()).then_some(path),
            message,
            help,
            severity,
        }
    }

    /// An error about the field `path` of this document.
    pub(crate) fn error(&self, path: &str, message: impl Into<String>) -> Problem {
        let message = message.into();
        self.problem(Finding { path: path.to_owned(), message, help: None, severity: Severity::Error })
    }

    /// A warning about the field `path` of this document.
    pub(crate) fn warning(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..self.error(path, message) }
    }
}

/// A part of a file that holds at most one document.
struct Piece<'a> {
    text: &'a str,
    lines_before: u32,
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    // Directives and comments above a `---` belong to the document below it.
    let mut only_preamble = true;
    let (mut at, mut line) = (0, 0);
    for text_line in text.split_inclusive('\n') {
        let after = at + text_line.len();
        if is_marker(text_line, "---") {
            if !only_preamble {
                pieces.push(Piece { text: &text[start..at], lines_before });
                (start, lines_before) = (at, line);
            }
            only_preamble = false;
        } else if is_marker(text_line, "...") {
            pieces.push(Piece { text: &text[start..at], lines_before });
            (start, lines_before) = (after, line + 1);
            only_preamble = true;
        } else {
            let trimmed = text_line.trim_start();
            only_preamble &= trimmed.is_empty() || text_line.starts_with('%') || trimmed.starts_with('#');
        }
        (at, line) = (after, line + 1);
    }
    pieces.push(Piece { text: &text[start..], lines_before });
    pieces
}

/// Whether a line is `marker`, alone or with something after a blank.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
