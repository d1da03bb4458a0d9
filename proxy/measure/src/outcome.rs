//! How one attempt ended, and whose failure that is. Two readers ask: the evidence (did this *version* fail?) and
//! Flagger's builtin checks (did its *answer* begin with a 5?). Nothing here counts.

use std::fmt;

/// How one attempt at a backend ended, or what a user was served in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A whole answer with this status.
    Status(u16),
    /// A whole answer of HTTP whose gRPC status says that the server failed; see [`Outcome::of_grpc`].
    Grpc,
    /// No connection to the backend: refused, unreachable, or the TLS handshake broke.
    ConnectFailed,
    /// The backend closed or broke the connection before a complete response head.
    Reset,
    /// The head came; the body was cut by the backend.
    Truncated,
    /// The backend was too slow: to accept, to answer, or to go on with the body.
    Timeout,
    /// The client went away before the backend was done.
    ClientAbort,
    /// Serin itself failed; neither version is to blame.
    Internal,
}

impl Outcome {
    /// The outcome of an answer to gRPC: its HTTP status is 200 whatever happened, and what happened is in `grpc-status`. None stands
    /// for an answer without one, which a client takes for UNKNOWN (gRPC, `PROTOCOL-HTTP2.md`).
    ///
    /// Statuses that say that the server failed are UNKNOWN (2), DEADLINE_EXCEEDED (4), UNIMPLEMENTED (12), INTERNAL (13),
    /// UNAVAILABLE (14) and DATA_LOSS (15), as in OpenTelemetry's conventions for RPC servers; what is no status is UNKNOWN. The others
    /// answer the caller, as a 4xx does.
    pub const fn of_grpc(http: u16, grpc: Option<u16>) -> Self {
        match (http, grpc) {
            (200, Some(1 | 3 | 5..=11 | 16)) => Self::Status(400),
            (200, Some(0)) => Self::Status(200),
            (200, _) => Self::Grpc,
            (status, _) => Self::Status(status),
        }
    }

    /// The class it is counted in.
    ///
    /// A status outside 100..=599 is treated as a 5xx, as RFC 9110 section 15 asks of a client that receives one.
    pub const fn class(self) -> OutcomeClass {
        match self {
            Self::Status(100..=199) => OutcomeClass::S1xx,
            Self::Status(200..=299) => OutcomeClass::S2xx,
            Self::Status(300..=399) => OutcomeClass::S3xx,
            Self::Status(400..=499) => OutcomeClass::S4xx,
            Self::Status(_) => OutcomeClass::S5xx,
            Self::Grpc => OutcomeClass::Grpc,
            Self::ConnectFailed => OutcomeClass::ConnectFailed,
            Self::Reset => OutcomeClass::Reset,
            Self::Truncated => OutcomeClass::Truncated,
            Self::Timeout => OutcomeClass::Timeout,
            Self::ClientAbort => OutcomeClass::ClientAbort,
            Self::Internal => OutcomeClass::Internal,
        }
    }

    /// See [`OutcomeClass::is_failure`].
    pub const fn is_failure(self) -> bool {
        self.class().is_failure()
    }

    /// See [`OutcomeClass::is_check_failure`].
    pub const fn is_check_failure(self) -> bool {
        self.class().is_check_failure()
    }

    /// See [`OutcomeClass::is_counted_for_checks`].
    pub const fn is_counted_for_checks(self) -> bool {
        self.class().is_counted_for_checks()
    }
}

/// The classes outcomes are counted in: a small, known set, so that counters are arrays and labels are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeClass {
    /// Status 100 to 199; as a final answer only 101, an upgrade.
    S1xx,
    /// Status 200 to 299.
    S2xx,
    /// Status 300 to 399.
    S3xx,
    /// Status 400 to 499.
    S4xx,
    /// Status 500 to 599, or no valid status at all.
    S5xx,
    /// See [`Outcome::Grpc`].
    Grpc,
    /// See [`Outcome::ConnectFailed`].
    ConnectFailed,
    /// See [`Outcome::Reset`].
    Reset,
    /// See [`Outcome::Truncated`].
    Truncated,
    /// See [`Outcome::Timeout`].
    Timeout,
    /// See [`Outcome::ClientAbort`].
    ClientAbort,
    /// See [`Outcome::Internal`].
    Internal,
}

impl OutcomeClass {
    /// How many classes there are: the length of every array of counters by class.
    pub const COUNT: usize = Self::ALL.len();

