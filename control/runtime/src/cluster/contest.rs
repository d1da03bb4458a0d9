//! Whose status it is: somebody else who writes the same Canary's status takes the Canary for his own. That is Flagger, or
//! another Serin under another Lease.
//!
//! The API server keeps, for each manager, when it last wrote the status, to the second (Kubernetes, "Server-Side Apply",
//! `managedFields`).

use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;

use super::hands::MANAGER;
use super::status::{FOREIGN_WRITER, Projection, accepted_reason};
use crate::lead::QUIET_MS;

/// Another one's last hand on a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) manager: String,
    at: Option<Timestamp>,
}

/// What is remembered of one Canary's status while this process leads.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What was written last, unless the Canary was contested then.
    written: Option<Projection>,
    /// The Canary's resourceVersion after that.
    version: u64,
    /// The other's last hand that this process knows of.
    hand: Option<Hand>,
    /// The loop was told of it, and has not said yet that the Canary is contested.
    is_told: bool,
}

impl Record {
    /// Whether a Canary as it was seen is older than what was written.
    pub(crate) fn is_ahead_of(&self, version: u64) -> bool {
        version < self.version
    }

    /// Whether nothing may be done for the Canary: the loop has been told of another one, and what it has posted is older.
    pub(crate) fn waits(&mut self, is_contested: bool) -> bool {
        self.is_told &= !is_contested;
        self.is_told
    }

    /// Keeps what was written, or found as it should be.
    pub(crate) fn keep(&mut self, projection: Option<Projection>, version: u64) {
        (self.written, self.version) = (projection, version);
    }

    /// Who else has written the status, if somebody has who was not known of.
    ///
    /// What this process has written tells it whether somebody wrote since. Without that, as when it has just begun to lead,
    /// a hand counts that is younger than this fleet's own and not long ago, or that its predecessor has told of.
    pub(crate) fn new_hand(&mut self, canary: &DynamicObject, wanted: &Projection, now_ms: u64) -> Option<String> {
        let (own, other) = (own_hand(canary), other_hand(canary)?);
        if self.hand.as_ref() == Some(&other) {
            return None;
        }
        let status = canary.data.get("status").unwrap_or(&Value::Null);
        let is_later = other.at >= own;
        let is_his = match &self.written {
            Some(written) => is_later && !written.is_in(status),
            None if accepted_reason(status) == Some(FOREIGN_WRITER) => true,
            None => is_later && other.is_recent(now_ms) && !wanted.is_in(status),
        };
        self.hand = Some(other.clone());
        self.is_told |= is_his;
        is_his.then_some(other.manager)
    }
}

impl Hand {
    fn is_recent(&self, now_ms: u64) -> bool {
        let at_ms = self.at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < QUIET_MS)
    }
}

fn own_hand(canary: &DynamicObject) -> Option<Timestamp> {
    hands(canary).filter(|hand| hand.manager == MANAGER).filter_map(|hand| hand.at).max()
}

fn other_hand(canary: &DynamicObject) -> Option<Hand> {
    hands(canary).filter(|hand| hand.manager != MANAGER).max_by_key(|hand| hand.at)
}

fn hands(canary: &DynamicObject) -> impl Iterator<Item = Hand> {
    let fields = canary.metadata.managed_fields.iter().flatten();
    let of_status = fields.filter(|entry| entry.subresource.as_deref() == Some("status"));
    of_status.map(|entry| Hand {
        manager: entry.manager.clone().unwrap_or_default(),
        at: entry.time.as_ref().map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_rollout::State;

    use super::super::status::Trouble;
    use super::*;

    /// Seconds since 1970 at which the tests begin.
    const BEGIN_S: i64 = 1_000_000;

    /// A Canary whose status was written by these, at these seconds.
    fn canary(status: &Value, hands: &[(&str, i64)]) -> DynamicObject {
        let fields: Vec<Value> = hands
            .iter()
            .map(|(manager, second)| {
                let time = Timestamp::from_second(BEGIN_S + second).expect("a time").to_string();
                json!({"manager": manager, "operation": "Update", "subresource": "status", "time": time})
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "status": status,
            "metadata": {"namespace": "shop", "name": "cart", "managedFields": fields},
        }))
        .expect("a canary")
    }

    fn now_ms(second: i64) -> u64 {
        u64::try_from((BEGIN_S + second) * 1_000).expect("after 1970")
    }

    fn ours() -> Projection {
        Projection::of(&State::new(0), "Deployment", None)
    }

    fn his() -> Value {
        json!({"phase": "Progressing", "canaryWeight": 20})
    }

    #[test]
    fn who_writes_over_what_was_written_is_told_of_once_for_each_time() {
        let mut record = Record::default();
        record.keep(Some(ours()), 7);
        let of =
            |record: &mut Record, hands: &[(&str, i64)]| record.new_hand(&canary(&his(), hands), &ours(), now_ms(9));
        assert_eq!(of(&mut record, &[("serin", 5), ("flagger", 5)]).as_deref(), Some("flagger"));
        assert_eq!(of(&mut record, &[("serin", 5), ("flagger", 5)]), None);
        assert!(record.waits(false), "the loop does not know it yet");
        assert!(!record.waits(true) && !record.waits(false), "it does, and then it is over");
        assert_eq!(of(&mut record, &[("serin", 5), ("flagger", 9)]).as_deref(), Some("flagger"), "he goes on");
        assert_eq!(of(&mut record, &[("serin", 9)]), None);
    }

    #[test]
    fn who_begins_to_lead_takes_a_late_hand_for_anothers_and_an_old_one_for_what_was_left() {
        let check = |status: &Value, hands: &[(&str, i64)], at: i64, expected: Option<&str>| {
            let found = Record::default().new_hand(&canary(status, hands), &ours(), now_ms(at));
            assert_eq!(found.as_deref(), expected, "{status} {hands:?} at {at}");
        };
        check(&his(), &[("serin", 5), ("flagger", 8)], 30, Some("flagger"));
        check(&his(), &[("flagger", 8)], 30, Some("flagger"));
        check(&his(), &[("flagger", 8)], 500, None);
        check(&his(), &[("serin", 9), ("flagger", 8)], 30, None);
        check(&ours().status(&Value::Null, 0), &[("flagger", 8)], 30, None);
        let trouble = Trouble { reason: FOREIGN_WRITER, message: "flagger writes it".to_owned() };
        let told = Projection::of(&State::new(0), "Deployment", Some(trouble)).status(&Value::Null, 0);
        check(&told, &[("serin", 9), ("flagger", 8)], 30, Some("flagger"));
    }
}
