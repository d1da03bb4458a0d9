//! Time limits on every read and write, for next to nothing: a limit is one store into memory, and a thread's watchman looks at all
//! of them twenty times a second. A timer of its own for each would cost a tenth of a request.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the watchman looks. Limits are kept to about as much: a thread that is busy for longer looks later.
const LOOK: Duration = Duration::from_millis(LOOK_MS as u64);
const LOOK_MS: u32 = 50;
/// No limit.
const NEVER: u64 = u64::MAX;

/// The time ran out, or the thread is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rang;

/// Watches over the limits of one thread.
#[derive(Debug)]
pub(crate) struct Watchman {
    begun: Instant,
    /// Milliseconds since then, as of the last look.
    now_ms: AtomicU64,
    /// No connection stays idle any more.
    stopping: AtomicBool,
    alarms: Mutex<Slab<Arc<State>>>,
}

#[derive(Debug)]
struct State {
    at_ms: AtomicU64,
    waker: AtomicWaker,
}

/// A limit that is set again and again, as one read or write follows another.
#[derive(Debug)]
pub(crate) struct Alarm {
    watchman: Arc<Watchman>,
    state: Arc<State>,
    place: usize,
}

impl Watchman {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            now_ms: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            alarms: Mutex::default(),
        })
    }

    /// Looks until the runtime ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(NEVER);
            self.now_ms.store(now_ms, Ordering::Relaxed);
            self.wake(|state| state.at_ms.load(Ordering::Relaxed) <= now_ms);
        }
    }

    /// Ends the patience of all who are idle.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.wake(|_| true);
    }

    /// Milliseconds since the thread began, as of the last look: a time for next to nothing.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn wake(&self, is_due: impl Fn(&State) -> bool) {
        for (_, state) in self.alarms.lock().iter() {
            if is_due(state) {
                state.waker.wake();
            }
        }
    }

    /// An alarm of its own for somebody.
    pub(crate) fn alarm(self: &Arc<Self>) -> Alarm {
        let state = Arc::new(State { at_ms: AtomicU64::new(NEVER), waker: AtomicWaker::new() });
        let place = self.alarms.lock().insert(state.clone());
        Alarm { watchman: self.clone(), state, place }
    }
}

impl Alarm {
    /// Waits for something, at most for so long.
    ///
    /// # Errors
    /// If the time ran out.
    pub(crate) async fn within<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Rang> {
        self.set(limit);
        self.wait(future).await
    }

    /// Waits for something until the limit that was set before.
    ///
    /// # Errors
    /// If the time ran out.
    pub(crate) async fn wait<F: Future>(&self, future: F) -> Result<F::Output, Rang> {
        let mut future = pin!(future);
        let waited = std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.rings(context) => Poll::Ready(Err(Rang)),
            Poll::Pending => Poll::Pending,
        });
        waited.await
    }

    /// Begins to count.
    pub(crate) fn set(&self, limit: Duration) {
        let limit_ms = limit.as_secs().saturating_mul(1_000).saturating_add((limit.subsec_millis() + LOOK_MS).into());
        let at_ms = self.watchman.now_ms.load(Ordering::Relaxed).saturating_add(limit_ms);
        self.state.at_ms.store(at_ms, Ordering::Relaxed);
    }

    /// Whether the time has run out; whoever asks is woken when it does.
    pub(crate) fn rings(&self, context: &Context<'_>) -> bool {
        self.state.waker.register(context.waker());
        self.state.at_ms.load(Ordering::Relaxed) <= self.watchman.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn watchman(&self) -> &Watchman {
        &self.watchman
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.watchman.alarms.lock().remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_never_shorter_and_hardly_longer() {
        let watchman = Watchman::new();
        let watching = tokio::spawn(watchman.clone().watch());
        let alarm = watchman.alarm();
        for limit_ms in [0, 1, 49, 50, 51, 1_000] {
            let (limit, begun) = (Duration::from_millis(limit_ms), Instant::now());
            assert_eq!(alarm.within(limit, pending::<()>()).await, Err(Rang));
            let took = begun.elapsed();
            assert!(took >= limit && took <= limit + 3 * LOOK, "{limit:?} took {took:?}");
            assert_eq!(alarm.within(limit, async { 7 }).await, Ok(7));
        }
        watching.abort();
    }

    #[tokio::test]
    async fn whoever_is_gone_is_watched_no_more() {
        let watchman = Watchman::new();
        let (one, other) = (watchman.alarm(), watchman.alarm());
        drop(one);
        assert_eq!(watchman.alarms.lock().len(), 1);
        drop(other);
        assert!(watchman.alarms.lock().is_empty());
    }
}
