//! Decides where a request goes: which route, which arm, which endpoint, and under which assignment.
//!
//! ```text
//!   host, conditions ─▶ route ─▶ tripped? forced? may meet the canary? ─▶ an empty arm? a full one? ─▶ an earlier toss? the coin ─▶ endpoint
//! ```
//!
//! Pure: the table, the request, what is live and the random number are arguments. Nothing here knows
//! a header map, so the same decision serves a raw head and a parsed one.

mod balance;
mod cors;
mod decide;
mod edits;
mod matcher;
mod mirror;
mod retries;
#[cfg(test)]
mod sample;
mod stickiness;
mod table;
mod upstream;
mod view;

pub use balance::{Balance, Condition};
pub use cors::Cors;
pub use decide::{Decision, Live, Ticket, Unrouted, Untripped, decide, decide_on};
pub use edits::{EditError, Edits, HeaderEdits, PathRewrite};
pub use matcher::{HeaderMatch, Match, ParameterMatch, PathMatch, Pattern, PatternError, StringMatch};
pub use mirror::Mirror;
pub use retries::{ConditionError, Conditions, RETRIES_MAX, Retries, TryEnd};
pub use stickiness::{Cookie, CookieAttributes, CookieSet, Cookies, HashKey, Hashing, Stickiness, UNITS, Unit};
pub use table::{
    Audience, Endpoint, Force, Found, Generation, Host, HostError, Place, Route, RouteIndex, RouteTable, TableError,
    overlap,
};
pub use upstream::{Ejection, Identity, Protocol, Upstream, UpstreamTls};
pub use view::RequestView;
