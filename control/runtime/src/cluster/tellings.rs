//! Events on the Canary, as `kubectl describe` shows them, with Flagger's reason and texts (checklist 192).

use k8s_openapi::api::core::v1::{Event as KubeEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use ring::digest::{SHA256, digest};
use serin_measure::CanaryKey;

use crate::store::Event;

/// Flagger gives every event this reason.
const REASON: &str = "Synced";
/// Who tells. Flagger's is `flagger`.
const COMPONENT: &str = "serin";
/// Events older than this are not told any more, in milliseconds: as long as the API server keeps them (its `--event-ttl`). Until
/// then a new leader, or one that could not reach it, tells what it does not know to be told, and that shows once.
pub(crate) const RETOLD_MS: u64 = 3_600_000;

/// Posts an event. It has one name wherever it is told from, so telling it twice shows it once (checklist 193).
pub(crate) async fn post(client: &Client, canary: &CanaryKey, uid: &str, event: &Event) -> kube::Result<()> {
    let text = format!("{uid}/{}/{}", event.at_ms, event.message);
    let digest = digest(&SHA256, text.as_bytes());
    let name: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let at = Timestamp::from_millisecond(i64::try_from(event.at_ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    let posted = KubeEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{name}", canary.name())),
            namespace: Some(canary.namespace().to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("flagger.app/v1beta1".to_owned()),
            kind: Some("Canary".to_owned()),
            namespace: Some(canary.namespace().to_owned()),
            name: Some(canary.name().to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        },
        reason: Some(REASON.to_owned()),
        message: Some(event.message.clone()),
        type_: Some(event.level.clone()),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(1),
        ..KubeEvent::default()
    };
    match Api::namespaced(client.clone(), canary.namespace()).create(&PostParams::default(), &posted).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
