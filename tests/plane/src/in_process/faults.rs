//! What goes wrong when a test says so: calls refused, held, cut off, or carried out without anybody being told.

use std::sync::Arc;

use tokio::sync::watch;

use super::call::{Call, Verb};

/// A fault for the next calls that match it. As made by [`Fault::on`], it refuses one call with 500.
#[derive(Clone, Debug)]
pub struct Fault {
    verb: Verb,
    resource: String,
    name: Option<String>,
    subresource: Option<String>,
    times: usize,
    pub(super) carried_out: bool,
    pub(super) reply: Reply,
}

/// What the caller gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status { code: u16, retry_after_s: Option<u32> },
    Broken,
    Held,
}

impl Fault {
    /// A fault for calls of a verb on a resource, named `deployments` or `deployments.apps`.
    pub fn on(verb: Verb, resource: &str) -> Self {
        Self {
            verb,
            resource: resource.to_owned(),
            name: None,
            subresource: None,
            times: 1,
            carried_out: false,
            reply: Reply::Status { code: 500, retry_after_s: None },
        }
    }

    /// Only for the object of that name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only for that subresource; the empty one is the main resource.
    #[must_use]
    pub fn subresource(self, subresource: &str) -> Self {
        Self { subresource: Some(subresource.to_owned()), ..self }
    }

    /// For so many calls rather than one.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Answers with a failure of that code.
    #[must_use]
    pub fn refused(self, code: u16) -> Self {
        Self { reply: Reply::Status { code, retry_after_s: None }, ..self }
    }

    /// Answers with a failure of that code and says when to try again.
    #[must_use]
    pub fn refused_for(self, code: u16, retry_after_s: u32) -> Self {
        Self { reply: Reply::Status { code, retry_after_s: Some(retry_after_s) }, ..self }
    }

    /// Breaks the connection instead of answering.
    #[must_use]
    pub fn broken(self) -> Self {
        Self { reply: Reply::Broken, ..self }
    }

    /// Answers only once [`Hold::release`] was called; until then the call hangs.
    #[must_use]
    pub fn held(self) -> Self {
        Self { reply: Reply::Held, ..self }
    }

    /// Carries the call out all the same: it is saved, and nobody is told.
    #[must_use]
    pub fn although_carried_out(self) -> Self {
        Self { carried_out: true, ..self }
    }

    fn matches(&self, call: &Call) -> bool {
        let subresource = call.subresource.as_deref().unwrap_or("");
        self.verb == call.verb
            && call.kind.answers_to(&self.resource)
            && self.name.as_deref().is_none_or(|name| Some(name) == call.name.as_deref())
            && self.subresource.as_deref().is_none_or(|wanted| wanted == subresource)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    hits: usize,
    released: bool,
}

/// Follows a fault: how many calls it met, and when the held ones go on.
#[derive(Clone, Debug)]
pub struct Hold {
    progress: Arc<watch::Sender<Progress>>,
}

impl Hold {
    /// Lets the calls that are held, and those that still will be, go on.
    pub fn release(&self) {
        self.progress.send_modify(|progress| progress.released = true);
    }

    /// How many calls met the fault so far.
    pub fn hits(&self) -> usize {
        self.progress.borrow().hits
    }

    /// Waits until that many calls have met the fault.
    pub async fn reached(&self, hits: usize) {
        self.until(|progress| progress.hits >= hits).await;
    }

    pub(super) async fn released(&self) {
        self.until(|progress| progress.released).await;
    }

    async fn until(&self, done: impl FnMut(&Progress) -> bool) {
        self.progress.subscribe().wait_for(done).await.expect("the sender lives as long as this handle");
    }
}

/// The faults still to come, in the order they were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pending: Vec<(Fault, Hold)>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) -> Hold {
        let hold = Hold { progress: Arc::new(watch::Sender::new(Progress::default())) };
        self.pending.push((fault, hold.clone()));
        hold
    }

    pub(super) fn clear(&mut self) {
        for (_, hold) in self.pending.drain(..) {
            hold.release();
        }
    }

    /// The first fault for a call, which is used up by one.
    pub(super) fn take(&mut self, call: &Call) -> Option<(Fault, Hold)> {
        let found = self.pending.iter_mut().find(|(fault, _)| fault.times > 0 && fault.matches(call))?;
        found.0.times -= 1;
        let taken = found.clone();
        self.pending.retain(|(fault, _)| fault.times > 0);
        taken.1.progress.send_modify(|progress| progress.hits += 1);
        Some(taken)
    }
}
