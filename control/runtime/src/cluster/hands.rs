//! The leader's hands: brings the cluster to what is desired, writes each Canary's status, tells its events.
//!
//! It follows the board, so it acts on states that are in force and saved, again whenever anything changes, and never in the
//! way of the loop. One worker at a time acts for a Canary; what fails is tried again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use serin_measure::CanaryKey;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::compile::{Compiled, Meaning};
use super::contest::{self, Record};
use super::deeds::{Deed, deeds};
use super::objects::{Name, Shared};
use super::status::{FOREIGN_WRITER, Projection, Trouble};
use super::tellings::{self, RETOLD_MS};
use super::template::Library;
use super::watch::canaries;
use crate::board::{Board, CanaryPosting, Posting};
use crate::clock::Clock;
use crate::controller::Tell;
use crate::store::{EVENTS_SHOWN_MAX, Event};

/// The name under which fields are owned (server-side apply) and writes are recorded.
pub(crate) const MANAGER: &str = "serin";
/// How often what failed is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait after failures in a row.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long the objects that were changed may take to be seen changed. Until then the same is not done once more.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How long one worker may take: a few calls to an API server that answers.
const WORK_TIMEOUT: Duration = Duration::from_secs(20);

/// Workers at once, each with one call under way: as many as saves. Those that find no place are looked at when one is done.
const WORKERS_MAX: usize = 16;

/// What the hands work with.
pub(crate) struct Hands {
    pub(crate) client: Client,
    pub(crate) shared: Shared,
    pub(crate) library: Library,
    pub(crate) meaning: watch::Receiver<Arc<Meaning>>,
    pub(crate) board: Arc<Board>,
    /// Whether the Lease is held and valid by this process's clock.
    pub(crate) may_act: watch::Receiver<bool>,
    pub(crate) tell: Tell,
    pub(crate) clock: Clock,
}

/// What is remembered of one Canary while this process leads.
#[derive(Debug, Default)]
struct Memory {
    /// Of which Canary of that name.
    uid: String,
    is_busy: bool,
    /// Events that were posted, as many as are shown.
    told: BTreeSet<(u64, String)>,
    status: Record,
    /// What was done last, and when: the watch may be behind.
    done: Option<(Vec<Deed>, Instant)>,
    failures: u32,
    retry_at: Option<Instant>,
    /// The obstacle that was told last, so that it is told once.
    obstacle: Option<String>,
}

/// What a worker has done.
struct Done {
    canary: CanaryKey,
    told: Vec<(u64, String)>,
    /// What was to be told as an obstacle.
    obstacle: Option<String>,
    /// The status that was written, unless the Canary is contested, and the Canary's resourceVersion after it.
    written: Option<(Option<Projection>, u64)>,
    deeds: Vec<Deed>,
    failed: Option<String>,
    /// What it was made from is not the newest any more.
    is_behind: bool,
}

/// What a worker is to do.
struct Work {
    canary: CanaryKey,
    uid: String,
    deeds: Vec<Deed>,
    status: Option<StatusWork>,
    events: Vec<Event>,
    obstacle: Option<String>,
}

/// Somebody else acts for a Canary, and the loop has not said so yet.
struct Anothers;

/// What is to be written into a status.
struct StatusWork {
    /// What it says then, unless it is somebody else's.
    says: Option<Projection>,
    status: Value,
    /// The version of the Canary that this was made from. Whoever has written since is not written over.
    made_from: String,
}

impl Memory {
    fn has_just_done(&self, deeds: &[Deed]) -> bool {
        self.done.as_ref().is_some_and(|(done, at)| done == deeds && at.elapsed() < SEEN_WITHIN)
    }
}

