//! The shell around the pure crates: it watches, interprets, observes, saves, publishes and tells.
//!
//! ```text
//!   files ─▶ watch ─▶ interpret ─▶ workloads ┐
//!                                            ├─▶ controller ─▶ table ─▶ data plane
//!   store ─▶ states ─────────────────────────┘      │  ▲
//!                                                   ▼  └── cells, trips ── data plane
//!                                        store, board ─▶ admin
//! ```
//!
//! What a rollout does next is decided in `serin-rollout`; who carries requests is not known here.

mod accept;
pub mod admin;
mod beat;
mod board;
mod clock;
pub mod cluster;
mod controller;
mod entry;
pub mod fleet;
mod history;
mod interpret;
mod lead;
mod plane;
mod ready;
mod reflex;
mod save;
mod site;
pub mod store;
mod table;
pub mod watch;
mod workload;

pub use accept::Unacceptable;
pub use board::{Board, CanaryPosting, Posting};
pub use clock::Clock;
pub use controller::{Controller, StartError, Tell};
pub use interpret::{Interpreted, interpret};
pub use plane::{DataPlane, EdgeView, Trip};
pub use site::{Alone, Peer, Site, Wanted};
pub use table::route_table;
pub use workload::{Reach, Routing, Workload};
