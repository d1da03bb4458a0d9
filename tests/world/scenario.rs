//! What a seed stands for: how many replicas, which versions, which traffic, and what goes wrong when.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use serin_analysis::{Check, CheckKind, Range};
use serin_measure::CanaryKey;
use serin_rollout::{Guard, GuardMode, Plan, Revision, Steps, Strategy, Target, Weight};
use serin_route::Host;
use serin_runtime::{Reach, Routing, Workload};

use crate::fault::{Fault, faults};

/// Versions that a canary ever points at.
pub(crate) const VERSIONS: u16 = 4;
/// When the last release comes at the latest, as a part of the troubled time.
const RELEASED_BY: f64 = 0.7;

/// A world to be.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Replicas at the beginning.
    pub(crate) replicas: usize,
    pub(crate) canaries: Vec<App>,
    /// How long things go wrong, in milliseconds.
    pub(crate) troubled_ms: u64,
    pub(crate) lease: Duration,
    /// How far two wall clocks may be apart, in milliseconds.
    pub(crate) skew_max_ms: u64,
    /// How often a call to the API server goes wrong.
    pub(crate) calls_fail: f64,
    /// How often a question within the fleet is lost.
    pub(crate) asks_fail: f64,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When which canary is pointed at which version, in milliseconds and by place.
    pub(crate) releases: Vec<(u64, usize, u16)>,
    /// From when to when every version fails, and how often.
    pub(crate) outages: Vec<(u64, u64, f64)>,
}

/// A canary, its traffic and its versions.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) key: CanaryKey,
    pub(crate) host: String,
    /// Requests in a second, to all replicas together.
    pub(crate) rate: f64,
    /// How many in a thousand take seconds instead of milliseconds.
    pub(crate) slow_permille: u32,
    /// How often any version fails.
    pub(crate) fails: f64,
    pub(crate) plan: Plan,
    pub(crate) versions: Vec<Health>,
}

/// How a version does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Health {
    /// It fails as often as its predecessor.
    Good,
    /// It fails this much more often.
    Bad(f64),
    /// It is good until this moment, in milliseconds, and then fails this often.
    Turns { at_ms: u64, to: f64 },
}

impl Scenario {
    /// The world of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = *pick(&mut rng, &[1, 2, 3, 3, 3, 3, 4, 5]);
        let troubled_ms = rng.u64(8_000..20_000);
        // Most worlds are troubled; some are calm, so that rollouts also come through.
        let trouble = *pick(&mut rng, &[0.0, 0.3, 0.6, 1.0, 1.0, 2.0]);
        let faults = faults(&mut rng, replicas, troubled_ms, trouble);
        let canaries: Vec<App> =
            (0..*pick(&mut rng, &[1, 1, 1, 2])).map(|place| app(&mut rng, place, troubled_ms)).collect();
        let releases = releases(&mut rng, canaries.len(), troubled_ms);
        let outages = if rng.u8(..4) == 0 { vec![outage(&mut rng, troubled_ms)] } else { Vec::new() };
        Self {
            seed,
            replicas,
            canaries,
            troubled_ms,
            lease: Duration::from_millis(rng.u64(2_000..5_000)),
            skew_max_ms: *pick(&mut rng, &[0, 100, 5_000, 30_000]),
            calls_fail: trouble * rng.f64() * 0.15,
            asks_fail: trouble * rng.f64() * 0.1,
            faults,
            releases,
            outages,
        }
    }
}

/// What the runs and epochs of some apps begin after: more than any clock here says.
const NUMBERED_AFTER: u64 = 5_000_000_000_000_000;

impl App {
    /// The canary as everybody is told of it, pointed at this version.
    pub(crate) fn workload(&self, place: usize, version: u16) -> Workload {
        let revision = |version: u16| Revision(version.to_string());
        let plan = Plan { revision: revision(version), ..self.plan.clone() };
        let versions = (1..=VERSIONS).map(|version| (revision(version), vec![address(place, version)]));
        let hosts = vec![Host::parse(&self.host).expect("a name like app-1.example.com")];
        let reach = Reach::Versions(versions.collect());
        let routing = Routing::new(hosts, reach);
        // Every other app is one that had a namesake.
        let numbered_after = if place % 2 == 1 { NUMBERED_AFTER } else { 0 };
        Workload { plan, routing, incarnation: String::new(), numbered_after }
    }
}

/// Where a version of the canary at this place serves.
fn address(place: usize, version: u16) -> SocketAddr {
    let place = u8::try_from(place).expect("a handful of canaries");
    ([10, 1, place, 1], version).into()
}

