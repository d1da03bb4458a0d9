//! Connections to backends that wait for the next request, of one thread: taken and given back without a task, a lock that is
//! contended, or a system call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::alarm::Watchman;

/// Idle connections kept to all backends of one thread; the one that has waited longest in the fullest place goes first.
const IDLE_MAX: usize = 1_024;
/// Idle connections kept to one backend.
const IDLE_OF_ONE_MAX: usize = 256;

/// How often the idle ones are looked through. A closed one that nobody takes holds a file descriptor for so long.
const SWEEP: Duration = Duration::from_secs(5);

/// The idle connections of one thread.
#[derive(Debug)]
pub(crate) struct Pool {
    /// In milliseconds.
    idle_timeout: u64,
    watchman: Arc<Watchman>,
    /// Only this thread takes it.
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// By backend, the one used last at the end: those at the front grow old and are closed.
    /// Beside each is when it was given back, in milliseconds by the watchman.
    by_address: HashMap<SocketAddr, Vec<(TcpStream, u64)>, FixedState>,
    count: usize,
}

impl Pool {
    pub(crate) fn new(idle_timeout: Duration, watchman: Arc<Watchman>) -> Self {
        let idle_timeout = u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX);
        Self { idle_timeout, watchman, idle: Mutex::default() }
    }

    /// A connection to a backend that was open a moment ago, if there is one.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.idle.lock();
        let idle = &mut *idle;
        let waiting = idle.by_address.get_mut(&address)?;
        while let Some((stream, since)) = waiting.pop() {
            idle.count -= 1;
            if self.is_young(since) && is_open(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give_back(&self, address: SocketAddr, stream: TcpStream) {
        let mut idle = self.idle.lock();
        let idle = &mut *idle;
        if idle.by_address.get(&address).is_some_and(|waiting| waiting.len() >= IDLE_OF_ONE_MAX) {
            return;
        }
        let age = |waiting: &Vec<(TcpStream, u64)>| std::cmp::Reverse(waiting.first().map(|(_, since)| *since));
        if idle.count >= IDLE_MAX
            && let Some(fullest) = idle.by_address.values_mut().max_by_key(|waiting| (waiting.len(), age(waiting)))
            && !fullest.is_empty()
        {
            fullest.remove(0);
            idle.count -= 1;
        }
        idle.by_address.entry(address).or_default().push((stream, self.watchman.now_ms()));
        idle.count += 1;
    }

    /// Closes now and then what has waited too long, or was closed by its backend: one that is gone is not asked for again.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        let mut times = tokio::time::interval(SWEEP);
        loop {
            times.tick().await;
            self.sweep();
        }
    }

    fn is_young(&self, since: u64) -> bool {
        self.watchman.now_ms().saturating_sub(since) < self.idle_timeout
    }

    fn sweep(&self) {
        let mut idle = self.idle.lock();
        let idle = &mut *idle;
        for waiting in idle.by_address.values_mut() {
            waiting.retain(|(stream, since)| self.is_young(*since) && is_open(stream));
        }
        idle.by_address.retain(|_, waiting| !waiting.is_empty());
        idle.count = idle.by_address.values().map(Vec::len).sum();
    }
}

/// Whether a backend has neither closed an idle connection nor said anything on it, as far as this thread has been told: it asks
/// the runtime, and the kernel only if there is news.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