impl Hands {
    /// Works until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut board, mut objects) = (self.board.watch(), self.shared.watch());
        let (report, mut reports) = mpsc::channel(64);
        let mut memory: BTreeMap<CanaryKey, Memory> = BTreeMap::new();
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = board.changed() => {}
                Ok(()) = objects.changed() => {}
                Ok(()) = self.meaning.changed() => {}
                Ok(()) = self.may_act.changed() => {}
                Some(done) = reports.recv() => self.take_report(&mut memory, done),
                _ = again.tick() => {}
            }
            let posting = board.borrow_and_update().clone();
            let meaning = self.meaning.borrow_and_update().clone();
            if !posting.leads || !*self.may_act.borrow_and_update() {
                memory.retain(|_, memory| memory.is_busy);
                continue;
            }
            memory.retain(|key, memory| memory.is_busy || meaning.knows(key));
            let mut busy = memory.values().filter(|memory| memory.is_busy).count();
            for key in meaning.compiled.keys().chain(meaning.refusals.keys()).cloned().collect::<BTreeSet<_>>() {
                let remembered = memory.entry(key.clone()).or_default();
                if busy >= WORKERS_MAX {
                    break;
                }
                if remembered.is_busy || remembered.retry_at.is_some_and(|at| at > Instant::now()) {
                    continue;
                }
                if let Some(work) = self.work(&key, &meaning, &posting, remembered).await {
                    remembered.is_busy = true;
                    busy += 1;
                    tokio::spawn(carry_out(self.client.clone(), work, report.clone()));
                }
            }
        }
    }

    fn take_report(&self, memory: &mut BTreeMap<CanaryKey, Memory>, done: Done) {
        let Done { canary, told, obstacle, written, deeds, failed, is_behind } = done;
        let memory = memory.entry(canary.clone()).or_default();
        memory.is_busy = false;
        if let Some(obstacle) = obstacle.filter(|obstacle| told.iter().any(|(_, message)| message == obstacle)) {
            memory.obstacle = Some(obstacle);
        }
        memory.told.extend(told);
        while memory.told.len() > 4 * EVENTS_SHOWN_MAX {
            memory.told.pop_first();
        }
        if let Some((projection, version)) = written {
            memory.status.keep(projection, version);
        }
        match failed {
            None => {
                (memory.failures, memory.retry_at) = (0, is_behind.then(|| Instant::now() + AGAIN));
                if !deeds.is_empty() {
                    memory.done = Some((deeds, Instant::now()));
                }
            }
            Some(why) => {
                let wait = AGAIN * 2u32.saturating_pow(memory.failures.min(8));
                memory.failures += 1;
                memory.retry_at = Some(Instant::now() + wait.min(BACK_OFF_MAX));
                warn!(%canary, %why, "the cluster is not as desired yet; trying again");
            }
        }
    }

    /// What is to be done for a Canary now, if anything is.
    async fn work(&self, key: &CanaryKey, meaning: &Meaning, posting: &Posting, memory: &mut Memory) -> Option<Work> {
        let uid = self.uid(key)?;
        if memory.uid != uid {
            *memory = Memory { uid: uid.clone(), ..Memory::default() };
        }
        let posted = posting.canaries.get(key);
        let compiled = meaning.compiled.get(key);
        let mut trouble = meaning.refusals.get(key).map(|sentences| Trouble {
            reason: "NotHonoured",
            message: format!("{}; what was accepted before stays in force", sentences.join("; ")),
        });
        let mut deeds_to_do = Vec::new();
        if let (Some(compiled), Some(posted)) = (compiled, posted) {
            let all_see = posting.all_see;
            match self.shared.read(|objects| deeds(compiled, posted, all_see, objects, &self.library)) {
                Ok(found) if memory.has_just_done(&found) => {}
                Ok(found) => deeds_to_do = found,
                Err(obstacle) => trouble = Some(Trouble { reason: "Obstructed", message: obstacle.to_string() }),
            }
        }
        if let Some(contested) = posted.and_then(|posted| posted.contested.clone()) {
            trouble = Some(Trouble { reason: FOREIGN_WRITER, message: contested });
        }
        let status = self.status(key, compiled, posted, trouble.as_ref(), &mut memory.status).await.ok()?;
        let mut events = posted.map(|posted| self.untold(posted, memory)).unwrap_or_default();
        let obstacle = self.new_trouble(trouble.as_ref(), memory);
        events.extend(obstacle.clone());
        let obstacle = obstacle.map(|event| event.message);
        let is_something = !deeds_to_do.is_empty() || !events.is_empty() || status.is_some();
        is_something.then(|| Work { canary: key.clone(), uid, deeds: deeds_to_do, status, events, obstacle })
    }

    fn uid(&self, key: &CanaryKey) -> Option<String> {
        let name = Name::new(key.namespace(), key.name());
        self.shared.read(|objects| objects.canaries.objects.get(&name).and_then(ResourceExt::uid))
    }

    fn untold(&self, posted: &CanaryPosting, memory: &Memory) -> Vec<Event> {
        let (oldest, is_saved) = (self.clock.now_ms().saturating_sub(RETOLD_MS), posted.saved);
        let untold = posted.events.iter().filter(|event| !memory.told.contains(&(event.at_ms, event.message.clone())));
        untold.filter(|event| is_saved && event.at_ms >= oldest).cloned().collect()
    }

    /// A trouble that has come up since the last look, as an event.
    fn new_trouble(&self, trouble: Option<&Trouble>, memory: &mut Memory) -> Option<Event> {
        let message = trouble.map(|trouble| trouble.message.clone());
        if message.is_none() {
            memory.obstacle = None;
        }
        let event = |message| Event { at_ms: self.clock.now_ms(), level: "Warning".to_owned(), message };
        // It counts as told when it was.
        message.filter(|message| memory.obstacle.as_ref() != Some(message)).map(event)
    }

    /// What is to be written into the status, if what is there says something else. One that is somebody else's gets a condition,
    /// and is his for the rest.
    ///
    /// # Errors
    /// If nothing is to be done for this Canary before the loop knows of somebody else.
    async fn status(
        &self,
        key: &CanaryKey,
        compiled: Option<&Compiled>,
        posted: Option<&CanaryPosting>,
        trouble: Option<&Trouble>,
        record: &mut Record,
    ) -> Result<Option<StatusWork>, Anothers> {
        let name = Name::new(key.namespace(), key.name());
        let Some(found) = self.shared.read(|objects| objects.canaries.objects.get(&name).cloned()) else {
            return Ok(None);
        };
        let made_from = found.resource_version().unwrap_or_default();
        let version: u64 = made_from.parse().unwrap_or(0);
        let is_contested = posted.is_some_and(|posted| posted.contested.is_some());
        if posted.is_some() && record.waits(is_contested) {
            return Err(Anothers);
        }
        if record.is_ahead_of(version) {
            return Ok(None);
        }
        let (present, now_ms) = (found.data.get("status").cloned().unwrap_or_default(), self.clock.now_ms());
        let kind = compiled.map_or("Deployment", |compiled| compiled.workload.plan.target.kind.as_str());
        let wanted = match posted.filter(|posted| posted.version.is_some()) {
            Some(posted) => Projection::of(&posted.state, kind, trouble.cloned()),
            // Never accepted, so there is no state; only the trouble is to be said.
            None => {
                let Some(trouble) = trouble else { return Ok(None) };
                // There is no state: what somebody else has written stays, and while he writes the Canary is his.
                let is_written = present.get("phase").is_some();
                if is_written && (trouble.is_in(&present) || contest::is_anothers(&found, now_ms)) {
                    return Ok(None);
                }
                if is_written {
                    let status = trouble.beside(&present, now_ms);
                    return Ok(Some(StatusWork { says: None, status, made_from }));
                }
                Projection::of(&serin_rollout::State::new(0), kind, Some(trouble.clone()))
            }
        };
        if posted.is_some()
            && let Some(manager) = record.new_hand(&found, &wanted, now_ms)
        {
            self.tell.contested(key.clone(), found.uid().unwrap_or_default(), manager).await;
            record.keep(None, version);
            return Err(Anothers);
        }
        if is_contested {
            record.keep(None, version);
            let status =
                trouble.filter(|trouble| !trouble.is_in(&present)).map(|trouble| trouble.beside(&present, now_ms));
            return Ok(status.map(|status| StatusWork { says: None, status, made_from }));
        }
        if wanted.is_in(&present) {
            record.keep(Some(wanted), version);
            return Ok(None);
        }
        let status = wanted.status(&present, now_ms);
        Ok(Some(StatusWork { says: Some(wanted), status, made_from }))
    }
}

