//! The data plane as the control loop sees it: tables go in, counts come out. Who carries the requests is not known here.

use serde::{Deserialize, Serialize};
use serin_analysis::Checkpoint;
use serin_measure::{BootId, CanaryKey, Cell, EpochId, Snapshot};
use serin_route::RouteTable;

/// What the control loop asks of a data plane. None of it waits.
pub trait DataPlane: Send + Sync + 'static {
    /// This start of the process, under which it counts.
    fn boot(&self) -> BootId;

    /// Puts a table in force for every request from now on.
    fn publish(&self, table: RouteTable);

    /// Leaves a checkpoint of the evidence with the canary's tripwire, or takes it away.
    fn arm(&self, canary: &CanaryKey, checkpoint: Option<Checkpoint>);

    /// Whether the data plane has taken this run of the canary out of traffic by itself.
    fn is_tripped(&self, canary: &CanaryKey, rollout: u64) -> bool;

    /// Takes a run of a canary out of traffic, as its tripwire would: by order of who judges the whole fleet.
    fn trip(&self, trip: &Trip);

    /// The runs that are out of traffic here, by a tripwire or by order: the newest of each canary.
    fn trips(&self) -> Vec<Trip>;

    /// The evidence cells of the canary's epochs that may still change, counted since this process started.
    fn cells(&self, canary: &CanaryKey) -> Vec<(EpochId, Cell)>;

    /// Everything counted since this process started, of one canary or of all.
    fn snapshot(&self, canary: Option<&CanaryKey>) -> Snapshot;

    /// What never became a request.
    fn edge(&self) -> EdgeView;
}

/// What the edge counts beside requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeView {
    /// Client connections open now.
    pub connections_open: u64,
    /// Client connections since the start.
    pub connections_total: u64,
    /// What was not routed, by reason.
    pub refused: Vec<(&'static str, u64)>,
}

/// A canary that the data plane took out of traffic by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trip {
    /// Whose canary.
    pub canary: CanaryKey,
    /// In which run.
    pub rollout: u64,
    /// ln E at that moment, of whoever acted.
    pub ln_e: f64,
}
