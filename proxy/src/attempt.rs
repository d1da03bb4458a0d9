//! The record of one request: counted when it is sent, counted once when it ends, however it ends.

use std::sync::Arc;
use std::time::Instant;

use serin_measure::{Arm, Assignment, Outcome};

use crate::limits;
use crate::thread::ThreadRoute;

/// A request under way. If it is dropped without an end, that is our own failure, or a time limit's; see [`limits`].
///
/// What a version is judged by is its first try; what is tried afterwards, because a rule asks for it, changes what the user gets and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Attempt {
    route: Arc<ThreadRoute>,
    arm: Arm,
    assignment: Assignment,
    /// When the present try began.
    sent: Instant,
    head: Option<(u16, u64)>,
    /// Set for a request of gRPC, with the status that its answer ended with, if one came.
    grpc: Option<Option<u16>>,
    /// The first try has ended and is counted.
    is_judged: bool,
    ended: bool,
}

impl Attempt {
    /// Counts the request as routed. Its latency counts from here to the response head, so it holds the time to connect.
    pub(crate) fn begin(route: Arc<ThreadRoute>, arm: Arm, assignment: Assignment) -> Self {
        route.shard().routed(arm, assignment);
        let sent = Instant::now();
        Self { route, arm, assignment, sent, head: None, grpc: None, is_judged: false, ended: false }
    }

    /// It is one of gRPC, whose answer says in a field of its own how it ended.
    pub(crate) fn is_of_grpc(&mut self) {
        self.grpc = Some(None);
    }

    /// The final response head has come.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((status, self.elapsed_us()));
    }

    /// The status of gRPC has come, with the head or after the body.
    pub(crate) fn grpc_status(&mut self, status: u16) {
        self.grpc = self.grpc.map(|_| Some(status));
    }

    /// The route by which it goes.
    pub(crate) fn route(&self) -> &ThreadRoute {
        &self.route
    }

    /// The status of the final response head, if it has come.
    pub(crate) fn status(&self) -> Option<u16> {
        self.head.map(|(status, _)| status)
    }

    /// A try has failed in this way, and there is another one.
    pub(crate) fn try_again_after(&mut self, outcome: Outcome) {
        self.judge(outcome);
        self.send_again();
    }

    /// It is sent once more in the place of a try that nobody can have seen.
    pub(crate) fn send_again(&mut self) {
        self.route.shard().retried(self.arm);
        (self.sent, self.head) = (Instant::now(), None);
        self.grpc = self.grpc.map(|_| None);
    }

    /// The request is over, and its answer was whole.
    pub(crate) fn end_whole(&mut self) {
        let outcome = match (self.status(), self.grpc) {
            (Some(status), Some(grpc)) => Outcome::of_grpc(status, grpc),
            (Some(status), None) => Outcome::Status(status),
            (None, _) => Outcome::Internal,
        };
        self.end_as(outcome);
    }

    /// The request is over, in this way. Only the first end counts.
    pub(crate) fn end_as(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // The end comes last: what has ended is complete to whoever reads it.
        self.route.shard().served(self.arm, outcome);
        self.judge(outcome);
    }

    fn judge(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_judged, true) {
            return;
        }
        let latency_us = self.head.map_or_else(|| self.elapsed_us(), |(_, us)| us);
        self.route.shard().ended(self.arm, self.assignment, outcome, Some(latency_us));
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
        self.end_as(limits::outcome_of_drop());
    }
}
