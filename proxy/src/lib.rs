//! The edge: listeners, connections and requests, on Pingora.
//!
//! ```text
//!   accept ─▶ connection ─▶ head ─▶ adapter ─▶ route::decide ─▶ endpoint
//!                │                     │
//!                ▼                     ▼
//!           edge counts             attempt ─▶ measure (cells, histograms) ─▶ tripwire
//! ```
//!
//! Each thread has its own runtime, listener sockets, connection pool, recorder and random generator. What they
//! share is the published table, the limits and the trip flags. A table comes in, counts go out; who decides on
//! tables is not known here.

mod adapter;
mod attempt;
mod budget;
mod certificates;
mod connection;
mod counts;
mod direct;
mod edge;
mod edit;
mod forward;
mod grpc;
mod health;
mod limits;
mod listen;
mod meters;
mod peer;
mod priority;
mod published;
mod settings;
mod streams;
mod thread;
mod transport;
mod tries;
mod tripwire;
mod view;

pub use certificates::{CertificateError, Certificates, Pem};
pub use counts::{EdgeCounts, Refusal};
pub use edge::{BindError, Bound, Edge, EdgeHandle};
pub use forward::Forwarding;
pub use listen::{Listen, Tls, TlsError};
pub use priority::{give_way, use_small_pages};
pub use settings::Settings;
pub use tripwire::Tripped;
