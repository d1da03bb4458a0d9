//! States against an API server in memory, which a parity table holds to the real one.

use serin_plane::in_process::{Fault, InProcess, Verb};

use super::*;

const RESOURCE: &str = "canarystates";

fn key() -> CanaryKey {
    CanaryKey::new("shop", "cart")
}

fn states(server: &InProcess, boot: u64) -> States {
    States::new(server.client(), None, BootId(boot), Library::default())
}

fn save(expected: Option<Version>, failed_checks: u32) -> Save {
    let state = State { failed_checks, ..State::new(7) };
    let event = Event { at_ms: 5, level: "Normal".to_owned(), message: format!("{failed_checks} failed") };
    Save { canary: key(), incarnation: "u-1".to_owned(), expected, state, events: vec![event] }
}

/// Makes the Canary that has the name now, and says its uid.
fn live_canary(server: &InProcess) -> String {
    let canary = server.put(json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"namespace": "shop", "name": "cart"}, "spec": {},
    }));
    canary["metadata"]["uid"].as_str().expect("the server gives one").to_owned()
}

async fn saved(states: &States, save: Save) -> Result<Swap, StoreError> {
    states.save(vec![save]).await.remove(0)
}

#[track_caller]
fn version(swap: Result<Swap, StoreError>) -> Version {
    match swap {
        Ok(Swap::Done(version)) => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_state_is_saved_over_the_version_it_was_made_from_and_read_back_whole() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let first = version(saved(&one, save(None, 1)).await);
    let second = version(saved(&one, save(Some(first), 2)).await);
    assert!(second > first);
    let loaded = states(&server, 2).load().await.expect("the server answers");
    let [found] = loaded.as_slice() else { panic!("{loaded:?}") };
    assert_eq!((found.version, &found.state), (second, &save(None, 2).state));
    assert_eq!(found.incarnation, "u-1");
    let told: Vec<_> = found.events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(told, ["1 failed", "2 failed"]);
}

#[tokio::test]
async fn who_is_late_loses_and_writes_nothing() {
    let server = InProcess::new();
    let (one, other) = (states(&server, 1), states(&server, 2));
    let first = version(saved(&one, save(None, 1)).await);
    version(saved(&other, save(Some(first), 2)).await);
    assert_eq!(saved(&one, save(Some(first), 3)).await.expect("an answer"), Swap::Stale);
    assert_eq!(saved(&one, save(None, 3)).await.expect("an answer"), Swap::Stale);
    let found = server.object(RESOURCE, "shop", "cart").expect("it is there");
    assert_eq!(found["spec"]["state"]["failed_checks"], 2);
}

#[tokio::test]
async fn a_save_that_arrived_although_nobody_said_so_is_known_as_ones_own() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let first = version(saved(&one, save(None, 1)).await);
    server.fault(Fault::on(Verb::Update, RESOURCE).although_carried_out());
    assert!(saved(&one, save(Some(first), 2)).await.is_err());
    match saved(&one, save(Some(first), 3)).await {
        Ok(Swap::Landed(landed)) => assert_eq!(landed.state.failed_checks, 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_state_that_somebody_deleted_is_written_anew_from_what_is_known() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let first = version(saved(&one, save(None, 1)).await);
    assert!(server.remove(RESOURCE, "shop", "cart"));
    version(saved(&one, save(Some(first), 2)).await);
    let found = server.object(RESOURCE, "shop", "cart").expect("it is there again");
    assert_eq!(found["spec"]["state"]["failed_checks"], 2);
}

#[tokio::test]
async fn the_state_of_a_former_canary_of_that_name_is_removed() {
    let server = InProcess::new();
    let uid = live_canary(&server);
    let one = states(&server, 1);
    version(saved(&one, save(None, 1)).await);
    let anew = || Save { incarnation: uid.clone(), ..save(None, 0) };
    assert!(saved(&one, anew()).await.is_err(), "first it has to go");
    version(saved(&one, anew()).await);
    let found = server.object(RESOURCE, "shop", "cart").expect("it is there");
    assert_eq!(found["spec"]["canaryUid"], uid);
    assert_eq!(found["metadata"]["ownerReferences"][0]["uid"], uid);
}

#[tokio::test]
async fn who_still_acts_for_a_former_canary_does_not_remove_the_state_of_the_present_one() {
    let server = InProcess::new();
    let (late, present) = (states(&server, 1), states(&server, 2));
    let uid = live_canary(&server);
    version(saved(&present, Save { incarnation: uid.clone(), ..save(None, 1) }).await);
    for _ in 0..2 {
        assert!(saved(&late, save(None, 2)).await.is_err());
    }
    assert_eq!(server.object(RESOURCE, "shop", "cart").expect("it is there")["spec"]["canaryUid"], uid);
}

#[tokio::test]
async fn events_of_a_save_that_failed_are_not_saved_with_the_next_one() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let told = async || {
        let found = states(&server, 2).load().await.expect("the server answers");
        found[0].events.iter().map(|event| event.message.clone()).collect::<Vec<_>>()
    };
    let first = version(saved(&one, save(None, 1)).await);
    server.fault(Fault::on(Verb::Update, RESOURCE).refused(503));
    assert!(saved(&one, save(Some(first), 2)).await.is_err());
    let third = version(saved(&one, save(Some(first), 3)).await);
    assert_eq!(told().await, ["1 failed", "3 failed"]);
    // One that arrived all the same was told, and stays so.
    server.fault(Fault::on(Verb::Update, RESOURCE).although_carried_out());
    assert!(saved(&one, save(Some(third), 4)).await.is_err());
    let Ok(Swap::Landed(landed)) = saved(&one, save(Some(third), 5)).await else { panic!("it had arrived") };
    version(saved(&one, save(Some(landed.version), 6)).await);
    assert_eq!(told().await, ["1 failed", "3 failed", "4 failed", "6 failed"]);
}

#[tokio::test]
async fn templates_that_a_state_names_are_saved_with_it() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let revision = Revision("r1".to_owned());
    one.library.keep_target(&key(), &revision, &json!({"spec": {"containers": []}}));
    let mut with_primary = save(None, 0);
    with_primary.state.primary = Some(revision.clone());
    version(saved(&one, with_primary).await);
    let other = states(&server, 2);
    other.load().await.expect("the server answers");
    assert!(other.library.template(&key(), &revision).is_some(), "whoever leads next can copy it");
}

#[tokio::test]
async fn a_damaged_state_harms_no_other() {
    let server = InProcess::new();
    let one = states(&server, 1);
    version(saved(&one, save(None, 1)).await);
    server.put(json!({
        "apiVersion": "serin.dev/v1alpha1", "kind": "CanaryState",
        "metadata": {"namespace": "shop", "name": "broken"}, "spec": {"state": {"phase": "Nonsense"}},
    }));
    assert_eq!(one.load().await.expect("the server answers").len(), 1);
}

#[tokio::test]
async fn a_state_that_was_damaged_is_told_as_that_and_not_as_another_writers() {
    let server = InProcess::new();
    let one = states(&server, 1);
    let first = version(saved(&one, save(None, 1)).await);
    server.merge(RESOURCE, "shop", "cart", &json!({"spec": {"state": {"phase": "Nonsense"}}}));
    let problem = saved(&one, save(Some(first), 2)).await.expect_err("nothing is written over it").to_string();
    assert!(problem.contains("CanaryState cart is damaged") && problem.contains("delete it"), "{problem}");
    // Whoever deletes it gets what is in force here.
    assert!(server.remove(RESOURCE, "shop", "cart"));
    version(saved(&one, save(Some(first), 3)).await);
}
