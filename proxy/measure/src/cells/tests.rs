//! What is counted, where, and what a reader may see while others write.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::counts::CheckCounts;
use crate::names::{BootId, CanaryKey, EpochId};

const OUTCOMES: [Outcome; 12] = [
    Outcome::Status(101),
    Outcome::Status(200),
    Outcome::Status(302),
    Outcome::Status(404),
    Outcome::Status(503),
    Outcome::Grpc,
    Outcome::ConnectFailed,
    Outcome::Reset,
    Outcome::Truncated,
    Outcome::Timeout,
    Outcome::ClientAbort,
    Outcome::Internal,
];

fn meter(threads: usize) -> EpochMeter {
    let key = CellKey { boot: BootId(1), canary: CanaryKey::new("test", "podinfo"), epoch: EpochId(1) };
    EpochMeter::new(key, threads)
}

/// One request from routing to its end, in a meter of its own.
fn one_request(arm: Arm, assignment: Assignment, outcome: Outcome) -> EpochMeter {
    let meter = meter(1);
    meter.shard(0).routed(arm, assignment);
    meter.shard(0).ended(arm, assignment, outcome, Some(1000));
    meter
}

fn cell(n: u64, a: u64, b: u64, done: u64) -> Cell {
    Cell { n, a, b, done }
}

#[track_caller]
fn check_cell(meter: &EpochMeter, expected: Cell) {
    assert_eq!(meter.look(), expected, "look");
    assert_eq!(meter.cut(&mut Cuts::default()), expected, "cut");
    assert_eq!(meter.snapshot().cell(), expected, "snapshot");
}

#[test]
fn every_outcome_of_every_assignment_is_counted_once_in_its_class() {
    for arm in Arm::ALL {
        for assignment in Assignment::ALL {
            for outcome in OUTCOMES {
                let counts = one_request(arm, assignment, outcome).snapshot();
                for class in OutcomeClass::ALL {
                    let is_here = assignment != Assignment::Replay && class == outcome.class();
                    let seen = counts.total(arm, class);
                    assert_eq!(seen, u64::from(is_here), "{assignment} {outcome:?} {class}");
                }
                let elsewhere = Arm::ALL[1 - arm.index()];
                assert_eq!(*counts.arm(elsewhere), Default::default());
            }
        }
    }
}

#[test]
fn a_drawn_failure_is_evidence_against_its_arm() {
    let drawn = Assignment::Drawn;
    for outcome in OUTCOMES {
        let failed = u64::from(outcome.is_failure());
        check_cell(&one_request(Arm::Canary, drawn, outcome), cell(1, failed, 0, 1));
        check_cell(&one_request(Arm::Primary, drawn, outcome), cell(1, 0, failed, 1));
    }
}

#[test]
fn requests_that_were_not_drawn_leave_the_evidence_untouched() {
    for assignment in Assignment::ALL {
        if assignment != Assignment::Drawn {
            let meter = one_request(Arm::Canary, assignment, Outcome::Reset);
            check_cell(&meter, Cell::default());
        }
    }
}

#[test]
fn a_client_that_leaves_is_no_failure_of_anyone() {
    let meter = one_request(Arm::Canary, Assignment::Drawn, Outcome::ClientAbort);
    check_cell(&meter, cell(1, 0, 0, 1));
    let expected = CheckCounts { requests: 1, failures: 0 };
    assert_eq!(meter.snapshot().checks(Arm::Canary), expected);
}

#[test]
fn the_checks_see_all_but_replays_and_our_own_faults() {
    for assignment in Assignment::ALL {
        for outcome in OUTCOMES {
            let checks = one_request(Arm::Canary, assignment, outcome).snapshot().checks(Arm::Canary);
            let counts = assignment.counts_for_checks() && outcome.is_counted_for_checks();
            let fails = counts && outcome.is_check_failure();
            let expected = CheckCounts { requests: u64::from(counts), failures: u64::from(fails) };
            assert_eq!(checks, expected, "{assignment} {outcome:?}");
        }
    }
}

#[test]
fn a_replay_is_counted_as_a_replay_only() {
    let counts = one_request(Arm::Primary, Assignment::Replay, Outcome::Status(200)).snapshot();
    let mut expected = EpochCounts::default();
    expected.primary.replays = 1;
    assert_eq!(counts, expected);
}

