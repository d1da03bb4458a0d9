//! Where states are kept: load everything, compare and swap, watch. Standalone it is SQLite; a cluster has its own.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};
use serin_measure::CanaryKey;
use serin_rollout::State;
use tokio::sync::watch;

pub mod sqlite;

/// The number of a saved state, larger after every save. It is the fence: who saves has to name the one it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `Normal` or `Warning`, as Kubernetes has it.
    pub level: String,
    /// The text.
    pub message: String,
}

/// A state as it was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Whose state.
    pub canary: CanaryKey,
    /// Which Canary of that name, where one can be deleted and made anew: its uid in a cluster, empty elsewhere.
    pub incarnation: String,
    /// Its number.
    pub version: Version,
    /// The state.
    pub state: State,
    /// Its newest events, oldest first, at most [`EVENTS_SHOWN_MAX`].
    pub events: Vec<Event>,
}

/// A state to be saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Save {
    /// Whose state.
    pub canary: CanaryKey,
    /// As in [`Saved`].
    pub incarnation: String,
    /// The version it was made from; none for one never saved.
    pub expected: Option<Version>,
    /// The state.
    pub state: State,
    /// What is told with it.
    pub events: Vec<Event>,
}

/// How saving one state went.
#[derive(Debug, Clone, PartialEq)]
pub enum Swap {
    /// It is saved, under this version.
    Done(Version),
    /// Somebody else has saved meanwhile; nothing was written for this canary.
    Stale,
    /// An earlier save of this very process, which was taken for failed, had arrived after all; nothing was written now.
    Landed(Box<Saved>),
}

/// Events loaded with a state, so that people see the story so far.
pub const EVENTS_SHOWN_MAX: usize = 20;
/// Events kept per canary: some fifty rollouts. Older ones are deleted.
pub const EVENTS_KEPT_MAX: usize = 1_000;

/// The store cannot be used now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It was written by a later version of Serin; this one cannot know what it means.
    #[error(
        "the state in {place} was written by a newer Serin (format {found}, this one knows {known}); run that version or start with another --state"
    )]
    Newer {
        /// Where.
        place: String,
        /// The format found.
        found: i64,
        /// The newest format known.
        known: i64,
    },
    /// Another process has it.
    #[error("the state in {place} is in use by another process; end that one or give this one another --state")]
    InUse {
        /// Where.
        place: String,
    },
    /// Reading or writing failed; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// A home for states.
pub trait Store: Send + Sync + 'static {
    /// Every state there is.
    fn load(&self) -> impl Future<Output = Result<Vec<Saved>, StoreError>> + Send;

    /// Saves states, each only over the version it was made from. The answers are in the order given, one for each.
    fn save(&self, batch: Vec<Save>) -> impl Future<Output = Vec<Result<Swap, StoreError>>> + Send;

    /// A number that rises with every save by anybody.
    fn watch(&self) -> watch::Receiver<u64>;
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
