//! The loop taken by hand: what comes into force before and after it is saved, and what no store can hold up.

use std::sync::Arc;
use std::time::Duration;

use serin_measure::Cell;
use serin_rollout::Phase;

use super::*;
use crate::entry::Pending;
use crate::store::Version;

mod fleet;
mod rig;

use rig::{INTERVAL_MS, Memory, Plane, Rig, start, workload};

#[tokio::test(start_paused = true)]
async fn a_step_comes_into_force_when_it_is_saved_and_not_before() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    assert_eq!((rig.weight(), rig.state().weight.percent()), (20, 20), "the save is still on its way");
    drop(held);
    rig.hear_all().await;
    assert_eq!((rig.weight(), store.saved.lock()[&rig.key].state.weight.percent()), (40, 40));
}

#[tokio::test(start_paused = true)]
async fn checklist_211_a_new_revision_is_answered_at_once_and_not_at_the_interval() {
    let mut rig = Rig::start(Arc::new(Memory::open())).await;
    rig.tick().await;
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    rig.answer_ready().await;
    assert_eq!((rig.state().phase, rig.saved().phase), (Phase::Progressing, Phase::Progressing));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_saved_does_not_advance_and_says_so_until_it_can() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    for _ in 0..3 {
        rig.tick().await;
    }
    assert_eq!(rig.weight(), 20);
    let alarm = rig.controller.board.read().canaries[&rig.key].alarm.clone().expect("an alarm");
    assert!(alarm.contains("nothing advances") && alarm.ends_with("disk full"), "{alarm}");
    assert!(rig.controller.tally.save_failures >= 3);
    assert!(
        !rig.messages().contains(&"Advance app.default canary weight 40".to_owned()),
        "what did not happen is not told"
    );
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!(rig.weight(), 40);
    assert_eq!(rig.controller.board.read().canaries[&rig.key].alarm, None);
}

#[tokio::test(start_paused = true)]
async fn a_brake_waits_for_no_store_and_is_saved_when_saving_works_again() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.trip(rig.state().rollout);
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed), "in force at once");
    rig.hear_all().await;
    assert_eq!(
        (rig.saved().phase, rig.saved().weight.percent()),
        (Phase::Progressing, 20),
        "the store knows nothing yet"
    );
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!(rig.saved().phase, Phase::Failed);
    let told = rig.store.saved.lock()[&rig.key].events.iter().map(|event| event.message.clone()).collect::<Vec<_>>();
    assert_eq!(told.last().map(String::as_str), Some("Canary failed! Scaling down app.default"));
}

#[tokio::test(start_paused = true)]
async fn a_brake_beats_a_step_that_is_being_saved() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    rig.trip(rig.state().rollout);
    assert_eq!(rig.weight(), 0);
    drop(held);
    rig.hear_all().await;
    assert_eq!(
        (rig.weight(), rig.state().phase),
        (0, Phase::Failed),
        "the step that was saved first never came into force"
    );
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_brake_that_is_saved_over_a_step_has_an_epoch_of_its_own() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    let step = match &rig.controller.entries[&rig.key].saving {
        Some(Pending::Step(step, _)) => step.epoch.clone(),
        other => panic!("the step to 40 is being saved, not {other:?}"),
    };
    rig.trip(rig.state().rollout);
    drop(held);
    rig.hear_all().await;
    rig.tick().await;
    let saved = rig.saved().epoch;
    assert!(saved.id > step.id && rig.state().epoch == saved, "{saved:?} after {step:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_saved_late_is_not_undone_because_nothing_moved_meanwhile() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
    rig.controller.beat();
    let (number, canary) = (rig.controller.entries[&rig.key].observing.expect("a tick"), rig.key.clone());
    let (primary, canary_arm) = (Readiness::Ready, Readiness::Waiting("a pod is missing".to_owned()));
    rig.controller.hear(Message::Observed { canary, number, primary, canary_arm, took: Duration::ZERO });
    assert_eq!((rig.weight(), rig.state().hold.is_some()), (20, true), "in force, as saving hangs");
    drop(held);
    rig.hear_all().await;
    assert_eq!((rig.weight(), rig.saved().weight.percent()), (40, 40), "others have seen it by now");
}

#[tokio::test(start_paused = true)]
async fn evidence_over_the_limit_brakes_without_a_tripwire() {
    let mut rig = Rig::at_first_weight().await;
    let epoch = rig.state().epoch.id;
    *rig.plane.cells.lock() = vec![(epoch, Cell { n: 200, a: 40, b: 0, done: 200 })];
    assert!(
        rig.plane.armed.lock().as_ref().is_some_and(|checkpoint| checkpoint.acts && checkpoint.bases[0].epoch == epoch)
    );
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));
    assert_eq!(*rig.plane.armed.lock(), None, "there is nothing left to look at");
}