#[test]
fn latencies_of_successes_and_failures_are_kept_apart_and_read_together() {
    for outcome in OUTCOMES {
        let counts = one_request(Arm::Canary, Assignment::Sticky, outcome).snapshot();
        let is_known = !matches!(outcome, Outcome::ClientAbort | Outcome::Internal);
        let (ok, failed) = (counts.latency_ok(Arm::Canary).count(), counts.latency_failed(Arm::Canary).count());
        let expected = match (is_known, outcome.is_failure()) {
            (false, _) => (0, 0),
            (true, false) => (1, 0),
            (true, true) => (0, 1),
        };
        assert_eq!((ok, failed), expected, "{outcome:?}");
        let both = counts.latency(Arm::Canary);
        assert_eq!(both.count(), ok + failed);
        assert_eq!(both.quantile_us(0.5).is_some(), is_known);
    }
}

#[test]
fn a_latency_nobody_measured_is_no_latency() {
    let meter = meter(1);
    meter.shard(0).routed(Arm::Canary, Assignment::Drawn);
    let outcome = Outcome::Status(200);
    meter.shard(0).ended(Arm::Canary, Assignment::Drawn, outcome, None);
    check_cell(&meter, cell(1, 0, 0, 1));
    assert!(meter.snapshot().latency(Arm::Canary).is_empty());
}

#[test]
fn what_users_got_is_counted_apart_from_what_versions_did() {
    let meter = one_request(Arm::Canary, Assignment::Drawn, Outcome::Reset);
    meter.shard(0).routed(Arm::Primary, Assignment::Replay);
    let answer = Outcome::Status(200);
    meter.shard(0).ended(Arm::Primary, Assignment::Replay, answer, Some(900));
    meter.shard(0).served(Arm::Primary, answer);

    let counts = meter.snapshot();
    check_cell(&meter, cell(1, 1, 0, 1));
    assert_eq!(counts.primary.served[OutcomeClass::S2xx.index()], 1);
    assert_eq!(counts.canary.served, [0; OutcomeClass::COUNT]);
    assert_eq!(counts.primary.replays, 1);
    assert_eq!(counts.checks(Arm::Primary), CheckCounts::default());
}

#[test]
fn a_request_is_in_flight_from_its_routing_to_its_end() {
    let meter = meter(1);
    meter.shard(0).routed(Arm::Canary, Assignment::Drawn);
    meter.shard(0).routed(Arm::Primary, Assignment::Drawn);
    meter.shard(0).routed(Arm::Primary, Assignment::Forced);
    assert_eq!(meter.look().in_flight(), 2);
    meter.shard(0).ended(Arm::Canary, Assignment::Drawn, Outcome::Timeout, None);
    assert_eq!(meter.look().in_flight(), 1);
    check_cell(&meter, cell(2, 1, 0, 1));
}

#[test]
fn threads_beyond_the_number_of_shards_share_and_none_is_refused() {
    let meter = meter(0);
    for thread in [0, 1, 7, usize::MAX] {
        meter.shard(thread).routed(Arm::Canary, Assignment::Drawn);
    }
    check_cell(&meter, cell(4, 0, 0, 0));
}

#[test]
fn a_failure_between_two_readings_makes_the_reader_read_again_three_times_at_most() {
    /// `steady_at`: which reading, from 1, is the first steady one. Returns how many were taken and the n of the cut.
    #[track_caller]
    fn check(steady_at: u64, expected: (u64, Option<u64>)) {
        let mut taken = 0;
        let cut = steady_cut(|| {
            taken += 1;
            Reading { cell: cell(taken, 0, 0, 0), is_steady: taken >= steady_at }
        });
        assert_eq!((taken, cut.map(|cell| cell.n)), expected);
    }
    check(1, (1, Some(1)));
    check(2, (2, Some(2)));
    check(3, (3, Some(3)));
    check(4, (3, None));
}

#[test]
fn a_shard_that_gives_no_steady_reading_keeps_its_former_cut() {
    let (meter, mut cuts) = (meter(2), Cuts::default());
    let fail = |thread| {
        meter.shard(thread).routed(Arm::Canary, Assignment::Drawn);
        meter.shard(thread).ended(Arm::Canary, Assignment::Drawn, Outcome::Reset, None);
    };
    fail(0);
    fail(1);
    assert_eq!(meter.cut(&mut cuts), cell(2, 2, 0, 2));

    fail(0);
    fail(1);
    let is_torn = |shard: &Shard| std::ptr::eq(shard, meter.shard(0));
    let cut = cuts.advance(&meter.shards, |shard| Reading { is_steady: !is_torn(shard), ..shard.reading() });
    assert_eq!(cut, cell(3, 3, 0, 3));
    assert_eq!(meter.cut(&mut cuts), cell(4, 4, 0, 4));
}

