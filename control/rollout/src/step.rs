//! One tick: the old state and the facts go in, the new state and what to tell come out.
//!
//! The order of looking is Flagger's `advanceCanary`, but for what COMPATIBILITY.md lists as improved.

use serin_analysis::Verdict;
use serin_measure::BootId;

use crate::needs::{has_changed, is_moving, needs};
use crate::plan::{Next, Plan};
use crate::state::{Phase, Revision, State, Weight};
use crate::turn::{Step, Turn};

/// Facts, as found just now.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The primary; not looked at where [`needs`] does not ask for it.
    pub primary: Readiness,
    /// The canary; not looked at where [`needs`] does not ask for it.
    pub canary: Readiness,
    /// What the checks say, where [`needs`] asks for them.
    pub verdict: Option<Verdict>,
    /// The processes that carry traffic, each by its start; empty where there is only this one. Whoever is here when a run
    /// gets its first weight gets a stake in it.
    pub replicas: Vec<BootId>,
}

/// Whether an arm can take traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// Not yet, for this reason.
    Waiting(String),
    /// It never will, for this reason.
    Dead(String),
    /// Nobody can tell now, for this reason: what tells it does not answer. Nothing advances, and no deadline runs.
    Unknown(String),
}

/// Takes one tick.
pub fn step(plan: &Plan, mut state: State, seen: Observation) -> Step {
    state.ticked_ms = seen.now_ms;
    let deadline = Deadline { now_ms: seen.now_ms, length_ms: plan.progress_deadline_ms };
    let asked = needs(plan, &state);
    let judge_if = |asked: bool, seen: Readiness, since_ms: &mut Option<u64>| {
        if asked { deadline.judge(seen, since_ms) } else { Readiness::Ready }
    };
    let primary = judge_if(asked.primary, seen.primary, &mut state.primary_unready_since_ms);
    let canary = judge_if(asked.canary, seen.canary, &mut state.canary_unready_since_ms);
    let turn = Turn::new(plan, state, seen.now_ms).of_fleet(seen.replicas);
    match turn.state.phase {
        Phase::Initializing => initialise(turn, primary),
        Phase::Failed if turn.state.promoted.is_none() => initialise(turn, primary),
        Phase::Initialized | Phase::Succeeded | Phase::Failed => watch_for_news(turn, primary),
        Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion => analyse(turn, primary, canary, seen.verdict),
        Phase::Promoting => promote(turn, primary, canary),
        Phase::Finalising => finalise(turn, primary),
    }
}

fn initialise(mut turn: Turn<'_>, primary: Readiness) -> Step {
    let revision = turn.plan.revision.clone();
    if is_moving(turn.plan, &turn.state) && !turn.plan.skip_analysis {
        turn.move_primary(revision.clone());
        turn.enter(Phase::Initializing);
        return turn.hold(format!("the primary takes on revision {revision}"));
    }
    turn.move_primary(revision.clone());
    match primary {
        Readiness::Unknown(why) => turn.hold(why),
        Readiness::Waiting(why) => wait_for_primary(turn, &why),
        Readiness::Dead(why) => {
            // Once is enough to tell it; the revision goes on serving, there is no other.
            if turn.state.phase != Phase::Failed {
                turn.warning(format!("{} not ready: {why}", turn.plan.primary_name()));
                turn.enter(Phase::Failed);
            }
            turn.hold(format!("the primary is not ready: {why}"))
        }
        Readiness::Ready => {
            turn.normal(format!("Initialization done! {}", turn.plan.canary));
            turn.enter(Phase::Initialized);
            turn.state.applied = Some(revision.clone());
            turn.state.promoted = Some(revision);
            turn.done()
        }
    }
}

fn watch_for_news(turn: Turn<'_>, primary: Readiness) -> Step {
    if !has_changed(turn.plan, &turn.state) {
        return turn.done();
    }
    if turn.state.weight > Weight::ZERO {
        return take_over_from_canary(turn, primary);
    }
    take_up(turn)
}

/// After a failed promotion the canary serves alone, and does so until a primary is ready to take over.
///
/// A broken primary goes back to the promoted revision, which has served before. Flagger 1.44 sends it all traffic.
fn take_over_from_canary(mut turn: Turn<'_>, primary: Readiness) -> Step {
    let (is_restored, is_revert) = (turn.state.primary == turn.state.promoted, is_revert(&turn));
    match primary {
        Readiness::Ready if is_restored || !is_revert => {
            turn.normal("Routing all traffic to primary".to_owned());
            take_up(turn)
        }
        Readiness::Unknown(why) if is_restored => turn.hold(why),
        Readiness::Waiting(why) | Readiness::Dead(why) if is_restored => wait_for_primary(turn, &why),
        Readiness::Ready | Readiness::Waiting(_) | Readiness::Dead(_) | Readiness::Unknown(_) => {
            let promoted = turn.state.promoted.clone().expect("no run begins before a first revision is promoted");
            turn.normal(format!("Restoring {} to revision {promoted}", turn.plan.primary_name()));
            turn.move_primary(promoted);
            turn.hold("all traffic stays on the canary until the primary is back at the promoted revision")
        }
    }
}

