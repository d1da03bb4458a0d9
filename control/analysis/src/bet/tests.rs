//! The bets against vectors worked out elsewhere, and what is stored against what is read back.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts and seconds in tests are small whole numbers"
)]

use serde_json::Value;

use super::*;
use crate::vectors::{assert_close, list, number, vectors};

/// A slice of the vectors, `[w, n, a, b]`.
fn slice(cell: &Value, delta: f64) -> Slice {
    let count = |at: usize| cell[at].as_u64().expect("a count");
    Slice { w: number(&cell[0]), delta, n: count(1), a: count(2), b: count(3), in_flight: 0 }
}

/// The mean of the bets when all is bet at once. Public evidence holds back half: `E = 1/2 + mean/2` in the first slice.
pub(super) fn mixture(slices: &[Slice]) -> f64 {
    let e = Evidence::new().advance(slices, 1).ln_e().exp();
    (e - (1.0 - START)) / START
}

#[test]
fn factors_agree_with_the_vectors() {
    for case in list(&vectors()["T1_factors"]) {
        let [w, r, r0, delta] = ["w", "r", "r0", "delta"].map(|name| number(&case[name]));
        let seen = factors(w, r, r0, delta);
        for (name, factor) in [("ln_fc", seen.ln_fc), ("ln_fp", seen.ln_fp), ("ln_f0", seen.ln_f0)] {
            assert_close(factor, number(&case[name]), &format!("{name} of {case}"));
        }
    }
}

/// Cases of slices that are bet on all at once.
#[track_caller]
fn check_mixtures(cases: &Value) {
    for case in list(cases) {
        let delta = number(&case["delta"]);
        let slices: Vec<Slice> = list(&case["slices"]).iter().map(|cell| slice(cell, delta)).collect();
        assert_close(mixture(&slices), number(&case["E"]), &case.to_string());
    }
}

#[test]
fn the_mixture_agrees_with_the_vectors() {
    check_mixtures(&vectors()["T2_mixture_no_restart"]);
}

#[test]
fn the_mixture_at_a_manifests_tolerance_agrees_with_the_vectors() {
    check_mixtures(&vectors()["T18_default_tolerance"]["E"]);
}

#[test]
fn the_mixture_over_hashed_users_coins_agrees_with_the_vectors() {
    let case = &vectors()["T17_hash_sticky"];
    let of = |cell: &Value| {
        let count = |name: &str| cell[name].as_u64().expect("a count");
        let step = &case["steps"][usize::try_from(count("step")).expect("a small number")];
        let w = number(&step["num"]) / number(&step["den"]);
        Slice { w, delta: number(&case["delta"]), n: count("n"), a: count("a"), b: count("b"), in_flight: 0 }
    };
    let slices: Vec<Slice> = list(&case["cells"]).iter().map(of).collect();
    assert_close(mixture(&slices), number(&case["E"]), "hashed users");
}

/// The story of the restart vectors, with requests in flight or as if there were none.
#[track_caller]
fn check_restarts(expected: &str, has_in_flight: bool) {
    let case = &vectors()["T3_restart"];
    let slices = list(&case["slices"]);
    let begin_s = |at: usize| slices.get(at).map_or(7_200, |slice| number(&slice[0]) as u64);
    let mut evidence = Evidence::new();
    for (at, e) in list(&case[expected]).iter().enumerate() {
        let [w, n, a, b, in_flight] = [1, 2, 3, 4, 5].map(|field| number(&slices[at][field]));
        let in_flight = if has_in_flight { in_flight as u64 } else { 0 };
        let slice = Slice { w, delta: number(&case["delta"]), n: n as u64, a: a as u64, b: b as u64, in_flight };
        assert_eq!(evidence.judged_ms(), begin_s(at) * 1_000);
        evidence = evidence.advance(&[slice], (begin_s(at + 1) - begin_s(at)) * 1_000);
        assert_close(evidence.ln_e().exp(), number(e), &format!("{expected}, slice {at}"));
    }
}

#[test]
fn later_stakes_pay_for_requests_in_flight() {
    check_restarts("E", true);
}

#[test]
fn later_stakes_agree_with_the_vectors_when_nothing_is_in_flight() {
    check_restarts("E_nothing_in_flight", false);
}

#[test]
fn the_stake_is_let_out_on_schedule() {
    for case in list(&vectors()["T20_schedule"]) {
        let judged_ms = (number(&case["t_s"]) * 1_000.0) as u64;
        let evidence = Evidence::new().resumed(judged_ms);
        assert_close(evidence.cash(), number(&case["cash"]), &case.to_string());
    }
}

