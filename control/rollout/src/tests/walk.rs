//! What holds whatever happens, in whatever order. Walks are numbered: a failure names its number, which is its seed.

use std::collections::BTreeMap;

use serin_analysis::{Evidence, Verdict};

use super::walker::{Move, Moved, Walker};
use crate::{
    Desired, GuardMode, Judging, Observation, Phase, Plan, Readiness, Stakes, State, Steps, Strategy, Weight, desired,
    needs, news, step,
};

/// Walks from which every rare path is met ten times at least, in two seconds.
const WALKS: u64 = 1_500;
/// Moves a walk: two or three rollouts, most of them broken off.
const MOVES: usize = 120;

/// A sentence that turned out to be false.
type Broken = &'static str;

#[test]
fn whatever_happens_the_promises_hold() {
    let mut met = BTreeMap::new();
    for seed in 0..WALKS {
        check(seed, &mut met);
    }
    // A walk that never fails a promotion would promise nothing about one.
    for rare in ["Initializing", "Finalising", "Succeeded", "failed promotion", "back from a failed promotion", "trip"]
    {
        let times = met.get(rare).copied().unwrap_or(0);
        assert!(times >= 10, "{rare} was met {times} times only, in {met:?}");
    }
}

#[track_caller]
fn check(seed: u64, met: &mut BTreeMap<&'static str, u64>) {
    let mut walker = Walker::new(seed);
    for number in 0..MOVES {
        let moved = walker.walk();
        if let Err(broken) = promises(&mut walker, &moved) {
            let (what, before, plan) = (&moved.what, &moved.before, &walker.plan);
            panic!(
                "walk {seed}, move {number}: {broken}\n{what:#?}\nfrom {before:#?}\nto {:#?}\nunder {plan:#?}",
                walker.state
            );
        }
        count(&moved, &walker.state, met);
    }
}

fn count(Moved { before, .. }: &Moved, after: &State, met: &mut BTreeMap<&'static str, u64>) {
    let mut meet = |what| *met.entry(what).or_default() += 1;
    if before.phase != after.phase {
        meet(after.phase.as_str());
    }
    if before.weight < after.weight && after.phase == Phase::Failed {
        meet("failed promotion");
    }
    if before.weight > after.weight && before.phase == Phase::Failed {
        meet("back from a failed promotion");
    }
    if before.trip.is_none() && after.trip.is_some() {
        meet("trip");
    }
}

fn promises(walker: &mut Walker, moved: &Moved) -> Result<(), Broken> {
    let (plan, before, after) = (&walker.plan, &moved.before, &walker.state);
    restart(moved, after)?;
    traffic(plan, after)?;
    rise(plan, moved, after)?;
    fall(plan, moved, after)?;
    epoch(before, after, walker.now_ms)?;
    stakes(moved, after)?;
    times(before, after, walker.now_ms)?;
    counters(plan, before, after)?;
    revisions(plan, before, after)?;
    if !matches!(moved.what, Move::Step(_)) {
        return guard(plan, moved, after);
    }
    ensure(!news(plan, before) || !news(plan, after), "one step answers all news")?;
    facts(walker, moved)
}

fn ensure(holds: bool, sentence: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(sentence) }
}

fn restart(moved: &Moved, after: &State) -> Result<(), Broken> {
    ensure(moved.twin.state == *after, "a restart before any move leads to the same state")?;
    ensure(moved.twin.notices == moved.notices, "a restart before any move tells the same")
}

fn is_in_run(state: &State) -> bool {
    state.is_analysing() || matches!(state.phase, Phase::Promoting | Phase::Finalising)
}

fn traffic(plan: &Plan, state: &State) -> Result<(), Broken> {
    let Desired { canary, epoch, .. } = desired(plan, state);
    ensure(desired(plan, state) == desired(plan, &state.clone()), "equal states ask for equal traffic")?;
    ensure(state.weight.percent() + state.weight.rest().percent() == 100, "both arms share all traffic")?;
    ensure(epoch.coin == state.weight.coin(), "the coin is that of the weight")?;
    ensure(state.weight == Weight::ZERO || canary.is_some(), "only a canary that is there gets traffic")?;
    ensure(is_in_run(state) || state.weight > Weight::ZERO || canary.is_none(), "outside a run nothing is on trial")?;
    let is_split = state.weight > Weight::ZERO && state.weight < Weight::FULL;
    ensure(epoch.judging == Judging::Off || (state.is_analysing() && is_split), "only a split trial is judged")?;
    ensure(!is_split || is_in_run(state), "outside a run one arm has all traffic")
}

/// The next weight, from the definition and not from the code under test.
fn next_weight(strategy: &Strategy, now: Weight) -> Option<u8> {
    match strategy {
        Strategy::Weighted(Steps::By { step, max }) => (now < *max).then(|| (now.percent() + step.percent()).min(100)),
        Strategy::Weighted(Steps::Listed(weights)) => {
            weights.iter().filter(|listed| **listed > now).map(|listed| listed.percent()).min()
        }
        Strategy::Fixed(weight) => Some(weight.percent()),
    }
}

