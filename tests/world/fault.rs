//! What goes wrong, and when: a list that is made from the seed before anything runs.

use fastrand::Rng;

use crate::scenario::pick;

/// Whom it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The replica that stands here in the row of those who live.
    Nth(usize),
    /// Whoever believes that it leads.
    Leader,
}

/// What a replica is cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Store,
    /// One of the others, both ways.
    One,
    /// What it sends to the others is lost.
    OthersOneWay,
    Others,
    /// The store, the others and its clients.
    Everybody,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process is gone at once, and comes back after a while: in the same pod, in another one, or not at all.
    Kill {
        whom: Whom,
        back_ms: Option<u64>,
        same_pod: bool,
    },
    /// A process is told to stop, and another one takes its place, before or after.
    Stop {
        whom: Whom,
        back_ms: u64,
    },
    Add,
    Cut {
        whom: Whom,
        from: From,
        ms: u64,
    },
    /// Nobody reaches the store.
    Outage {
        ms: u64,
    },
    /// Calls to the API server go wrong much more often.
    BadCalls {
        ms: u64,
    },
    /// Questions within the fleet get lost much more often.
    BadAsks {
        ms: u64,
    },
    BreakWatch {
        whom: Whom,
    },
    /// An arm of every canary is not ready.
    Unready {
        is_canary: bool,
        ms: u64,
    },
    /// Everybody is told the configuration again.
    Retell,
}

/// What goes wrong in this many milliseconds; at `trouble` 1 some five things.
pub(crate) fn faults(rng: &mut Rng, replicas: usize, troubled_ms: u64, trouble: f64) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let count = 5.0 * trouble * (0.5 + rng.f64());
    for number in 0_u8..16 {
        if f64::from(number) >= count {
            break;
        }
        faults.push((rng.u64(1_000..troubled_ms), fault(rng, replicas)));
    }
    faults.sort_by_key(|(at_ms, _)| *at_ms);
    faults
}

fn fault(rng: &mut Rng, replicas: usize) -> Fault {
    let whom = if rng.bool() { Whom::Leader } else { Whom::Nth(rng.usize(..replicas)) };
    match rng.u8(..20) {
        0..=3 => {
            let back_ms = (rng.u8(..4) > 0).then(|| rng.u64(200..6_000));
            Fault::Kill { whom, back_ms, same_pod: rng.bool() }
        }
        4 | 5 => Fault::Stop { whom, back_ms: rng.u64(0..4_000) },
        6 => Fault::Add,
        7..=12 => {
            let from =
                *pick(rng, &[From::Store, From::Store, From::One, From::OthersOneWay, From::Others, From::Everybody]);
            Fault::Cut { whom, from, ms: length(rng) }
        }
        13 => {
            // A minute is long for a world of seconds, so few see all of it.
            let ms = if rng.u8(..8) == 0 { rng.u64(20_000..60_000) } else { rng.u64(500..12_000) };
            Fault::Outage { ms }
        }
        14 => Fault::BadCalls { ms: length(rng) },
        15 => Fault::BadAsks { ms: length(rng) },
        16 | 17 => Fault::BreakWatch { whom },
        18 => Fault::Unready { is_canary: rng.bool(), ms: rng.u64(500..6_000) },
        _ => Fault::Retell,
    }
}

fn length(rng: &mut Rng) -> u64 {
    *pick(rng, &[500, 2_000, 5_000, 12_000]) + rng.u64(..3_000)
}
