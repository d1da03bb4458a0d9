//! Where this process runs: what the loop asks of its surroundings, and who else of the fleet carries traffic.
//!
//! On a bare machine there is nobody else, and a version is ready when its addresses accept connections. A cluster has a
//! site of its own.

use std::future::Future;
use std::net::SocketAddr;

use serin_measure::{Arm, CanaryKey};
use serin_rollout::{Readiness, Revision};

use crate::fleet::{Answer, AskError, Question};
use crate::ready::readiness;

/// An arm whose readiness is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which arm.
    pub arm: Arm,
    /// The version that is to serve there.
    pub revision: Revision,
    /// Where it is reached now.
    pub addresses: Vec<SocketAddr>,
}

/// Another process of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Where it answers questions.
    pub address: SocketAddr,
    /// Whether clients are sent to it, as far as is known here: then a rollout does not go on without its counts.
    pub serves: bool,
}

/// What the loop asks of its surroundings.
pub trait Site: Send + Sync + 'static {
    /// Whether an arm can take traffic.
    fn readiness(&self, canary: &CanaryKey, wanted: Wanted) -> impl Future<Output = Readiness> + Send;

    /// The other processes of the fleet, as far as they are known.
    fn peers(&self) -> Vec<Peer>;

    /// Asks one of them. Bounded in time by whoever implements it.
    fn ask(&self, peer: SocketAddr, question: Question) -> impl Future<Output = Result<Answer, AskError>> + Send;

    /// Whether there may be others, now or later. Then the stake is split, and states come from whoever leads.
    fn is_fleet(&self) -> bool;

    /// Canaries whose evidence may be saved together once a second.
    fn checkpoints_max(&self) -> usize;
}

/// A process by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Site for Alone {
    async fn readiness(&self, _: &CanaryKey, wanted: Wanted) -> Readiness {
        readiness(wanted.addresses).await
    }

    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    async fn ask(&self, peer: SocketAddr, _: Question) -> Result<Answer, AskError> {
        Err(AskError::Unreachable { peer, why: "this process is by itself".to_owned() })
    }

    fn is_fleet(&self) -> bool {
        false
    }

    fn checkpoints_max(&self) -> usize {
        // They share one transaction.
        usize::MAX
    }
}
