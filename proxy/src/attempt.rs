//! The record of one request: counted when it is sent, counted once when it ends, however it ends.

use std::sync::Arc;
use std::time::Instant;

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