#[tokio::test(start_paused = true)]
async fn a_trip_of_a_former_run_says_nothing_about_this_one() {
    let mut rig = Rig::at_first_weight().await;
    let former = rig.state().rollout;
    rig.controller.hear(Message::Configured(vec![workload("app", "3")]));
    rig.answer_ready().await;
    rig.tick().await;
    assert_eq!((rig.state().rollout, rig.weight()), (former + 1, 20));
    rig.trip(former);
    assert_eq!((rig.state().phase, rig.weight()), (Phase::Progressing, 20));
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_state_written_by_another_advances_no_more() {
    let mut rig = Rig::at_first_weight().await;
    rig.store.saved.lock().get_mut(&rig.key).expect("saved").version = Version(99);
    for _ in 0..3 {
        rig.tick().await;
    }
    assert_eq!(rig.weight(), 20);
    let alarm = rig.controller.board.read().canaries[&rig.key].alarm.clone().expect("an alarm");
    assert!(alarm.starts_with("somebody else writes the state"), "{alarm}");
    rig.trip(rig.state().rollout);
    assert_eq!(rig.weight(), 0, "it still brakes");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_saved_while_nothing_changes_and_evidence_goes_out_together_once_a_second() {
    let mut rig = Rig::start(Arc::new(Memory::open())).await;
    rig.tick().await;
    let before = rig.store.batches.lock().len();
    for _ in 0..10 {
        rig.tick().await;
    }
    assert_eq!(rig.store.batches.lock().len(), before, "idle ticks save nothing");

    let mut rig = Rig::at_first_weight().await;
    let before = rig.store.batches.lock().len();
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 10, a: 0, b: 0, done: 10 })];
    for _ in 0..15 {
        tokio::time::advance(Duration::from_millis(200)).await;
        rig.controller.beat();
        rig.hear_all().await;
    }
    let batches = rig.store.batches.lock().len() - before;
    assert!((2..=4).contains(&batches), "3 s of evidence took {batches} saves");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_same_weight_and_no_more_evidence_than_was_saved() {
    let mut rig = Rig::at_first_weight().await;
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 500, a: 3, b: 1, done: 500 })];
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(200)).await;
        rig.controller.beat();
        rig.hear_all().await;
    }
    let before = rig.state().clone();
    let (plane, store) = (Arc::new(Plane::default()), rig.store.clone());
    drop(rig.controller);
    let again = start(store, plane.clone(), vec![workload("app", "2")]).await;
    let state = &again.entries[&rig.key].state;
    assert_eq!(
        (state.phase, state.weight, state.rollout, &state.epoch),
        (before.phase, before.weight, before.rollout, &before.epoch)
    );
    assert!(state.evidence.ln_e() <= before.evidence.ln_e() && state.evidence.judged_ms() > 0);
    let tables = plane.tables.lock();
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].routes()[0].coin, before.epoch.coin, "the first table carries the weight");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_taken_over_whole_or_not_at_all() {
    let mut rig = Rig::at_first_weight().await;
    let without_serving = workload("app", "3").without("1");
    rig.controller.hear(Message::Configured(vec![workload("other", "1"), without_serving]));
    assert_eq!(rig.controller.entries.keys().map(CanaryKey::name).collect::<Vec<_>>(), ["app"]);
    assert_eq!(rig.weight(), 20);
    let refused = rig.controller.board.read().refused_config.clone();
    assert!(refused[0].contains("serves version \"1\" of backend app now, and it is no longer listed"), "{refused:?}");
    rig.controller.hear(Message::Configured(vec![workload("app", "2"), workload("other", "1")]));
    assert!(rig.controller.board.read().refused_config.is_empty());
    assert_eq!(rig.controller.entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_leaves_the_configuration_comes_back_where_it_stood() {
    let mut rig = Rig::at_first_weight().await;
    let before = rig.state().clone();
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    assert!(!rig.controller.entries.contains_key(&rig.key));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    assert_eq!(
        (rig.state().phase, rig.state().weight, rig.state().rollout),
        (before.phase, before.weight, before.rollout)
    );
}

#[tokio::test(start_paused = true)]
async fn every_rollback_comes_into_force_without_a_store_not_only_the_guards() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.tick_with_dead_canary().await;
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));

    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.controller.hear(Message::Configured(vec![workload("app", "1")]));
    rig.answer_ready().await;
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed), "a revert");
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_up_no_rollback_either() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    assert!(rig.controller.entries[&rig.key].saving.is_some(), "the step to 40 hangs");
    rig.tick_with_dead_canary().await;
    let alarm = rig.controller.entries[&rig.key].alarm.clone().unwrap_or_default();
    assert!(alarm.ends_with("the store does not answer"), "{alarm}");
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));
    drop(held);
    rig.hear_all().await;
    assert_eq!(
        (rig.weight(), rig.saved().phase),
        (0, Phase::Failed),
        "the step never came into force, the rollback is saved"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_warm_up_waits_for_no_store() {
    let mut rig = Rig::at_first_weight().await;
    assert!(matches!(rig.state().epoch.judging, serin_rollout::Judging::WarmUp(_)));
    *rig.store.fails.lock() = true;
    for _ in 0..2 {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        rig.controller.begin_due_ticks();
        rig.controller.entries.get_mut(&rig.key).expect("there").observing = None;
        let narrowed = serin_rollout::narrow(
            &rig.controller.entries[&rig.key].workload.plan,
            rig.state(),
            rig.controller.clock.now_ms(),
        );
        if let Some(step) = narrowed {
            let key = rig.key.clone();
            rig.controller.advance(&key, step);
        }
        rig.hear_all().await;
    }
    assert!(matches!(rig.state().epoch.judging, serin_rollout::Judging::Full(_)), "{:?}", rig.state().epoch);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_saved_loses_to_a_trip_whose_message_is_still_on_its_way() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    let rollout = rig.state().rollout;
    *rig.plane.tripped.lock() = Some(rollout);
    drop(held);
    rig.hear_all().await;
    assert_eq!((rig.weight(), rig.saved().phase), (0, Phase::Failed), "the step to 40 is not put in force");
    rig.trip(rollout);
    rig.tick().await;
    assert_eq!((rig.weight(), rig.saved().phase), (0, Phase::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_canary_taken_out_of_the_files_and_put_back_is_not_judged_twice_for_the_same_requests() {
    let mut rig = Rig::at_first_weight().await;
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 300, a: 9, b: 0, done: 300 })];
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    rig.hear_all().await;
    let before = rig.state().evidence.ln_e();
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    assert!(rig.state().evidence.ln_e() <= before, "{} after {before}", rig.state().evidence.ln_e());
}

#[tokio::test(start_paused = true)]
async fn a_canary_may_leave_and_come_back_while_its_step_or_its_brake_is_unsaved() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    drop(held);
    rig.hear_all().await;
    let entry = &rig.controller.entries[&rig.key];
    assert_eq!((entry.fenced, entry.alarm.as_ref(), rig.weight()), (false, None, 40));
    rig.tick().await;
    assert_eq!(rig.state().phase, Phase::Promoting, "it goes on from there");

    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.trip(rig.state().rollout);
    rig.hear_all().await;
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_a_step_under_way_will_serve_cannot_be_removed() {
    let mut rig = Rig::at_first_weight().await;
    rig.tick().await;
    assert_eq!(rig.weight(), 40);
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    let without = workload("app", "1").without("2");
    rig.controller.hear(Message::Configured(vec![without]));
    assert_eq!(rig.controller.board.read().refused_config.len(), 1, "version 2 is about to be the primary");
    drop(held);
    rig.hear_all().await;
    assert_eq!(rig.state().phase, Phase::Promoting);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_was_deleted_and_made_anew_inherits_no_trip_and_no_counts() {
    let mut rig = Rig::at_first_weight().await;
    let (former, epoch) = (rig.state().run(), rig.state().epoch.id);
    // The data path took the run out and keeps what it counted, under the name.
    *rig.plane.tripped.lock() = Some(former);
    rig.trip(former);
    *rig.plane.cells.lock() = vec![(epoch, Cell { n: 300, a: 30, b: 0, done: 300 })];
    let anew =
        |release| Workload { incarnation: "b".to_owned(), numbered_after: 1_000_000, ..workload("app", release) };
    rig.store.saved.lock().clear();
    rig.controller.hear(Message::Configured(vec![anew("1")]));
    rig.hear_all().await;
    rig.tick().await;
    rig.controller.hear(Message::Configured(vec![anew("2")]));
    rig.answer_ready().await;
    rig.tick().await;
    assert_eq!((rig.state().rollout, rig.state().phase, rig.weight()), (1, Phase::Progressing, 20));
    assert!(rig.state().run() > former && rig.state().epoch.id > epoch);
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    assert_eq!((rig.state().phase, rig.state().evidence.ln_e()), (Phase::Progressing, 0.0));
}
