//! A watch: what is chosen now or what changed since a version, then every change, one line of JSON for each.
//!
//! As in the real server a watch selects by what an object was and is: one that stops being chosen is `DELETED`, one
//! that starts is `ADDED`. A version that is forgotten is answered with an `ERROR` event of 410 rather than by an HTTP
//! status.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Inner;
use super::call::Call;
use super::failure::Failure;
use super::metadata_of;
use super::selector::Selector;
use super::store::{Change, Store, is_within};

/// How often a watch that asked for bookmarks gets one. The watch cache of the real server sends them about once a
/// minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a watch lasts that says nothing about it; the real server picks between half an hour and an hour.
const TIMEOUT: Duration = Duration::from_secs(1800);

struct Watch {
    inner: Arc<Inner>,
    call: Call,
    selector: Selector,
    /// The last version that was looked at.
    seen: u64,
    lines: VecDeque<Bytes>,
    changed: watch::Receiver<u64>,
    /// The count of broken connections when this one began.
    connection: u64,
    ends_at: Instant,
    bookmark_at: Option<Instant>,
    over: bool,
}

/// Opens a watch. Only a selector that cannot be parsed is refused by an HTTP status.
pub(super) fn open(
    inner: &Arc<Inner>,
    call: Call,
) -> Result<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<>, Failure> {
    let selector = Selector::parse(call.option("labelSelector"), call.option("fieldSelector"))?;
    let timeout =
        call.option("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).map_or(TIMEOUT, Duration::from_secs);
    let bookmarks = call.option("allowWatchBookmarks") == Some("true");
    let now = Instant::now();
    // Subscribed before the state is read, so that no change falls in between.
    let changed = inner.changed.subscribe();
    let connection = inner.look(|state| state.connections);
    let mut watch = Watch {
        inner: Arc::clone(inner),
        selector,
        seen: 0,
        lines: VecDeque::new(),
        changed,
        connection,
        ends_at: now + timeout,
        bookmark_at: bookmarks.then_some(now + BOOKMARK_INTERVAL),
        over: false,
        call,
    };
    watch.begin();
    Ok(futures::stream::unfold(watch, |mut watch| async {
        let line = watch.next().await?;
        Some((Ok(Frame::data(line)), watch))
    }))
}

impl Watch {
    fn begin(&mut self) {
        let from = self.call.option("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
        // Asked for, a list can begin at any version. Without a version there is one too, and its end is told to whoever
        // takes bookmarks (`SetListOptionsDefaults` in apimachinery).
        let asks_for_list = self.call.option("sendInitialEvents") == Some("true");
        let inner = Arc::clone(&self.inner);
        inner.look(|state| {
            let store = &state.store;
            if from > 0 && !asks_for_list {
                self.seen = from;
                return;
            }
            self.seen = store.version;
            for object in store.chosen(&self.call, &self.selector) {
                self.push("ADDED", &object);
            }
            if asks_for_list || self.bookmark_at.is_some() {
                self.bookmark(true);
            }
        });
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let inner = Arc::clone(&self.inner);
            let connection = inner.look(|state| {
                self.catch_up(&state.store);
                state.connections
            });
            if connection != self.connection {
                return None;
            }
            if !self.lines.is_empty() {
                continue;
            }
            let bookmark_at = self.bookmark_at.unwrap_or(self.ends_at);
            tokio::select! {
                changed = self.changed.changed() => self.over = changed.is_err(),
                () = sleep_until(self.ends_at) => {
                    self.over = true;
                    if self.bookmark_at.is_some() {
                        self.bookmark(false);
                    }
                }
                () = sleep_until(bookmark_at), if self.bookmark_at.is_some() => {
                    self.bookmark(false);
                    self.bookmark_at = Some(bookmark_at + BOOKMARK_INTERVAL);
                }
            }
        }
    }

    fn catch_up(&mut self, store: &Store) {
        if self.seen < store.compacted {
            let message = format!("too old resource version: {} ({})", self.seen, store.compacted);
            self.push_line("ERROR", &Failure::expired(message).status());
            self.over = true;
            return;
        }
        for change in changes_since(store, self.seen) {
            self.tell(change);
            self.seen = change.version;
        }
    }

    fn tell(&mut self, change: &Change) {
        if change.key.resource != self.call.kind.qualified() || !is_within(&change.key, &self.call) {
            return;
        }
        let was = change.before.as_ref().is_some_and(|object| self.selector.chooses(object));
        let is = !change.deleted && self.selector.chooses(&change.after);
        match (was, is) {
            (false, false) => {}
            (false, true) => self.push("ADDED", &change.after),
            (true, true) => self.push("MODIFIED", &change.after),
            (true, false) => {
                // Told as it was when last chosen, under the version at which it went.
                let mut last = change.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = change.after["metadata"]["resourceVersion"].clone();
                self.push("DELETED", &last);
            }
        }
    }

    fn push(&mut self, event: &str, object: &Value) {
        if self.call.metadata_only {
            self.push_line(event, &metadata_of(object));
        } else {
            self.push_line(event, object);
        }
    }

    fn bookmark(&mut self, ends_the_list: bool) {
        let kind = &self.call.kind;
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if ends_the_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        self.push_line("BOOKMARK", &object);
    }

    fn push_line(&mut self, event: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": event, "object": object}));
        self.lines.push_back(Bytes::from(line));
    }
}

fn changes_since(store: &Store, version: u64) -> impl Iterator<Item = &Change> {
    // Versions rise in the history, so where to begin can be searched.
    let from = store.history.partition_point(|change| change.version <= version);
    store.history.range(from..)
}
