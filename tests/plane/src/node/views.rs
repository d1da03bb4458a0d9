//! What is known of each container of a pod; written by whoever runs it, read by whoever reports it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) state: State,
    /// How the run before this one ended.
    pub(super) last: Option<Ended>,
    pub(super) restarts: i32,
    /// Its startup probe has succeeded, or it runs and has none.
    pub(super) started: bool,
    pub(super) ready: bool,
    /// The program's process, while it runs.
    pub(super) pid: Option<u32>,
    /// It will not be started again.
    pub(super) finished: bool,
    /// An init container that goes on beside the others: one with `restartPolicy: Always`.
    pub(super) sidecar: bool,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Not running, for a reason in one word and in a sentence.
    Waiting { reason: &'static str, message: String },
    /// Running.
    Running { since: Timestamp },
    /// Ended.
    Ended(Ended),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// As shells count: 128 and the signal, for one that was killed.
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl View {
    fn of(container: &Container, reason: &'static str) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: State::Waiting { reason, message: String::new() },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            pid: None,
            finished: false,
            sidecar: container.restart_policy.as_deref() == Some("Always"),
        }
    }

    /// Whether it has never run.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.state, State::Waiting { .. }) && self.last.is_none()
    }

    /// How it ended, if it is not going to be started again.
    pub(super) const fn outcome(&self) -> Option<i32> {
        match &self.state {
            State::Ended(ended) if self.finished => Some(ended.code),
            // It was stopped while it waited for another start.
            State::Waiting { .. } if self.finished => Some(137),
            State::Ended(_) | State::Waiting { .. } | State::Running { .. } => None,
        }
    }
}

/// All containers of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Views {
    pub(super) init: Vec<View>,
    pub(super) main: Vec<View>,
}

impl Views {
    /// Containers that nobody has started yet.
    pub(super) fn new(init: &[Container], main: &[Container]) -> Self {
        let reason = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let views = |containers: &[Container]| containers.iter().map(|container| View::of(container, reason)).collect();
        Self { init: views(init), main: views(main) }
    }
}

/// Where a container's view is among those of its pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Init(usize),
    Main(usize),
}

/// The view of one container, to be written.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) views: Arc<watch::Sender<Views>>,
    pub(super) place: Place,
}

impl Slot {
    /// Changes the view, and wakes whoever reports it.
    pub(super) fn update(&self, change: impl FnOnce(&mut View)) {
        self.views.send_modify(|views| match self.place {
            Place::Init(index) => change(&mut views.init[index]),
            Place::Main(index) => change(&mut views.main[index]),
        });
    }

    /// The view as it is now.
    pub(super) fn view(&self) -> View {
        let views = self.views.borrow();
        match self.place {
            Place::Init(index) => views.init[index].clone(),
            Place::Main(index) => views.main[index].clone(),
        }
    }
}