/// Answers another revision of the target while no run is under way.
fn take_up(mut turn: Turn<'_>) -> Step {
    if is_revert(&turn) {
        // Nothing to roll out, but the abandoned revision may come again later.
        turn.state.applied = Some(turn.plan.revision.clone());
        turn.move_primary(turn.plan.revision.clone());
        turn.state.hold = None;
        if turn.state.weight > Weight::ZERO {
            turn.set_weight(Weight::ZERO);
        }
        return turn.done();
    }
    turn.normal(format!("New revision detected! Scaling up {}", turn.plan.target_name()));
    turn.begin_run();
    turn.done()
}

/// Whether the target is back at the promoted revision.
fn is_revert(turn: &Turn<'_>) -> bool {
    turn.state.promoted.as_ref() == Some(&turn.plan.revision)
}

fn analyse(mut turn: Turn<'_>, primary: Readiness, canary: Readiness, verdict: Option<Verdict>) -> Step {
    if is_revert(&turn) {
        return revert(turn);
    }
    if has_changed(turn.plan, &turn.state) {
        turn.normal(format!("New revision detected! Restarting analysis for {}", turn.plan.target_name()));
        turn.begin_run();
        return turn.done();
    }
    // Where nobody can tell, the checks still can: a canary that fails is taken out, and one that does not stays where it is.
    let mut unknown = None;
    if !turn.plan.skip_analysis {
        match primary {
            Readiness::Ready => {}
            Readiness::Unknown(why) => unknown = Some(why),
            Readiness::Waiting(why) => return wait_for_primary(turn, &why),
            Readiness::Dead(why) => {
                turn.warning(format!("{} not ready: {why}", turn.plan.primary_name()));
                return turn.roll_back();
            }
        }
    }
    match canary {
        Readiness::Ready => {}
        Readiness::Unknown(why) => unknown = Some(why),
        Readiness::Waiting(why) => return wait_for_canary(turn, &why),
        Readiness::Dead(why) => return give_up_on_canary(turn, &why),
    }
    if turn.plan.skip_analysis {
        return match unknown {
            Some(why) => turn.hold(why),
            None => skip(turn),
        };
    }
    if turn.state.failed_checks >= turn.plan.threshold {
        let failed = turn.state.failed_checks;
        turn.warning(format!("Rolling back {} failed checks threshold reached {failed}", turn.plan.canary));
        return turn.roll_back();
    }
    let is_next = turn.state.weight == Weight::ZERO || verdict == Some(Verdict::Pass);
    if let Some(why) = unknown.filter(|_| is_next) {
        return turn.hold(why);
    }
    if turn.state.weight == Weight::ZERO {
        // A weight fixed at 0 never starts; saying so on every tick would be noise.
        if turn.plan.strategy.after(Weight::ZERO) != Next::Nothing {
            turn.normal(format!("Starting canary analysis for {}", turn.plan.target_name()));
        }
        return advance(turn);
    }
    match verdict {
        Some(Verdict::Pass) => advance(turn),
        Some(Verdict::Halt { message }) => {
            turn.warning(message.clone());
            turn.state.failed_checks += 1;
            let count = format!("{} of {}", turn.state.failed_checks, turn.plan.threshold);
            turn.hold(format!("check failed ({count} until rollback): {message}"))
        }
        Some(Verdict::Wait { reason }) => turn.hold(reason),
        None => turn.hold("the checks were not looked at"),
    }
}

/// The next weight, or the promotion after the last one.
fn advance(mut turn: Turn<'_>) -> Step {
    match turn.plan.strategy.after(turn.state.weight) {
        Next::Weight(weight) => {
            turn.normal(format!("Advance {} canary weight {weight}", turn.plan.canary));
            turn.enter(Phase::Progressing);
            turn.set_weight(weight);
            turn.done()
        }
        Next::Nothing => turn.hold("the weight is fixed"),
        Next::Promotion => {
            copy_to_primary(&mut turn);
            turn.enter(Phase::Promoting);
            // From here on both arms run one revision, so there is nothing left to compare.
            turn.renew_epoch();
            turn.done()
        }
    }
}

fn copy_to_primary(turn: &mut Turn<'_>) {
    turn.normal(format!("Copying {} template spec to {}", turn.plan.target_name(), turn.plan.primary_name()));
    // What was analysed is promoted, even if the target has moved on since.
    let analysed = turn.applied();
    turn.move_primary(analysed);
}

