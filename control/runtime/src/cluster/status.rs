//! The Canary's status: a projection of the state for people and tools, in Flagger's words (1.44, `pkg/canary/status.go`).

use serde_json::{Value, json};
use serin_rollout::{Phase, State};

use crate::admin::rollouts::rfc3339_seconds;

/// What the status says, but for times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Projection {
    pub(crate) phase: Phase,
    pub(crate) weight: u8,
    pub(crate) failed_checks: u32,
    pub(crate) applied: String,
    pub(crate) promoted: String,
    kind: String,
    /// Why the Canary cannot be used as it is written, or why it is not stepped.
    pub(crate) trouble: Option<Trouble>,
}

/// A second condition, there only while it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In one word.
    pub(crate) reason: &'static str,
    /// In sentences.
    pub(crate) message: String,
}

/// The condition that says that a Canary is not acted for.
const ACCEPTED: &str = "Accepted";
/// Its reason while somebody else writes the status.
pub(crate) const FOREIGN_WRITER: &str = "ForeignWriter";

impl Projection {
    pub(crate) fn of(state: &State, kind: &str, trouble: Option<Trouble>) -> Self {
        let text = |revision: &Option<serin_rollout::Revision>| {
            revision.as_ref().map_or_else(String::new, |revision| revision.0.clone())
        };
        Self {
            phase: state.phase,
            weight: state.weight.percent(),
            failed_checks: state.failed_checks,
            applied: text(&state.applied),
            promoted: text(&state.promoted),
            kind: kind.to_owned(),
            trouble,
        }
    }

    /// Whether a status says the same, whoever wrote it.
    pub(crate) fn is_in(&self, status: &Value) -> bool {
        let number = |key: &str| status.get(key).and_then(Value::as_f64);
        let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default();
        text("phase") == self.phase.as_str()
            && number("canaryWeight") == Some(self.weight.into())
            && number("failedChecks") == Some(self.failed_checks.into())
            && text("lastAppliedSpec") == self.applied
            && text("lastPromotedSpec") == self.promoted
            && condition(status, ACCEPTED).map(|(_, _, message)| message)
                == self.trouble.as_ref().map(|t| t.message.as_str())
            && condition(status, "Promoted").map(|(_, reason, _)| reason) == Some(self.phase.as_str())
    }

    /// The status to write, over what is there now.
    pub(crate) fn status(&self, former: &Value, now_ms: u64) -> Value {
        let now = rfc3339_seconds(now_ms);
        let (status, message) = self.promoted_condition();
        let mut conditions = vec![renewed(former, "Promoted", status, self.phase.as_str(), &message, &now)];
        conditions.extend(self.trouble.as_ref().map(|trouble| trouble.condition(former, &now)));
        json!({
            "phase": self.phase.as_str(),
            "canaryWeight": self.weight,
            "failedChecks": self.failed_checks,
            "iterations": 0,
            "lastAppliedSpec": self.applied,
            "lastPromotedSpec": self.promoted,
            "lastTransitionTime": now,
            "conditions": conditions,
        })
    }

    /// Status and message of the condition `Promoted` (checklist 21, 22).
    fn promoted_condition(&self) -> (&'static str, String) {
        let kind = &self.kind;
        match self.phase {
            Phase::Initializing => ("Unknown", format!("New {kind} detected, starting initialization.")),
            Phase::Initialized => ("True", format!("{kind} initialization completed.")),
            Phase::Waiting | Phase::WaitingPromotion => ("Unknown", "Waiting for approval.".to_owned()),
            Phase::Progressing => ("Unknown", "New revision detected, progressing canary analysis.".to_owned()),
            Phase::Promoting => ("Unknown", "Canary analysis completed, starting primary rolling update.".to_owned()),
            Phase::Finalising => ("Unknown", "Canary analysis completed, routing all traffic to primary.".to_owned()),
            Phase::Succeeded => ("True", "Canary analysis completed successfully, promotion finished.".to_owned()),
            // Flagger says so of a failed promotion too, whose canary serves on.
            Phase::Failed if self.weight > 0 => {
                ("False", format!("Promotion failed, all traffic stays on the canary {kind}."))
            }
            Phase::Failed => ("False", format!("Canary analysis failed, {kind} scaled to zero.")),
        }
    }
}

