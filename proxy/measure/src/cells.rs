//! The writing side: counters that proxy threads bump as requests pass, and the integers a guard reads from them.
//!
//! Each thread has a [`Shard`] of its own, so that no counter's cache line is shared; a reader adds the shards up. No
//! side ever waits for the other, so a reader must choose the order in which it reads. The bet on the canary
//! (test martingales on counts: Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022)
//! rises with `a` and falls with `b` and `n`: a reader must never see a newer `a` than `b`, nor a newer `b` than `n`.
//!
//! ```text
//!  writer   routed ─▶ (the request travels) ─▶ class, latency ─▶ failed (a or b) ─▶ done        each Release
//!  look     a ─▶ b ─▶ done ─▶ n                                                                 each Acquire
//!  cut      a₁ ─▶ b₁ ─▶ done ─▶ n ─▶ b₂ ─▶ a₂     kept if a₁ = a₂ and b₁ = b₂
//! ```
//!
//! In flight is `n − done`; reading `done` first can only overstate it, and too many in flight is the safe error.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::bucket::{BUCKETS, Buckets, index_of};
use crate::counts::{ArmCounts, EpochCounts};
use crate::names::{Arm, Assignment};
use crate::outcome::{Outcome, OutcomeClass};
use crate::snapshot::CellKey;

#[cfg(test)]
mod tests;

/// What one process counts of one epoch of one canary, for all its threads.
pub struct EpochMeter {
    key: CellKey,
    shards: Box<[CachePadded<Shard>]>,
    failed_units: FailedUnits,
}

impl EpochMeter {
    /// A meter at zero for `threads` writing threads; at least one.
    pub fn new(key: CellKey, threads: usize) -> Self {
        let shards = (0..threads.max(1)).map(|_| CachePadded::default());
        Self { key, shards: shards.collect(), failed_units: FailedUnits::default() }
    }

    /// Whose counts these are.
    pub const fn key(&self) -> &CellKey {
        &self.key
    }

    /// The shard of the writing thread `thread`. Threads beyond the number given at the start share; that costs speed,
    /// never a count.
    pub fn shard(&self, thread: usize) -> &Shard {
        &self.shards[thread % self.shards.len()]
    }

    /// Units of users that have failed in this epoch. A unit has one coin, so it is scored once, whatever it does afterwards.
    pub const fn failed_units(&self) -> &FailedUnits {
        &self.failed_units
    }

    /// The evidence, read in one pass: what a tripwire looks at on every failure.
    ///
    /// All of `a` is read before any of `b`, and all of `b` before any of `n`: the bet on what is returned is at most the
    /// bet on the true counts of one moment, the one between reading `a` and `b`. May brake; must not advance.
    pub fn look(&self) -> Cell {
        let a = self.sum(|shard| shard.failed_of(Arm::Canary));
        let b = self.sum(|shard| shard.failed_of(Arm::Primary));
        let done = self.sum(Shard::evidence_done);
        let n = self.sum(Shard::evidence_routed);
        Cell { n, a, b, done }
    }

    /// The evidence, as a place where one slice may end and the next begin.
    ///
    /// Each shard is read until no failure fell between the two readings of its failures, at most three times; after
    /// that its former cut stands. A late cut is valid. A torn one is not: the next slice would see canary failures of an
    /// instant whose primary failures went to the slice before.
    ///
    /// `former` belongs to this meter and to one judge of it: give it back on every call.
    pub fn cut(&self, former: &mut Cuts) -> Cell {
        former.advance(&self.shards, Shard::reading)
    }

