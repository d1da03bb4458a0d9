//! Thresholds and their texts. Numbers in comments are those of the compatibility checklist.

use super::*;

const MINUTE_MS: u64 = 60_000;

fn success_rate_check(min: Option<f64>, max: Option<f64>) -> Check {
    let name = "request-success-rate".to_owned();
    Check { name, kind: CheckKind::SuccessRate, range: Range { min, max }, interval_ms: MINUTE_MS }
}

fn duration_check(min: Option<f64>, max: Option<f64>) -> Check {
    let name = "request-duration".to_owned();
    Check { name, kind: CheckKind::Duration, range: Range { min, max }, interval_ms: MINUTE_MS }
}

fn counted(requests: u64, failures: u64) -> Window {
    Window { requests, failures, p99_us: None, complete: true }
}

fn timed(p99_us: u64) -> Window {
    Window { requests: 100, failures: 0, p99_us: Some(p99_us), complete: true }
}

fn nothing(complete: bool) -> Window {
    Window { complete, ..Window::default() }
}

fn judged(checks: &[Check], windows: &[Window]) -> (Verdict, Vec<CheckResult>) {
    judge("podinfo.test", "podinfo-app.test", "serin", checks, &Seen { windows: windows.to_vec() })
}

/// One check alone: an empty text for a pass, or the event of the halt.
#[track_caller]
fn check(check: Check, window: Window, expected: &str) {
    let (verdict, results) = judged(&[check], &[window]);
    let (message, outcome) = match expected {
        "" => (Verdict::Pass, CheckOutcome::Passed),
        text => (Verdict::Halt { message: text.to_owned() }, CheckOutcome::Failed { message: text.to_owned() }),
    };
    assert_eq!(verdict, message);
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].outcome, outcome);
}

#[test]
fn a_success_rate_outside_its_range_halts_in_flaggers_words() {
    // 169, 171, 172
    let min = |min| success_rate_check(Some(min), None);
    check(min(99.0), counted(1_000, 25), "Halt podinfo.test advancement success rate 97.50% < 99%");
    check(min(99.0), counted(1_000, 10), "");
    check(min(99.0), counted(1_000, 11), "Halt podinfo.test advancement success rate 98.90% < 99%");
    check(min(99.9), counted(1_000, 1), "");
    check(min(99.95), counted(3_000, 2), "Halt podinfo.test advancement success rate 99.93% < 99.95%");
    let max = success_rate_check(None, Some(50.0));
    check(max.clone(), counted(4, 1), "Halt podinfo.test advancement success rate 75.00% > 50%");
    check(max, counted(4, 2), "");
}

#[test]
fn a_canary_that_fails_every_request_has_a_rate_of_0_percent() {
    // 215
    let check_99 = success_rate_check(Some(99.0), None);
    check(check_99.clone(), counted(40, 40), "Halt podinfo.test advancement success rate 0.00% < 99%");
    let (_, results) = judged(&[check_99], &[counted(40, 40)]);
    assert_eq!(results[0].value, Some(0.0));
}

#[test]
fn a_duration_outside_its_range_halts_in_flaggers_words() {
    // 170, 171
    let max = |max| duration_check(None, Some(max));
    check(max(500.0), timed(1_500_000), "Halt podinfo.test advancement request duration 1.5s > 500ms");
    check(max(500.0), timed(500_000), "");
    check(max(500.0), timed(500_999), "");
    check(max(500.0), timed(501_000), "Halt podinfo.test advancement request duration 501ms > 500ms");
    check(max(30_000.0), timed(60_000_000), "Halt podinfo.test advancement request duration 1m0s > 30s");
    let min = duration_check(Some(10.0), None);
    check(min.clone(), timed(9_900), "Halt podinfo.test advancement request duration 9ms < 10ms");
    check(min, timed(10_000), "");
}

#[test]
fn bounds_in_fractions_of_a_millisecond_are_honoured() {
    // 173
    let max = |max| duration_check(None, Some(max));
    check(max(0.5), timed(500), "");
    check(max(0.5), timed(501), "Halt podinfo.test advancement request duration 501\u{b5}s > 500\u{b5}s");
    check(max(99.9), timed(99_900), "");
    check(max(99.9), timed(99_950), "Halt podinfo.test advancement request duration 99.95ms > 99.9ms");
    check(max(0.0), timed(999), "");
}