impl Trouble {
    fn condition(&self, former: &Value, now: &str) -> Value {
        renewed(former, ACCEPTED, "False", self.reason, &self.message, now)
    }

    /// Whether a status tells of it.
    pub(crate) fn is_in(&self, status: &Value) -> bool {
        condition(status, ACCEPTED).is_some_and(|(_, reason, message)| reason == self.reason && message == self.message)
    }

    /// What is written of it into a status that is somebody else's: one condition beside his.
    pub(crate) fn beside(&self, status: &Value, now_ms: u64) -> Value {
        let others = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let others = others.filter(|other| other.get("type").and_then(Value::as_str) != Some(ACCEPTED)).cloned();
        let conditions: Vec<Value> = others.chain([self.condition(status, &rfc3339_seconds(now_ms))]).collect();
        json!({ "conditions": conditions })
    }
}

/// Why a Canary is not acted for, in a word, if its status says that it is not.
pub(crate) fn accepted_reason(status: &Value) -> Option<&str> {
    condition(status, ACCEPTED).map(|(_, reason, _)| reason)
}

/// Status, reason and message of a condition.
fn condition<'a>(status: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = find(status, kind)?;
    let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

fn find<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = status.get("conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

/// A condition as it is now; its transition time stays while its status does (checklist 24).
fn renewed(former: &Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) -> Value {
    let known = find(former, kind);
    let text = |key: &str| known.and_then(|known| known.get(key)).and_then(Value::as_str);
    let is_same = text("status") == Some(status);
    let since = text("lastTransitionTime").filter(|_| is_same).unwrap_or(now);
    let updated = text("lastUpdateTime").filter(|_| is_same && text("reason") == Some(reason)).unwrap_or(now);
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": updated, "lastTransitionTime": since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_rollout::Revision;

    fn state(phase: Phase) -> State {
        State {
            phase,
            applied: Some(Revision("r2".to_owned())),
            promoted: Some(Revision("r1".to_owned())),
            ..State::new(0)
        }
    }

    #[test]
    fn checklist_21_22_the_condition_promoted_follows_the_phase() {
        let told: Vec<_> = Phase::ALL
            .into_iter()
            .map(|phase| {
                let status = Projection::of(&state(phase), "Deployment", None).status(&Value::Null, 0);
                let (status, reason, message) = condition(&status, "Promoted")
                    .map(|c| (c.0.to_owned(), c.1.to_owned(), c.2.to_owned()))
                    .expect("there");
                format!("{reason}: {status}: {message}")
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn checklist_24_25_times_rest_while_nothing_changes_and_numbers_are_always_there() {
        let first = Projection::of(&state(Phase::Promoting), "Deployment", None).status(&Value::Null, 1_000);
        let second = Projection::of(&state(Phase::Finalising), "Deployment", None).status(&first, 60_000);
        let third = Projection::of(&state(Phase::Succeeded), "Deployment", None).status(&second, 120_000);
        let since = |status: &Value| status["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(since(&first), since(&second), "Unknown both");
        assert_ne!(since(&second), since(&third));
        assert_eq!(
            (&third["canaryWeight"], &third["failedChecks"], &third["iterations"]),
            (&json!(0), &json!(0), &json!(0))
        );
        assert!(Projection::of(&state(Phase::Succeeded), "Deployment", None).is_in(&third));
        assert!(!Projection::of(&state(Phase::Failed), "Deployment", None).is_in(&third));
    }

    #[test]
    fn a_canary_that_cannot_be_used_has_a_second_condition_until_it_can() {
        let trouble = Trouble { reason: "NotHonoured", message: "spec.suspend: not yet".to_owned() };
        let refused = Projection::of(&state(Phase::Initialized), "Deployment", Some(trouble));
        let status = refused.status(&Value::Null, 0);
        assert_eq!(condition(&status, ACCEPTED), Some(("False", "NotHonoured", "spec.suspend: not yet")));
        assert!(refused.is_in(&status));
        let mended = Projection::of(&state(Phase::Initialized), "Deployment", None);
        assert!(!mended.is_in(&status));
        assert_eq!(mended.status(&status, 1)["conditions"].as_array().map(Vec::len), Some(1));
    }
}
