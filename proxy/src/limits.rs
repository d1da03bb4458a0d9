//! Time limits on a request that pingora-proxy carries, beside those that it knows itself: on silence in a stream of HTTP/2, and on a
//! request as a whole. When one rings, the request is dropped where it stands: a stream is reset, a connection closed.
//!
//! They are the task's own, so that hooks find them without a way through Pingora.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use serin_measure::Outcome;

use crate::direct::alarm::{Alarm, Watchman};

/// How long a request may go on after its time: while no answer has begun, Pingora's own limit rings first, and the client is told.
const GRACE: Duration = Duration::from_millis(250);

tokio::task_local! {
    static LIMITS: Arc<Limits>;
}

/// The limits of one request.
struct Limits {
    silence: Alarm,
    /// How long neither side may say anything, if that is limited.
    patience: Option<Duration>,
    deadline: Alarm,
    rang: AtomicU8,
}

/// What rang.
const NOTHING: u8 = 0;
const SILENCE: u8 = 1;
const DEADLINE: u8 = 2;

/// Carries a request within limits; none if one rang. `patience` is how long neither side may say anything.
pub(crate) async fn within<F: Future>(
    watchman: &Arc<Watchman>,
    patience: Option<Duration>,
    request: F,
) -> Option<F::Output> {
    let limits = Arc::new(Limits {
        silence: watchman.alarm(),
        patience,
        deadline: watchman.alarm(),
        rang: AtomicU8::new(NOTHING),
    });
    if let Some(patience) = patience {
        limits.silence.set(patience);
    }
    let own = limits.clone();
    let watched = async move {
        let mut request = Box::pin(request);
        let ended = std::future::poll_fn(|context| match request.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                let (is_silent, is_late) = (own.silence.rings(context), own.deadline.rings(context));
                let rang = if is_late { DEADLINE } else { SILENCE };
                own.rang.store(if is_silent || is_late { rang } else { NOTHING }, Ordering::Relaxed);
                if is_silent || is_late { Poll::Ready(None) } else { Poll::Pending }
            }
        });
        let ended = ended.await;
        // Its record ends here, while it is known what rang.
        drop(request);
        ended
    };
    LIMITS.scope(limits, watched).await
}

/// Something has come, or was sent, in the request that this task carries, if it carries one here.
pub(crate) fn something_moves() {
    let _ = LIMITS.try_with(|limits| {
        if let Some(patience) = limits.patience {
            limits.silence.set(patience);
        }
    });
}

/// From now on the request that this task carries has so much time.
pub(crate) fn set_deadline(left: Duration) {
    let _ = LIMITS.try_with(|limits| limits.deadline.set(left + GRACE));
}

/// How a request ended that was dropped: neither side is silent for so long but the client, as a backend has less time; and one that is
/// late is the backend's.
pub(crate) fn outcome_of_drop() -> Outcome {
    let rang = LIMITS.try_with(|limits| limits.rang.load(Ordering::Relaxed)).unwrap_or(NOTHING);
    match rang {
        SILENCE => Outcome::ClientAbort,
        DEADLINE => Outcome::Timeout,
        _ => Outcome::Internal,
    }
}
