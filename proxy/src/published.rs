//! A table together with what its routes are measured by, swapped as one.

use serin_route::RouteTable;

use crate::meters::Instruments;

#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) table: RouteTable,
    /// By route index.
    pub(crate) instruments: Vec<Instruments>,
}
