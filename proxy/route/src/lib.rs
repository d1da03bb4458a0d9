//! Decides where a request goes: which route, which arm, which endpoint, and under which assignment.
//!
//! ```text
//!   authority ─▶ route ─▶ forced? ─▶ may meet the canary? ─▶ tripped? ─▶ an empty arm? ─▶ the coin ─▶ endpoint
//! ```
//!
//! Pure: the table, the request, what is live and the random number are arguments. Nothing here knows
//! a header map, so the same decision serves a raw head and a parsed one.

mod decide;
mod matcher;
mod table;
mod view;

pub use decide::{Decision, Live, Ticket, Unrouted, Untripped, decide};
pub use matcher::{HeaderMatch, Match, PatternError, StringMatch};
pub use table::{Audience, Endpoint, Force, Generation, Host, HostError, Route, RouteIndex, RouteTable, TableError};
pub use view::RequestView;
