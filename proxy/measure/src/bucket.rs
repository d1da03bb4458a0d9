//! Sorts latencies into HDR buckets, 1 µs to 60 s at 2 significant digits, and keeps sparse counts of them.
//!
//! The geometry is that of the `hdrhistogram` crate (`Histogram::new_with_bounds(1, 60_000_000, 2)`), so that request
//! threads can count into plain arrays and readers can hand the counts to the crate, which does the quantiles.
//!
//! ```text
//!  index    0 … 127 │ 128 … 255 │ 256 … 383 │ 384 … 511 │ …  128 more for each power of two
//!  µs       0 … 127 │ 128 … 255 │ 256 … 511 │ 512 … 1023 │ …
//!  wide           1 │         1 │         2 │          4 │ …
//! ```

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How many buckets there are.
pub const BUCKETS: usize = 2560;

/// The longest latency told apart, in microseconds. Whatever took longer counts as this long.
pub const MAX_US: u64 = 60_000_000;

/// Buckets for each power of two: 128 of them are at most 1 % wide, which is what 2 significant digits ask for.
const HALF_BITS: u32 = 7;

/// The bucket in which a latency of `us` microseconds is counted; below [`BUCKETS`] always.
///
/// The formula is `Histogram::index_for` of the `hdrhistogram` crate, for its unit 1 and 256 sub-buckets. The crate
/// itself uses the slack of its array for values of 60 to 67 s and sends still longer ones below them; here everything
/// from 60 s on falls into the one bucket that holds [`MAX_US`], so that a longer latency never has a lower bucket.
#[expect(clippy::cast_possible_truncation, reason = "the index of MAX_US is below 2560")]
pub fn index_of(us: u64) -> usize {
    let us = us.min(MAX_US);
    let row0_mask = (2 << HALF_BITS) - 1;
    let shift = 64 - (HALF_BITS + 1) - (us | row0_mask).leading_zeros();
    ((u64::from(shift) << HALF_BITS) + (us >> shift)) as usize
}

/// The shortest latency, in microseconds, that falls into bucket `index`; an index beyond the last counts as the last.
pub fn value_of(index: usize) -> u64 {
    let index = index.min(BUCKETS - 1) as u64;
    let shift = (index >> HALF_BITS).saturating_sub(1);
    (index - (shift << HALF_BITS)) << shift
}

/// Counts of latencies by bucket, of the buckets that have any. At most [`BUCKETS`] entries, usually some dozens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Buckets {
    /// (bucket, count), buckets strictly ascending and below [`BUCKETS`], counts above zero.
    counts: Vec<(u16, u64)>,
}

impl Buckets {
    /// No latency at all.
    pub const fn new() -> Self {
        Self { counts: Vec::new() }
    }

