//! When a request is tried again in the arm that it was drawn for. Conditions have Envoy's names, which Istio and Flagger pass on
//! (Envoy, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`).

use std::time::Duration;

/// Tries after the first one, at most: who needs more has another problem.
pub const RETRIES_MAX: usize = 10;

/// What is tried again. By default nothing is, beyond what no backend can have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first one; [`RETRIES_MAX`] at most.
    pub attempts: u32,
    /// After what.
    pub on: Conditions,
    /// Time for one try, from its head to the end of its answer; it is cut off then, and may be tried again while no answer has begun.
    pub try_timeout: Option<Duration>,
}

impl Retries {
    /// Nothing is tried again.
    pub const NONE: Self = Self { attempts: 0, on: Conditions::NONE, try_timeout: None };
}

/// Ends of a try after which there is another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// No connection came about.
    pub connect_failure: bool,
    /// The backend refused the stream before it looked at it (HTTP/2, `REFUSED_STREAM`).
    pub refused_stream: bool,
    /// There was no answer: the connection ended, or the time for a try.
    pub reset: bool,
    /// These statuses.
    pub statuses: Vec<u16>,
    /// Every status from 500 on, and no answer.
    pub server_error: bool,
    /// These statuses of gRPC, in an answer that has nothing else.
    pub grpc: Vec<u16>,
}

/// How a try ended without an answer that has begun to go to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryEnd {
    /// No connection.
    NotConnected,
    /// The backend has not looked at it.
    Refused,
    /// No answer came, or not in the time for one.
    NoAnswer,
    /// An answer with this status has begun to come.
    Status(u16),
    /// One that has only a status of gRPC.
    Grpc(u16),
}

/// A word that names no condition.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no condition for a retry")]
pub struct ConditionError(pub Box<str>);

impl Conditions {
    /// None.
    pub const NONE: Self = Self {
        connect_failure: false,
        refused_stream: false,
        reset: false,
        statuses: Vec::new(),
        server_error: false,
        grpc: Vec::new(),
    };

    /// Reads conditions between commas.
    ///
    /// # Errors
    /// If a word names none.
    pub fn parse(written: &str) -> Result<Self, ConditionError> {
        let mut on = Self::default();
        for word in written.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "5xx" => on.server_error = true,
                "gateway-error" => on.statuses.extend([502, 503, 504]),
                "retriable-4xx" => on.statuses.push(409),
                "reset" | "reset-before-request" => on.reset = true,
                "connect-failure" => on.connect_failure = true,
                "refused-stream" => on.refused_stream = true,
                "cancelled" => on.grpc.push(1),
                "deadline-exceeded" => on.grpc.push(4),
                "resource-exhausted" => on.grpc.push(8),
                "internal" => on.grpc.push(13),
                "unavailable" => on.grpc.push(14),
                // Istio adds statuses to the list itself.
                "retriable-status-codes" => {}
                number => match number.parse() {
                    Ok(status @ 100..=599) => on.statuses.push(status),
                    _ => return Err(ConditionError(number.into())),
                },
            }
        }
        Ok(on)
    }

    /// What Istio tries again where nothing is said (Istio, `HTTPRetry.retryOn`).
    pub fn istio_default() -> Self {
        Self { connect_failure: true, refused_stream: true, statuses: vec![503], grpc: vec![1, 14], ..Self::default() }
    }

    /// Whether there is another try after one that ended so. A request that may not be repeated is tried again only if no backend can
    /// have begun to work for it, whatever the conditions say: Envoy would repeat an order, and nginx would not.
    pub fn cover(&self, end: TryEnd, is_idempotent: bool) -> bool {
        match end {
            TryEnd::NotConnected => self.connect_failure || self.server_error,
            TryEnd::Refused => self.refused_stream || self.reset || self.server_error,
            TryEnd::NoAnswer => is_idempotent && (self.reset || self.server_error || self.statuses.contains(&504)),
            TryEnd::Status(status) => {
                is_idempotent && (self.statuses.contains(&status) || self.server_error && status >= 500)
            }
            TryEnd::Grpc(status) => self.grpc.contains(&status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `covered`: of no connection, refused, no answer, 503, 409, gRPC's 14; for a request that may be repeated and one that may not.
    #[track_caller]
    fn check(written: &str, covered: [&str; 2]) {
        let on = Conditions::parse(written).expect("conditions");
        let ends = [
            TryEnd::NotConnected,
            TryEnd::Refused,
            TryEnd::NoAnswer,
            TryEnd::Status(503),
            TryEnd::Status(409),
            TryEnd::Grpc(14),
        ];
        for (is_idempotent, covered) in [true, false].into_iter().zip(covered) {
            let found: String = ends.iter().map(|end| if on.cover(*end, is_idempotent) { 'y' } else { '-' }).collect();
            assert_eq!(found, covered, "{written}, idempotent: {is_idempotent}");
        }
    }

    #[test]
    fn conditions_are_those_of_envoy_and_only_what_nobody_has_begun_is_repeated_for_all() {
        check("", ["------", "------"]);
        check("5xx", ["yyyy--", "yy----"]);
        check("gateway-error", ["--yy--", "------"]);
        check("connect-failure,refused-stream", ["yy----", "yy----"]);
        check("reset", ["-yy---", "-y----"]);
        check("retriable-4xx, 503", ["---yy-", "------"]);
        check("unavailable", ["-----y", "-----y"]);
        assert_eq!(
            Conditions::parse("connect-failure,refused-stream,unavailable,cancelled,503").map(|on| {
                let mut grpc = on.grpc.clone();
                grpc.sort_unstable();
                Conditions { grpc, ..on }
            }),
            Ok(Conditions::istio_default())
        );
    }

    #[test]
    fn a_word_that_is_no_condition_is_named() {
        for word in ["5XX", "600", "sometimes"] {
            assert_eq!(Conditions::parse(&format!("reset,{word}")), Err(ConditionError(word.into())));
        }
    }
}
