//! A cluster as the loop sees it: readiness is what Deployments say, peers are the pods behind the fleet's own Service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serin_measure::{Arm, CanaryKey};
use serin_rollout::Readiness;
use tokio::sync::watch;

use super::compile::{Compiled, Meaning};
use super::names::{copied_revision, replicas};
use super::objects::{Name, Objects, Shared, field};
use super::readiness::rolled_out;
use super::seal::{NONCE_HEADER, SEAL_HEADER, Seal, Way};
use super::slice::{Endpoints, of_service, peers};
use super::template::revision;
use crate::fleet::{Answer, AskError, Question};
use crate::site::{Peer, Site, Wanted};

/// Where a process answers the fleet.
pub(crate) const FLEET_PATH: &str = "/fleet/v1/ask";
/// How long one question may take. Pods of one cluster answer in milliseconds.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer. A thousand canaries with all their histograms are some ten megabytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Ready replicas that an arm needs, in percent: the field that sets another number is refused by this version.
const READY_THRESHOLD_PERCENT: u32 = 100;

/// The site of one replica.
pub struct ClusterSite {
    pub(crate) shared: Shared,
    pub(crate) meaning: watch::Receiver<Arc<Meaning>>,
    /// Whether the API server has answered lately: the Lease is held, and valid by this process's clock.
    pub(crate) is_current: watch::Receiver<bool>,
    /// The Service whose endpoints are the processes of the fleet, and the name of its port.
    pub(crate) fleet: (Name, String),
    /// Where this process answers itself.
    pub(crate) own: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) seal: Seal,
}

impl Site for ClusterSite {
    async fn readiness(&self, canary: &CanaryKey, wanted: Wanted) -> Readiness {
        if !*self.is_current.borrow() || !self.shared.is_current() {
            // What was seen last may be long out of date.
            return Readiness::Unknown(
                "the API server does not answer, so nobody knows whether the pods are ready".to_owned(),
            );
        }
        let meaning = self.meaning.borrow().clone();
        match meaning.compiled.get(canary) {
            Some(compiled) => self.shared.read(|objects| readiness(compiled, &wanted, objects)),
            None => Readiness::Waiting("the Canary is gone".to_owned()),
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let (service, port_name) = &self.fleet;
        let mut peers = self.shared.read(|objects| {
            let slices = of_service(&objects.fleet.objects, &service.namespace, &service.name);
            peers(slices, port_name)
        });
        peers.retain(|peer| peer.address != self.own);
        peers
    }

    async fn ask(&self, peer: SocketAddr, question: Question) -> Result<Answer, AskError> {
        let unreachable = |error: reqwest::Error| AskError::Unreachable { peer, why: chain(&error) };
        let refused = |why: &str| AskError::Refused { peer, why: why.to_owned() };
        let text = serde_json::to_vec(&question).map_err(|error| refused(&error.to_string()))?;
        let nonce = getrandom::u64().map_or_else(|_| "0".to_owned(), |nonce| format!("{nonce:016x}"));
        let seal = self.seal.sign(Way::Question, &nonce, &text);
        let request = self.client.post(format!("http://{peer}{FLEET_PATH}")).timeout(ASK_TIMEOUT);
        let request = request.header(NONCE_HEADER, &nonce).header(SEAL_HEADER, seal);
        let mut response =
            request.header(CONTENT_TYPE, "application/json").body(text).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(refused(&response.status().to_string()));
        }
        let seal =
            response.headers().get(SEAL_HEADER).and_then(|seal| seal.to_str().ok()).unwrap_or_default().to_owned();
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if text.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(refused("the answer is too long"));
            }
            text.extend_from_slice(&chunk);
        }
        if !self.seal.holds(Way::Answer, &nonce, &text, &seal) {
            return Err(refused("the seal does not hold; do all replicas have one key?"));
        }
        serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))
    }

    fn is_fleet(&self) -> bool {
        true
    }

    fn checkpoints_max(&self) -> usize {
        // Each is a write to etcd, and one a second in all is what a cluster of any size can bear.
        1
    }
}

/// Whether an arm has rolled out the version that it should, and its pods are known here.
fn readiness(compiled: &Compiled, wanted: &Wanted, objects: &Objects) -> Readiness {
    let names = &compiled.names;
    let (name, service) = match wanted.arm {
        Arm::Primary => (&names.primary, &names.apex_primary),
        Arm::Canary => (&names.target, &names.apex_canary),
    };
    let Some(deployment) = objects.deployments.objects.get(name) else {
        return Readiness::Waiting(format!("deployment {name} does not exist yet"));
    };
    let mut whole = deployment.data.clone();
    whole["metadata"] = serde_json::to_value(&deployment.metadata).unwrap_or_default();
    let is_at_revision = match wanted.arm {
        Arm::Primary => copied_revision(&whole) == Some(&wanted.revision.0),
        Arm::Canary => field(&whole, &["spec", "template"]).map(revision).as_ref() == Some(&wanted.revision),
    };
    if !is_at_revision {
        return Readiness::Waiting(format!("deployment {name} is not at revision {} yet", wanted.revision));
    }
    if replicas(&whole) == 0 {
        return Readiness::Waiting(format!("deployment {name} is not scaled up yet"));
    }
    let slices = of_service(&objects.slices.objects, &service.namespace, &service.name);
    match rolled_out(&whole, READY_THRESHOLD_PERCENT) {
        Readiness::Ready if Endpoints::of(slices, &names.port_name).ready.is_empty() => {
            Readiness::Waiting(format!("service {service} has no endpoint yet"))
        }
        other => other,
    }
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
