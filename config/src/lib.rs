//! What people write: Canaries as Flagger 1.44 accepts them, the standalone files, and the settings of a process.
//!
//! ```text
//! text ─▶ document (a tree with places) ─▶ decode (typed, all fields optional) ─▶ validate ─▶ Set
//!              │                               │                                    │
//!              └────────── Problem: file, line, column, field, what is wrong, what would be right
//! ```
//!
//! The types are the wire and stop where the runtime interprets them; what a Canary *means* is decided there. This crate
//! does no I/O but reading files, and knows neither a cluster's client nor an async runtime.

mod address;
#[cfg(test)]
mod admission;
mod alert_provider;
mod backend;
mod canary;
mod canary_state;
mod crd;
mod decode;
mod document;
mod duration;
mod interval;
mod kind;
mod listener;
mod metric_template;
mod node;
mod object;
mod path;
mod problem;
#[cfg(test)]
mod samples;
mod schema;
mod set;
mod settings;
mod whole;
mod yaml;

pub use address::{Endpoint, EndpointError, Host};
pub use alert_provider::{AlertProvider, AlertProviderSpec, AlertProviderType};
pub use backend::{Backend, BackendSpec, ENDPOINTS_MAX, VERSION_NAME_CHARS_MAX, VERSIONS_MAX, Version};
pub use canary::*;
pub use canary_state::{CanaryState, CanaryStateSpec, StateEvent, Writer};
pub use crd::crds;
pub use decode::{Decoded, decode, unknown_fields};
pub use document::{Document, FILE_BYTES_MAX, Reading, read_documents};
pub use duration::{DurationError, GoDuration};
pub use interval::{INTERVAL_DEFAULT, INTERVAL_MIN, Interval, IntervalRefused, interval};
pub use kind::{FLAGGER_API, Kind, SERIN_API};
pub use listener::{CertificateFiles, Listener, ListenerSpec, ListenerTls};
pub use metric_template::{MetricProvider, MetricProviderType, MetricTemplate, MetricTemplateSpec, SecretRef};
pub use node::{Entry, Node, Position, Shape};
pub use object::{Metadata, NAMESPACE_DEFAULT, Object, ObjectName};
pub use path::{FieldPath, Step};
pub use problem::{Finding, Problem, Severity};
pub use set::{DOCUMENTS_MAX, FILES_MAX, Located, Set, SourceFile, read_dir, read_files};
pub use settings::{CONNECTIONS_MAX, Downstream, Forwarding, LogFormat, Settings, SettingsSpec, THREADS_MAX, Upstream};
