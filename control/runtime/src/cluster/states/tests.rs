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
    let one = states(&server, 1);
    version(saved(&one, save(None, 1)).await);
    let anew = || Save { incarnation: "u-2".to_owned(), ..save(None, 0) };
    assert!(saved(&one, anew()).await.is_err(), "first it has to go");
    version(saved(&one, anew()).await);
    let found = server.object(RESOURCE, "shop", "cart").expect("it is there");
    assert_eq!(found["spec"]["canaryUid"], "u-2");
    assert_eq!(found["metadata"]["ownerReferences"][0]["uid"], "u-2");
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
