//! The record of one request: counted when it is sent, counted once when it ends, however it ends.

use std::sync::Arc;
use std::time::Instant;

use pingora_core::{Error, ErrorSource, ErrorType};
use serin_measure::{Arm, Assignment, Outcome};

use crate::thread::ThreadRoute;

/// A request under way. If it is dropped without an end, it ended as our own failure.
#[derive(Debug)]
pub(crate) struct Attempt {
    route: Arc<ThreadRoute>,
    arm: Arm,
    assignment: Assignment,
    sent: Instant,
    head: Option<(u16, u64)>,
    ended: bool,
}

impl Attempt {
    /// Counts the request as routed. Its latency counts from here to the response head, so it holds the time to connect.
    pub(crate) fn begin(route: Arc<ThreadRoute>, arm: Arm, assignment: Assignment) -> Self {
        route.shard().routed(arm, assignment);
        Self { route, arm, assignment, sent: Instant::now(), head: None, ended: false }
    }

    /// The final response head has come.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((status, self.elapsed_us()));
    }

    /// The route by which it goes.
    pub(crate) fn route(&self) -> &ThreadRoute {
        &self.route
    }

    /// The status of the final response head, if it has come.
    pub(crate) fn status(&self) -> Option<u16> {
        self.head.map(|(status, _)| status)
    }

    /// The request is over; in pingora-proxy's words.
    pub(crate) fn end(&mut self, error: Option<&Error>) {
        self.end_as(classify(self.status(), error));
    }

    /// The request is over, and its answer was whole.
    pub(crate) fn end_whole(&mut self) {
        self.end_as(self.status().map_or(Outcome::Internal, Outcome::Status));
    }

    /// The request is over, in this way. Only the first end counts.
    pub(crate) fn end_as(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let latency_us = self.head.map_or_else(|| self.elapsed_us(), |(_, us)| us);
        let shard = self.route.shard();
        // The end comes last: what has ended is complete to whoever reads it.
        shard.served(self.arm, outcome);
        shard.ended(self.arm, self.assignment, outcome, Some(latency_us));
        if self.arm == Arm::Canary && self.assignment.is_evidence() && outcome.is_failure() {
            self.route.tripwire.look();
        }
    }

    fn elapsed_us(&self) -> u64 {
        self.sent.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end_as(Outcome::Internal);
    }
}

/// How a request ended, from the status of its head, if one came, and the error, if one did.
fn classify(status: Option<u16>, error: Option<&Error>) -> Outcome {
    match (status, error) {
        (Some(status), None) => Outcome::Status(status),
        // A server error was seen, whatever happened to its body afterwards.
        (Some(status @ 500..), Some(_)) => Outcome::Status(status),
        (None, None) => Outcome::Internal,
        (status, Some(error)) => match error.esource() {
            ErrorSource::Downstream => Outcome::ClientAbort,
            ErrorSource::Upstream => upstream(status.is_some(), error.root_etype()),
            ErrorSource::Internal | ErrorSource::Unset => Outcome::Internal,
        },
    }
}

fn upstream(head_came: bool, kind: &ErrorType) -> Outcome {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ReadTimedout, SocketError, TLSHandshakeFailure,
        TLSHandshakeTimedout, WriteTimedout,
    };
    match kind {
        ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout => Outcome::Timeout,
        ConnectRefused | ConnectNoRoute | ConnectError | SocketError | TLSHandshakeFailure => Outcome::ConnectFailed,
        _ if head_came => Outcome::Truncated,
        _ => Outcome::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_one_outcome() {
        let error = |kind, source: fn(&mut Error)| {
            let mut error = Error::new(kind);
            source(&mut error);
            Some(error)
        };
        let up: fn(&mut Error) = Error::as_up;
        let down: fn(&mut Error) = Error::as_down;
        for (status, error, expected) in [
            (Some(200), None, Outcome::Status(200)),
            (Some(503), None, Outcome::Status(503)),
            (Some(200), error(ErrorType::ReadError, up), Outcome::Truncated),
            (Some(500), error(ErrorType::WriteError, down), Outcome::Status(500)),
            (Some(200), error(ErrorType::WriteError, down), Outcome::ClientAbort),
            (None, error(ErrorType::ConnectionClosed, up), Outcome::Reset),
            (None, error(ErrorType::ConnectRefused, up), Outcome::ConnectFailed),
            (None, error(ErrorType::ConnectTimedout, up), Outcome::Timeout),
            (None, error(ErrorType::ReadTimedout, up), Outcome::Timeout),
            (Some(200), error(ErrorType::ReadTimedout, up), Outcome::Timeout),
            (None, error(ErrorType::ReadTimedout, down), Outcome::ClientAbort),
            (None, error(ErrorType::InternalError, |_| ()), Outcome::Internal),
            (None, None, Outcome::Internal),
        ] {
            assert_eq!(classify(status, error.as_deref()), expected, "{status:?} {error:?}");
        }
    }
}
