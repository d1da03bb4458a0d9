//! What the copies look like, by the items of the checklist.

use serin_config::{SourceFile, read_files};

use super::*;

const CANARY: &str = "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: cart, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  service:
    port: 80
    portName: web
    targetPort: 8080
    primary: {labels: {tier: p}, annotations: {note: why}}
  analysis: {interval: 10s, threshold: 2, stepWeight: 20}
";

fn with_owner<T>(look: impl FnOnce(&Owner<'_>) -> T) -> T {
    let set = read_files(&[SourceFile { name: "canary.yaml".to_owned(), bytes: CANARY.as_bytes().to_vec() }]);
    let canary = &set.canaries.first().expect("a canary").value;
    let (names, selector) = (Names::of(canary), Selector { label: "app".to_owned(), value: "cart-pods".to_owned() });
    look(&Owner { canary, uid: "u-1", names: &names, selector: &selector })
}

fn target() -> Value {
    json!({
        "metadata": {
            "name": "cart", "namespace": "shop",
            "labels": {"team": "a"},
            "annotations": {"why": "x", "kustomize.toolkit.fluxcd.io/name": "flux", "deployment.kubernetes.io/revision": "3"},
        },
        "spec": {"replicas": 3, "minReadySeconds": 5, "strategy": {"type": "RollingUpdate"}},
    })
}

fn template() -> Value {
    let apart = json!({"labelSelector": {"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["cart", "other"]}, {"key": "tier", "operator": "In", "values": ["cart"]}
    ]}});
    json!({
        "metadata": {"labels": {"app": "cart-pods", "tier": "web", "x.toolkit.fluxcd.io/y": "z"}, "annotations": {"a": "b"}},
        "spec": {
            "containers": [{"name": "c", "image": "cart:1", "unknownField": true}],
            "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [apart],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": apart}],
            }},
            "topologySpreadConstraints": [{"maxSkew": 1, "labelSelector": {"matchLabels": {"app": "cart"}}}],
        },
    })
}

fn primary() -> Value {
    with_owner(|owner| owner.primary(&target(), &template(), &Revision("r1".to_owned()), 3))
}

#[test]
fn checklist_34_35_97_the_primary_has_replicas_a_selector_of_one_label_and_the_targets_way_to_roll_out() {
    let spec = &primary()["spec"];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["selector"], json!({"matchLabels": {"app": "cart-pods-primary"}}));
    assert_eq!((&spec["minReadySeconds"], &spec["strategy"]["type"]), (&json!(5), &json!("RollingUpdate")));
}

#[test]
fn checklist_38_39_pod_labels_and_annotations_are_copied_with_the_label_replaced_and_without_fluxs() {
    let metadata = &primary()["spec"]["template"]["metadata"];
    assert_eq!(metadata["labels"], json!({"app": "cart-pods-primary", "tier": "web"}));
    assert_eq!(metadata["annotations"]["a"], "b");
    let id = metadata["annotations"]["flagger-id"].as_str().expect("an id").to_owned();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4));
    let again = with_owner(|owner| owner.primary(&target(), &template(), &Revision("r1".to_owned()), 3));
    assert_eq!(again, primary(), "copying twice changes nothing");
    let next = with_owner(|owner| owner.primary(&target(), &template(), &Revision("r2".to_owned()), 3));
    assert_ne!(next["spec"]["template"]["metadata"]["annotations"]["flagger-id"], json!(id));
}

#[test]
fn checklist_40_41_53_the_primarys_own_metadata() {
    let metadata = &primary()["metadata"];
    assert_eq!(metadata["labels"], json!({"app": "cart-pods-primary"}));
    assert_eq!(metadata["annotations"], json!({"why": "x", REVISION_ANNOTATION: "r1"}));
    let owner = &metadata["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"], &owner["controller"]), (&json!("Canary"), &json!("u-1"), &json!(true)));
    assert!(is_owned_by(&primary(), "u-1") && !is_owned_by(&primary(), "u-2"));
}

#[test]
fn checklist_42_pods_that_keep_apart_keep_apart_in_the_copy() {
    let spec = &primary()["spec"]["template"]["spec"];
    let anti = &spec["affinity"]["podAntiAffinity"];
    let required = &anti["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]["matchExpressions"];
    assert_eq!(required[0]["values"], json!(["cart-primary", "other"]));
    assert_eq!(required[1]["values"], json!(["cart"]), "another label is not looked at");
    let preferred = &anti["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
    assert_eq!(preferred["labelSelector"]["matchExpressions"][0]["values"], json!(["cart-primary", "other"]));
    assert_eq!(spec["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]["app"], "cart-primary");
    assert_eq!(spec["containers"][0]["unknownField"], true, "what this build does not know is copied too");
}

#[test]
fn checklist_47_48_50_51_the_services_of_the_arms() {
    let service = with_owner(|owner| owner.arm_service(&owner.names.apex_primary, "cart-pods-primary"));
    assert_eq!(service["metadata"]["name"], "cart-primary");
    assert_eq!(service["metadata"]["labels"], json!({"tier": "p", "app": "cart-primary"}));
    let annotations = &service["metadata"]["annotations"];
    assert_eq!(annotations["kustomize.toolkit.fluxcd.io/reconcile"], "disabled");
    assert_eq!(
        (&annotations["helm.toolkit.fluxcd.io/driftDetection"], &annotations["note"]),
        (&json!("disabled"), &json!("why"))
    );
    let port = json!([{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 8080}]);
    assert_eq!(service["spec"]["ports"], port);
    assert_eq!(service["spec"]["selector"], json!({"app": "cart-pods-primary"}));
    assert!(with_owner(|owner| owner.has_port(&service) && owner.points_at(&service, "cart-pods-primary")));
    assert!(!with_owner(|owner| owner.points_at(&service, "cart-pods")));
}