    /// Adds `count` latencies to bucket `index` (see [`index_of`]); an index beyond the last counts as the last.
    #[expect(clippy::cast_possible_truncation, reason = "cut to the last bucket, 2559, which fits")]
    pub fn add(&mut self, index: usize, count: u64) {
        if count == 0 {
            return;
        }
        let index = index.min(BUCKETS - 1) as u16;
        match self.counts.binary_search_by_key(&index, |entry| entry.0) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (index, count)),
        }
    }

    /// Adds `count` latencies of `us` microseconds each.
    pub fn record_n(&mut self, us: u64, count: u64) {
        self.add(index_of(us), count);
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for &(index, count) in &other.counts {
            self.add(usize::from(index), count);
        }
    }

    /// What was added after `earlier`. Exact when `earlier` is a former state of these counts; else no count goes below
    /// zero.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self
            .counts
            .iter()
            .map(|&(index, count)| (index, count.saturating_sub(earlier.at(index))))
            .filter(|&(_, count)| count > 0)
            .collect();
        Self { counts }
    }

    fn at(&self, index: u16) -> u64 {
        self.counts.binary_search_by_key(&index, |entry| entry.0).map_or(0, |at| self.counts[at].1)
    }

    /// (bucket, count) of every bucket that has any, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().map(|&(index, count)| (usize::from(index), count))
    }

    /// How many latencies there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The same counts as a histogram of the `hdrhistogram` crate, 20 KiB, for quantiles and its wire form.
    pub fn to_histogram(&self) -> Histogram<u64> {
        /// What one bucket may hold in the crate's histogram: beyond 2^53 in all, its quantiles, reckoned in `f64`,
        /// would miss the last count. A million requests a second take 40 days to get here.
        const COUNT_MAX: u64 = (1 << 53) / BUCKETS as u64;

        let mut histogram =
            Histogram::new_with_bounds(1, MAX_US, 2).expect("the crate accepts 1 µs to 60 s at 2 digits");
        for (index, count) in self.iter() {
            histogram
                .record_n(value_of(index), count.min(COUNT_MAX))
                .expect("every bucket lies within the crate's range");
        }
        histogram
    }

    /// The latency, in microseconds, that a share `q` (0 to 1) of all latencies did not exceed, as the upper edge of its
    /// bucket; nothing if there is no latency. The reckoning is the crate's `value_at_quantile`.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        (!self.is_empty()).then(|| self.to_histogram().value_at_quantile(q))
    }

    /// The mean latency in microseconds, each taken as the middle of its bucket; nothing if there is no latency.
    pub fn mean_us(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.to_histogram().mean())
    }

    /// The longest latency in microseconds, as the upper edge of its bucket; nothing if there is no latency.
    pub fn max_us(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.to_histogram().max())
    }
}

impl From<Buckets> for Vec<(u16, u64)> {
    fn from(buckets: Buckets) -> Self {
        buckets.counts
    }
}

impl TryFrom<Vec<(u16, u64)>> for Buckets {
    type Error = InvalidBuckets;

    fn try_from(counts: Vec<(u16, u64)>) -> Result<Self, Self::Error> {
        if let Some(&(index, _)) = counts.iter().find(|entry| usize::from(entry.0) >= BUCKETS) {
            return Err(InvalidBuckets::BeyondTheLast { index });
        }
        if let Some(&(index, _)) = counts.iter().find(|entry| entry.1 == 0) {
            return Err(InvalidBuckets::Zero { index });
        }
        if let Some(pair) = counts.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(InvalidBuckets::NotAscending { index: pair[1].0 });
        }
        Ok(Self { counts })
    }
}

