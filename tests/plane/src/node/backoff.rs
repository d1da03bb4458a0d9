//! How long to wait before a container is started again.
//!
//! Kubelet's rules, twenty times faster, so that a test sees a crash loop within seconds: the first restart is immediate, then the
//! pauses double, and a container that ran for long enough begins anew.

use std::time::Duration;

/// Kubelet's first pause is 10 s.
const FIRST: Duration = Duration::from_millis(500);

/// Kubelet's longest pause is 5 min.
const LONGEST: Duration = Duration::from_secs(10);

/// Kubelet forgives after 10 min.
const FORGIVEN_AFTER: Duration = Duration::from_secs(30);

/// The pauses of one container.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The pause after a run of this length.
    pub(super) fn pause_after(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.next = Duration::ZERO;
        }
        let pause = self.next;
        self.next = (pause * 2).clamp(FIRST, LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, FORGIVEN_AFTER};

    #[test]
    fn pauses_double_up_to_ten_seconds_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let mut pauses = |ran| backoff.pause_after(ran).as_millis();
        let quick = Duration::from_millis(10);
        assert_eq!([(); 8].map(|()| pauses(quick)), [0, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        assert_eq!(pauses(FORGIVEN_AFTER), 0);
        assert_eq!(pauses(quick), 500);
    }
}
