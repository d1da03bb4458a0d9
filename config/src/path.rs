//! Names a field the way people write it: `spec.analysis.metrics[0].thresholdRange.max`.

use std::fmt;

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a map, by the key.
    Key(String),
    /// Into a list, counted from 0.
    Index(usize),
}

/// The way from a document's root to a field. A key that holds anything but letters, digits, `-` and `_` is written in
/// brackets: `metadata.annotations["example.com/team"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<Step>);

impl FieldPath {
    /// Reads a path as `Display` writes it. Text of any other form is taken as keys between dots, so that a lookup
    /// finds nothing instead of failing.
    pub fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (step, after) = next_step(rest);
            steps.push(step);
            rest = after.strip_prefix('.').unwrap_or(after);
        }
        Self(steps)
    }

    /// The steps from the root on.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// The first step of `text`, which is not empty, and what follows it.
fn next_step(text: &str) -> (Step, &str) {
    if let Some(inside) = text.strip_prefix('[')
        && let Some(bracketed) = bracketed_step(inside)
    {
        return bracketed;
    }
    // From the second character on, or a stray bracket at the start would be found for ever.
    let end = text.char_indices().skip(1).find(|(_, c)| matches!(c, '.' | '[')).map_or(text.len(), |(at, _)| at);
    (Step::Key(text[..end].to_owned()), &text[end..])
}

fn bracketed_step(inside: &str) -> Option<(Step, &str)> {
    if let Some(quoted) = inside.strip_prefix('"') {
        let (key, after) = quoted.split_once("\"]")?;
        return Some((Step::Key(key.to_owned()), after));
    }
    let (digits, after) = inside.split_once(']')?;
    Some((Step::Index(digits.parse().ok()?), after))
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if !is_plain(key) => write!(f, "[\"{key}\"]")?,
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

impl From<&serde_path_to_error::Path> for FieldPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        // An enum's variant names no field of its own, and an unknown segment has no name at all.
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl From<&serde_ignored::Path<'_>> for FieldPath {
    fn from(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path;
        let mut steps = Vec::new();
        let mut current = path;
        loop {
            current = match current {
                Path::Root => break,
                Path::Seq { parent, index } => {
                    steps.push(Step::Index(*index));
                    parent
                }
                Path::Map { parent, key } => {
                    steps.push(Step::Key(key.clone()));
                    parent
                }
                Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => parent,
            };
        }
        steps.reverse();
        Self(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.into())
    }

    #[track_caller]
    fn check(text: &str, steps: &[Step]) {
        let path = FieldPath::parse(text);
        assert_eq!(path.steps(), steps);
        assert_eq!(path.to_string(), text, "written as it was read");
    }

    #[test]
    fn a_path_is_read_and_written_alike() {
        check("", &[]);
        check("spec", &[key("spec")]);
        check("spec.metrics[10].name", &[key("spec"), key("metrics"), Step::Index(10), key("name")]);
        check("[0][1]", &[Step::Index(0), Step::Index(1)]);
        check("a[\"x.io/y\"].b", &[key("a"), key("x.io/y"), key("b")]);
        check("a[\"\"]", &[key("a"), key("")]);
    }

    #[test]
    fn a_malformed_path_is_still_a_path() {
        for text in ["[", "a[", "a[x]", "[\"", "..", "a..b", "]", "[-1]", "[99999999999999999999]"] {
            FieldPath::parse(text);
        }
    }
}
