//! A table together with what its routes are measured by, swapped as one.

use serin_route::{Live, RouteIndex, RouteTable};

use crate::meters::Instruments;

#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) table: RouteTable,
    /// By route index.
    pub(crate) instruments: Vec<Instruments>,
}

impl Live for Published {
    fn tripped(&self, route: RouteIndex) -> bool {
        self.instruments[route.0 as usize].tripwire.is_tripped(self.table.route(route).rollout)
    }
}
