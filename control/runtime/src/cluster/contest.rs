//! Whose status it is: somebody else who writes the same Canary's status takes the Canary for his own, as a Flagger does that runs
//! beside. Another Serin writes under the same name; it is met at the states, which have one owner.
//!
//! The API server keeps, for each manager, when it last wrote the status, to the second (Kubernetes, "Server-Side Apply",
//! `managedFields`).

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use super::hands::MANAGER;
use super::status::{FOREIGN_WRITER, Projection, accepted_reason};
use crate::lead::QUIET_MS;

/// How long the loop may take to say that a Canary is contested. It takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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
    /// When the loop was told of it, until it says that the Canary is contested.
    told: Option<Instant>,
}

impl Record {
    /// Whether a Canary as it was seen is older than what was written.
    pub(crate) fn is_ahead_of(&self, version: u64) -> bool {
        version < self.version
    }

    /// Whether nothing may be done for the Canary: the loop has been told of another one, and what it has posted is older.
    pub(crate) fn waits(&mut self, is_contested: bool) -> bool {
        if is_contested {
            self.told = None;
        }
        if self.told.is_some_and(|told| told.elapsed() >= ANSWER_WITHIN) {
            // It has missed it, as when the Canary was made anew just then: it is told again.
            (self.told, self.hand) = (None, None);
        }
        self.told.is_some()
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
        self.told = is_his.then(Instant::now).or(self.told);
        is_his.then_some(other.manager)
    }
}

/// Whether somebody else was the last to write a Canary's status, and not long ago.
pub(crate) fn is_anothers(canary: &DynamicObject, now_ms: u64) -> bool {
    other_hand(canary).is_some_and(|other| other.at >= own_hand(canary) && other.is_recent(now_ms))
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

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_missed_it_is_told_again() {
        let mut record = Record::default();
        record.keep(Some(ours()), 7);
        let found = canary(&his(), &[("serin", 5), ("flagger", 5)]);
        assert!(record.new_hand(&found, &ours(), now_ms(9)).is_some() && record.waits(false));
        tokio::time::advance(ANSWER_WITHIN).await;
        assert!(!record.waits(false));
        assert!(record.new_hand(&found, &ours(), now_ms(9)).is_some());
    }

    #[test]
    fn a_canary_without_a_state_is_anothers_while_he_writes() {
        let check = |hands: &[(&str, i64)], at: i64| is_anothers(&canary(&his(), hands), now_ms(at));
        assert!(check(&[("flagger", 5)], 9));
        assert!(check(&[("serin", 5), ("flagger", 5)], 9));
        assert!(!check(&[("flagger", 5)], 500));
        assert!(!check(&[("serin", 6), ("flagger", 5)], 9));
        assert!(!check(&[("serin", 5)], 9));
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
