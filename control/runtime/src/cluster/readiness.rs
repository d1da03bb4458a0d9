//! Whether a Deployment has rolled out: Flagger's reading of its status (1.44, `pkg/canary/deployment_ready.go`).

use serde_json::Value;
use serin_rollout::Readiness;

use super::names::replicas;
use super::objects::{field, number, text};

/// Whether a Deployment serves its newest template. `threshold_percent` of the updated replicas have to be available.
///
/// Flagger measures its own deadline since the condition `Available` was last false. The rollout here measures it since the
/// arm was first seen unready, so it is not looked at here; the Deployment's own deadline is.
pub(crate) fn rolled_out(deployment: &Value, threshold_percent: u32) -> Readiness {
    let status = |name: &str| number(deployment, &["status", name]).unwrap_or(0);
    let name = text(deployment, &["metadata", "name"]).unwrap_or_default();
    if status("observedGeneration") < number(deployment, &["metadata", "generation"]).unwrap_or(0) {
        return Readiness::Waiting("observed deployment generation less than desired generation".to_owned());
    }
    let reason = condition(deployment, "Progressing").and_then(|condition| text(condition, &["reason"]));
    if reason == Some("ProgressDeadlineExceeded") {
        return Readiness::Dead(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let (wanted, all) = (replicas(deployment), status("replicas"));
    let (updated, available) = (status("updatedReplicas"), status("availableReplicas"));
    let enough = updated * i64::from(threshold_percent) / 100;
    if updated < wanted {
        Readiness::Waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if all > updated {
        Readiness::Waiting(format!("{} old replicas are pending termination", all - updated))
    } else if available < enough {
        Readiness::Waiting(format!(
            "{available} of {updated} (readyThreshold {threshold_percent}%) updated replicas are available"
        ))
    } else {
        Readiness::Ready
    }
}

fn condition<'a>(deployment: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = field(deployment, &["status", "conditions"])?.as_array()?;
    conditions.iter().find(|condition| text(condition, &["type"]) == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(status: Value, threshold_percent: u32, expected: Readiness) {
        let deployment =
            json!({"metadata": {"name": "app", "generation": 2}, "spec": {"replicas": 4}, "status": status});
        assert_eq!(rolled_out(&deployment, threshold_percent), expected);
    }

    fn waiting(text: &str) -> Readiness {
        Readiness::Waiting(text.to_owned())
    }

    #[test]
    fn checklist_152_153_a_deployment_has_rolled_out_when_enough_of_the_new_pods_are_available() {
        let status = |updated: i64, all: i64, available: i64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available});
        check(status(4, 4, 4), 100, Readiness::Ready);
        check(status(3, 4, 4), 100, waiting("3 out of 4 new replicas have been updated"));
        check(status(4, 5, 4), 100, waiting("1 old replicas are pending termination"));
        check(status(4, 4, 3), 100, waiting("3 of 4 (readyThreshold 100%) updated replicas are available"));
        check(status(4, 4, 3), 75, Readiness::Ready);
        check(
            json!({"observedGeneration": 1}),
            100,
            waiting("observed deployment generation less than desired generation"),
        );
        check(json!(null), 100, waiting("observed deployment generation less than desired generation"));
        let stuck = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        check(stuck, 100, Readiness::Dead("deployment \"app\" exceeded its progress deadline".to_owned()));
    }
}
