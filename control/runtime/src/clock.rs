//! The time that states carry: milliseconds since 1970, read once and then advanced by a clock that never jumps.

use tokio::time::Instant;

/// A clock that agrees with the wall at its start and runs evenly from there.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    /// A clock set to now.
    pub fn start() -> Self {
        Self::at(jiff::Timestamp::now().as_millisecond().try_into().unwrap_or(0))
    }

    /// A clock set to this time, in milliseconds since 1970.
    pub fn at(start_ms: u64) -> Self {
        Self { start: Instant::now(), start_ms }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed: u64 = self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.start_ms.saturating_add(elapsed)
    }
}