    /// Every class, in the order of [`OutcomeClass::index`].
    pub const ALL: [Self; 12] = [
        Self::S1xx,
        Self::S2xx,
        Self::S3xx,
        Self::S4xx,
        Self::S5xx,
        Self::Grpc,
        Self::ConnectFailed,
        Self::Reset,
        Self::Truncated,
        Self::Timeout,
        Self::ClientAbort,
        Self::Internal,
    ];

    /// This class's place in an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S1xx => "1xx",
            Self::S2xx => "2xx",
            Self::S3xx => "3xx",
            Self::S4xx => "4xx",
            Self::S5xx => "5xx",
            Self::Grpc => "grpc",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::ClientAbort => "client_abort",
            Self::Internal => "internal",
        }
    }

    /// Whether the *version* failed: a 5xx, a gRPC status that says so, or any failure of transport on the backend's side. A client that leaves and
    /// a fault of our own say nothing about the version.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::S5xx | Self::Grpc | Self::ConnectFailed | Self::Reset | Self::Truncated | Self::Timeout => true,
            Self::S1xx | Self::S2xx | Self::S3xx | Self::S4xx => false,
            Self::ClientAbort | Self::Internal => false,
        }
    }

    /// Whether Flagger's `request-success-rate` counts it as a failure.
    ///
    /// Flagger counts whatever is not `5.*` as success, 4xx and clients that left included (Flagger 1.44,
    /// `pkg/metrics/observers/istio.go`). Failures of transport count too: in their place the user gets a 502 or 504 of
    /// ours, or a cut body.
    pub const fn is_check_failure(self) -> bool {
        self.is_counted_for_checks() && self.is_failure()
    }

    /// Whether Flagger's builtin checks see the request at all: they measure at the destination, and a fault of Serin's
    /// own is not the destination's.
    pub const fn is_counted_for_checks(self) -> bool {
        !matches!(self, Self::Internal)
    }

    /// Whether the time it took says how fast the version is. A request its client gave up lasted as long as the client
    /// cared to wait, and one we broke as long as it took us.
    pub(crate) const fn has_latency(self) -> bool {
        !matches!(self, Self::ClientAbort | Self::Internal)
    }
}

impl fmt::Display for OutcomeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: label, failure of the version, counted by the checks, failure by the checks.
    #[track_caller]
    fn check(outcome: Outcome, expected: (&str, bool, bool, bool)) {
        let seen = (
            outcome.class().as_str(),
            outcome.is_failure(),
            outcome.is_counted_for_checks(),
            outcome.is_check_failure(),
        );
        assert_eq!(seen, expected, "{outcome:?}");
    }

    #[test]
    fn a_failure_is_a_5xx_or_the_backends_transport_and_nobody_elses() {
        check(Outcome::Status(101), ("1xx", false, true, false));
        check(Outcome::Status(200), ("2xx", false, true, false));
        check(Outcome::Status(302), ("3xx", false, true, false));
        check(Outcome::Status(404), ("4xx", false, true, false));
        check(Outcome::Status(500), ("5xx", true, true, true));
        check(Outcome::Status(599), ("5xx", true, true, true));
        check(Outcome::Grpc, ("grpc", true, true, true));
        check(Outcome::ConnectFailed, ("connect_failed", true, true, true));
        check(Outcome::Reset, ("reset", true, true, true));
        check(Outcome::Truncated, ("truncated", true, true, true));
        check(Outcome::Timeout, ("timeout", true, true, true));
        check(Outcome::ClientAbort, ("client_abort", false, true, false));
        check(Outcome::Internal, ("internal", false, false, false));
    }

    #[test]
    fn a_grpc_status_says_whose_failure_it_is() {
        let outcome = |status| Outcome::of_grpc(200, Some(status));
        for status in [2, 4, 12, 13, 14, 15, 17, 99] {
            assert_eq!(outcome(status), Outcome::Grpc, "{status}");
        }
        for status in [1, 3, 5, 6, 7, 8, 9, 10, 11, 16] {
            assert_eq!(outcome(status), Outcome::Status(400), "{status}");
        }
        assert_eq!([outcome(0), Outcome::of_grpc(200, None)], [Outcome::Status(200), Outcome::Grpc]);
        assert_eq!(Outcome::of_grpc(503, Some(0)), Outcome::Status(503));
    }

    #[test]
    fn a_status_that_http_does_not_know_is_a_server_error() {
        for status in [0, 99, 600, 999, u16::MAX] {
            check(Outcome::Status(status), ("5xx", true, true, true));
        }
    }

    #[test]
    fn classes_stand_where_their_index_says() {
        for (place, class) in OutcomeClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), place);
        }
    }
}
