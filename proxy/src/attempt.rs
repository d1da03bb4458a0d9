//! The record of one request: counted when it is sent, counted once when it ends, however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serin_measure::{Arm, Assignment, Outcome};
use serin_route::{CookieSet, Decision, Unit};

use crate::limits;
use crate::thread::ThreadRoute;

/// A request under way. If it is dropped without an end, that is our own failure, or a time limit's; see [`limits`].
///
/// What a version is judged by is its first try; what is tried afterwards, because a rule asks for it, changes what the user gets and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Attempt {
    route: Arc<ThreadRoute>,
    /// Where the present try goes.
    arm: Arm,
    endpoint: usize,
    /// Where the request was sent first, and why.
    first_arm: Arm,
    assignment: Assignment,
    cookie: CookieSet,
    unit: Option<Unit>,
    has_place: bool,
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
    pub(crate) fn begin(route: Arc<ThreadRoute>, decision: &Decision) -> Self {
        let Decision { arm, assignment, endpoint, cookie, unit, has_place, .. } = *decision;
        route.shard().routed(arm, assignment);
        route.enter(arm, endpoint);
        Self {
            route,
            arm,
            endpoint,
            first_arm: arm,
            assignment,
            cookie,
            unit,
            has_place,
            sent: Instant::now(),
            head: None,
            grpc: None,
            is_judged: false,
            ended: false,
        }
    }

    /// Where the present try goes.
    pub(crate) const fn arm(&self) -> Arm {
        self.arm
    }

    /// The address that it goes to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.route.addresses(self.arm)[self.endpoint]
    }

    /// The place of that address among those of the arm.
    pub(crate) const fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// How many there are.
    pub(crate) fn endpoints(&self) -> usize {
        self.route.addresses(self.arm).len()
    }

    /// The cookie that the answer sets.
    pub(crate) fn cookie(&self) -> Option<&str> {
        self.route.cookie(self.cookie)
    }

    /// The endpoint was not reached, and the next one is.
    pub(crate) fn move_on(&mut self) {
        self.route.leave(self.arm, self.endpoint, Some(false));
        self.endpoint = self.route.next_endpoint(self.arm, self.endpoint);
        self.route.enter(self.arm, self.endpoint);
    }

    /// Whether it may go to the primary if it fails where it is.
    pub(crate) fn may_be_replayed(&self) -> bool {
        self.route.replays && self.arm == Arm::Canary && !self.route.addresses(Arm::Primary).is_empty()
    }

    /// The canary has failed in this way, and the request goes to the primary; what that one does is in nobody's record.
    pub(crate) fn replay_after(&mut self, outcome: Outcome) {
        self.judge(outcome);
        self.route.leave(self.arm, self.endpoint, Some(false));
        // Users of a canary that failed them are not to be held by it.
        (self.arm, self.cookie) = (Arm::Primary, CookieSet::Nothing);
        self.endpoint = usize::try_from(fastrand::u32(..)).unwrap_or(0) % self.endpoints();
        self.route.enter(self.arm, self.endpoint);
        self.route.shard().routed(Arm::Primary, Assignment::Replay);
        self.begin_anew();
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

    /// A try has failed in this way, and there is another one, at the next endpoint.
    pub(crate) fn try_again_after(&mut self, outcome: Outcome) {
        self.judge(outcome);
        self.move_on();
        self.send_again();
    }

    /// It is sent once more in the place of a try that nobody can have seen.
    pub(crate) fn send_again(&mut self) {
        self.route.shard().retried(self.arm);
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
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
        let is_known = !matches!(outcome, Outcome::ClientAbort | Outcome::Internal);
        self.route.leave(self.arm, self.endpoint, is_known.then_some(!outcome.is_failure()));
        if self.has_place {
            self.route.give_place_back();
        }
    }

    fn judge(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_judged, true) {
            return;
        }
        let latency_us = self.head.map_or_else(|| self.elapsed_us(), |(_, us)| us);
        let (arm, shard) = (self.first_arm, self.route.shard());
        let is_failure = outcome.is_failure();
        // A unit of users has one coin, and has lost it only once.
        let has_lost = self.unit.is_some_and(|unit| is_failure && !self.route.failed_units().insert(unit.0));
        if has_lost {
            return shard.ended_unscored(arm, outcome, Some(latency_us));
        }
        shard.ended(arm, self.assignment, outcome, Some(latency_us));
        if arm == Arm::Canary && self.assignment.is_evidence() && is_failure {
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
