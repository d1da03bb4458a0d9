//! One container: started, watched, ended, and started again.
//!
//! ```text
//! waiting ─▶ running ─▶ ended ─▶ waiting (back-off) ─▶ running …
//!                │ asked to stop, or a probe gave up on it
//!                └─▶ preStop ─▶ SIGTERM ─▶ grace ─▶ SIGKILL ─▶ ended
//! ```

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::action::Action;
use super::backoff::Backoff;
use super::environment::{self, Variables};
use super::health::Health;
use super::resident::{Orders, Resident};
use super::sources::{Problem, Sources};
use super::views::{Ended, Slot, State};
use super::volumes::{Volumes, mounts};
use super::wire::Wire;
use crate::launch::{Launch, Output, View};

/// How often it is looked again whether what a container lacks is there now.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a container still gets between SIGTERM and SIGKILL when its hook has used up the grace; as kubelet does.
const GRACE_AT_LEAST: Duration = Duration::from_secs(2);

/// What is done when a container has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    const fn applies(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// A container and whoever runs it.
#[derive(Clone)]
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) resident: Arc<Resident>,
    pub(super) container: Container,
    pub(super) slot: Slot,
    pub(super) restart: Restart,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) volumes: Arc<Volumes>,
}

/// One run of a container, as its probes and hooks see it.
pub(super) struct Run {
    pub(super) slot: Slot,
    shared: Arc<Shared>,
    resident: Arc<Resident>,
    name: String,
    pid: u32,
    variables: Variables,
    directory: Option<PathBuf>,
    health: Health,
    before_stop: Option<Action>,
}

impl Runner {
    /// Runs the container until it is not to be started again.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while let Some((mut child, run)) = self.start().await {
            let began = Instant::now();
            let ended = self.attend(&mut child, &run).await;
            let again = self.orders.borrow().stop_by.is_none() && self.restart.applies(ended.code);
            run.note("ended", &format!("with {}", ended.code));
            self.slot.update(|view| {
                (view.state, view.finished) = (State::Ended(ended), !again);
                (view.started, view.ready, view.pid) = (false, false, None);
            });
            if !again {
                return;
            }
            let pause = backoff.pause_after(began.elapsed());
            if self
                .pause(
                    "CrashLoopBackOff",
                    format!("back-off {pause:?} restarting failed container {}", run.name),
                    pause,
                )
                .await
            {
                break;
            }
        }
        self.slot.update(|view| view.finished = true);
    }

    /// Says that the container waits, and lets it. Says whether it was asked to stop meanwhile.
    async fn pause(&mut self, reason: &'static str, message: String, length: Duration) -> bool {
        if !length.is_zero() {
            self.slot.update(|view| {
                if let State::Ended(ended) = &view.state {
                    view.last = Some(ended.clone());
                }
                view.state = State::Waiting { reason, message };
            });
        }
        tokio::select! {
            () = sleep(length) => self.orders.borrow().stop_by.is_some(),
            _stop = stop_by(&mut self.orders) => true,
        }
    }

    /// Starts it as soon as all that it needs is there; none if it was asked to stop first.
    async fn start(&mut self) -> Option<(Child, Run)> {
        loop {
            let Problem { reason, message } = match self.try_start().await {
                Ok(started) => return Some(started),
                Err(problem) => problem,
            };
            self.shared.journal.note(&self.resident, &self.container.name, reason, &message);
            if self.pause(reason, message, LOOK_AGAIN).await {
                return None;
            }
        }
    }

    async fn try_start(&self) -> Result<(Child, Run), Problem> {
        let (container, resident) = (&self.container, &*self.resident);
        let pod = Arc::clone(&self.orders.borrow().pod);
        let sources = Sources { client: self.shared.client.clone(), namespace: resident.namespace.clone() };
        let variables = environment::variables(container, &pod, resident.address, &sources).await?;
        let mounts = mounts(container, &self.volumes, &variables)?;
        let argv = environment::command_line(container, &self.image()?, &variables);
        let health = Health::of(container, resident.address)?;
        let lifecycle = container.lifecycle.as_ref();
        if lifecycle.is_some_and(|hooks| hooks.post_start.is_some()) {
            return Err(Problem::unsupported("postStart hooks"));
        }
        let before_stop = lifecycle.and_then(|hooks| hooks.pre_stop.as_ref());
        let before_stop = before_stop.map(|hook| Action::of_hook(hook, container, resident.address)).transpose()?;
        let directory = container.working_dir.clone().map(PathBuf::from);
        let root = resident.folder.join("roots").join(&container.name);
        let failed = |error: anyhow::Error| Problem { reason: "RunContainerError", message: format!("{error:#}") };
        std::fs::create_dir_all(&root).map_err(|error| failed(error.into()))?;
        let network = resident.wire.get().map(Wire::namespace);
        let view = View::Container { hostname: resident.name.clone(), network, mounts, root };
        let launch = Launch { argv, environment: variables.clone(), directory: directory.clone(), view };
        let file = resident.folder.join(format!("{}.launch", container.name));
        let child = self.shared.spawner.spawn(&launch, &file, Output::Log(resident.log(&container.name))).await;
        let child = child.map_err(failed)?;
        let pid = child.id().ok_or_else(|| failed(anyhow::anyhow!("it has ended already")))?;
        self.slot.update(|view| {
            if let State::Ended(ended) = &view.state {
                view.last = Some(ended.clone());
            }
            view.restarts += i32::from(view.last.is_some());
            (view.state, view.pid) = (State::Running { since: Timestamp::now() }, Some(pid));
        });
        let (slot, name) = (self.slot.clone(), container.name.clone());
        let (shared, resident) = (Arc::clone(&self.shared), Arc::clone(&self.resident));
        Ok((child, Run { slot, shared, resident, name, pid, variables, directory, health, before_stop }))
    }

    fn image(&self) -> Result<Vec<String>, Problem> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let images = self.shared.images.lock().expect("nothing panics while it is held");
        match images.resolve(image) {
            Some(argv) => Ok(argv.to_vec()),
            // As kubelet says on every try but the first.
            None => Err(Problem {
                reason: "ImagePullBackOff",
                message: format!("no image {image:?} was given to this node"),
            }),
        }
    }

    /// Stays with a running container until its end, which it may bring about.
    async fn attend(&mut self, child: &mut Child, run: &Run) -> Ended {
        let since = Timestamp::now();
        let (started, seen) = watch::channel(false);
        let readiness = run.health.readiness(run, seen);
        tokio::pin!(readiness);
        let ended = async {
            let by = tokio::select! {
                status = child.wait() => return status,
                why = run.health.fatal(run, &started) => {
                    run.note("is killed", &why);
                    Instant::now() + self.resident.grace
                }
                by = stop_by(&mut self.orders) => by,
            };
            run.terminate(child, by, &mut self.orders).await
        };
        // Readiness is asked for to the end: a pod that is about to go still serves.
        let status = tokio::select! {
            status = ended => status,
            () = &mut readiness => unreachable!("readiness is kept up to date for ever"),
        };
        // Whatever the program started itself goes with it.
        run.signal(Signal::SIGKILL);
        // It is our child and nobody else waits for it.
        let status = status.unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32));
        let signal = status.signal();
        let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
        Ended { code, signal, since, until: Timestamp::now() }
    }
}

