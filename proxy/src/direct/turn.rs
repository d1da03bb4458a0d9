//! Whose turn it is while the body of a request is coming: the one who is waited for is the one who fails if nothing comes.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::alarm::{Alarm, Rang};

/// The client waits for a word of the backend before it sends its body (`Expect`).
const BACKENDS_WORD: u8 = 0;
/// The client is to send.
const CLIENT: u8 = 1;
/// The client has sent all.
const BACKEND: u8 = 2;

/// Whose turn it is, and how long the client may be silent when it is its own. At first it is the backend's, to say a word.
///
/// Shared by the two halves of an exchange, which one task polls in turn.
#[derive(Debug)]
pub(super) struct Turn {
    of: AtomicU8,
    alarm: Alarm,
    limit: Duration,
}

impl Turn {
    pub(super) fn new(alarm: Alarm, limit: Duration) -> Self {
        alarm.set(Duration::MAX);
        Self { of: AtomicU8::new(BACKENDS_WORD), alarm, limit }
    }

    /// The client is to send, from now on within its limit.
    pub(super) fn give_to_client(&self) {
        self.of.store(CLIENT, Ordering::Relaxed);
        self.alarm.set(self.limit);
    }

    /// The client has sent all.
    pub(super) fn give_to_backend(&self) {
        self.of.store(BACKEND, Ordering::Relaxed);
    }

    /// The backend has said a word, which only somebody who waits for it has waited for.
    pub(super) fn word_was_said(&self) {
        if self.of.load(Ordering::Relaxed) == BACKENDS_WORD {
            self.give_to_client();
        }
    }

    /// Whether the client is the one who is waited for.
    pub(super) fn is_clients(&self) -> bool {
        self.of.load(Ordering::Relaxed) == CLIENT
    }

    pub(super) fn has_sent_all(&self) -> bool {
        self.of.load(Ordering::Relaxed) == BACKEND
    }

    /// Waits for the client, within its limit once it is its turn.
    ///
    /// # Errors
    /// If the time ran out.
    pub(super) async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Rang> {
        self.alarm.wait(future).await
    }
}
