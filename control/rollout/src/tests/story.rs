//! Whole rollouts. A script in `stories/NAME.txt` is played; what comes of it is reviewed in `stories/NAME.snap`.

use std::fmt::Write;
use std::path::Path;

use super::stage::{Beat, Stage};
use super::{judging_word, plan, told};
use crate::desired;

#[track_caller]
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/tests/stories/{name}.txt"));
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let story = tell(&script);
    insta::with_settings!({ snapshot_path => "stories", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, story);
    });
}

/// A script and, under each line, what came of it.
#[track_caller]
fn tell(script: &str) -> String {
    let mut stage = Stage::new(plan());
    let mut story = String::from("  time   phase         weight failed primary canary epoch\n");
    let mut hold = None;
    for line in script.lines().map(str::trim) {
        let mark = if line.is_empty() || line.starts_with('#') { "" } else { "> " };
        writeln!(story, "{mark}{line}").expect("a string takes everything");
        for beat in stage.play(line) {
            print(&mut story, &beat, &mut hold);
        }
    }
    story
}

fn print(story: &mut String, beat: &Beat, last_hold: &mut Option<String>) {
    let Beat { seconds, plan, state, notices } = beat;
    let (desired, epoch) = (desired(plan, state), &state.epoch);
    let canary = desired.canary.as_ref().map_or("-", |revision| &revision.0);
    let line = format!(
        "  {:02}:{:02}  {:<13} {:>6} {:>6} {:<7} {:<6} {} {}",
        seconds / 60,
        seconds % 60,
        state.phase,
        state.weight,
        state.failed_checks,
        desired.primary,
        canary,
        epoch.id,
        judging_word(epoch.judging),
    );
    writeln!(story, "{line}").expect("a string takes everything");
    for event in told(notices) {
        writeln!(story, "         {event}").expect("a string takes everything");
    }
    if let Some(hold) = state.hold.as_ref().filter(|hold| last_hold.as_ref() != Some(hold)) {
        writeln!(story, "         (held: {hold})").expect("a string takes everything");
    }
    last_hold.clone_from(&state.hold);
}

#[test]
fn checklist_82_a_good_release_goes_up_by_20_to_60_and_is_promoted() {
    check("good_release");
}

#[test]
fn checklist_89_the_tick_after_the_last_allowed_failed_check_rolls_back() {
    check("failed_checks");
}

#[test]
fn checklist_83_listed_weights_are_taken_in_order() {
    check("listed_weights");
}

#[test]
fn checklist_84_listed_weights_up_to_100_are_analysed_there_and_then_promoted() {
    check("listed_weights_to_100");
}

#[test]
fn checklist_82_a_maximum_between_two_steps_is_passed_by_the_last_one() {
    check("maximum_between_steps");
}

#[test]
fn a_fixed_weight_is_held_and_never_promoted() {
    check("fixed_weight");
}

#[test]
fn checklist_90_editing_listed_weights_in_mid_run_goes_on_with_the_next_one_above() {
    check("listed_weights_edited");
}

#[test]
fn checklist_74_a_new_revision_in_mid_run_begins_the_analysis_again() {
    check("new_revision_mid_run");
}

#[test]
fn checklist_76_a_new_revision_while_promoting_waits_for_the_end() {
    check("new_revision_while_promoting");
}

#[test]
fn checklist_216_a_revert_in_mid_run_ends_it_and_begins_none() {
    check("revert_mid_run");
}

#[test]
fn checklist_70_to_73_after_a_failure_a_revert_is_quiet_and_the_bad_one_is_tried_again() {
    check("revert_after_failure");
}

#[test]
fn checklist_154_without_analysis_a_ready_canary_is_promoted_in_one_tick() {
    check("skip_analysis");
}

#[test]
fn checklist_155_switching_the_analysis_off_in_mid_run_promotes_at_the_next_tick() {
    check("skip_analysis_mid_run");
}

#[test]
fn checklist_147_a_canary_that_never_becomes_ready_is_rolled_back_at_its_deadline() {
    check("canary_never_ready");
}

#[test]
fn checklist_149_150_a_primary_that_breaks_while_promoting_leaves_the_traffic_with_the_canary() {
    check("primary_breaks_while_promoting");
}

#[test]
fn checklist_149_150_a_primary_that_breaks_at_the_very_end_gives_the_traffic_back_to_the_canary() {
    check("primary_breaks_while_finalising");
}

#[test]
fn checklist_150_a_revert_after_a_failed_promotion_moves_traffic_when_the_primary_is_ready() {
    check("revert_after_failed_promotion");
}

#[test]
fn checklist_43_57_a_first_primary_that_is_not_ready_is_waited_for_and_never_taken_down() {
    check("first_primary_not_ready");
}

#[test]
fn checklist_207_a_restart_between_any_two_moves_is_not_noticed() {
    check("restart_mid_run");
}

#[test]
fn a_canary_that_breaks_while_promoting_is_taken_out_of_traffic() {
    check("canary_breaks_while_promoting");
}

#[test]
fn a_primary_that_breaks_in_mid_run_ends_it() {
    check("primary_breaks_mid_run");
}

#[test]
fn the_guard_brakes_between_ticks_and_the_same_revision_stays_out() {
    check("guard_brakes");
}

#[test]
fn a_guard_that_observes_says_once_a_run_what_it_would_do() {
    check("guard_observes");
}

#[test]
fn the_warm_up_comes_once_a_run_and_an_edited_guard_opens_an_epoch() {
    check("warm_up");
}
