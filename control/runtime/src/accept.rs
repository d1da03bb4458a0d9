//! Taking a configuration over: as a whole, or not at all.

use std::collections::BTreeMap;

use serin_measure::CanaryKey;
use serin_rollout::Revision;
use serin_route::Generation;

use crate::controller::Controller;
use crate::entry::{Entry, Pending};
use crate::plane::DataPlane;
use crate::site::Site;
use crate::store::Store;
use crate::table::route_table;
use crate::workload::{Reach, Workload};

/// A configuration that does not go with the states there are.
#[derive(Debug, thiserror::Error)]
pub enum Unacceptable {
    /// Hosts collide.
    #[error(transparent)]
    Table(#[from] serin_route::TableError),
    /// A version that serves is gone.
    #[error(
        "canary {canary} serves version \"{revision}\" of backend {target} now, and it is no longer listed; list it under versions until another one is promoted"
    )]
    MissingVersion {
        /// Whose.
        canary: CanaryKey,
        /// The target's name.
        target: String,
        /// Which.
        revision: Revision,
    },
}

impl<S: Store, P: DataPlane, W: Site> Controller<S, P, W> {
    pub(crate) fn configure(&mut self, workloads: Vec<Workload>) {
        match self.accept(workloads) {
            Ok(()) => {
                let canaries = self.entries.len();
                // In a cluster every pod that comes or goes is another configuration.
                if self.site.is_fleet() {
                    tracing::debug!(canaries, "configuration accepted");
                } else {
                    tracing::info!(canaries, "configuration accepted");
                }
                self.refused_config.clear();
                self.publish();
                self.beat();
            }
            Err(error) => self.refuse(vec![error.to_string()]),
        }
    }

    pub(crate) fn refuse(&mut self, problems: Vec<String>) {
        if problems != self.refused_config {
            for problem in &problems {
                tracing::error!("configuration refused, the last good one stays in force: {problem}");
            }
        }
        self.refused_config = problems;
        self.post();
    }

    /// Takes a configuration over as a whole, or not at all.
    pub(crate) fn accept(&mut self, workloads: Vec<Workload>) -> Result<(), Unacceptable> {
        let now_ms = self.clock.now_ms();
        let mut next = BTreeMap::new();
        for workload in workloads {
            let key = workload.plan.canary.clone();
            // Looked at on copies: until everything is accepted nothing may change.
            let is_it = |incarnation: &str| incarnation == workload.incarnation;
            let known = self.entries.get(&key).or_else(|| self.retired.get(&key));
            let known = known.filter(|entry| is_it(&entry.workload.incarnation));
            let parked = self.parked.get(&key).filter(|saved| is_it(&saved.incarnation));
            let state = match (known, parked) {
                (Some(entry), _) => entry.state.clone(),
                (None, Some(saved)) => saved.state.clone(),
                (None, None) => serin_rollout::State::numbered_after(now_ms, workload.first_number(now_ms)),
            };
            check_versions(&workload, &state)?;
            if let Some(Pending::Step(coming, _)) = known.and_then(|entry| entry.saving.as_ref()) {
                check_versions(&workload, coming)?;
            }
            next.insert(key, (workload, state));
        }
        route_table(Generation(0), next.values().map(|(workload, state)| (workload, state)))?;
        let mut former = std::mem::take(&mut self.entries);
        for (key, (workload, _)) in next {
            let incarnation = workload.incarnation.clone();
            let is_it = |entry: &Entry| entry.workload.incarnation == incarnation;
            let entry = match (former.remove(&key).filter(is_it), self.retired.remove(&key).filter(is_it)) {
                (Some(entry), _) => entry.reconfigured(workload),
                (None, Some(mut entry)) => {
                    // Nobody judged it while it was away.
                    entry.state.scoring.skip(&self.counts(&key, now_ms));
                    entry.closed_ms = now_ms;
                    entry.reconfigured(workload)
                }
                (None, None) => {
                    let saved = self.parked.remove(&key).filter(|saved| saved.incarnation == incarnation);
                    let mut entry = Entry::new(workload, saved, now_ms);
                    if self.leads() {
                        entry.take_charge(self.former(), now_ms);
                    }
                    entry
                }
            };
            self.entries.insert(key, entry);
        }
        for (key, mut entry) in former {
            tracing::info!(canary = %key, phase = %entry.state.phase, "no longer configured; its state is kept");
            self.plane.arm(&key, None);
            entry.retire();
            // In a fleet the store tells of it again, if it has it.
            let is_known = !self.site.is_fleet() || (entry.version.is_some() && !entry.is_forgotten);
            if entry.saving.is_some() || is_known {
                self.retired.insert(key, entry);
            }
        }
        Ok(())
    }
}

/// The version behind the primary has to be listed: nothing could take its place.
fn check_versions(workload: &Workload, state: &serin_rollout::State) -> Result<(), Unacceptable> {
    let Reach::Versions(versions) = &workload.routing.reach else { return Ok(()) };
    let desired = serin_rollout::desired(&workload.plan, state);
    // A run whose canary is no longer listed is about to be restarted or reverted by the edit that removed it.
    let is_served = |revision: &&Revision| !versions.contains_key(*revision);
    match Some(&desired.primary).filter(is_served) {
        None => Ok(()),
        Some(revision) => Err(Unacceptable::MissingVersion {
            canary: workload.plan.canary.clone(),
            target: workload.plan.target.name.clone(),
            revision: revision.clone(),
        }),
    }
}