/// Requests each thread makes, to the arms in turn. Of each four the first two fail, the canary's before the
/// primary's; so no thread is ever more than one canary failure ahead.
const REQUESTS: u64 = 300_000;

fn write_requests(shard: &Shard) {
    for i in 0..REQUESTS {
        let arm = if i % 2 == 0 { Arm::Canary } else { Arm::Primary };
        let outcome = Outcome::Status(if i % 4 < 2 { 500 } else { 200 });
        shard.routed(arm, Assignment::Drawn);
        shard.ended(arm, Assignment::Drawn, outcome, Some(i));
        shard.served(arm, outcome);
    }
}

#[track_caller]
fn check_order(name: &str, writers: usize, before: &mut Cell, now: Cell) {
    assert!(now.a <= now.b + writers as u64, "{name}: failures of the canary newer than the primary's: {now:?}");
    assert!(now.a + now.b <= now.n, "{name}: more failures than requests: {now:?}");
    assert!(now.done <= now.n, "{name}: more ended than began: {now:?}");
    assert_eq!(before.since(&now), Cell::default(), "{name}: went back to {now:?}");
    *before = now;
}

/// Reads until the writers are done, and then once more.
fn read_until(is_over: &AtomicBool, writers: usize, meter: &EpochMeter) {
    let (mut look, mut cut, mut cuts) = Default::default();
    let mut counts = EpochCounts::default();
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        // A snapshot takes far longer than a look, which would else hardly ever be taken.
        for _ in 0..100 {
            check_order("look", writers, &mut look, meter.look());
            check_order("cut", writers, &mut cut, meter.cut(&mut cuts));
        }
        let counts_now = meter.snapshot();
        check_order("snapshot", writers, &mut counts.cell(), counts_now.cell());
        assert_eq!(counts.since(&counts_now), EpochCounts::default(), "a counter went back");
        counts = counts_now;
        if is_last {
            return;
        }
    }
}

/// `writers` threads write to a meter with `shards` shards while a reader looks on.
#[track_caller]
fn check_concurrently(writers: usize, shards: usize) {
    let (meter, is_over) = (meter(shards), AtomicBool::new(false));
    let start = Barrier::new(writers + 1);
    thread::scope(|scope| {
        let mut writing = Vec::new();
        for thread in 0..writers {
            let (shard, start) = (meter.shard(thread), &start);
            writing.push(scope.spawn(move || {
                start.wait();
                write_requests(shard);
            }));
        }
        let reader = scope.spawn(|| {
            start.wait();
            read_until(&is_over, writers, &meter);
        });
        for writer in writing {
            writer.join().expect("a writer panicked");
        }
        is_over.store(true, Ordering::Release);
        reader.join().expect("the reader saw something impossible");
    });

    let all = writers as u64 * REQUESTS;
    let half = all / 2;
    check_cell(&meter, cell(all, all / 4, all / 4, all));
    let counts = meter.snapshot();
    for arm in Arm::ALL {
        assert_eq!(counts.latency(arm).count(), half);
        assert_eq!(counts.arm(arm).served.iter().sum::<u64>(), half);
    }
}

#[test]
fn a_reader_never_sees_the_impossible_and_no_count_is_lost() {
    check_concurrently(4, 4);
}

#[test]
fn stray_writers_on_one_shard_lose_nothing() {
    check_concurrently(4, 1);
}

/// Passing over a thousand shards takes long enough for failures to fall between two of a look's passes.
#[test]
fn a_look_over_many_shards_never_sees_newer_failures_of_the_canary_than_of_the_primary() {
    check_concurrently(1, 1000);
}

#[test]
fn a_unit_of_users_fails_once() {
    let units = FailedUnits::default();
    assert!(!units.contains(0));
    for unit in [0, 63, 64, u16::MAX] {
        assert!(units.insert(unit) && !units.insert(unit) && units.contains(unit), "{unit}");
    }
    assert!(!units.contains(1) && !units.contains(65));
}

#[test]
fn a_failure_that_is_not_scored_is_counted_and_leaves_nothing_in_flight() {
    let meter = meter(1);
    for _ in 0..2 {
        meter.shard(0).routed(Arm::Canary, Assignment::Drawn);
    }
    meter.shard(0).ended(Arm::Canary, Assignment::Drawn, Outcome::Reset, Some(1));
    meter.shard(0).ended_unscored(Arm::Canary, Outcome::Reset, Some(1));
    let cell = meter.look();
    assert_eq!((cell.n, cell.a, cell.in_flight()), (2, 1, 0));
    assert_eq!(meter.snapshot().checks(Arm::Canary).failures, 2, "the checks see both");
    assert_eq!(meter.snapshot().cell(), cell);
}