    /// Everything counted so far, for checks and displays. No counter is ever below what an earlier snapshot said.
    ///
    /// Requests that end meanwhile may be in some of the counters only. The evidence in it is read in the order of
    /// [`EpochMeter::look`], so it may be looked at, but it is no place to end a slice: that takes [`EpochMeter::cut`].
    pub fn snapshot(&self) -> EpochCounts {
        let mut counts = EpochCounts::default();
        for arm in [Arm::Canary, Arm::Primary] {
            self.each(arm, &mut counts, Tally::add_classes_to);
        }
        for arm in Arm::ALL {
            self.each(arm, &mut counts, Tally::add_done_to);
        }
        for arm in Arm::ALL {
            self.each(arm, &mut counts, Tally::add_routed_to);
        }
        for arm in Arm::ALL {
            let record = counts.arm_mut(arm);
            record.latency_ok = self.buckets(|shard| &shard.latency[arm.index()].ok);
            record.latency_failed = self.buckets(|shard| &shard.latency[arm.index()].failed);
            record.replays = self.sum(|shard| read(&shard.replays[arm.index()]));
            record.retries = self.sum(|shard| read(&shard.retries[arm.index()]));
            record.served = std::array::from_fn(|class| self.sum(|s| read(&s.served[arm.index()][class])));
        }
        counts
    }

    fn sum(&self, count_of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(|shard| count_of(shard)).sum()
    }

    fn each(&self, arm: Arm, counts: &mut EpochCounts, add: fn(&Tally, &mut ArmCounts)) {
        let record = counts.arm_mut(arm);
        for shard in &self.shards {
            add(&shard.evidence[arm.index()], &mut record.evidence);
            add(&shard.other[arm.index()], &mut record.other);
        }
    }

    fn buckets(&self, histogram_of: impl Fn(&Shard) -> &LazyHistogram) -> Buckets {
        let mut buckets = Buckets::new();
        for piece in 0..PIECES {
            let of_shards = self.shards.iter().filter_map(|shard| histogram_of(shard).piece(piece));
            let mut sums = None::<[u64; PIECE]>;
            for counts in of_shards {
                let sums = sums.get_or_insert([0; PIECE]);
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += read(count));
            }
            for (at, sum) in sums.into_iter().flatten().enumerate() {
                buckets.add(piece * PIECE + at, sum);
            }
        }
        buckets
    }
}

impl fmt::Debug for EpochMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochMeter").field("key", &self.key).field("cell", &self.look()).finish_non_exhaustive()
    }
}

/// The integers the evidence is reckoned from: drawn requests only. Cells of disjoint sources add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Requests routed, to both arms together.
    pub n: u64,
    /// Requests that failed at the canary.
    pub a: u64,
    /// Requests that failed at the primary.
    pub b: u64,
    /// Requests that ended, at both arms together.
    pub done: u64,
}

impl Cell {
    /// Requests routed that have not ended.
    pub const fn in_flight(&self) -> u64 {
        self.n.saturating_sub(self.done)
    }

    /// What was counted after `earlier`; no count goes below zero.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            n: self.n.saturating_sub(earlier.n),
            a: self.a.saturating_sub(earlier.a),
            b: self.b.saturating_sub(earlier.b),
            done: self.done.saturating_sub(earlier.done),
        }
    }

    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            n: self.n.saturating_add(other.n),
            a: self.a.saturating_add(other.a),
            b: self.b.saturating_add(other.b),
            done: self.done.saturating_add(other.done),
        }
    }

    /// Adds `other` to this one.
    pub const fn merge(&mut self, other: &Self) {
        *self = self.plus(*other);
    }
}

/// Where the slices of one judge ended last, shard by shard; see [`EpochMeter::cut`].
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    shards: Vec<Cell>,
}

impl Cuts {
    /// Moves the cut of every shard that gives a steady reading, and adds up where all of them stand now.
    fn advance(&mut self, shards: &[CachePadded<Shard>], read: impl Fn(&Shard) -> Reading) -> Cell {
        self.shards.resize(shards.len(), Cell::default());
        let mut total = Cell::default();
        for (shard, kept) in shards.iter().zip(&mut self.shards) {
            if let Some(cut) = steady_cut(|| read(shard)) {
                *kept = cut;
            }
            total.merge(kept);
        }
        total
    }
}

