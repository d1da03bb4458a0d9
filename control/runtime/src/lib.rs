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

pub mod admin;
mod beat;
mod board;
mod clock;
mod controller;
mod entry;
mod history;
mod interpret;
mod judge;
mod plane;
mod ready;
mod save;
pub mod store;
mod table;
pub mod watch;
mod workload;

pub use board::{Board, Posting};
pub use controller::{Controller, StartError, Tell, Unacceptable};
pub use interpret::{Interpreted, interpret};
pub use plane::{DataPlane, EdgeView, Trip};
pub use table::route_table;
pub use workload::{Routing, Workload};
