//! Where steps, weights and deadlines begin and end.

use super::{plan, revision, weight};
use crate::{Needs, Observation, Phase, Readiness, State, Steps, StepsError, Weight, WeightOutOfRange, step};

/// The weights that a run goes through, or why there is no such run.
#[track_caller]
fn check(steps: Result<Steps, StepsError>, expected: Result<&[u8], StepsError>) {
    let weights = steps.map(|steps| {
        let rising = std::iter::successors(Some(Weight::ZERO), |now| steps.after(*now));
        rising.skip(1).map(Weight::percent).collect::<Vec<_>>()
    });
    assert_eq!(weights.as_deref(), expected.as_ref().map(|weights| *weights));
}

fn by(step: u64, max: u64) -> Result<Steps, StepsError> {
    Steps::by(weight(step), weight(max))
}

fn listed(weights: &[u64]) -> Result<Steps, StepsError> {
    Steps::listed(weights.iter().map(|percent| weight(*percent)).collect())
}

#[test]
fn steps_of_one_size_reach_the_maximum_and_may_pass_it_but_never_100() {
    check(by(20, 60), Ok(&[20, 40, 60]));
    check(by(20, 50), Ok(&[20, 40, 60]));
    check(by(60, 90), Ok(&[60, 100]));
    check(by(100, 100), Ok(&[100]));
    check(by(70, 5), Ok(&[70]));
    assert_eq!(by(1, 100).map(|steps| steps.max()), Ok(Weight::FULL));
}

#[test]
fn listed_steps_are_taken_as_they_are() {
    check(listed(&[5, 30, 100]), Ok(&[5, 30, 100]));
    check(listed(&[7]), Ok(&[7]));
    assert_eq!(listed(&[5, 30]).map(|steps| steps.max()), Ok(weight(30)));
}

#[test]
fn steps_that_never_arrive_are_refused() {
    check(by(0, 60), Err(StepsError::Zero));
    check(by(20, 0), Err(StepsError::Zero));
    check(listed(&[]), Err(StepsError::Empty));
    check(listed(&[0, 10]), Err(StepsError::Zero));
    check(listed(&[10, 10]), Err(StepsError::NotAscending { first: weight(10), then: weight(10) }));
    check(listed(&[10, 30, 20]), Err(StepsError::NotAscending { first: weight(30), then: weight(20) }));
}

#[test]
fn refused_steps_say_what_to_write_instead() {
    let said = [by(0, 60), listed(&[]), listed(&[10, 30, 20])].map(|steps| steps.expect_err("refused").to_string());
    assert_eq!(
        said,
        [
            "a step or maximum of 0 never moves any traffic; use 1 to 100",
            "no weights are listed; list at least one",
            "20 comes after 30; weights have to rise",
        ]
    );
}

#[test]
fn a_weight_that_is_no_longer_listed_goes_on_with_the_first_one_above() {
    let steps = listed(&[5, 20, 30]).expect("they rise");
    let after = [0, 5, 10, 29, 30, 31, 100].map(|now| steps.after(weight(now)).map(Weight::percent));
    assert_eq!(after, [Some(5), Some(20), Some(20), Some(30), None, None, None]);
}

#[test]
fn a_weight_is_at_most_100_wherever_it_comes_from() {
    assert_eq!(Weight::new(130), Err(WeightOutOfRange { given: 130, max: 100 }));
    assert_eq!(Weight::new(101 + (1 << 32)).map_err(|error| error.given), Err(101 + (1 << 32)));
    assert_eq!(Weight::new(130).expect_err("too much").to_string(), "weight 130 is more than 100");
    assert!(serde_json::from_str::<Weight>("101").is_err());
    assert_eq!(serde_json::from_str::<Weight>("100").ok(), Some(Weight::FULL));
    assert_eq!(weight(60).saturating_add(weight(60)), Weight::FULL);
}

#[test]
fn both_arms_share_all_traffic() {
    for percent in 0..=100 {
        let weight = weight(percent);
        assert_eq!(weight.percent() + weight.rest().percent(), 100);
        assert!(weight.coin().probability() <= f64::from(weight.percent()) / 100.0, "rounded toward the primary");
    }
    assert_eq!(weight(50).coin().k(), 1 << 31);
}

#[test]
fn phases_are_written_as_flagger_spells_them() {
    for phase in Phase::ALL {
        assert_eq!(serde_json::to_string(&phase).ok(), Some(format!("\"{phase}\"")));
    }
}

#[test]
fn asking_for_one_fact_is_asking() {
    assert!(Needs::default().is_empty());
    assert!(!Needs { primary: true, ..Needs::default() }.is_empty());
}

/// How a run of v2 fares whose canary is seen like this, one look after another, in milliseconds since it began.
#[track_caller]
fn check_deadline(deadline_ms: u64, looks: &[(u64, Readiness)], expected: &[Phase]) {
    let begin_ms = 5_000_000;
    let mut plan = plan();
    plan.progress_deadline_ms = deadline_ms;
    let promoted = Some(revision("v1"));
    let mut state = State::new(begin_ms);
    (state.phase, state.applied, state.promoted) = (Phase::Initialized, promoted.clone(), promoted);
    plan.revision = revision("v2");
    let mut look = |after_ms: u64, canary: Readiness| {
        let seen = Observation {
            now_ms: begin_ms + after_ms,
            primary: Readiness::Ready,
            canary,
            verdict: None,
            replicas: Vec::new(),
        };
        state = step(&plan, state.clone(), seen).state;
        state.phase
    };
    assert_eq!(look(0, Readiness::Ready), Phase::Progressing);
    let phases: Vec<Phase> = looks.iter().map(|(after_ms, canary)| look(*after_ms, canary.clone())).collect();
    assert_eq!(phases, expected);
}

fn waiting() -> Readiness {
    Readiness::Waiting("0 of 1".to_owned())
}

#[test]
fn a_deadline_is_over_when_its_last_millisecond_has_passed() {
    use Phase::{Failed, Progressing};
    check_deadline(
        1000,
        &[(500, waiting()), (1499, waiting()), (1500, waiting())],
        &[Progressing, Progressing, Failed],
    );
}

#[test]
fn being_ready_once_starts_the_deadline_anew() {
    use Phase::{Failed, Progressing};
    let looks = [(0, waiting()), (999, Readiness::Ready), (1500, waiting()), (2499, waiting()), (2500, waiting())];
    check_deadline(1000, &looks, &[Progressing, Progressing, Progressing, Progressing, Failed]);
}

#[test]
fn a_clock_that_is_set_back_ends_no_deadline() {
    use Phase::{Failed, Progressing};
    check_deadline(1000, &[(5000, waiting()), (0, waiting()), (6000, waiting())], &[Progressing, Progressing, Failed]);
}

#[test]
fn without_patience_the_first_look_decides() {
    check_deadline(0, &[(0, waiting())], &[Phase::Failed]);
}

#[test]
fn what_is_dead_is_not_waited_for() {
    check_deadline(1000, &[(0, Readiness::Dead("image not found".to_owned()))], &[Phase::Failed]);
}
