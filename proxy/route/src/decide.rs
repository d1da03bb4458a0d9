//! One decision for one request. The random number is an argument, so a decision can be replayed.

use serin_measure::{Arm, Assignment};

use crate::balance::{self, Condition};
use crate::stickiness::{CookieSet, Hashing, Stickiness, Unit};
use crate::table::{Audience, Found, Place, Route, RouteIndex, RouteTable};
use crate::view::RequestView;

/// The random numbers of one request. Every request needs its own: the evidence rests on the coins being independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Decides between the arms: canary iff `coin < k`.
    pub coin: u32,
    /// Picks the endpoint within the arm, and whether there is a copy.
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
    fn tripped(&self, _: RouteIndex) -> bool {
        false
    }

    /// Takes one of so many places for requests at the canary, if one is free. It is given back when the request has ended, or at once by
    /// [`Self::give_place_back`].
    fn take_place(&self, _: RouteIndex, _most: u32) -> bool {
        true
    }

    /// Gives a place back that was taken for a request which does not go to the canary.
    fn give_place_back(&self, _: RouteIndex) {}

    /// Whether a unit of users has had a failure in this epoch: it has lost its bet then, and is in none any more.
    fn has_failed(&self, _: RouteIndex, _: Unit) -> bool {
        false
    }

    /// How an endpoint is doing.
    fn condition(&self, _: Place, _endpoint: usize) -> Condition {
        Condition::IDLE
    }
}

/// Nothing is tripped, full or busy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untripped;

impl Live for Untripped {}

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
    /// The cookie that its answer sets.
    pub cookie: CookieSet,
    /// The unit of users that it was tossed for, where users are hashed.
    pub unit: Option<Unit>,
    /// Whether it has one of the places for requests at the canary.
    pub has_place: bool,
    /// Whether the canary gets a copy.
    pub is_mirrored: bool,
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
    let assigned = Assigning { route, index: found.route, request, live }.assign(ticket.coin);
    let Assigned { arm, assignment, cookie, unit, has_place } = assigned.ok_or(Unrouted::NoEndpoint)?;
    let place = Place { route: found.route, arm };
    let endpoint = balance::pick(place, route, request, live, ticket.pick);
    // A multiple of the number that picks the endpoint, whose upper bits do not tell which one that was.
    let is_mirrored = arm == Arm::Primary
        && route.mirror.is_some_and(|mirror| mirror.takes(request, ticket.pick.wrapping_mul(MIRROR_FACTOR)))
        && !route.canary_endpoints.is_empty()
        && !live.tripped(found.route);
    Ok(Decision { found, arm, assignment, endpoint, cookie, unit, has_place, is_mirrored })
}

/// Odd, so that every number has its own multiple (Knuth, "The Art of Computer Programming", volume 3, section 6.4).
const MIRROR_FACTOR: u32 = 2_654_435_769;

/// The arm of a request, and what follows from it.
#[derive(Debug, Clone, Copy)]
struct Assigned {
    arm: Arm,
    assignment: Assignment,
    cookie: CookieSet,
    unit: Option<Unit>,
    has_place: bool,
}

impl Assigned {
    const fn of(arm: Arm, assignment: Assignment) -> Self {
        Self { arm, assignment, cookie: CookieSet::Nothing, unit: None, has_place: false }
    }
}

/// One request at its route.
struct Assigning<'a, R, L> {
    route: &'a Route,
    index: RouteIndex,
    request: &'a R,
    live: &'a L,
}

impl<R: RequestView, L: Live> Assigning<'_, R, L> {
    /// The arm and why, or none if neither arm has an endpoint.
    ///
    /// Whatever keeps a request from being scored is looked at before the coin: an empty arm, a canary that has enough to do. Else what
    /// the canary would have failed is missing from one arm only.
    fn assign(&self, coin: u32) -> Option<Assigned> {
        let ready = |arm| !self.route.endpoints(arm).is_empty();
        let forced = self.forced();
        let wanted = match (ready(Arm::Primary), ready(Arm::Canary)) {
            (true, true) => forced,
            (false, false) => return None,
            (is_primary, _) => {
                let there = if is_primary { Arm::Primary } else { Arm::Canary };
                let is_as_forced = forced.is_some_and(|forced| forced.arm == there);
                let empty = Assigned::of(there, Assignment::Empty);
                Some(if is_as_forced { forced.unwrap_or(empty) } else { empty })
            }
        };
        match wanted {
            Some(Assigned { arm: Arm::Primary, .. }) => wanted,
            Some(canary) => Some(self.within_limit(|has_place| Assigned { has_place, ..canary })),
            None => Some(self.within_limit(|has_place| self.toss(coin, has_place))),
        }
    }

    /// Where a request goes if the canary has room for it, which is the primary if it has none.
    fn within_limit(&self, go: impl FnOnce(bool) -> Assigned) -> Assigned {
        let has_place = match self.route.canary_requests_max {
            Some(most) if !self.live.take_place(self.index, most) && !self.route.primary.is_empty() => {
                return Assigned::of(Arm::Primary, Assignment::Capped);
            }
            most => most.is_some(),
        };
        let assigned = go(has_place);
        if has_place && assigned.arm == Arm::Primary {
            self.live.give_place_back(self.index);
            return Assigned { has_place: false, ..assigned };
        }
        assigned
    }

    /// The arm if no coin is to be tossed.
    fn forced(&self) -> Option<Assigned> {
        let to = |arm| Some(Assigned::of(arm, Assignment::Forced));
        if self.live.tripped(self.index) {
            return to(Arm::Primary);
        }
        if let Some(force) = self.route.forced.iter().find(|force| force.matches.matches(self.request)) {
            return to(force.arm);
        }
        if let Audience::Matching(any_of) = &self.route.audience
            && !any_of.iter().any(|entry| entry.matches(self.request))
        {
            return to(Arm::Primary);
        }
        let arm = self.route.coin.certain()?;
        let cookie = match (self.route.stickiness.as_deref(), arm) {
            (Some(Stickiness::Cookies(cookies)), Arm::Primary) => cookies.for_rest(self.request),
            _ => CookieSet::Nothing,
        };
        Some(Assigned { cookie, ..Assigned::of(arm, Assignment::Forced) })
    }

    /// The arm by an earlier toss, or by this one.
    fn toss(&self, coin: u32, has_place: bool) -> Assigned {
        let drawn = if self.route.coin.is_canary(coin) { Arm::Canary } else { Arm::Primary };
        let assigned = match self.route.stickiness.as_deref() {
            None => Assigned::of(drawn, Assignment::Drawn),
            Some(Stickiness::Cookies(cookies)) => match cookies.arm(self.request) {
                Some(arm) => Assigned::of(arm, Assignment::Sticky),
                None => Assigned { cookie: cookies.for_toss(drawn), ..Assigned::of(drawn, Assignment::Drawn) },
            },
            Some(Stickiness::Hash(hashing)) => match hashing.unit(self.request) {
                Some(unit) => self.of_unit(hashing, unit),
                // Its coin is another one than that of the units, and the bet is on theirs.
                None => Assigned::of(drawn, Assignment::Forced),
            },
        };
        Assigned { has_place, ..assigned }
    }

    fn of_unit(&self, hashing: &Hashing, unit: Unit) -> Assigned {
        let (arm, is_toss) = hashing.arm(unit, self.route.coin);
        if is_toss && !self.live.has_failed(self.index, unit) {
            Assigned { unit: Some(unit), ..Assigned::of(arm, Assignment::Drawn) }
        } else {
            Assigned::of(arm, Assignment::Sticky)
        }
    }
}

#[cfg(test)]
mod tests;