/// The counters of one thread. Written by one thread by construction; a stray second one loses nothing.
///
/// Nothing here locks, waits or panics. Memory is taken piece by piece, at the first latency that falls into one.
#[derive(Default)]
pub struct Shard {
    /// Drawn requests the version failed, by arm: one number each, because a guard must read it at one instant.
    failed: [AtomicU64; 2],
    /// Drawn requests, by arm.
    evidence: [Tally; 2],
    /// Forced, sticky, capped and diverted requests, by arm.
    other: [Tally; 2],
    served: [[AtomicU64; OutcomeClass::COUNT]; 2],
    replays: [AtomicU64; 2],
    retries: [AtomicU64; 2],
    latency: [Latency; 2],
}

impl Shard {
    /// A request is about to be sent to `arm`; to be called before its first byte leaves.
    pub fn routed(&self, arm: Arm, assignment: Assignment) {
        match self.tally(arm, assignment) {
            Some(tally) => bump(&tally.routed),
            None => bump(&self.replays[arm.index()]),
        }
    }

    /// The attempt announced by [`Shard::routed`] with the same `arm` and `assignment` has ended.
    ///
    /// `latency_us` is how long the backend took, in microseconds, if that is known. It is left out of the histograms
    /// when the client went away or Serin failed: neither says how fast the version is. A replay leaves no trace: its
    /// request was counted with its first attempt.
    pub fn ended(&self, arm: Arm, assignment: Assignment, outcome: Outcome, latency_us: Option<u64>) {
        let Some(tally) = self.tally(arm, assignment) else {
            return;
        };
        let class = outcome.class();
        bump(&tally.classes[class.index()]);
        if let Some(us) = latency_us.filter(|_| class.has_latency()) {
            self.latency[arm.index()].of(class).record(us);
        }
        if assignment.is_evidence() && class.is_failure() {
            bump(&self.failed[arm.index()]);
        }
        bump(&tally.done);
    }

    /// A request is about to be sent to `arm` once more; see [`crate::ArmRecord::retries`].
    pub fn retried(&self, arm: Arm) {
        bump(&self.retries[arm.index()]);
    }

    /// The same for a drawn request of a unit that has failed before in its epoch: it paid its fee when it was routed, and its failure is
    /// not scored.
    pub fn ended_unscored(&self, arm: Arm, outcome: Outcome, latency_us: Option<u64>) {
        let class = outcome.class();
        bump(&self.other[arm.index()].classes[class.index()]);
        if let Some(us) = latency_us.filter(|_| class.has_latency()) {
            self.latency[arm.index()].of(class).record(us);
        }
        bump(&self.evidence[arm.index()].done);
    }

    /// What the user got in the end, from `arm`: the answer of the last attempt.
    pub fn served(&self, arm: Arm, outcome: Outcome) {
        bump(&self.served[arm.index()][outcome.class().index()]);
    }

    /// Where a request is counted; nowhere if it is a replay.
    const fn tally(&self, arm: Arm, assignment: Assignment) -> Option<&Tally> {
        match assignment {
            Assignment::Drawn => Some(&self.evidence[arm.index()]),
            Assignment::Forced | Assignment::Sticky | Assignment::Capped | Assignment::Empty => {
                Some(&self.other[arm.index()])
            }
            Assignment::Replay => None,
        }
    }

    fn failed_of(&self, arm: Arm) -> u64 {
        read(&self.failed[arm.index()])
    }

    fn evidence_done(&self) -> u64 {
        self.evidence.iter().map(|tally| read(&tally.done)).sum()
    }

    fn evidence_routed(&self) -> u64 {
        self.evidence.iter().map(|tally| read(&tally.routed)).sum()
    }

    fn reading(&self) -> Reading {
        let a1 = self.failed_of(Arm::Canary);
        let b1 = self.failed_of(Arm::Primary);
        let done = self.evidence_done();
        let n = self.evidence_routed();
        let b2 = self.failed_of(Arm::Primary);
        let a2 = self.failed_of(Arm::Canary);
        Reading { cell: Cell { n, a: a1, b: b1, done }, is_steady: a1 == a2 && b1 == b2 }
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = self.reading().cell;
        f.debug_struct("Shard").field("cell", &cell).finish_non_exhaustive()
    }
}

