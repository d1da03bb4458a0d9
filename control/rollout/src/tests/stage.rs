//! Plays scripts: asks for facts, takes steps and answers news as a controller does, with a clock of its own.

use serin_analysis::Verdict;
use serin_measure::Arm;

use super::script::{Edit, Happening, parse};
use crate::{Brake, Notice, Observation, Plan, Readiness, State, Step, brake, narrow, needs, news, report, step};

/// When scripts begin, in milliseconds since 1970. Any time will do.
const BEGIN_MS: u64 = 1_000_000;

/// A canary and the world around it.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) state: State,
    now_ms: u64,
    primary: Readiness,
    canary: Readiness,
    /// Before the first release there is no target, so nothing to answer.
    is_released: bool,
}

/// What came of one move.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    pub(super) seconds: u64,
    pub(super) plan: Plan,
    pub(super) state: State,
    pub(super) notices: Vec<Notice>,
}

impl Stage {
    pub(super) fn new(plan: Plan) -> Self {
        let (primary, canary) = (Readiness::Ready, Readiness::Ready);
        Self { plan, state: State::new(BEGIN_MS), now_ms: BEGIN_MS, primary, canary, is_released: false }
    }

    /// Plays a whole script and forgets how it went.
    #[track_caller]
    pub(super) fn after(mut self, script: &str) -> Self {
        for line in script.lines() {
            let _ = self.play(line.trim());
        }
        self
    }

    /// Plays one line of a script.
    #[track_caller]
    pub(super) fn play(&mut self, line: &str) -> Vec<Beat> {
        let mut beats = Vec::new();
        match parse(line) {
            Happening::Remark => {}
            Happening::Release(revision) => {
                self.is_released = true;
                self.plan.revision = revision;
                self.answer_news(&mut beats);
            }
            Happening::Ticks(times, verdict) => {
                for _ in 0..times {
                    self.pass(self.plan.interval_ms, &mut beats);
                    beats.push(self.tick(&verdict));
                }
            }
            Happening::Seen(Arm::Primary, readiness) => self.primary = readiness,
            Happening::Seen(Arm::Canary, readiness) => self.canary = readiness,
            Happening::GuardCrosses(message) => self.guard_crosses(message, &mut beats),
            Happening::Seconds(seconds) => self.pass(seconds * 1000, &mut beats),
            Happening::Edit(edit) => {
                self.edit(edit);
                self.answer_news(&mut beats);
                self.look(&mut beats);
            }
            Happening::Restart => self.restart(),
        }
        beats
    }

    fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Strategy(strategy) => self.plan.strategy = strategy,
            Edit::Threshold(threshold) => self.plan.threshold = threshold,
            Edit::Skip(skip) => self.plan.skip_analysis = skip,
            Edit::Guard(mode) => self.plan.guard.mode = mode,
        }
    }

    fn restart(&mut self) {
        let saved = serde_json::to_string(&self.state).expect("a state can be written");
        self.state = serde_json::from_str(&saved).expect("and read back");
    }

    /// Time passes. The guard looks all the while, so a warm-up ends when it is over and not at the next tick.
    fn pass(&mut self, time_ms: u64, beats: &mut Vec<Beat>) {
        let then_ms = self.now_ms + time_ms;
        if let Some(over_ms) = self.state.warm_up_until_ms.filter(|over_ms| (self.now_ms..=then_ms).contains(over_ms)) {
            self.now_ms = over_ms;
            self.look(beats);
        }
        self.now_ms = then_ms;
    }

    fn look(&mut self, beats: &mut Vec<Beat>) {
        if let Some(step) = narrow(&self.plan, &self.state, self.now_ms) {
            beats.push(self.take(step));
        }
    }

    fn guard_crosses(&mut self, message: String, beats: &mut Vec<Beat>) {
        let cause = Brake { rollout: self.state.rollout, ln_e: 7.0, message };
        let moves = [report, brake].map(|does| does(&self.plan, &self.state, &cause, self.now_ms));
        beats.extend(moves.into_iter().flatten().map(|step| self.take(step)));
    }

    #[track_caller]
    fn answer_news(&mut self, beats: &mut Vec<Beat>) {
        if self.is_released && news(&self.plan, &self.state) {
            beats.push(self.tick(&Verdict::Pass));
            assert!(!news(&self.plan, &self.state), "one step answers all news, at {:?}", self.state);
        }
    }

    fn tick(&mut self, verdict: &Verdict) -> Beat {
        let asked = needs(&self.plan, &self.state);
        let seen_if = |asked, readiness: &Readiness| if asked { readiness.clone() } else { Readiness::Ready };
        let seen = Observation {
            now_ms: self.now_ms,
            primary: seen_if(asked.primary, &self.primary),
            canary: seen_if(asked.canary, &self.canary),
            verdict: asked.checks.then(|| verdict.clone()),
            replicas: Vec::new(),
        };
        self.take(step(&self.plan, self.state.clone(), seen))
    }

    fn take(&mut self, Step { state, notices }: Step) -> Beat {
        self.state = state;
        let seconds = (self.now_ms - BEGIN_MS) / 1000;
        Beat { seconds, plan: self.plan.clone(), state: self.state.clone(), notices }
    }
}
