//! Turns what people wrote into workloads: the only place that knows both the wire types and the rollout's own.
//!
//! What this build cannot honour is refused with its path; what only concerns a mesh or a cluster that is not there is
//! named in a notice. Nothing is ignored in silence.

mod not_yet;
mod traffic;
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serin_analysis::{Check, CheckKind, Range, tolerance_from_min};
use serin_config::{
    Backend, Canary, Endpoint, GuardMode as WrittenMode, Host as EndpointHost, Located, Metric, ObjectName, Problem,
    Set, Severity, TargetKind,
};
use serin_measure::CanaryKey;
use serin_rollout::{Guard, GuardMode, Plan, Revision, Steps, StepsError, Strategy, Target, Weight};
use serin_route::{Host, overlap};

use crate::workload::{Reach, Routing, Workload};

/// How long the warm-up lasts where nothing is written: caches fill and connections open in seconds.
const WARM_UP_DEFAULT: Duration = Duration::from_secs(10);
/// What the canary may fail more often than the primary where `guard` is given without a tolerance, as a share.
const TOLERANCE_DEFAULT: f64 = 0.001;

/// What a set means.
#[derive(Debug, Default)]
pub struct Interpreted {
    /// The workloads, if nothing is wrong.
    pub workloads: Vec<Workload>,
    /// Everything there is to say, errors and warnings, by file and line.
    pub problems: Vec<Problem>,
}

impl Interpreted {
    /// Whether anything forbids running it.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Interprets a set. Looks up the names among the endpoints, so it may wait for the resolver.
pub fn interpret(set: &Set) -> Interpreted {
    let mut problems = set.problems.clone();
    let backends: HashMap<ObjectName, &Located<Backend>> =
        set.backends.iter().map(|backend| (backend.value.object_name(), backend)).collect();
    let mut claimed: HashMap<ObjectName, String> = HashMap::new();
    let mut workloads = Vec::new();
    for canary in &set.canaries {
        let before = problems.len();
        problems.extend(not_yet::refusals(canary, Ground::Files));
        let target =
            ObjectName { namespace: canary.value.namespace().to_owned(), name: target_name(&canary.value).to_owned() };
        let Some(backend) = backends.get(&target) else {
            // One that has errors, or may stand in what could not be read, is missing for a reason that is told already.
            let is_told = set.has_errors() && (set.has_unreadable || set.backends_refused.contains(&target));
            if !is_told {
                problems.push(no_backend(canary, &target, set));
            }
            continue;
        };
        if let Some(other) = claimed.insert(target.clone(), canary.value.object_name().to_string()) {
            let message = format!("Backend {target} is the target of canary {other} already; one canary per Backend");
            problems.push(canary.problem_at("spec.targetRef.name", message, None));
            continue;
        }
        match workload(canary, backend) {
            Ok(workload) if problems[before..].iter().all(|problem| problem.severity != Severity::Error) => {
                workloads.push(workload);
            }
            Ok(_) => {}
            Err(found) => problems.extend(found),
        }
    }
    for (name, backend) in backends.iter().filter(|(name, _)| !claimed.contains_key(*name)) {
        // A Canary that was refused before may have named it; then that is what has to be mended.
        if !problems.iter().any(|problem| problem.severity == Severity::Error) {
            let message = format!("Backend {name} has no Canary that targets it, so it gets no traffic");
            problems
                .push(Problem { severity: Severity::Warning, ..backend.problem_at("metadata.name", message, None) });
        }
    }
    problems.extend(same_hosts(set, &workloads));
    problems.sort_by(Problem::by_place);
    Interpreted { workloads, problems }
}

fn target_name(canary: &Canary) -> &str {
    canary.spec.target_ref.as_ref().and_then(|target| target.name.as_deref()).unwrap_or_default()
}

fn no_backend(canary: &Located<Canary>, target: &ObjectName, set: &Set) -> Problem {
    let message = format!("there is no Backend {target}");
    let help = match set.backends.as_slice() {
        [] => {
            format!("add a document of kind Backend named {} that lists the versions and their endpoints", target.name)
        }
        backends => {
            let names: Vec<_> = backends.iter().map(|backend| backend.value.object_name().to_string()).collect();
            format!("name one of the Backends there are: {}", names.join(", "))
        }
    };
    canary.problem_at("spec.targetRef.name", message, Some(help))
}

/// Canaries that want the same requests to one host, with the place of the second one.
fn same_hosts(set: &Set, workloads: &[Workload]) -> Vec<Problem> {
    let mut taken: HashMap<&Host, Vec<&Workload>> = HashMap::new();
    let mut problems = Vec::new();
    for workload in workloads {
        for host in &workload.routing.hosts {
            let (others, key) = (taken.entry(host).or_default(), &workload.plan.canary);
            if others.iter().any(|other| other.plan.canary == *key) {
                continue;
            }
            let wants_the_same = |other: &&&Workload| overlap(&other.routing.matches, &workload.routing.matches);
            if let Some(first) = others.iter().find(wants_the_same) {
                let written = set.canaries.iter().find(|canary| key_of(&canary.value) == *key);
                let first = &first.plan.canary;
                let message = format!(
                    "canary {first} answers for {host} already; give each its own service.hosts or service.match"
                );
                problems.extend(written.map(|canary| canary.problem_at("spec.service.hosts", message, None)));
            }
            others.push(workload);
        }
    }
    problems
}

fn key_of(canary: &Canary) -> CanaryKey {
    CanaryKey::new(canary.namespace(), canary.name())
}

/// Where Canaries are interpreted for: some fields mean something in one place only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Files on a machine.
    Files,
    /// Objects in a cluster.
    Cluster,
}