#[test]
fn a_range_without_ends_passes_everything() {
    check(success_rate_check(None, None), counted(10, 10), "");
    check(duration_check(None, None), timed(60_000_000), "");
}

#[test]
fn silence_over_a_full_interval_halts_in_flaggers_words() {
    // 174
    check(
        success_rate_check(Some(99.0), None),
        nothing(true),
        "Halt advancement no values found for serin metric request-success-rate probably podinfo-app.test \
         is not receiving traffic: running query failed: no values found",
    );
    check(
        duration_check(None, Some(500.0)),
        nothing(true),
        "Halt advancement no values found for serin metric request-duration probably podinfo-app.test \
         is not receiving traffic",
    );
}

#[test]
fn silence_before_a_full_interval_waits() {
    let checks = [success_rate_check(Some(99.0), None), duration_check(None, Some(500.0))];
    let (verdict, results) = judged(&checks, &[nothing(false), nothing(false)]);
    let reason = "no values yet for request-success-rate, and the step is younger than 1m0s".to_owned();
    assert_eq!(verdict, Verdict::Wait { reason });
    assert!(results.iter().all(|result| result.outcome == CheckOutcome::Pending && result.value.is_none()));
    assert_eq!(results.len(), 2);
}

#[test]
fn a_window_that_is_missing_waits_rather_than_passes() {
    let (verdict, _) = judged(&[success_rate_check(None, None)], &[]);
    assert!(matches!(verdict, Verdict::Wait { .. }), "{verdict:?}");
}

#[test]
fn values_are_judged_even_before_a_full_interval() {
    let early = Window { complete: false, ..counted(10, 5) };
    check(success_rate_check(Some(99.0), None), early, "Halt podinfo.test advancement success rate 50.00% < 99%");
}

#[test]
fn a_failure_halts_although_an_earlier_check_waits() {
    let checks = [success_rate_check(Some(99.0), None), duration_check(None, Some(500.0))];
    let (verdict, results) = judged(&checks, &[nothing(false), timed(501_000)]);
    let message = "Halt podinfo.test advancement request duration 501ms > 500ms".to_owned();
    assert_eq!(verdict, Verdict::Halt { message });
    assert_eq!(results.len(), 2);
}

#[test]
fn the_first_failure_ends_the_evaluation() {
    // 176
    let checks = [success_rate_check(Some(99.0), None), duration_check(None, Some(500.0))];
    let both = Window { failures: 50, ..timed(900_000) };
    let (verdict, results) = judged(&checks, &[both, both]);
    let message = "Halt podinfo.test advancement success rate 50.00% < 99%".to_owned();
    assert_eq!(verdict, Verdict::Halt { message });
    assert_eq!(results.len(), 1);
}

#[test]
fn no_checks_pass() {
    assert_eq!(judged(&[], &[]), (Verdict::Pass, Vec::new()));
}

#[test]
fn a_result_carries_the_value_in_the_unit_of_the_check() {
    let checks = [success_rate_check(Some(99.0), None), duration_check(None, Some(500.0))];
    let window = Window { requests: 400, failures: 1, p99_us: Some(12_345), complete: true };
    let (verdict, results) = judged(&checks, &[window, window]);
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(results[0].value, Some(99.75));
    assert_eq!(results[1].value, Some(12.345));
}

#[test]
fn a_bound_is_printed_as_go_prints_it() {
    let cases = [
        (99.0, "99"),
        (99.5, "99.5"),
        (0.0, "0"),
        (0.0001, "0.0001"),
        (0.000_012, "1.2e-05"),
        (1e21, "1e+21"),
        (-3.0, "-3"),
    ];
    for (number, expected) in cases {
        assert_eq!(go_float(number), expected);
    }
}

#[test]
fn a_stored_result_reads_back_the_same() {
    let (verdict, results) = judged(&[success_rate_check(Some(99.0), None)], &[counted(1_000, 25)]);
    let text = serde_json::to_string(&(&verdict, &results)).unwrap();
    let read: (Verdict, Vec<CheckResult>) = serde_json::from_str(&text).unwrap();
    assert_eq!(read, (verdict, results));
}
