//! Joins the edge and the control loop: the only place that knows both.

use serin_analysis::Checkpoint;
use serin_measure::{BootId, CanaryKey, Cell, EpochId, Snapshot};
use serin_proxy::{EdgeHandle, Refusal, Tripped};
use serin_route::RouteTable;
use serin_runtime::{DataPlane, EdgeView, Tell, Trip};
use tokio::sync::mpsc;

/// The edge of this process as the control loop's data plane.
pub(crate) struct Plane(pub(crate) EdgeHandle);

impl DataPlane for Plane {
    fn boot(&self) -> BootId {
        self.0.boot()
    }

    fn trip(&self, trip: &Trip) {
        self.0.trip(&trip.canary, trip.rollout, trip.ln_e);
    }

    fn trips(&self) -> Vec<Trip> {
        let tripped = self.0.tripped().into_iter();
        tripped.map(|Tripped { canary, rollout, ln_e }| Trip { canary, rollout, ln_e }).collect()
    }

    fn publish(&self, table: RouteTable) {
        self.0.publish(table);
    }

    fn arm(&self, canary: &CanaryKey, checkpoint: Option<Checkpoint>) {
        self.0.arm(canary, checkpoint);
    }

    fn is_tripped(&self, canary: &CanaryKey, rollout: u64) -> bool {
        self.0.is_tripped(canary, rollout)
    }

    fn cells(&self, canary: &CanaryKey) -> Vec<(EpochId, Cell)> {
        self.0.cells(canary)
    }

    fn snapshot(&self, canary: Option<&CanaryKey>) -> Snapshot {
        self.0.snapshot(canary)
    }

    fn edge(&self) -> EdgeView {
        let counts = self.0.counts();
        EdgeView {
            connections_open: counts.connections_open,
            connections_total: counts.connections_total,
            refused: Refusal::ALL.into_iter().map(|why| (why.as_str(), counts.refused[why.index()])).collect(),
        }
    }
}

/// Passes on what tripwires report.
pub(crate) async fn pass_on_trips(mut tripped: mpsc::UnboundedReceiver<Tripped>, tell: Tell) {
    while let Some(Tripped { canary, rollout, ln_e }) = tripped.recv().await {
        tell.tripped(Trip { canary, rollout, ln_e }).await;
    }
}