fn rise(plan: &Plan, moved: &Moved, after: &State) -> Result<(), Broken> {
    let before = &moved.before;
    if after.weight <= before.weight {
        return Ok(());
    }
    let Move::Step(Observation { primary, canary, verdict, .. }) = &moved.what else {
        return Err("only a step raises the weight");
    };
    if after.phase == Phase::Failed {
        let was_promoting = matches!(before.phase, Phase::Promoting | Phase::Finalising);
        ensure(
            was_promoting && *primary != Readiness::Ready,
            "a canary gets all traffic only for a broken new primary",
        )?;
        return ensure(after.weight == Weight::FULL, "a failed promotion leaves no traffic on the broken primary");
    }
    let are_ready = *primary == Readiness::Ready && *canary == Readiness::Ready;
    ensure(before.is_analysing() && are_ready, "traffic goes to a canary on trial, with both arms ready")?;
    let is_analysed = before.weight == Weight::ZERO || *verdict == Some(Verdict::Pass);
    ensure(is_analysed, "every weight but the first follows a passed analysis")?;
    ensure(before.failed_checks < plan.threshold, "nothing advances at the threshold")?;
    let next = next_weight(&plan.strategy, before.weight);
    ensure(next == Some(after.weight.percent()), "the weight follows the steps and stops at their maximum")
}

fn fall(plan: &Plan, moved: &Moved, after: &State) -> Result<(), Broken> {
    let before = &moved.before;
    let has_failed = after.phase == Phase::Failed && before.phase != Phase::Failed;
    let was_promoting = matches!(before.phase, Phase::Promoting | Phase::Finalising);
    if has_failed {
        ensure(after.weight == Weight::ZERO || was_promoting, "a failure ends without traffic on the canary")?;
        let is_rolled_back = after.weight == Weight::ZERO;
        ensure(!is_rolled_back || after.failed_checks == 0, "a rollback leaves no failed checks")?;
    }
    let falls = after.weight < before.weight;
    let is_edit = plan.strategy == Strategy::Fixed(after.weight);
    ensure(!falls || is_edit || after.weight == Weight::ZERO, "a canary that loses traffic loses all of it")?;
    let Move::Step(Observation { primary, .. }) = &moved.what else { return Ok(()) };
    let is_taken_over = falls && before.phase == Phase::Failed;
    ensure(
        !is_taken_over || *primary == Readiness::Ready,
        "after a failed promotion traffic moves to a ready primary only",
    )
}

fn epoch(before: &State, after: &State, now_ms: u64) -> Result<(), Broken> {
    let (old, new) = (&before.epoch, &after.epoch);
    ensure(new.id >= old.id, "epochs are numbered upwards")?;
    ensure(new.id > old.id || new == old, "another coin or judging is another epoch")?;
    if let Judging::WarmUp(_) = new.judging {
        let is_over = after.warm_up_until_ms.is_none_or(|until| now_ms >= until);
        ensure(!is_over || new == old, "no epoch opens with a warm-up that is over")?;
    }
    let is_same_run = after.rollout == before.rollout;
    let is_kept = before.warm_up_until_ms.is_none() || before.warm_up_until_ms == after.warm_up_until_ms;
    ensure(!is_same_run || is_kept, "a run warms up once")
}

fn stakes(moved: &Moved, after: &State) -> Result<(), Broken> {
    let before = &moved.before;
    ensure(after.stakes.sum() <= 1.0 + 1e-12, "the stakes of a run never add up to more than one")?;
    if after.rollout > before.rollout {
        return ensure(after.stakes == Stakes::Whole, "a run begins with nothing given out");
    }
    let is_given = before.stakes != after.stakes;
    let is_first_weight = before.warm_up_until_ms.is_none() && after.warm_up_until_ms.is_some();
    let is_kept = match (&before.stakes, &after.stakes) {
        (Stakes::Split { replicas, issued }, Stakes::Split { replicas: now, issued: then }) => {
            replicas == now && issued.is_subset(then)
        }
        (Stakes::Whole, _) => !is_given || is_first_weight,
        (Stakes::Split { .. }, Stakes::Whole) => false,
    };
    ensure(is_kept, "a stake that was given out is never forgotten within a run")?;
    ensure(!is_given || !before.only_brakes(after), "a stake is saved before it is bet")
}

fn times(before: &State, after: &State, now_ms: u64) -> Result<(), Broken> {
    let phase_since_ms = if after.phase == before.phase { before.phase_since_ms } else { now_ms };
    ensure(after.phase_since_ms == phase_since_ms, "a phase lasts from its own begin")?;
    let is_same_step = after.weight == before.weight && after.rollout == before.rollout;
    ensure(is_same_step || after.step_since_ms == now_ms, "checks look no further back than the weight and the run")
}

