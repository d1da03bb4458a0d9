//! What one epoch has counted so far, as plain integers that add: over threads, replicas and clusters.
//!
//! Two readings of the same numbers: [`EpochCounts::cell`] is the evidence (drawn requests only), and
//! [`EpochCounts::checks`] and [`EpochCounts::latency`] are what Flagger's builtin checks see (all that reached the arm).
//! Sums saturate rather than wrap, so that an absurd count from elsewhere can neither panic nor turn small.

use serde::{Deserialize, Serialize};

use crate::bucket::Buckets;
use crate::cells::Cell;
use crate::names::Arm;
use crate::outcome::OutcomeClass;

/// Everything counted in one epoch, by arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCounts {
    /// What the primary did.
    pub primary: ArmRecord,
    /// What the canary did.
    pub canary: ArmRecord,
}

impl EpochCounts {
    /// What `arm` did.
    pub const fn arm(&self, arm: Arm) -> &ArmRecord {
        match arm {
            Arm::Primary => &self.primary,
            Arm::Canary => &self.canary,
        }
    }

    /// What `arm` did, to be added to.
    pub const fn arm_mut(&mut self, arm: Arm) -> &mut ArmRecord {
        match arm {
            Arm::Primary => &mut self.primary,
            Arm::Canary => &mut self.canary,
        }
    }

    /// The evidence: drawn requests of both arms. Read while they were being written, it may be looked at but not cut
    /// at; see [`crate::EpochMeter::cut`].
    pub fn cell(&self) -> Cell {
        let (primary, canary) = (&self.primary.evidence, &self.canary.evidence);
        Cell {
            n: primary.routed.saturating_add(canary.routed),
            a: canary.failed(),
            b: primary.failed(),
            done: primary.done.saturating_add(canary.done),
        }
    }

    /// What Flagger's `request-success-rate` sees of `arm`: every request that ended there, but for replays and for
    /// faults of Serin's own.
    pub fn checks(&self, arm: Arm) -> CheckCounts {
        CheckCounts {
            requests: self.sum_of(arm, OutcomeClass::is_counted_for_checks),
            failures: self.sum_of(arm, OutcomeClass::is_check_failure),
        }
    }

    fn sum_of(&self, arm: Arm, is_asked_for: fn(OutcomeClass) -> bool) -> u64 {
        let asked = OutcomeClass::ALL.into_iter().filter(|&c| is_asked_for(c));
        asked.fold(0, |sum, class| sum.saturating_add(self.total(arm, class)))
    }

    /// First attempts on `arm` that ended in `class`, evidence and others together.
    pub const fn total(&self, arm: Arm, class: OutcomeClass) -> u64 {
        let record = self.arm(arm);
        let (evidence, other) = (&record.evidence.classes, &record.other.classes);
        evidence[class.index()].saturating_add(other[class.index()])
    }

    /// What Flagger's `request-duration` sees of `arm`: latencies of successes and failures together.
    pub fn latency(&self, arm: Arm) -> Buckets {
        let mut both = self.latency_ok(arm).clone();
        both.merge(self.latency_failed(arm));
        both
    }

    /// Latencies of the attempts on `arm` that did not fail.
    pub const fn latency_ok(&self, arm: Arm) -> &Buckets {
        &self.arm(arm).latency_ok
    }

    /// Latencies of the attempts on `arm` that failed: a canary that fails fast must not look fast.
    pub const fn latency_failed(&self, arm: Arm) -> &Buckets {
        &self.arm(arm).latency_failed
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.primary.merge(&other.primary);
        self.canary.merge(&other.canary);
    }

    /// What was counted after `earlier`. Exact when `earlier` is a former state of these counts; else no count goes
    /// below zero.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { primary: self.primary.since(&earlier.primary), canary: self.canary.since(&earlier.canary) }
    }
}

/// What the builtin checks count: requests that ended, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Requests that ended, failures included.
    pub requests: u64,
    /// Those that failed; never more than `requests`.
    pub failures: u64,
}

/// Everything counted about one arm in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmRecord {
    /// First attempts of drawn requests.
    pub evidence: ArmCounts,
    /// First attempts of forced, sticky, capped and diverted requests.
    pub other: ArmCounts,
    /// What users got in the end, by class; see [`OutcomeClass::index`].
    pub served: [u64; OutcomeClass::COUNT],
    /// Second attempts sent here after the other arm failed.
    pub replays: u64,
    /// Further attempts at the same arm, because a rule asked for them or a kept connection had been closed. Their requests are
    /// counted by their first attempts.
    pub retries: u64,
    /// Latencies of first attempts that did not fail, by microsecond bucket.
    pub latency_ok: Buckets,
    /// Latencies of first attempts that failed, by microsecond bucket.
    pub latency_failed: Buckets,
}

impl ArmRecord {
    fn merge(&mut self, other: &Self) {
        self.evidence.merge(&other.evidence);
        self.other.merge(&other.other);
        self.served = sums(&self.served, &other.served);
        self.replays = self.replays.saturating_add(other.replays);
        self.retries = self.retries.saturating_add(other.retries);
        self.latency_ok.merge(&other.latency_ok);
        self.latency_failed.merge(&other.latency_failed);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            evidence: self.evidence.since(&earlier.evidence),
            other: self.other.since(&earlier.other),
            served: differences(&self.served, &earlier.served),
            replays: self.replays.saturating_sub(earlier.replays),
            retries: self.retries.saturating_sub(earlier.retries),
            latency_ok: self.latency_ok.since(&earlier.latency_ok),
            latency_failed: self.latency_failed.since(&earlier.latency_failed),
        }
    }
}

/// First attempts of one arm: sent, ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests sent to the arm.
    pub routed: u64,
    /// Those that ended.
    pub done: u64,
    /// How they ended, by class; see [`OutcomeClass::index`].
    pub classes: [u64; OutcomeClass::COUNT],
}

impl ArmCounts {
    /// Attempts in which the version failed; see [`OutcomeClass::is_failure`].
    pub fn failed(&self) -> u64 {
        let failures = OutcomeClass::ALL.into_iter().filter(|c| c.is_failure());
        failures.fold(0, |sum, c| sum.saturating_add(self.classes[c.index()]))
    }

    fn merge(&mut self, other: &Self) {
        self.routed = self.routed.saturating_add(other.routed);
        self.done = self.done.saturating_add(other.done);
        self.classes = sums(&self.classes, &other.classes);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            routed: self.routed.saturating_sub(earlier.routed),
            done: self.done.saturating_sub(earlier.done),
            classes: differences(&self.classes, &earlier.classes),
        }
    }
}

type ByClass = [u64; OutcomeClass::COUNT];

fn sums(left: &ByClass, right: &ByClass) -> ByClass {
    std::array::from_fn(|class| left[class].saturating_add(right[class]))
}

fn differences(later: &ByClass, earlier: &ByClass) -> ByClass {
    std::array::from_fn(|class| later[class].saturating_sub(earlier[class]))
}
