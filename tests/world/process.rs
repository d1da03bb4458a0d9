//! One replica: the real control loop with everything around it made up. It starts, serves, is told to stop, or is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serin_measure::BootId;
use serin_runtime::{Board, Clock, Controller, Tell, Trip};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api::Watch;
use crate::candidate::Candidate;
use crate::link::Link;
use crate::plane::Plane;
use crate::site::Surroundings;
use crate::world::World;

/// How long closing may take, as in the product.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long requests under way are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before starting again with a store that cannot be read.
const START_AGAIN_MS: u64 = 1_000;

/// A process.
pub(crate) struct Process {
    pub(crate) boot: BootId,
    pub(crate) place: usize,
    pub(crate) address: SocketAddr,
    pub(crate) plane: Arc<Plane>,
    pub(crate) board: Arc<Board>,
    pub(crate) watch: Watch,
    /// Whether it takes requests.
    pub(crate) accepts: AtomicBool,
    /// Whether its loop runs.
    pub(crate) is_up: AtomicBool,
    pub(crate) is_stopping: AtomicBool,
    pub(crate) told_finally: Notify,
    /// There is a new configuration.
    pub(crate) configured: Notify,
    /// Whether it led when that was last looked at, and how often it has begun to.
    term: Mutex<(bool, u64)>,
    /// The last term that was told.
    told_term: AtomicU64,
    dead: CancellationToken,
    stop: CancellationToken,
    /// The loop has ended, and so has the candidate.
    closed: [CancellationToken; 2],
    broke_off: AtomicBool,
}

impl Process {
    /// A new process at this place.
    pub(crate) fn start(world: &Arc<World>, place: usize) {
        let boot = world.next_boot();
        let (dead, stop) = (CancellationToken::new(), CancellationToken::new());
        let (report, tripped) = mpsc::unbounded_channel();
        let mut places = world.places.lock();
        let process = Arc::new(Self {
            boot,
            place,
            address: places[place].address,
            plane: Plane::new(world.clone(), boot, report),
            board: Arc::default(),
            watch: Watch::default(),
            accepts: AtomicBool::new(false),
            is_up: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            told_finally: Notify::new(),
            configured: Notify::new(),
            term: Mutex::default(),
            told_term: AtomicU64::new(0),
            dead,
            stop,
            closed: [CancellationToken::new(), CancellationToken::new()],
            broke_off: AtomicBool::new(false),
        });
        places[place].process = Some(process.clone());
        drop(places);
        world.tell(|| format!("{boot} starts at place {place}"));
        process.spawn(process.clone().live(world.clone(), tripped));
    }

