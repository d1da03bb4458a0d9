//! Finds the field that a misspelt one was meant to be.
//!
//! The names that a type knows are asked of its own `Deserialize`: a deserializer with nothing in it walks to the
//! struct in question and writes down the names that the struct asks for. So no list of names can go stale.

use std::cell::Cell;

use serde::de::value::Error;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use crate::path::Step;

type Names = &'static [&'static str];

/// The names of the fields that `T` knows at `path`; none where that is not a struct.
pub(super) fn names<T: DeserializeOwned>(path: &[Step]) -> Names {
    let found = Cell::new(&[] as Names);
    // The probe always ends in an error: there are no values in it.
    let _ended = T::deserialize(Probe { rest: path, found: &found });
    found.get()
}

/// The candidate that `given` most likely is a misspelling of.
pub(super) fn nearest<'a>(given: &str, candidates: &[&'a str]) -> Option<&'a str> {
    /// Beyond this many edits two names have nothing to do with each other.
    const EDITS_MAX: usize = 3;
    let given = given.to_lowercase();
    let limit = (given.chars().count() / 3).min(EDITS_MAX);
    let edits = |candidate: &&'a str| (distance(&given, &candidate.to_lowercase()), *candidate);
    candidates
        .iter()
        .map(edits)
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein's distance: insertions, deletions and replacements that turn one text into the other.
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (deleted, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = deleted + 1;
        for (position, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[position + 1];
            row[position + 1] = replaced.min(diagonal + 1).min(row[position] + 1);
        }
    }
    row[right.len()]
}

struct Probe<'a> {
    rest: &'a [Step],
    found: &'a Cell<Names>,
}

fn nothing<T>() -> Result<T, Error> {
    Err(Error::custom("a probe holds no values"))
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        nothing()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.rest.is_empty() {
            self.found.set(fields);
            return nothing();
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.rest.split_first() {
            Some((Step::Key(_), _)) => visitor.visit_map(self),
            Some((Step::Index(_), _)) | None => nothing(),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.rest.split_first() {
            Some((Step::Index(_), _)) => visitor.visit_seq(self),
            Some((Step::Key(_), _)) | None => nothing(),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        match self.rest.first() {
            Some(Step::Key(key)) => seed.deserialize(key.as_str().into_deserializer()).map(Some),
            Some(Step::Index(_)) | None => nothing(),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Probe { rest: &self.rest[1..], found: self.found })
    }
}

impl<'de> SeqAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        // Every item of a list has the same type, so the first stands for all.
        seed.deserialize(Probe { rest: &self.rest[1..], found: self.found }).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_plausible_misspelling_or_none() {
        let names = ["stepWeight", "stepWeights", "maxWeight", "interval", "match"];
        for (given, expected) in [
            ("stepweight", Some("stepWeight")),
            ("stepWieght", Some("stepWeight")),
            ("intervall", Some("interval")),
            ("max_weight", Some("maxWeight")),
            ("mach", Some("match")),
            ("foo", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &names), expected, "of {given}");
        }
    }

    #[test]
    fn a_type_tells_its_field_names_at_any_depth() {
        let path = |text: &str| crate::path::FieldPath::parse(text);
        let at = |text: &str| names::<crate::Canary>(path(text).steps());
        assert!(at("").contains(&"spec"));
        assert!(at("spec.analysis").contains(&"stepWeight"));
        assert!(at("spec.analysis.metrics[7].thresholdRange").contains(&"max"));
        assert!(at("spec.service.headers.request").contains(&"add"));
        assert_eq!(at("spec.analysis.metrics"), &[] as Names);
        assert_eq!(at("spec.nothing"), &[] as Names);
        assert_eq!(at("spec.analysis.webhooks[0].metadata.x"), &[] as Names);
    }
}