impl Scenario {
    /// How often whoever serves at this address fails now.
    pub(crate) fn fails(&self, app: &App, at: SocketAddr, now_ms: u64) -> f64 {
        let own = match app.versions[usize::from(at.port() - 1)] {
            Health::Good => 0.0,
            Health::Bad(more) => more,
            Health::Turns { at_ms, to } if now_ms >= at_ms => to,
            Health::Turns { .. } => 0.0,
        };
        let lasting = self.outages.iter().filter(|(from_ms, to_ms, _)| (*from_ms..*to_ms).contains(&now_ms));
        let shared = lasting.map(|(.., share)| *share).fold(0.0, f64::max);
        // Each is a reason of its own to fail.
        1.0 - (1.0 - app.fails) * (1.0 - own) * (1.0 - shared)
    }
}

fn app(rng: &mut Rng, place: usize, troubled_ms: u64) -> App {
    let name = format!("app-{place}");
    let key = CanaryKey::new("default", &name);
    let health_of = |version| if version == 0 { Health::Good } else { health(rng, troubled_ms) };
    let versions = (0..VERSIONS).map(health_of).collect();
    App {
        host: format!("{name}.example.com"),
        rate: *pick(rng, &[30.0, 60.0, 120.0, 200.0]),
        slow_permille: *pick(rng, &[0, 5, 50]),
        fails: *pick(rng, &[0.0, 0.005, 0.03]),
        versions,
        plan: plan(rng, &key),
        key,
    }
}

fn health(rng: &mut Rng, troubled_ms: u64) -> Health {
    match rng.u8(..8) {
        0..=3 => Health::Good,
        4 => Health::Bad(1.0),
        5 => Health::Bad(*pick(rng, &[0.05, 0.2, 0.5])),
        _ => Health::Turns { at_ms: rng.u64(2_000..troubled_ms), to: *pick(rng, &[0.3, 1.0]) },
    }
}

fn plan(rng: &mut Rng, key: &CanaryKey) -> Plan {
    let weight = |percent| Weight::new(percent).expect("a percentage");
    let steps = match rng.u8(..4) {
        0 => Steps::by(weight(20), weight(60)),
        1 => Steps::by(weight(50), weight(100)),
        2 => Steps::listed([5, 25, 50].map(weight).to_vec()),
        _ => Steps::by(weight(30), weight(30)),
    };
    let checks = if rng.u8(..3) == 0 { Vec::new() } else { vec![success_rate(rng)] };
    let mode = match rng.u8(..16) {
        0 => GuardMode::Observe,
        1 => GuardMode::Off,
        _ => GuardMode::Enforce,
    };
    Plan {
        canary: key.clone(),
        target: Target { kind: "Deployment".to_owned(), name: key.name().to_owned() },
        revision: Revision("1".to_owned()),
        strategy: Strategy::Weighted(steps.expect("steps that move")),
        skip_analysis: rng.u8(..32) == 0,
        threshold: rng.u32(2..6),
        interval_ms: rng.u64(1_000..2_500),
        progress_deadline_ms: *pick(rng, &[4_000, 600_000, 600_000]),
        checks,
        guard: Guard { mode, tolerance: *pick(rng, &[0.001, 0.01, 0.05]), warm_up_ms: rng.u64(0..3_000) },
    }
}

fn success_rate(rng: &mut Rng) -> Check {
    Check {
        name: "request-success-rate".to_owned(),
        kind: CheckKind::SuccessRate,
        range: Range { min: Some(*pick(rng, &[50.0, 90.0, 99.0])), max: None },
        interval_ms: rng.u64(1_000..3_000),
    }
}

/// Every canary gets at least one release, and some are overtaken by another one, also back to where they came from.
fn releases(rng: &mut Rng, canaries: usize, troubled_ms: u64) -> Vec<(u64, usize, u16)> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "seconds")]
    let latest_ms = (troubled_ms as f64 * RELEASED_BY) as u64;
    let mut releases = Vec::new();
    for canary in 0..canaries {
        releases.push((rng.u64(1_500..4_000), canary, 2));
        for _ in 0..*pick(rng, &[0, 0, 1, 1, 2]) {
            releases.push((rng.u64(4_000..latest_ms.max(4_001)), canary, rng.u16(1..=VERSIONS)));
        }
    }
    releases.sort_unstable();
    releases
}

fn outage(rng: &mut Rng, troubled_ms: u64) -> (u64, u64, f64) {
    let from_ms = rng.u64(2_000..troubled_ms);
    (from_ms, from_ms + rng.u64(500..5_000), *pick(rng, &[0.1, 0.5, 1.0]))
}

/// One of these.
pub(crate) fn pick<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}