    /// Runs a task that dies with this process.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let dead = self.dead.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = task => {}
            }
        });
    }

    async fn live(self: Arc<Self>, world: Arc<World>, tripped: mpsc::UnboundedReceiver<Trip>) {
        let link = Link::new(world.clone(), self.boot, self.place, self.dead.clone());
        let site = Surroundings::new(link.clone());
        let clock = Clock::at(world.wall_ms());
        let controller = loop {
            let (plane, board, workloads) = (self.plane.clone(), self.board.clone(), world.workloads());
            match Controller::start(link.clone(), plane, site.clone(), board, clock, workloads).await {
                Ok(controller) => break controller,
                Err(error) => world.tell(|| format!("{} cannot start yet: {error}", self.boot)),
            }
            world.pause(START_AGAIN_MS..START_AGAIN_MS + 1).await;
        };
        let tell = controller.tell();
        let candidate = Candidate::new(link.clone(), tell.clone());
        let closed = self.closed.clone();
        let election = closed[1].clone();
        let stop = self.stop.clone();
        self.spawn(async move {
            candidate.run(stop).await;
            election.cancel();
        });
        self.spawn(follow_states(self.clone(), link.clone(), tell.clone()));
        self.spawn(follow_configuration(self.clone(), link.clone(), tell.clone()));
        self.spawn(pass_on_trips(tripped, tell));
        self.is_up.store(true, Ordering::Relaxed);
        self.accepts.store(true, Ordering::Relaxed);
        let control = tokio::spawn(controller.run(self.stop.clone()));
        let abort = AbortOnDrop(control.abort_handle());
        if control.await.is_err() {
            self.broke_off.store(true, Ordering::Relaxed);
        }
        drop(abort);
        closed[0].cancel();
    }

    /// Whether its control loop has broken off by itself.
    pub(crate) fn has_broken_off(&self) -> bool {
        self.broke_off.load(Ordering::Relaxed)
    }

    /// Gone at once.
    pub(crate) fn kill(self: &Arc<Self>, world: &World) {
        self.dead.cancel();
        self.watch.close();
        world.places.lock()[self.place].process = None;
        let mut eyes = world.eyes.lock();
        let kept = eyes.counts.check(self.boot, &serin_runtime::DataPlane::snapshot(&*self.plane, None));
        eyes.note(kept);
        eyes.trips.died(self.boot);
    }

    /// Told to stop, in the order of `control/src/run.rs`: readiness first, then requests, then the loop and the Lease.
    pub(crate) async fn stop(self: Arc<Self>, world: Arc<World>) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.board.drain();
        world.pause(200..1_500).await;
        self.accepts.store(false, Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.plane.is_empty() && tokio::time::Instant::now() < deadline {
            world.pause(20..30).await;
        }
        self.board.emptied();
        self.stop.cancel();
        let closed = async {
            if self.is_up.load(Ordering::Relaxed) {
                for closed in &self.closed {
                    closed.cancelled().await;
                }
            }
            if world.living().len() > 1 {
                self.told_finally.notified().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, closed).await;
        if !self.dead.is_cancelled() {
            world.tell(|| format!("{} has stopped", self.boot));
            self.kill(&world);
        }
    }

    /// Whether it leads, and in which of its terms.
    pub(crate) fn term(&self) -> (bool, u64) {
        let leads = self.board.read().leads;
        let mut term = self.term.lock();
        if leads && !term.0 {
            term.1 += 1;
        }
        term.0 = leads;
        *term
    }

    /// Lets the observer see what is in force here.
    pub(crate) fn watch_state(&self, world: &World) {
        let (_, term) = self.term();
        if self.told_term.swap(term, Ordering::Relaxed) != term {
            world.tally("leader: begins to lead");
            world.tell(|| format!("{} leads", self.boot));
        }
        let posting = self.board.read();
        let mut eyes = world.eyes.lock();
        for (canary, posted) in &posting.canaries {
            eyes.trips.in_force(&(self.boot, canary.clone()), &posted.state, world.now_ms());
        }
    }
}

/// The control loop dies with the task that waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the loop every state that is saved, in order, some time after.
async fn follow_states(process: Arc<Process>, link: Arc<Link>, tell: Tell) {
    let world = link.world.clone();
    loop {
        while !link.is_open() {
            world.pause(100..800).await;
        }
        for saved in process.watch.open(&world) {
            tell.stored(vec![(*saved).clone()]).await;
        }
        while process.watch.is_open() {
            let Some(due_ms) = process.watch.next_ms() else {
                process.watch.news.notified().await;
                continue;
            };
            tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(world.now_ms()))).await;
            while !link.is_open() {
                // The connection hangs. What it had to say comes later, or with a new list.
                world.pause(100..800).await;
            }
            if let Some(saved) = process.watch.take() {
                tell.stored(vec![(*saved).clone()]).await;
            }
        }
        world.pause(50..1_500).await;
    }
}

/// Tells the loop every new configuration, some time after.
async fn follow_configuration(process: Arc<Process>, link: Arc<Link>, tell: Tell) {
    let world = link.world.clone();
    // What came between start and now is news too.
    process.configured.notify_one();
    loop {
        process.configured.notified().await;
        let slowest_ms = if world.chance(0.9) { 100 } else { 2_000 };
        world.pause(1..slowest_ms).await;
        while !link.is_open() {
            world.pause(100..500).await;
        }
        world.tell(|| format!("{} is told the configuration", process.boot));
        tell.configured(world.workloads()).await;
    }
}

/// Passes on what tripwires report.
async fn pass_on_trips(mut tripped: mpsc::UnboundedReceiver<Trip>, tell: Tell) {
    while let Some(trip) = tripped.recv().await {
        tell.tripped(trip).await;
    }
}