/// A bit for each unit of users, made when the first one fails.
#[derive(Debug, Default)]
pub struct FailedUnits(OnceLock<Box<[AtomicU64]>>);

impl FailedUnits {
    /// Words for 2^16 units.
    const WORDS: usize = 1 << 10;

    /// Whether this unit has failed.
    pub fn contains(&self, unit: u16) -> bool {
        let (word, bit) = Self::place(unit);
        self.0.get().is_some_and(|words| words[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// This unit fails; false if it had failed before.
    pub fn insert(&self, unit: u16) -> bool {
        let (word, bit) = Self::place(unit);
        let words = self.0.get_or_init(|| (0..Self::WORDS).map(|_| AtomicU64::new(0)).collect());
        words[word].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn place(unit: u16) -> (usize, u64) {
        (usize::from(unit >> 6), 1 << (unit & 63))
    }
}

/// One pass over a shard's evidence while its thread goes on writing.
struct Reading {
    cell: Cell,
    /// Whether no failure fell between the first and the last number read.
    is_steady: bool,
}

/// The first steady reading, or nothing if failures keep falling.
fn steady_cut(mut read: impl FnMut() -> Reading) -> Option<Cell> {
    /// A reading takes well below a microsecond, so a second one is rare and a third rarer; past that, the former cut is
    /// as good and the reader owes nobody a loop without an end.
    const READINGS_MAX: usize = 3;

    (0..READINGS_MAX).map(|_| read()).find(|reading| reading.is_steady).map(|reading| reading.cell)
}

/// First attempts of one arm, in one thread.
#[derive(Default)]
struct Tally {
    routed: AtomicU64,
    done: AtomicU64,
    classes: [AtomicU64; OutcomeClass::COUNT],
}

impl Tally {
    fn add_classes_to(&self, counts: &mut ArmCounts) {
        for (sum, count) in counts.classes.iter_mut().zip(&self.classes) {
            *sum += read(count);
        }
    }

    fn add_done_to(&self, counts: &mut ArmCounts) {
        counts.done += read(&self.done);
    }

    fn add_routed_to(&self, counts: &mut ArmCounts) {
        counts.routed += read(&self.routed);
    }
}

/// Latencies of one arm, in one thread.
#[derive(Default)]
struct Latency {
    ok: LazyHistogram,
    failed: LazyHistogram,
}

impl Latency {
    const fn of(&self, class: OutcomeClass) -> &LazyHistogram {
        if class.is_failure() { &self.failed } else { &self.ok }
    }
}

/// Buckets whose counters are made together: half a power of two. Latencies of one backend fall into a few such pieces, so a
/// route takes some KiB and not the 20 of all buckets; with ten thousand routes that is what fits into caches.
const PIECE: usize = 64;
const PIECES: usize = BUCKETS / PIECE;

/// Counters by latency bucket, each made at the first latency near it: most epochs never see a failure, and an arm without
/// traffic costs nothing. 64 bits each, because at 50,000 requests a second into one bucket 32 bits would wrap in a day.
#[derive(Default)]
struct LazyHistogram {
    pieces: OnceLock<Box<[Piece; PIECES]>>,
}

type Piece = OnceLock<Box<[AtomicU64; PIECE]>>;

impl LazyHistogram {
    fn record(&self, us: u64) {
        let index = index_of(us);
        let pieces = self.pieces.get_or_init(|| Box::new([const { OnceLock::new() }; PIECES]));
        let piece = pieces[index / PIECE].get_or_init(|| Box::new([const { AtomicU64::new(0) }; PIECE]));
        bump(&piece[index % PIECE]);
    }

    /// The counters of one piece, if it has any.
    fn piece(&self, piece: usize) -> Option<&[AtomicU64; PIECE]> {
        self.pieces.get()?[piece].get().map(|counts| &**counts)
    }
}

/// Release: who sees this count also sees every count the same thread made before it.
fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Release);
}

/// Acquire: whatever is read after this is at least as new.
fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}