/// Fields that are not honoured there, or have no effect there.
pub(crate) fn refusals(canary: &Located<Canary>, ground: Ground) -> Vec<Problem> {
    not_yet::refusals(canary, ground)
}

/// One canary and its backend, or everything that is wrong with them.
fn workload(written: &Located<Canary>, backend: &Located<Backend>) -> Result<Workload, Vec<Problem>> {
    let mut problems = Vec::new();
    let versions = versions(backend, &mut |problem| problems.push(problem));
    let revision = Revision(backend.value.spec.release.clone().unwrap_or_default());
    match canary(written, revision, Reach::Versions(versions)) {
        Ok((plan, routing)) if problems.is_empty() => {
            Ok(Workload { plan, routing, incarnation: String::new(), numbered_after: 0 })
        }
        Ok(_) => Err(problems),
        Err(found) => Err(problems.into_iter().chain(found).collect()),
    }
}

/// One canary whose target is at this revision and whose versions are reached so, or everything that is wrong with it.
pub(crate) fn canary(
    canary: &Located<Canary>,
    revision: Revision,
    reach: Reach,
) -> Result<(Plan, Routing), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut keep = |problem: Problem| problems.push(problem);
    let routing = traffic::routing(canary, reach, &mut keep);
    let steps = steps(canary, &mut keep);
    let checks = checks(&canary.value);
    let (Some(steps), true) = (steps, problems.is_empty()) else { return Err(problems) };
    let (spec, analysis) = (&canary.value.spec, canary.value.spec.analysis.clone().unwrap_or_default());
    let kind = match spec.target_ref.as_ref().and_then(|target| target.kind) {
        Some(TargetKind::Deployment) => "Deployment",
        Some(TargetKind::DaemonSet) => "DaemonSet",
        Some(TargetKind::Service) => "Service",
        Some(TargetKind::Backend) | None => "Backend",
    };
    let plan = Plan {
        canary: key_of(&canary.value),
        target: Target { kind: kind.to_owned(), name: target_name(&canary.value).to_owned() },
        revision,
        strategy: Strategy::Weighted(steps),
        skip_analysis: spec.skip_analysis(),
        threshold: analysis.threshold(),
        interval_ms: milliseconds(analysis.interval()),
        progress_deadline_ms: milliseconds(spec.progress_deadline()),
        guard: guard(&canary.value, &checks),
        checks,
    };
    Ok((plan, routing))
}

fn versions(backend: &Located<Backend>, keep: &mut impl FnMut(Problem)) -> BTreeMap<Revision, Vec<SocketAddr>> {
    let mut versions = BTreeMap::new();
    for (v, version) in backend.value.spec.versions().iter().enumerate() {
        let mut addresses = Vec::new();
        for (e, written) in version.endpoints().iter().enumerate() {
            match resolve(written) {
                Ok(found) => addresses.extend(found),
                Err(why) => {
                    let path = format!("spec.versions[{v}].endpoints[{e}]");
                    let help = "use a name that this machine can look up, or an address".to_owned();
                    keep(backend.problem_at(&path, format!("{written:?} cannot be looked up: {why}"), Some(help)));
                }
            }
        }
        versions.insert(Revision(version.name().to_owned()), addresses);
    }
    versions
}

