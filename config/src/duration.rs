//! Durations as Go writes them: `1m30s`, `1.5h`, `100ms`, `0`.
//!
//! The grammar is that of Go's `time.ParseDuration` and the text form that of `time.Duration.String`, so a manifest and
//! an event read alike in Flagger and in Serin.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use go_duration::GoDurationParseError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use crate::problem::quoted;

/// A signed duration in nanoseconds, at most about 292 years either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    nanos: i64,
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number has no unit behind it; the person who wrote it must say which.
    #[error("{} has no unit; a duration is written like 30s or 1m30s", quoted(.0))]
    NoUnit(String),
    /// The unit is not one of Go's.
    #[error("{} has the unit {}, which is not one of ns, us, ms, s, m, h", quoted(given), quoted(unit))]
    UnknownUnit {
        /// The whole text.
        given: String,
        /// What stands where a unit belongs.
        unit: String,
    },
    /// Not a duration at all, or one of more than 292 years.
    #[error("{} is not a duration; one is written like 30s or 1m30s", quoted(.0))]
    Malformed(String),
}

impl GoDuration {
    /// A duration of so many nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// A duration of so many seconds; more than 292 years are cut to that.
    pub const fn from_secs(seconds: i64) -> Self {
        Self { nanos: seconds.saturating_mul(1_000_000_000) }
    }

    /// The duration in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// Whether the duration lies before zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The duration for a clock; one before zero is zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        // Go takes a zero without a unit, whatever its sign; the parser below does not.
        if matches!(text, "0" | "+0" | "-0") {
            return Ok(Self::default());
        }
        match text.parse::<go_duration::GoDuration>() {
            Ok(duration) => Ok(Self { nanos: duration.nanoseconds() }),
            Err(GoDurationParseError::MissingUnit) => Err(DurationError::NoUnit(text.to_owned())),
            Err(GoDurationParseError::UnknownUnit(unit)) => {
                Err(DurationError::UnknownUnit { given: text.to_owned(), unit })
            }
            Err(GoDurationParseError::InvalidDuration) => Err(DurationError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        go_duration::GoDuration(self.nanos).fmt(f)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    // The pattern is for texts, and of numbers there is one.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": r"^[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
            "minimum": 0,
            "maximum": 0,
        })
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Any, not only text: JSON's numbers must reach the visitor, which takes the zero among them.
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = GoDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 30s or 1m30s")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
        text.parse().map_err(E::custom)
    }

    // YAML reads `drain: 0` as a number; of any other number nobody could tell the unit.
    fn visit_u64<E: Error>(self, number: u64) -> Result<GoDuration, E> {
        match number {
            0 => Ok(GoDuration::default()),
            other => Err(E::invalid_type(Unexpected::Unsigned(other), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: i64 = 1;
    const US: i64 = 1_000 * NS;
    const MS: i64 = 1_000 * US;
    const S: i64 = 1_000 * MS;
    const M: i64 = 60 * S;
    const H: i64 = 60 * M;

    #[track_caller]
    fn check(text: &str, nanos: i64) {
        assert_eq!(text.parse::<GoDuration>().map(GoDuration::as_nanos), Ok(nanos), "of {text}");
    }

    #[track_caller]
    fn check_refused(text: &str, sentence: &str) {
        assert_eq!(text.parse::<GoDuration>().map_err(|error| error.to_string()), Err(sentence.to_owned()));
    }

    /// The table `parseDurationTests` of Go's time package (src/time/time_test.go).
    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("-0", 0),
            ("+0", 0),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600 * MS),
            ("5.s", 5 * S),
            (".5s", 500 * MS),
            ("1.0s", S),
            ("1.00s", S),
            ("1.004s", S + 4 * MS),
            ("1.0040s", S + 4 * MS),
            ("100.00100s", 100 * S + MS),
            ("10ns", 10 * NS),
            ("11us", 11 * US),
            ("12µs", 12 * US),
            ("12μs", 12 * US),
            ("13ms", 13 * MS),
            ("14s", 14 * S),
            ("15m", 15 * M),
            ("16h", 16 * H),
            ("3h30m", 3 * H + 30 * M),
            ("10.5s4m", 4 * M + 10 * S + 500 * MS),
            ("-2m3.4s", -(2 * M + 3 * S + 400 * MS)),
            ("1h2m3s4ms5us6ns", H + 2 * M + 3 * S + 4 * MS + 5 * US + 6 * NS),
            ("39h9m14.425s", 39 * H + 9 * M + 14 * S + 425 * MS),
            ("52763797000ns", 52_763_797_000),
            ("9007199254740993ns", (1 << 53) + 1),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("9223372036s854ms775us807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("0.100000000000000000000h", 6 * M),
            ("0.830103483285477580700h", 49 * M + 48 * S + 372_539_827 * NS),
        ] {
            check(text, nanos);
        }
    }

    /// Go's table has this one too, with exactly 20 minutes. The parser adds up a fraction in floating point, digit by
    /// digit; a fraction with more digits than a clock has can come out a nanosecond short.
    #[test]
    fn a_fraction_beyond_nanoseconds_is_read_to_the_nanosecond() {
        let read = "0.3333333333333333333h".parse::<GoDuration>().map(GoDuration::as_nanos);
        assert!(read.as_ref().is_ok_and(|nanos| (20 * M - nanos).abs() <= NS), "{read:?}");
    }

    /// The table `parseDurationErrorTests` of the same file.
    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "\u{85}\u{85}",
            "\u{ffff}",
            "hello \u{ffff} world",
            "3000000h",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "9223372036854ms775us808ns",
            "-9223372036854775809ns",
            "1s-5s",
            "1m 30s",
            " 1s",
            "1S",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "of {text:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        check_refused("30", "\"30\" has no unit; a duration is written like 30s or 1m30s");
        check_refused("1d", "\"1d\" has the unit \"d\", which is not one of ns, us, ms, s, m, h");
        check_refused("soon", "\"soon\" is not a duration; one is written like 30s or 1m30s");
    }

    /// The table `durationTests` of the same file.
    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (text, nanos) in [
            ("0s", 0),
            ("1ns", NS),
            ("1.1µs", 1100 * NS),
            ("2.2ms", 2200 * US),
            ("3.3s", 3300 * MS),
            ("4m5s", 4 * M + 5 * S),
            ("4m5.001s", 4 * M + 5001 * MS),
            ("5h6m7.001s", 5 * H + 6 * M + 7001 * MS),
            ("8m0.000000001s", 8 * M + NS),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-2562047h47m16.854775808s", i64::MIN),
        ] {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn a_clock_never_sees_a_negative_duration() {
        assert_eq!(GoDuration::from_secs(-3).to_std(), Duration::ZERO);
        assert_eq!(GoDuration::from_secs(3).to_std(), Duration::from_secs(3));
    }
}