fn counters(plan: &Plan, before: &State, after: &State) -> Result<(), Broken> {
    ensure(after.failed_checks <= plan.threshold, "failed checks stop at the threshold")?;
    ensure(after.failed_checks <= before.failed_checks + 1, "a tick fails one check at most")?;
    ensure(after.rollout == before.rollout || after.rollout == before.rollout + 1, "runs are numbered one by one")?;
    let is_new_run = after.rollout > before.rollout;
    let is_idle = after.phase == Phase::Progressing && after.weight == Weight::ZERO;
    ensure(!is_new_run || is_idle, "a run begins without traffic")?;
    let is_fresh = (after.failed_checks, &after.trip, after.warm_up_until_ms) == (0, &None, None)
        && (after.primary_unready_since_ms, after.canary_unready_since_ms) == (None, None)
        && (&after.evidence, after.reported) == (&Evidence::new(), false);
    ensure(!is_new_run || is_fresh, "a run begins without counts, trips, evidence and impatience")?;
    ensure(before.is_analysing() || !after.is_analysing() || is_new_run, "a trial begins with a run of its own")
}

fn revisions(plan: &Plan, before: &State, after: &State) -> Result<(), Broken> {
    if after.promoted != before.promoted {
        let is_first = after.phase == Phase::Initialized && after.promoted.as_ref() == Some(&plan.revision);
        let is_success = after.phase == Phase::Succeeded && after.promoted == before.applied;
        ensure(is_first || is_success, "only what went through a run, or the first revision, is promoted")?;
    }
    let is_settled = matches!(after.phase, Phase::Initialized | Phase::Succeeded);
    ensure(!is_settled || after.primary == after.promoted, "a settled primary serves the promoted revision")?;
    ensure(!after.is_analysing() || after.applied != after.promoted, "what is promoted is not on trial")?;
    let is_promoting = matches!(after.phase, Phase::Promoting | Phase::Finalising);
    ensure(!is_promoting || after.primary == after.applied, "the primary is given what was analysed")
}

/// Whoever is not a step brakes, or changes nothing about the traffic.
fn guard(plan: &Plan, Moved { what, before, notices, .. }: &Moved, after: &State) -> Result<(), Broken> {
    if let Move::Crosses(cause) = what {
        let is_due = before.is_analysing() && cause.rollout == before.rollout;
        if is_due && plan.guard.mode == GuardMode::Enforce {
            let is_braked = after.phase == Phase::Failed && after.weight == Weight::ZERO;
            return ensure(is_braked && after.trip.is_some(), "a brake takes all traffic, and is kept");
        }
        let is_told = is_due && plan.guard.mode == GuardMode::Observe && !before.reported;
        ensure(notices.is_empty() != is_told, "a guard that observes tells once, and nobody else does")?;
    }
    let is_same = (after.phase, after.weight, &after.primary) == (before.phase, before.weight, &before.primary);
    ensure(is_same && after.failed_checks == before.failed_checks, "between steps nothing moves but the brake")
}

fn facts(walker: &mut Walker, moved: &Moved) -> Result<(), Broken> {
    let Move::Step(seen) = &moved.what else { return Ok(()) };
    let (other, plan, before) = (walker.any_facts(), &walker.plan, &moved.before);
    let asked = needs(plan, before);
    let replaced = Observation {
        now_ms: seen.now_ms,
        primary: if asked.primary { seen.primary.clone() } else { other.primary },
        canary: if asked.canary { seen.canary.clone() } else { other.canary },
        verdict: if asked.checks { seen.verdict.clone() } else { other.verdict },
        replicas: seen.replicas.clone(),
    };
    ensure(step(plan, before.clone(), replaced).state == walker.state, "a fact nobody asked for changes nothing")?;
    needed(plan, before, seen.now_ms)?;
    if asked.is_empty() && !news(plan, before) {
        let idle = State { ticked_ms: seen.now_ms, ..before.clone() };
        ensure(idle == walker.state && moved.notices.is_empty(), "without needs and news a step does nothing")?;
    }
    Ok(())
}

/// Whatever is asked for can make a difference.
fn needed(plan: &Plan, state: &State, now_ms: u64) -> Result<(), Broken> {
    let well = || Observation {
        now_ms,
        primary: Readiness::Ready,
        canary: Readiness::Ready,
        verdict: Some(Verdict::Pass),
        replicas: Vec::new(),
    };
    let dead = || Readiness::Dead("dead".to_owned());
    let halt = || Some(Verdict::Halt { message: "failed".to_owned() });
    let matters = |seen: Observation| step(plan, state.clone(), seen) != step(plan, state.clone(), well());
    let asked = needs(plan, state);
    ensure(
        !asked.primary || matters(Observation { primary: dead(), ..well() }),
        "the primary is not asked for in vain",
    )?;
    ensure(!asked.canary || matters(Observation { canary: dead(), ..well() }), "the canary is not asked for in vain")?;
    ensure(!asked.checks || matters(Observation { verdict: halt(), ..well() }), "the checks are not asked for in vain")
}
