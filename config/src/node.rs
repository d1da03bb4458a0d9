//! A YAML document as a tree in which every value knows where it stands.

use serde_json::{Number, Value};

use crate::path::Step;

/// A place in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

/// A value and where it stands. A value that an alias brought in stands where the alias does.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value begins; for a map in block style that is its first key.
    pub at: Position,
    /// The value itself.
    pub shape: Shape,
}

/// What a value is, in JSON's terms.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false`, and YAML 1.1's words for them, which Kubernetes takes too.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// Text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order in which it was written; no key appears twice.
    Map(Vec<Entry>),
}

/// One field of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub key_at: Position,
    /// The value behind it.
    pub value: Node,
}

impl Node {
    /// The same tree as JSON, without the places.
    pub fn to_json(&self) -> Value {
        match &self.shape {
            Shape::Null => Value::Null,
            Shape::Bool(yes) => Value::Bool(*yes),
            Shape::Number(number) => Value::Number(number.clone()),
            Shape::Text(text) => Value::String(text.clone()),
            Shape::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Shape::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }

    /// The text of the field `key`, if this is a map and the field holds text.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.value.shape {
            Shape::Text(text) => Some(text),
            Shape::Null | Shape::Bool(_) | Shape::Number(_) | Shape::List(_) | Shape::Map(_) => None,
        }
    }

    /// The field `key`, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.shape {
            Shape::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Shape::Null | Shape::Bool(_) | Shape::Number(_) | Shape::Text(_) | Shape::List(_) => None,
        }
    }

    /// The value at the end of `steps`, if there is one.
    pub fn find(&self, steps: &[Step]) -> Option<&Self> {
        steps.iter().try_fold(self, |node, step| node.child(step).map(|(_, child)| child))
    }

    /// Where to point a person who looks for `steps`: at a plain value; at the key of a list, a map or nothing; and
    /// where the field does not exist, at the nearest one around it that does.
    pub fn place_of(&self, steps: &[Step]) -> Position {
        let mut node = self;
        let mut place = self.at;
        for step in steps {
            let Some((key_at, child)) = node.child(step) else { break };
            place = match child.shape {
                Shape::Bool(_) | Shape::Number(_) | Shape::Text(_) => child.at,
                Shape::Null | Shape::List(_) | Shape::Map(_) => key_at.unwrap_or(child.at),
            };
            node = child;
        }
        place
    }

    /// Where the key of the field at `steps` stands, or what [`Node::place_of`] says where it has none.
    pub fn place_of_key(&self, steps: &[Step]) -> Position {
        let field = steps.split_last().and_then(|(last, parents)| self.find(parents)?.child(last));
        field.and_then(|(key_at, _)| key_at).unwrap_or_else(|| self.place_of(steps))
    }

    fn child(&self, step: &Step) -> Option<(Option<Position>, &Self)> {
        match (&self.shape, step) {
            (Shape::Map(_), Step::Key(key)) => self.entry(key).map(|entry| (Some(entry.key_at), &entry.value)),
            (Shape::List(items), Step::Index(index)) => items.get(*index).map(|item| (None, item)),
            _ => None,
        }
    }

    /// Moves the whole tree down by `lines`, for text that was cut out of a longer file.
    pub(crate) fn shift_down(&mut self, lines: u32) {
        self.at.line = self.at.line.saturating_add(lines);
        match &mut self.shape {
            Shape::List(items) => items.iter_mut().for_each(|item| item.shift_down(lines)),
            Shape::Map(entries) => {
                for entry in entries {
                    entry.key_at.line = entry.key_at.line.saturating_add(lines);
                    entry.value.shift_down(lines);
                }
            }
            Shape::Null | Shape::Bool(_) | Shape::Number(_) | Shape::Text(_) => {}
        }
    }
}
