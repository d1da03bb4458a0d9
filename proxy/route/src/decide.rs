//! One decision for one request. The random number is an argument, so a decision can be replayed.

use serin_measure::{Arm, Assignment};

use crate::table::{Audience, Found, Route, RouteIndex, RouteTable};
use crate::view::RequestView;

/// The random numbers of one request. Every request needs its own: the evidence rests on the coins being independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Decides between the arms: canary iff `coin < k`.
    pub coin: u32,
    /// Picks the endpoint within the arm.
    pub pick: u32,
}

impl From<u64> for Ticket {
    fn from(random: u64) -> Self {
        let [coin, pick] = [random >> 32, random & 0xffff_ffff].map(|half| u32::try_from(half).expect("32 bits"));
        Self { coin, pick }
    }
}

/// What can change without a new table.
pub trait Live {
    /// Whether the canary of this route was taken out of traffic by this process.
    fn tripped(&self, route: RouteIndex) -> bool;
}

/// Nothing is tripped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untripped;

impl Live for Untripped {
    fn tripped(&self, _: RouteIndex) -> bool {
        false
    }
}

/// Where a request goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The route it took, and the entry by which that was found.
    pub found: Found,
    /// The version it meets.
    pub arm: Arm,
    /// Why this arm.
    pub assignment: Assignment,
    /// Place of the endpoint in the arm's list.
    pub endpoint: usize,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrouted {
    /// No route answers for the host, or for such a request to it.
    UnknownHost,
    /// The route has no endpoint in either arm.
    NoEndpoint,
}

/// Decides where a request goes.
pub fn decide(
    table: &RouteTable,
    request: &impl RequestView,
    live: &impl Live,
    ticket: Ticket,
) -> Result<Decision, Unrouted> {
    let found = table.find(request).ok_or(Unrouted::UnknownHost)?;
    decide_on(table, found, request, live, ticket)
}

/// The same where the route was found before: whoever looks at it in between may leave the request to others, before any coin is tossed.
pub fn decide_on(
    table: &RouteTable,
    found: Found,
    request: &impl RequestView,
    live: &impl Live,
    ticket: Ticket,
) -> Result<Decision, Unrouted> {
    let route = table.route(found.route);
    let (arm, assignment) =
        assign(route, request, live.tripped(found.route), ticket.coin).ok_or(Unrouted::NoEndpoint)?;
    let endpoint = pick(route.endpoints(arm).len(), ticket.pick);
    Ok(Decision { found, arm, assignment, endpoint })
}

/// The arm and why, or none if neither arm has an endpoint.
fn assign(route: &Route, request: &impl RequestView, tripped: bool, coin: u32) -> Option<(Arm, Assignment)> {
    let ready = |arm| !route.endpoints(arm).is_empty();
    if let Some(arm) = forced(route, request, tripped) {
        return match (ready(arm), ready(arm.other())) {
            (true, _) => Some((arm, Assignment::Forced)),
            (false, true) => Some((arm.other(), Assignment::Empty)),
            (false, false) => None,
        };
    }
    // An empty arm is looked at before the coin: else what it would have failed is missing from one arm only.
    match (ready(Arm::Primary), ready(Arm::Canary)) {
        (true, true) => Some((if route.coin.is_canary(coin) { Arm::Canary } else { Arm::Primary }, Assignment::Drawn)),
        (true, false) => Some((Arm::Primary, Assignment::Empty)),
        (false, true) => Some((Arm::Canary, Assignment::Empty)),
        (false, false) => None,
    }
}

/// The arm if no coin is to be tossed.
fn forced(route: &Route, request: &impl RequestView, tripped: bool) -> Option<Arm> {
    if tripped {
        return Some(Arm::Primary);
    }
    if let Some(force) = route.forced.iter().find(|force| force.matches.matches(request)) {
        return Some(force.arm);
    }
    if let Audience::Matching(any_of) = &route.audience
        && !any_of.iter().any(|entry| entry.matches(request))
    {
        return Some(Arm::Primary);
    }
    route.coin.certain()
}

/// A place in a list of `count` by a uniform random number (Lemire's multiply-shift; bias below count/2^32).
fn pick(count: usize, random: u32) -> usize {
    let scaled = (count as u64 * u64::from(random)) >> 32;
    usize::try_from(scaled).expect("smaller than count")
}

#[cfg(test)]
mod tests;