/// Counts from elsewhere that cannot be a [`Buckets`]. The fault is the sender's; trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBuckets {
    /// There is no such bucket.
    #[error("bucket {index} is beyond the last, {}", BUCKETS - 1)]
    BeyondTheLast {
        /// The bucket named.
        index: u16,
    },
    /// Buckets without a count are left out.
    #[error("bucket {index} is listed with a count of zero")]
    Zero {
        /// The bucket named.
        index: u16,
    },
    /// Buckets are listed once each, from the shortest latency up.
    #[error("bucket {index} is not above the one before it")]
    NotAscending {
        /// The bucket out of order.
        index: u16,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn empty_histogram() -> Histogram<u64> {
        Buckets::new().to_histogram()
    }

    /// Latencies of all sizes: a shift makes every power of two as likely as the next.
    fn any_us() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(us, shift)| us >> shift)
    }

    #[track_caller]
    fn check(us: u64) {
        let crates = empty_histogram().lowest_equivalent(us.min(MAX_US));
        assert_eq!(value_of(index_of(us)), crates, "{us} µs");
    }

    #[test]
    fn the_buckets_are_the_crates_own_one_by_one() {
        let histogram = empty_histogram();
        assert_eq!(histogram.distinct_values(), BUCKETS);
        let mut seen = 0;
        for (index, bucket) in histogram.iter_all().enumerate() {
            let lowest = histogram.lowest_equivalent(bucket.value_iterated_to());
            assert_eq!(value_of(index), lowest, "bucket {index}");
            if lowest <= MAX_US {
                assert_eq!(index_of(lowest), index);
                let highest = bucket.value_iterated_to().min(MAX_US);
                assert_eq!(index_of(highest), index);
            }
            seen += 1;
        }
        assert_eq!(seen, BUCKETS);
    }

    #[test]
    fn the_edges_of_the_range_fall_where_the_crate_puts_them() {
        for us in [0, 1, 127, 128, 255, 256, 257, MAX_US - 1, MAX_US] {
            check(us);
        }
        for power in 0..64 {
            check((1 << power) - 1);
            check(1 << power);
        }
    }

    #[test]
    fn whatever_is_longer_than_a_minute_counts_as_a_minute() {
        for us in [MAX_US + 1, 65_000_000, 70_000_000, u64::MAX] {
            assert_eq!(index_of(us), index_of(MAX_US));
        }
    }

    #[test]
    fn indices_beyond_the_last_count_as_the_last() {
        assert_eq!(value_of(usize::MAX), value_of(BUCKETS - 1));
        let mut buckets = Buckets::new();
        buckets.add(usize::MAX, 3);
        assert_eq!(buckets.iter().collect::<Vec<_>>(), [(BUCKETS - 1, 3)]);
        assert_eq!(buckets.to_histogram().len(), 3);
    }

    #[test]
    fn counts_from_elsewhere_are_taken_only_in_order_and_in_range() {
        #[track_caller]
        fn refused(counts: Vec<(u16, u64)>, expected: InvalidBuckets) {
            assert_eq!(Buckets::try_from(counts), Err(expected));
        }
        refused(vec![(2560, 1)], InvalidBuckets::BeyondTheLast { index: 2560 });
        refused(vec![(1, 1), (2, 0)], InvalidBuckets::Zero { index: 2 });
        refused(vec![(2, 1), (2, 1)], InvalidBuckets::NotAscending { index: 2 });
        refused(vec![(2, 1), (1, 1)], InvalidBuckets::NotAscending { index: 1 });
        let good: Buckets = serde_json::from_str("[[1,5],[2559,1]]").expect("valid counts");
        assert_eq!(good.count(), 6);
    }

    #[test]
    fn absurd_counts_from_elsewhere_do_not_panic() {
        let all: Vec<_> = (0..2560).map(|index| (index, u64::MAX)).collect();
        let mut buckets = Buckets::try_from(all).expect("valid if absurd");
        buckets.merge(&buckets.clone());
        assert_eq!(buckets.count(), u64::MAX);
        assert_eq!(buckets.quantile_us(1.0), buckets.max_us());
        for q in [f64::NAN, -1.0, 2.0, f64::INFINITY] {
            assert!(buckets.quantile_us(q).is_some());
        }
    }

    #[test]
    fn without_a_latency_there_is_no_quantile() {
        let none = Buckets::new();
        assert_eq!(none.quantile_us(0.99), None);
        assert_eq!(none.mean_us(), None);
        assert_eq!(none.max_us(), None);
    }

    proptest! {
        #[test]
        fn any_latency_falls_where_the_crate_puts_it(us in any_us()) {
            check(us);
        }

        #[test]
        fn a_longer_latency_never_has_a_lower_bucket(a in any_us(), b in any_us()) {
            prop_assert!(index_of(a.min(b)) <= index_of(a.max(b)));
        }

        #[test]
        fn quantiles_are_those_of_a_histogram_fed_directly(
            latencies in prop::collection::vec((0..=MAX_US, 1u64..50), 1..60),
            q in 0.0..=1.0f64,
        ) {
            let (mut ours, mut direct) = (Buckets::new(), empty_histogram());
            for &(us, count) in &latencies {
                ours.record_n(us, count);
                direct.record_n(us, count).expect("in range");
            }
            prop_assert_eq!(ours.count(), direct.len());
            for q in [q, 0.0, 0.5, 0.99, 1.0] {
                prop_assert_eq!(ours.quantile_us(q), Some(direct.value_at_quantile(q)));
            }
            prop_assert_eq!(ours.max_us(), Some(direct.max()));
            prop_assert_eq!(ours.mean_us(), Some(direct.mean()));
            prop_assert!(ours.to_histogram() == direct);
        }
    }
}
