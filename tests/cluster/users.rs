//! Users: a steady load on every replica, as a load balancer would spread it, and what they saw.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serin_tests::load::{Load, Running};
use serin_tests::report::Report;

use crate::fleet::{PATIENCE, Replica};
use crate::shop::HOST;

/// Requests a second, to all replicas together.
pub(crate) const RATE: f64 = 150.0;

/// Users, by the replica that they come in through.
pub(crate) struct Users {
    loads: BTreeMap<String, Running>,
    left: Vec<Report>,
}

impl Users {
    /// Users of all these replicas.
    pub(crate) fn of(replicas: &[Replica]) -> Self {
        let mut users = Self { loads: BTreeMap::new(), left: Vec::new() };
        let share = RATE / f64::from(u32::try_from(replicas.len()).unwrap_or(1));
        replicas.iter().for_each(|replica| users.come_in_through(replica, share));
        users
    }

    /// Users of one replica more.
    pub(crate) fn come_in_through(&mut self, replica: &Replica, per_second: f64) {
        let load = Load { host: HOST.to_owned(), ..Load::open(replica.edge, per_second, 10 * PATIENCE) };
        self.loads.insert(replica.pod.clone(), load.start());
    }

    /// The users of a replica go elsewhere, as a load balancer would have it that has noticed.
    pub(crate) async fn leave(&mut self, replica: &Replica) {
        if let Some(load) = self.loads.remove(&replica.pod) {
            self.left.push(load.stop().await);
        }
    }

    /// What they have seen so far.
    pub(crate) fn so_far(&self) -> Report {
        let now = self.loads.values().map(Running::so_far);
        sum(now.chain(self.left.iter().cloned()))
    }

    /// They go home, and tell what they saw.
    pub(crate) async fn go_home(self) -> Report {
        let mut reports = self.left;
        for load in self.loads.into_values() {
            reports.push(load.stop().await);
        }
        sum(reports.into_iter())
    }

    /// Waits until one of them was not served.
    pub(crate) async fn until_refused(&self) -> Result<()> {
        serin_tests::wait::until("everybody is served", PATIENCE, async || Ok((self.so_far().failed > 0).then_some(())))
            .await
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn until_more(&self, requests: u64) -> Result<()> {
        let wanted = self.so_far().requests + requests;
        serin_tests::wait::until("the users are stuck", Duration::from_secs(60), async || {
            Ok((self.so_far().requests >= wanted).then_some(()))
        })
        .await
    }
}

fn sum(reports: impl Iterator<Item = Report>) -> Report {
    reports.fold(Report::default(), |mut all, report| {
        all.merge(&report);
        all
    })
}

/// Tells what users saw, and holds it against what they may see.
#[track_caller]
pub(crate) fn told(story: &str, seen: &Report, failed_max: u64) -> Result<()> {
    println!("{story}: users saw {} failed requests of {} (at most {failed_max})", seen.failed, seen.requests);
    if seen.failed > failed_max {
        for failure in seen.failures.iter().take(20) {
            println!("  {failure:?}");
        }
    }
    ensure!(seen.requests > 100, "too few requests to say anything");
    ensure!(seen.failed <= failed_max, "{story}: {} requests failed, {failed_max} may", seen.failed);
    Ok(())
}