fn promote(mut turn: Turn<'_>, primary: Readiness, canary: Readiness) -> Step {
    match (primary, canary) {
        (Readiness::Dead(why), _) => fail_promotion(turn, &why),
        (Readiness::Unknown(why), _) | (Readiness::Ready, Readiness::Unknown(why)) => turn.hold(why),
        (Readiness::Waiting(why), _) => wait_for_primary(turn, &why),
        (Readiness::Ready, Readiness::Dead(why)) => give_up_on_canary(turn, &why),
        (Readiness::Ready, Readiness::Waiting(why)) => wait_for_canary(turn, &why),
        (Readiness::Ready, Readiness::Ready) => {
            turn.normal("Routing all traffic to primary".to_owned());
            turn.enter(Phase::Finalising);
            turn.set_weight(Weight::ZERO);
            turn.done()
        }
    }
}

fn finalise(mut turn: Turn<'_>, primary: Readiness) -> Step {
    match primary {
        Readiness::Unknown(why) => turn.hold(why),
        Readiness::Dead(why) => fail_promotion(turn, &why),
        Readiness::Waiting(why) => wait_for_primary(turn, &why),
        Readiness::Ready => {
            turn.normal(format!("Promotion completed! Scaling down {}", turn.plan.target_name()));
            succeed(turn)
        }
    }
}

/// Promotes without analysis, in a single tick.
fn skip(mut turn: Turn<'_>) -> Step {
    copy_to_primary(&mut turn);
    turn.normal(format!("Promotion completed! Canary analysis was skipped for {}", turn.plan.target_name()));
    succeed(turn)
}

fn succeed(mut turn: Turn<'_>) -> Step {
    turn.enter(Phase::Succeeded);
    turn.state.promoted = Some(turn.applied());
    if turn.state.weight > Weight::ZERO {
        turn.set_weight(Weight::ZERO);
    }
    turn.done()
}

/// The new primary is broken while the canary, the same revision, served well: the canary goes on serving.
fn fail_promotion(mut turn: Turn<'_>, why: &str) -> Step {
    turn.warning(format!("Promotion of {} failed, primary not ready: {why}", turn.plan.target_name()));
    turn.enter(Phase::Failed);
    turn.set_weight(Weight::FULL);
    turn.hold(format!("the promotion failed, all traffic is on the canary: {why}"))
}

/// The target points at the promoted revision again, so there is nothing left to roll out.
fn revert(mut turn: Turn<'_>) -> Step {
    let revision: Revision = turn.plan.revision.clone();
    turn.warning(format!("Rolling back {} target was reverted to the promoted revision {revision}", turn.plan.canary));
    turn.state.applied = Some(revision.clone());
    // A run may have begun while the primary still served what a broken-off promotion gave it.
    turn.move_primary(revision);
    turn.roll_back()
}

fn wait_for_primary(mut turn: Turn<'_>, why: &str) -> Step {
    let message = format!("{} not ready: waiting for rollout to finish: {why}", turn.plan.primary_name());
    turn.warning(message.clone());
    turn.hold(message)
}

fn wait_for_canary(mut turn: Turn<'_>, why: &str) -> Step {
    let message = not_ready(&turn, &format!("waiting for rollout to finish: {why}"));
    turn.warning(message.clone());
    turn.hold(message)
}

fn give_up_on_canary(mut turn: Turn<'_>, why: &str) -> Step {
    let message = not_ready(&turn, why);
    turn.warning(message);
    turn.roll_back()
}

fn not_ready(turn: &Turn<'_>, why: &str) -> String {
    format!("canary {} {} not ready: {why}", turn.plan.target.kind.to_lowercase(), turn.plan.target_name())
}

/// How long an arm may stay unready.
struct Deadline {
    now_ms: u64,
    length_ms: u64,
}

impl Deadline {
    /// Turns waiting into dead once it has lasted too long, and remembers since when it lasts.
    fn judge(&self, readiness: Readiness, since_ms: &mut Option<u64>) -> Readiness {
        match readiness {
            Readiness::Ready => {
                *since_ms = None;
                Readiness::Ready
            }
            Readiness::Dead(why) => Readiness::Dead(why),
            Readiness::Unknown(why) => {
                *since_ms = None;
                Readiness::Unknown(why)
            }
            Readiness::Waiting(why) => {
                let since = *since_ms.get_or_insert(self.now_ms);
                if self.now_ms.saturating_sub(since) < self.length_ms {
                    return Readiness::Waiting(why);
                }
                Readiness::Dead(format!("{why}, and it exceeded its progress deadline of {} s", self.length_ms / 1000))
            }
        }
    }
}
