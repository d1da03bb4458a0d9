//! A canary to whom things happen at random, and its twin that is restarted before every move.

use fastrand::Rng;
use serin_analysis::{Slice, Verdict};
use serin_measure::BootId;

use super::{plan, revision, weight};
use crate::{
    Brake, GuardMode, Notice, Observation, Plan, Readiness, State, Step, Steps, Strategy, brake, enlist, narrow,
    report, step,
};

/// Failed checks allowed in walks, at most.
const THRESHOLD_MAX: u32 = 4;

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Move {
    /// A step is taken on these facts.
    Step(Observation),
    /// Evidence of this run, or of one before, passes its limit.
    Crosses(Brake),
    /// The guard looks whether a warm-up is over.
    Look,
    /// Processes carry traffic, some of them new.
    Newcomers(Vec<BootId>),
    /// Traffic is judged.
    Judged(Slice),
    /// The plan is edited.
    Edit,
}

/// A canary on its way.
pub(super) struct Walker {
    rng: Rng,
    /// How often an arm is not ready for the time being, in 32 looks.
    unready: u8,
    pub(super) plan: Plan,
    pub(super) state: State,
    twin: State,
    pub(super) now_ms: u64,
}

/// One move and what it led to.
pub(super) struct Moved {
    pub(super) what: Move,
    pub(super) before: State,
    pub(super) notices: Vec<Notice>,
    /// What the twin came to.
    pub(super) twin: Step,
}

impl Walker {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plan = plan();
        plan.threshold = rng.u32(1..=THRESHOLD_MAX);
        plan.skip_analysis = rng.u8(..) < 16;
        plan.strategy = any_strategy(&mut rng);
        plan.guard.tolerance = rng.f64() * 0.3;
        let state = State::new(0);
        let unready = any_mood(&mut rng);
        Self { rng, unready, plan, twin: state.clone(), state, now_ms: 0 }
    }

    /// Lets something happen.
    pub(super) fn walk(&mut self) -> Moved {
        self.now_ms += self.rng.u64(0..60_000);
        if self.rng.u8(..8) == 0 {
            self.unready = any_mood(&mut self.rng);
        }
        let what = self.any_move();
        let before = self.state.clone();
        let twin = move_on(&self.plan, &what, restarted(&self.twin), self.now_ms);
        let live = move_on(&self.plan, &what, self.state.clone(), self.now_ms);
        self.twin = twin.state.clone();
        self.state = live.state;
        Moved { what, before, notices: live.notices, twin }
    }

    /// Any facts, for another look at the same moment.
    pub(super) fn any_facts(&mut self) -> Observation {
        let (primary, canary) = (self.any_readiness(), self.any_readiness());
        let verdict = match self.rng.u8(..8) {
            0 => Some(Verdict::Halt { message: "failed".to_owned() }),
            1 => Some(Verdict::Wait { reason: "cannot tell".to_owned() }),
            2 => None,
            _ => Some(Verdict::Pass),
        };
        let replicas = self.any_boots();
        Observation { now_ms: self.now_ms, primary, canary, verdict, replicas }
    }

    /// None, for a single process, or a fleet in which some were here before.
    fn any_boots(&mut self) -> Vec<BootId> {
        (0..self.rng.usize(0..4)).map(|_| BootId(self.rng.u64(0..20))).collect()
    }

    fn any_readiness(&mut self) -> Readiness {
        match self.rng.u8(..32) {
            look if look >= self.unready => Readiness::Ready,
            look if look % 2 == 0 => Readiness::Dead("dead".to_owned()),
            look if look % 3 == 0 => Readiness::Unknown("nobody can tell".to_owned()),
            _ => Readiness::Waiting("waiting".to_owned()),
        }
    }

    fn any_move(&mut self) -> Move {
        match self.rng.u8(..32) {
            0 => self.any_crossing(),
            1 => Move::Look,
            2 => Move::Newcomers(self.any_boots()),
            3 | 4 => Move::Judged(any_slice(&mut self.rng)),
            5 => {
                self.plan.revision = revision(["v1", "v2", "v3"][self.rng.usize(..3)]);
                Move::Edit
            }
            6 => {
                self.edit();
                Move::Edit
            }
            _ => Move::Step(self.any_facts()),
        }
    }

    fn any_crossing(&mut self) -> Move {
        let rollout = self.state.rollout.saturating_sub(self.rng.u64(..2));
        // Any double, also one whose shortest text has 17 digits.
        Move::Crosses(Brake { rollout, ln_e: self.rng.f64() * 50.0, message: "crossed".to_owned() })
    }

    fn edit(&mut self) {
        match self.rng.u8(..4) {
            0 => self.plan.strategy = any_strategy(&mut self.rng),
            1 => self.plan.guard.mode = [GuardMode::Enforce, GuardMode::Observe, GuardMode::Off][self.rng.usize(..3)],
            2 => self.plan.guard.tolerance = self.rng.f64() * 0.3,
            _ => self.plan.skip_analysis = self.rng.u8(..4) == 0,
        }
    }
}

fn move_on(plan: &Plan, what: &Move, mut state: State, now_ms: u64) -> Step {
    let moved = match what {
        Move::Step(seen) => return step(plan, state, seen.clone()),
        Move::Crosses(cause) => report(plan, &state, cause, now_ms).or_else(|| brake(plan, &state, cause, now_ms)),
        Move::Look => narrow(plan, &state, now_ms),
        Move::Newcomers(present) => enlist(plan, &state, present, now_ms),
        Move::Judged(slice) => {
            state.evidence = state.evidence.advance(&[*slice], 200);
            None
        }
        Move::Edit => None,
    };
    moved.unwrap_or(Step { state, notices: Vec::new() })
}

/// The same state in a new process.
fn restarted(state: &State) -> State {
    let saved = serde_json::to_string(state).expect("a state can be written");
    serde_json::from_str(&saved).expect("and read back")
}

/// Mostly well, with hiccups, or down: a share of 32 looks.
fn any_mood(rng: &mut Rng) -> u8 {
    [0, 0, 0, 2, 4, 28][rng.usize(..6)]
}

fn any_strategy(rng: &mut Rng) -> Strategy {
    let mut weights: Vec<_> = (0..4).map(|_| weight(rng.u64(1..=100))).collect();
    let steps = match rng.u8(..16) {
        0 => return Strategy::Fixed(weight(rng.u64(0..=100))),
        1..8 => Steps::by(weight(rng.u64(5..=50)), weights[0]),
        _ => {
            weights.sort_unstable();
            weights.dedup();
            Steps::listed(weights)
        }
    };
    Strategy::Weighted(steps.expect("no weight is 0, and listed ones are sorted, each once"))
}

fn any_slice(rng: &mut Rng) -> Slice {
    let (a, b) = (rng.u64(..3), rng.u64(..3));
    Slice { w: 0.2, delta: 0.01, n: a + b + rng.u64(..100), a, b, in_flight: rng.u64(..5) }
}