/// Waits until the pod is asked to stop, and says by when.
async fn stop_by(orders: &mut watch::Receiver<Orders>) -> Instant {
    match orders.wait_for(|orders| orders.stop_by.is_some()).await {
        Ok(orders) => orders.stop_by.unwrap_or_else(Instant::now),
        // Nobody gives orders any more: the node is gone.
        Err(_) => Instant::now(),
    }
}

impl Run {
    /// Ends the program as kubelet does: hook, SIGTERM, grace, SIGKILL.
    async fn terminate(
        &self,
        child: &mut Child,
        by: Instant,
        orders: &mut watch::Receiver<Orders>,
    ) -> std::io::Result<ExitStatus> {
        if let Some(hook) = &self.before_stop {
            let done = tokio::select! {
                status = child.wait() => return status,
                done = hook.perform(self) => done,
                () = sleep_until(by) => Err("not done within the grace period".into()),
                () = brought_forward(orders, by) => Err("the pod has to go sooner".into()),
            };
            self.note("was told that it will stop", done.err().as_deref().unwrap_or_default());
        }
        self.signal(Signal::SIGTERM);
        let least = if self.before_stop.is_some() { GRACE_AT_LEAST } else { Duration::ZERO };
        tokio::select! {
            status = child.wait() => return status,
            () = sleep_until(by.max(Instant::now() + least)) => {}
            () = brought_forward(orders, by) => {}
        }
        self.note("did not end by itself", "");
        self.signal(Signal::SIGKILL);
        child.wait().await
    }

    fn signal(&self, signal: Signal) {
        let Ok(group) = i32::try_from(self.pid) else { return };
        // It fails if nobody is left in the group, which is as well.
        let _sent = killpg(Pid::from_raw(group), signal);
    }

    /// Starts a command that sees what the container sees.
    pub(super) async fn spawn_inside(&self, command: &[String]) -> Result<Child> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let launch = Launch {
            argv: command.to_vec(),
            environment: self.variables.clone(),
            directory: self.directory.clone(),
            view: View::Of { pid: self.pid },
        };
        // Readiness and liveness may both be asking.
        let count = COUNT.fetch_add(1, Ordering::Relaxed) % 16;
        let file = self.resident.folder.join(format!("{}.inside-{count}", self.name));
        let log = self.resident.folder.join(format!("{}.inside.log", self.name));
        self.shared
            .spawner
            .spawn(&launch, &file, Output::Log(log))
            .await
            .context("running a command inside a container")
    }

    /// Writes to the node's journal.
    pub(super) fn note(&self, what: &str, why: &str) {
        self.shared.journal.note(&self.resident, &self.name, what, why);
    }
}

/// Waits until a second deletion wants the pod gone before `by`.
async fn brought_forward(orders: &mut watch::Receiver<Orders>, by: Instant) {
    let sooner = orders.wait_for(|orders| orders.stop_by.is_some_and(|sooner| sooner < by)).await.is_ok();
    if !sooner {
        std::future::pending::<()>().await;
    }
}
