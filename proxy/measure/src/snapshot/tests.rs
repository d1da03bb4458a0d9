//! The algebra of snapshots: what a leader relies on when it adds replicas and subtracts moments.

use proptest::prelude::*;

use super::*;
use crate::bucket::Buckets;
use crate::counts::{ArmCounts, ArmRecord};
use crate::names::Arm;
use crate::outcome::OutcomeClass;

/// Small counts, and now and then one so large that sums saturate.
fn count() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![20 => 0u64..1000, 1 => Just(u64::MAX)]
}

fn arm_counts(count: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = ArmCounts> {
    let classes = prop::array::uniform12(count.clone());
    (count.clone(), count, classes).prop_map(|(routed, done, classes)| ArmCounts { routed, done, classes })
}

fn buckets(count: impl Strategy<Value = u64>) -> impl Strategy<Value = Buckets> {
    // Few buckets, so that two histograms often share one.
    prop::collection::vec((0usize..20, count), 0..8).prop_map(|entries| {
        let mut buckets = Buckets::new();
        for (index, count) in entries {
            buckets.add(index * 100, count);
        }
        buckets
    })
}

fn arm_record(count: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = ArmRecord> {
    (
        arm_counts(count.clone()),
        arm_counts(count.clone()),
        prop::array::uniform12(count.clone()),
        count.clone(),
        count.clone(),
        buckets(count.clone()),
        buckets(count),
    )
        .prop_map(|(evidence, other, served, replays, retries, latency_ok, latency_failed)| ArmRecord {
            evidence,
            other,
            served,
            replays,
            retries,
            latency_ok,
            latency_failed,
        })
}

fn key(boot: u64, name: &str, epoch: u64) -> CellKey {
    CellKey { boot: BootId(boot), canary: CanaryKey::new("test", name), epoch: EpochId(epoch) }
}

/// Keys from a small pool, so that two snapshots often share one.
fn snapshot(count: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Snapshot> {
    let parts = (0u64..2, prop_oneof![Just("podinfo"), Just("frontend")], 0u64..2);
    let counts = (arm_record(count.clone()), arm_record(count));
    prop::collection::vec((parts, counts), 0..5).prop_map(|entries| {
        entries
            .into_iter()
            .map(|((boot, name, epoch), (primary, canary))| (key(boot, name, epoch), EpochCounts { primary, canary }))
            .collect()
    })
}

fn merged(left: &Snapshot, right: &Snapshot) -> Snapshot {
    let mut sum = left.clone();
    sum.merge(right);
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merging_does_not_depend_on_the_order(
        a in snapshot(count()), b in snapshot(count()), c in snapshot(count()),
    ) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &Snapshot::new()), a);
    }

    #[test]
    fn a_difference_merged_into_the_earlier_gives_the_later(
        earlier in snapshot(0u64..1000), news in snapshot(0u64..1000),
    ) {
        let later = merged(&earlier, &news);
        prop_assert_eq!(&merged(&earlier, &later.since(&earlier)), &later);
        prop_assert_eq!(later.since(&Snapshot::new()), later);
    }

    #[test]
    fn unrelated_snapshots_subtract_without_a_panic(a in snapshot(count()), b in snapshot(count())) {
        let difference = a.since(&b);
        prop_assert_eq!(difference.len(), a.len());
        for (key, counts) in difference.iter() {
            let whole = a.get(key).expect("a key of a");
            for arm in Arm::ALL {
                prop_assert!(counts.latency(arm).count() <= whole.latency(arm).count());
                prop_assert!(counts.checks(arm).requests <= whole.checks(arm).requests);
            }
        }
    }

    #[test]
    fn a_snapshot_survives_the_wire(a in snapshot(count())) {
        let json = serde_json::to_string(&a).expect("plain values");
        prop_assert_eq!(serde_json::from_str::<Snapshot>(&json).expect("just written"), a);
    }

    #[test]
    fn cells_of_a_merged_snapshot_are_the_sum_of_the_cells(
        a in arm_record(0u64..1000), b in arm_record(0u64..1000),
    ) {
        let one = EpochCounts { primary: a.clone(), canary: b.clone() };
        let two = EpochCounts { primary: b, canary: a };
        let mut both = one.clone();
        both.merge(&two);
        prop_assert_eq!(both.cell(), one.cell().plus(two.cell()));
        prop_assert_eq!(both.cell().since(&one.cell()), two.cell());
    }
}

#[test]
fn one_canarys_boots_and_epochs_are_found_and_others_left_out() {
    let keys = [key(1, "frontend", 1), key(1, "podinfo", 1), key(1, "podinfo", 2), key(2, "podinfo", 2)];
    let mut snapshot: Snapshot = keys.iter().map(|key| (key.clone(), EpochCounts::default())).collect();
    let podinfo = CanaryKey::new("test", "podinfo");
    let found: Vec<_> = snapshot.of(&podinfo).map(|(key, _)| key.clone()).collect();
    assert_eq!(found, keys[1..]);

    snapshot.retain(|key, _| key.boot == BootId(2));
    assert_eq!(snapshot.len(), 1);
    assert!(snapshot.get(&keys[3]).is_some());
}

#[test]
fn inserting_under_a_known_key_adds() {
    let mut counts = EpochCounts::default();
    counts.canary.evidence.routed = 3;
    counts.canary.evidence.classes[OutcomeClass::S5xx.index()] = 2;
    let mut snapshot = Snapshot::new();
    snapshot.insert(key(1, "podinfo", 1), counts.clone());
    snapshot.insert(key(1, "podinfo", 1), counts);
    let cell = snapshot.get(&key(1, "podinfo", 1)).map(EpochCounts::cell);
    let cell = cell.expect("just inserted");
    assert_eq!((cell.n, cell.a, cell.b), (6, 4, 0));
}