/// All 256 ways to route eight requests that would end the same on either version: the game is fair to the last digit.
#[track_caller]
fn check_fairness(delta: f64, expected: f64) {
    const FAILS: [bool; 8] = [true, true, false, true, false, false, true, true];
    let w: f64 = 0.1;
    let mut mean = 0.0;
    for routing in 0u32..256 {
        let is_canary = |at: usize| routing >> at & 1 == 1;
        let failed = |canary: bool| (0..8).filter(|&at| FAILS[at] && is_canary(at) == canary).count() as u64;
        let slice = Slice { w, delta, n: 8, a: failed(true), b: failed(false), in_flight: 0 };
        let canary = routing.count_ones().cast_signed();
        mean += w.powi(canary) * (1.0 - w).powi(8 - canary) * mixture(&[slice]);
    }
    assert_close(mean, expected, &format!("mean evidence at tolerance {delta}"));
}

#[test]
fn over_all_routings_the_mean_evidence_is_what_the_fees_leave() {
    check_fairness(0.0, 1.0);
    check_fairness(0.001, 0.997_312_730_834_019_1);
    check_fairness(0.01, 0.973_696_820_178_605_6);
}

const FAILING: Slice = Slice { w: 0.1, delta: 0.001, n: 100, a: 2, b: 1, in_flight: 7 };

#[test]
fn certain_coins_say_nothing() {
    let evidence = Evidence::new().advance(&[FAILING], 250);
    for w in [0.0, 1.0] {
        let certain = Slice { w, n: 50, a: 50, ..FAILING };
        assert_eq!(evidence.clone().advance(&[certain], 250), evidence, "w {w}");
        let beside = evidence.clone().advance(&[certain, FAILING], 250);
        assert_eq!(beside, evidence.clone().advance(&[FAILING], 250), "w {w}");
    }
    assert_eq!(evidence.clone().advance(&[], 250), evidence);
}

#[test]
fn a_failure_seen_after_its_routing_counts_as_if_seen_at_once() {
    let routed = Slice { n: 100, a: 0, b: 0, in_flight: 0, ..FAILING };
    let seen_later = Slice { n: 0, a: 2, b: 1, in_flight: 100, ..FAILING };
    let at_once = Slice { in_flight: 0, ..FAILING };
    // No time passes between the slices, so no second stake starts.
    let later = Evidence::new().advance(&[routed], 0).advance(&[seen_later], 0);
    assert_close(later.ln_e(), Evidence::new().advance(&[at_once], 0).ln_e(), "ln E");
}

#[test]
fn a_restart_gives_up_the_stake_that_fell_due_and_keeps_the_bets() {
    let before = Evidence::new().advance(&[FAILING], 250);
    let after = before.clone().resumed(1_800_000);
    assert_eq!(after.judged_ms(), 1_800_000);
    assert_close(after.cash(), 0.25, "cash");
    let bets = |evidence: &Evidence| evidence.ln_e().exp() - evidence.cash();
    assert_close(bets(&after), bets(&before), "worth of the bets");
    assert_eq!(before.clone().resumed(0).judged_ms(), before.judged_ms());
}

#[track_caller]
fn check_round_trip(evidence: &Evidence) {
    let text = serde_json::to_string(evidence).unwrap();
    let read: Evidence = serde_json::from_str(&text).unwrap();
    let bits = |evidence: &Evidence| (evidence.cash.to_bits(), evidence.ln_w.map(f64::to_bits), evidence.judged_ms);
    assert_eq!(bits(&read), bits(evidence), "{text}");
}

#[test]
fn stored_evidence_reads_back_to_the_bit() {
    let mut evidence = Evidence::new();
    check_round_trip(&evidence);
    for n in [1, 97, 1_000_003, 99_999_999_999] {
        evidence = evidence.advance(&[Slice { n, ..FAILING }], n);
        check_round_trip(&evidence);
    }
}

#[test]
fn spoilt_evidence_is_refused_with_a_sentence() {
    let spoil = |from: &str, to: &str| {
        let text = serde_json::to_string(&Evidence::new()).unwrap().replacen(from, to, 1);
        serde_json::from_str::<Evidence>(&text).unwrap_err().to_string()
    };
    assert_eq!(spoil(r#""1""#, r#""NaN""#), "cash is a number above 0 and at most 1, not NaN");
    assert_eq!(spoil(r#""1""#, r#""1.5""#), "cash is a number above 0 and at most 1, not 1.5");
    assert_eq!(spoil("-inf", "inf"), "ln_w holds numbers below infinity, not inf");
    assert_eq!(spoil("-inf", "much"), "ln_w holds numbers below infinity, not much");
}