/// The addresses of an endpoint. A name is looked up once, when the file is read.
fn resolve(written: &str) -> Result<Vec<SocketAddr>, String> {
    let endpoint: Endpoint = written.parse().map_err(|error: serin_config::EndpointError| error.to_string())?;
    match &endpoint.host {
        EndpointHost::Address(address) => Ok(vec![SocketAddr::new(*address, endpoint.port)]),
        EndpointHost::Name(name) => {
            let found = (name.as_str(), endpoint.port).to_socket_addrs().map_err(|_| "no such host".to_owned())?;
            let found: Vec<_> = found.collect();
            // `localhost` is usually both 127.0.0.1 and ::1, and a server listens on one of them.
            let v4: Vec<_> = found.iter().copied().filter(SocketAddr::is_ipv4).collect();
            Ok(if v4.is_empty() { found } else { v4 })
        }
    }
}

fn steps(canary: &Located<Canary>, keep: &mut impl FnMut(Problem)) -> Option<Steps> {
    let analysis = canary.value.spec.analysis.as_ref()?;
    // The bounds 0 to 100 were looked at with the schema; what is out of them has been reported there.
    let weight = |written: i64| Weight::new(u64::try_from(written).ok()?).ok();
    if analysis.iterations() > 0 {
        // Another strategy, which is refused by its own field; a missing stepWeight is no second mistake.
        return None;
    }
    let listed = analysis.step_weights();
    let (path, steps) = if listed.is_empty() {
        let step = weight(analysis.step_weight.unwrap_or(0))?;
        ("spec.analysis.stepWeight", Steps::by(step, weight(analysis.max_weight().into())?))
    } else {
        let weights = listed.iter().map(|written| weight(*written)).collect::<Option<Vec<_>>>()?;
        ("spec.analysis.stepWeights", Steps::listed(weights))
    };
    steps.map_err(|error: StepsError| keep(canary.problem_at(path, error.to_string(), None))).ok()
}

fn checks(canary: &Canary) -> Vec<Check> {
    let metrics = canary.spec.analysis.as_ref().map(serin_config::Analysis::metrics).unwrap_or_default();
    metrics.iter().filter_map(check).collect()
}

fn check(metric: &Metric) -> Option<Check> {
    let kind = match metric.name.as_deref()? {
        "request-success-rate" => CheckKind::SuccessRate,
        "request-duration" => CheckKind::Duration,
        _ => return None,
    };
    let range = match (&metric.threshold_range, kind) {
        (Some(range), _) => Range { min: range.min, max: range.max },
        // Flagger's older field; absent it is 0, which every rate passes and every duration fails.
        (None, CheckKind::SuccessRate) => Range { min: Some(metric.threshold.unwrap_or(0.0)), max: None },
        (None, CheckKind::Duration) => Range { min: None, max: Some(metric.threshold.unwrap_or(0.0)) },
    };
    Some(Check { name: metric.name.clone()?, kind, range, interval_ms: milliseconds(metric.window()) })
}

/// The guard never contradicts the manifest: what the success rate tolerates is tolerated, and without such a check the
/// guard only reports, unless it was asked for.
fn guard(canary: &Canary, checks: &[Check]) -> Guard {
    let written = canary.spec.analysis.as_ref().and_then(|analysis| analysis.guard.as_ref());
    let minimum = checks.iter().filter(|check| check.kind == CheckKind::SuccessRate).find_map(|check| check.range.min);
    let tolerance = match (written.and_then(|guard| guard.tolerance.as_ref()), minimum) {
        (Some(tolerance), _) => tolerance.fraction(),
        (None, Some(minimum)) => tolerance_from_min(minimum),
        (None, None) => TOLERANCE_DEFAULT,
    };
    let mode = match (written.map(serin_config::Guard::mode), minimum) {
        (Some(WrittenMode::Enforce), _) | (None, Some(_)) => GuardMode::Enforce,
        (Some(WrittenMode::Observe), _) | (None, None) => GuardMode::Observe,
        (Some(WrittenMode::Off), _) => GuardMode::Off,
    };
    let warm_up = written.and_then(|guard| guard.warmup.as_ref()).map_or(WARM_UP_DEFAULT, |warm_up| warm_up.to_std());
    Guard { mode, tolerance, warm_up_ms: milliseconds(warm_up) }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