/// Does the work, in order; what fails ends it.
async fn carry_out(client: Client, work: Work, report: mpsc::Sender<Done>) {
    let canary = work.canary.clone();
    let mut done = Done {
        canary,
        told: Vec::new(),
        obstacle: work.obstacle.clone(),
        written: None,
        deeds: work.deeds.clone(),
        failed: None,
        is_behind: false,
    };
    match tokio::time::timeout(WORK_TIMEOUT, all(&client, work, &mut done)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => done.failed = Some(error.to_string()),
        Err(_) => done.failed = Some("the API server does not answer".to_owned()),
    }
    // Nobody listens during shutdown.
    let _ = report.send(done).await;
}

async fn all(client: &Client, work: Work, done: &mut Done) -> kube::Result<()> {
    // What people look at comes first: it takes one call, and tells what the rest is about.
    if let Some(StatusWork { says, status, made_from }) = work.status {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), work.canary.namespace(), &canaries());
        let (params, patch) = (
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
            json!({"metadata": {"resourceVersion": made_from}, "status": status}),
        );
        match api.patch_status(work.canary.name(), &params, &Patch::Merge(&patch)).await {
            Ok(written) => {
                let version = written.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0);
                done.written = Some((says, version));
            }
            // The Canary has changed meanwhile, and so perhaps what is to be done; a later look tells.
            Err(kube::Error::Api(status)) if status.code == 409 => done.is_behind = true,
            Err(error) => return Err(error),
        }
    }
    for event in &work.events {
        tellings::post(client, &work.canary, &work.uid, event).await?;
        done.told.push((event.at_ms, event.message.clone()));
    }
    if done.is_behind {
        done.deeds.clear();
        return Ok(());
    }
    for deed in work.deeds {
        carry_out_one(client, &work.canary, deed).await?;
    }
    Ok(())
}

async fn carry_out_one(client: &Client, canary: &CanaryKey, deed: Deed) -> kube::Result<()> {
    let (resource, name, params, patch) = match deed {
        Deed::Apply(resource, name, object) => {
            (resource, name, PatchParams::apply(MANAGER).force(), Patch::Apply(object))
        }
        Deed::Change(resource, name, change) => {
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            (resource, name, params, Patch::Merge(change))
        }
    };
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &name.namespace, &resource);
    api.patch(&name.name, &params, &patch).await?;
    info!(%canary, kind = %resource.kind, name = %name.name, "brought to what is desired");
    Ok(())
}
