//! `serin run --primary … --canary … --weight …`: two addresses and a weight as a workload, without any file.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use serin_measure::{Arm, CanaryKey};
use serin_rollout::{Guard, GuardMode, Phase, Plan, Revision, State, Strategy, Target, Weight};
use serin_route::{Force, HeaderMatch, Host, Match, StringMatch};
use serin_runtime::store::Save;
use serin_runtime::{Reach, Routing, Workload};

use crate::arguments::RunArguments;

/// The split begins within this, in milliseconds.
const INTERVAL_MS: u64 = 1_000;

/// The workload that the arguments describe.
pub(crate) fn workload(arguments: &RunArguments) -> Result<Workload> {
    let weight = Weight::new(arguments.weight.unwrap_or(0).into())?;
    let versions =
        BTreeMap::from([(primary(), addresses(&arguments.primary)?), (canary(), addresses(&arguments.canary)?)]);
    let plan = Plan {
        canary: CanaryKey::new("default", "quick"),
        target: Target { kind: "Backend".to_owned(), name: "quick".to_owned() },
        revision: canary(),
        strategy: Strategy::Fixed(weight),
        skip_analysis: false,
        threshold: 1,
        interval_ms: INTERVAL_MS,
        progress_deadline_ms: u64::MAX,
        checks: Vec::new(),
        guard: Guard { mode: GuardMode::Observe, tolerance: 0.001, warm_up_ms: 10_000 },
    };
    let (hosts, reach) = (vec![Host::Any], Reach::Versions(versions));
    let routing = Routing { forced: forced(arguments)?, ..Routing::new(hosts, reach) };
    Ok(Workload { plan, routing, incarnation: String::new(), numbered_after: 0 })
}

/// The state it starts from: the primary serves, and the canary is new.
pub(crate) fn initial(workload: &Workload) -> Save {
    let mut state = State::new(0);
    state.phase = Phase::Initialized;
    state.applied = Some(primary());
    state.promoted = Some(primary());
    state.primary = Some(primary());
    let (canary, incarnation) = (workload.plan.canary.clone(), workload.incarnation.clone());
    Save { canary, incarnation, expected: None, state, events: Vec::new() }
}

fn primary() -> Revision {
    Revision("primary".to_owned())
}

fn canary() -> Revision {
    Revision("canary".to_owned())
}

fn addresses(written: &[String]) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for one in written {
        let found = one
            .to_socket_addrs()
            .with_context(|| format!("{one:?} is not an address of the form host:port that can be looked up"))?;
        all.extend(found.filter(SocketAddr::is_ipv4).take(1).chain(one.parse().ok().filter(SocketAddr::is_ipv6)));
    }
    if all.len() < written.len() {
        bail!("{} cannot all be looked up", written.join(", "));
    }
    Ok(all)
}

fn forced(arguments: &RunArguments) -> Result<Vec<Force>> {
    let mut forced = Vec::new();
    let mut to_canary = |name: &str, value| {
        forced.push(Force { matches: Match::on(vec![HeaderMatch::new(name, value)]), arm: Arm::Canary });
    };
    if let Some(header) = &arguments.header {
        let (name, value) =
            header.split_once('=').with_context(|| format!("--header {header:?} is not of the form NAME=VALUE"))?;
        to_canary(name, StringMatch::Exact(value.into()));
    }
    if let Some(pattern) = &arguments.cookie {
        let pattern = StringMatch::regex(pattern).with_context(|| format!("--cookie {pattern:?} is not a pattern"))?;
        to_canary("cookie", pattern);
    }
    Ok(forced)
}
