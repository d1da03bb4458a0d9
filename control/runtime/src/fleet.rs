//! What the other processes of the fleet have counted, as far as they have told: the leader's picture of all traffic.
//!
//! A question goes to every process a few times a second; the answer carries cumulative counts, so one that is lost costs
//! nothing, and one that is heard twice adds nothing. With the question travel the brakes that the leader has pulled, so
//! that they work without an API server. Counts of a process that has gone stay what they last were.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serin_analysis::Count;
use serin_measure::{BootId, CanaryKey, Cell, EpochCounts, EpochId, Snapshot};
use tracing::{info, warn};

use crate::board::Board;
use crate::plane::{DataPlane, Trip};
use crate::site::Peer;
use crate::store::Version;

/// Processes that have gone and whose counts are kept. A rolling update of a large fleet is tens; beyond this the oldest
/// counts are dropped, and that is told.
const DEPARTED_MAX: usize = 128;
/// After this long without an answer a process takes no part any more: it gets no stake, and its requests in flight are not
/// waited for, in milliseconds.
const SILENT_MS: u64 = 3_000;

/// What the leader wants to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Runs to be taken out of traffic at once.
    pub brakes: Vec<Trip>,
    /// Whose evidence cells are wanted.
    pub cells_of: Vec<CanaryKey>,
    /// Whose whole counts are wanted, with histograms.
    pub snapshots_of: Vec<CanaryKey>,
    /// Whether counts of processes that have gone are wanted too: the first question of a leader.
    pub departed: bool,
}

/// What a process answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Its start.
    pub boot: BootId,
    /// Evidence cells of the canaries asked for, by the epoch in which requests were routed.
    pub cells: Vec<(CanaryKey, EpochId, Cell)>,
    /// Runs that are out of traffic there, by its own tripwire or by order.
    pub trips: Vec<Trip>,
    /// The saved states in force there.
    pub in_force: Vec<(CanaryKey, Version)>,
    /// Whole counts of the canaries asked for, and of those whose trip the asker does not know of; in the last answer of all.
    pub snapshot: Snapshot,
    /// What it knows of processes that have gone, if that was asked for.
    pub departed: Snapshot,
    /// Whether this is the last there is to tell, and all of it: it has drained.
    pub is_final: bool,
    /// Whether it cannot see the cluster now, so that its table may be old.
    pub is_blind: bool,
}

/// What this process answers.
pub fn answer<P: DataPlane>(plane: &P, board: &Board, question: &Question) -> Answer {
    // Orders first: what follows then says that they were carried out.
    question.brakes.iter().for_each(|brake| plane.trip(brake));
    let (posting, mut trips, is_final) = (board.read(), plane.trips(), board.is_drained());
    // Of canaries that are gone, and of runs that are over, nobody wants to know.
    trips.retain(|trip| posting.canaries.get(&trip.canary).is_some_and(|posted| trip.rollout >= posted.state.run()));
    let snapshot = if is_final {
        plane.snapshot(None)
    } else {
        let is_known = |trip: &Trip| {
            question.brakes.iter().any(|brake| brake.canary == trip.canary && brake.rollout >= trip.rollout)
        };
        let news = trips.iter().filter(|trip| !is_known(trip)).map(|trip| &trip.canary);
        let wanted: BTreeSet<&CanaryKey> = question.snapshots_of.iter().chain(news).collect();
        let mut snapshot = Snapshot::new();
        wanted.into_iter().for_each(|canary| snapshot.merge(&plane.snapshot(Some(canary))));
        snapshot
    };
    let cells = question.cells_of.iter().flat_map(|canary| {
        let of_canary = plane.cells(canary).into_iter();
        of_canary.map(|(epoch, cell)| (canary.clone(), epoch, cell))
    });
    let in_force = posting.canaries.iter().filter_map(|(key, posted)| Some((key.clone(), posted.version?)));
    Answer {
        boot: plane.boot(),
        cells: cells.collect(),
        trips,
        in_force: in_force.collect(),
        snapshot,
        departed: if question.departed { (*posting.others).clone() } else { Snapshot::new() },
        is_final,
        is_blind: !board.is_current(),
    }
}

/// Why a process gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached, or did not answer in time.
    #[error("{peer} does not answer: {why}")]
    Unreachable {
        /// Who was asked.
        peer: SocketAddr,
        /// What went wrong.
        why: String,
    },
    /// It answered, and not as one of the fleet would.
    #[error("{peer} answers with something else: {why}")]
    Refused {
        /// Who was asked.
        peer: SocketAddr,
        /// What it said.
        why: String,
    },
}

/// The fleet as the leader sees it.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<SocketAddr, Member>,
    /// Counts of processes that have gone, oldest first.
    departed: VecDeque<(BootId, Snapshot)>,
    /// Where this process itself has answered: it does not know all its addresses, as when it listens on all there are.
    own: BTreeSet<SocketAddr>,
}

#[derive(Debug)]
struct Member {
    boot: BootId,
    answered_ms: u64,
    cells: BTreeMap<CanaryKey, Vec<Count>>,
    snapshot: Snapshot,
    in_force: BTreeMap<CanaryKey, Version>,
    is_final: bool,
    is_blind: bool,
}

impl Fleet {
    /// Whether a process is known at this address, be it this one.
    pub(crate) fn knows(&self, peer: SocketAddr) -> bool {
        self.members.contains_key(&peer) || self.own.contains(&peer)
    }

    /// Forgets what was counted of a canary that is gone.
    pub(crate) fn forget(&mut self, canary: &CanaryKey) {
        for member in self.members.values_mut() {
            member.cells.remove(canary);
            member.snapshot.retain(|cell, _| cell.canary != *canary);
        }
        for (_, snapshot) in &mut self.departed {
            snapshot.retain(|cell, _| cell.canary != *canary);
        }
    }

    /// It was this process itself that answered at an address.
    pub(crate) fn is_own(&mut self, address: SocketAddr) {
        self.own.insert(address);
    }

    /// Takes an answer in.
    pub(crate) fn take(&mut self, own: BootId, peer: SocketAddr, answer: Answer, now_ms: u64) {
        if self.members.get(&peer).is_some_and(|member| member.boot != answer.boot) {
            self.depart(peer);
        }
        let Answer { boot, cells, in_force, snapshot, departed, is_final, is_blind, trips: _ } = answer;
        self.own.remove(&peer);
        // Who was thought to have gone, and who moved to another address, goes on where he was.
        let is_elsewhere = |(at, member): (&SocketAddr, &Member)| (*at != peer && member.boot == boot).then_some(*at);
        if let Some(elsewhere) = self.members.iter().find_map(is_elsewhere) {
            self.depart(elsewhere);
        }
        let departed_at = self.departed.iter().position(|(known, _)| *known == boot);
        let former = departed_at.and_then(|at| self.departed.remove(at)).map(|(_, snapshot)| snapshot);
        let member = self.members.entry(peer).or_insert_with(|| Member {
            boot,
            answered_ms: now_ms,
            cells: BTreeMap::new(),
            snapshot: former.unwrap_or_default(),
            in_force: BTreeMap::new(),
            is_final,
            is_blind,
        });
        member.answered_ms = now_ms;
        (member.is_final, member.is_blind) = (is_final, is_blind);
        member.in_force = in_force.into_iter().collect();
        let mut by_canary: BTreeMap<CanaryKey, Vec<Count>> = BTreeMap::new();
        for (canary, epoch, cell) in cells {
            by_canary.entry(canary).or_default().push(Count { boot, epoch, cell });
        }
        member.cells.append(&mut by_canary);
        renew(&mut member.snapshot, &snapshot);
        self.hear_of_departed(own, &departed);
    }

    /// Lets those go that are no longer listed and have fallen silent.
    pub(crate) fn keep(&mut self, listed: &[Peer], now_ms: u64) {
        self.own.retain(|address| listed.iter().any(|peer| peer.address == *address));
        let is_gone = |address: &SocketAddr, member: &Member| {
            let is_silent = now_ms.saturating_sub(member.answered_ms) >= SILENT_MS;
            is_silent && !listed.iter().any(|peer| peer.address == *address)
        };
        let gone: Vec<_> =
            self.members.iter().filter(|(address, member)| is_gone(address, member)).map(|(a, _)| *a).collect();
        for address in gone {
            self.depart(address);
        }
    }

    fn depart(&mut self, peer: SocketAddr) {
        let Some(member) = self.members.remove(&peer) else { return };
        let boot = member.boot;
        if member.is_final {
            info!(%peer, %boot, "a process of the fleet has ended; its counts are complete");
        } else {
            warn!(%peer, %boot, "a process of the fleet has gone; what it counted after its last answer is lost");
        }
        self.remember(boot, member.snapshot);
    }

    fn remember(&mut self, boot: BootId, snapshot: Snapshot) {
        match self.departed.iter_mut().find(|(known, _)| *known == boot) {
            Some((_, known)) => renew(known, &snapshot),
            None => self.departed.push_back((boot, snapshot)),
        }
        while self.departed.len() > DEPARTED_MAX {
            if let Some((boot, _)) = self.departed.pop_front() {
                warn!(%boot, "counts of a process that has gone long ago are dropped, there are too many");
            }
        }
    }

    /// Another one's memory of processes that have gone. Who is here speaks for itself.
    fn hear_of_departed(&mut self, own: BootId, told: &Snapshot) {
        let mut by_boot: BTreeMap<BootId, Snapshot> = BTreeMap::new();
        for (key, counts) in told.iter() {
            by_boot.entry(key.boot).or_default().insert(key.clone(), counts.clone());
        }
        for (boot, snapshot) in by_boot {
            if boot != own && !self.members.values().any(|member| member.boot == boot) {
                self.remember(boot, snapshot);
            }
        }
    }

    /// The evidence cells of a canary, of every process that takes part.
    pub(crate) fn counts<'a>(&'a self, canary: &'a CanaryKey, now_ms: u64) -> impl Iterator<Item = Count> + 'a {
        let present = self.members.values().filter(move |member| member.takes_part(now_ms));
        present.flat_map(move |member| member.cells.get(canary).into_iter().flatten().copied())
    }

    /// Everything that the others have counted, those that have gone included.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::new();
        let gone = self.departed.iter().map(|(_, snapshot)| snapshot);
        for snapshot in gone.chain(self.members.values().map(|member| &member.snapshot)) {
            all.merge(snapshot);
        }
        all
    }

    /// Everything that the others have counted of one canary.
    pub(crate) fn add_counts_of(&self, canary: &CanaryKey, to: &mut Snapshot) {
        let gone = self.departed.iter().map(|(_, snapshot)| snapshot);
        gone.chain(self.members.values().map(|member| &member.snapshot)).for_each(|one| to.merge_of(canary, one));
    }

    /// The starts of all who take part.
    pub(crate) fn boots(&self, now_ms: u64) -> impl Iterator<Item = BootId> {
        self.members.values().filter(move |member| member.takes_part(now_ms)).map(|member| member.boot)
    }

    /// How many of those to whom clients are sent have not answered lately, or do not see the cluster, of how many.
    pub(crate) fn silent(&self, peers: &[Peer], now_ms: u64) -> (usize, usize) {
        let serving = peers.iter().filter(|peer| peer.serves && !self.own.contains(&peer.address));
        let is_well = |member: &Member| member.takes_part(now_ms) && !member.is_blind;
        let answers = |peer: &Peer| self.members.get(&peer.address).is_some_and(is_well);
        serving.fold((0, 0), |(silent, all), peer| (silent + usize::from(!answers(peer)), all + 1))
    }

    /// Whether everybody who takes part has at least this state of the canary in force.
    pub(crate) fn have_in_force(&self, canary: &CanaryKey, version: Version, now_ms: u64) -> bool {
        let mut present = self.members.values().filter(|member| member.takes_part(now_ms));
        present.all(|member| member.in_force.get(canary).is_some_and(|in_force| *in_force >= version))
    }
}

impl Member {
    fn takes_part(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.answered_ms) < SILENT_MS
    }
}

/// Puts later states of counters in the place of earlier ones. They only grow, so the larger one is the later one.
fn renew(known: &mut Snapshot, told: &Snapshot) {
    let size = |counts: &EpochCounts| {
        let arms = [&counts.primary, &counts.canary];
        arms.map(|arm| arm.evidence.routed + arm.other.routed + arm.evidence.done + arm.other.done).iter().sum::<u64>()
    };
    let mut later = Snapshot::new();
    for (key, counts) in told.iter() {
        if known.get(key).is_none_or(|former| size(former) <= size(counts)) {
            later.insert(key.clone(), counts.clone());
        }
    }
    known.retain(|key, _| later.get(key).is_none());
    known.merge(&later);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_measure::{CellKey, OutcomeClass};

    const OWN: BootId = BootId(1);

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn key() -> CanaryKey {
        CanaryKey::new("default", "app")
    }

    fn snapshot(boot: u64, served: u64) -> Snapshot {
        let mut counts = EpochCounts::default();
        counts.primary.evidence.routed = served;
        counts.primary.evidence.done = served;
        counts.primary.evidence.classes[OutcomeClass::S2xx.index()] = served;
        let key = CellKey { boot: BootId(boot), canary: key(), epoch: EpochId(1) };
        [(key, counts)].into_iter().collect()
    }

    fn answer(boot: u64, served: u64) -> Answer {
        let cell = Cell { n: served, a: 0, b: 0, done: served };
        Answer {
            boot: BootId(boot),
            cells: vec![(key(), EpochId(1), cell)],
            in_force: vec![(key(), Version(served))],
            snapshot: snapshot(boot, served),
            ..Answer::default()
        }
    }

    fn served(fleet: &Fleet) -> u64 {
        fleet.snapshot().iter().map(|(_, counts)| counts.primary.evidence.done).sum()
    }

    #[test]
    fn answers_are_cumulative_and_one_that_comes_late_or_twice_adds_nothing() {
        let mut fleet = Fleet::default();
        for count in [10, 30, 30, 20] {
            fleet.take(OWN, peer(1), answer(7, count), 0);
        }
        assert_eq!(served(&fleet), 30);
    }

    #[test]
    fn a_process_that_was_started_again_counts_on_beside_what_it_had_counted() {
        let mut fleet = Fleet::default();
        fleet.take(OWN, peer(1), answer(7, 100), 0);
        fleet.take(OWN, peer(1), answer(8, 5), 100);
        assert_eq!(served(&fleet), 105);
        assert_eq!(fleet.boots(100).collect::<Vec<_>>(), [BootId(8)]);
        assert_eq!(fleet.counts(&key(), 100).map(|count| count.cell.n).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn who_is_silent_takes_no_part_and_who_is_gone_is_remembered() {
        let mut fleet = Fleet::default();
        fleet.take(OWN, peer(1), answer(7, 100), 0);
        let listed = [Peer { address: peer(1), serves: true }, Peer { address: peer(2), serves: false }];
        assert_eq!(fleet.silent(&listed, 100), (0, 1));
        assert_eq!(fleet.silent(&listed, SILENT_MS), (1, 1));
        assert_eq!(fleet.boots(SILENT_MS).count(), 0);
        fleet.keep(&listed, SILENT_MS);
        assert!(fleet.knows(peer(1)), "still listed");
        fleet.keep(&[], SILENT_MS);
        assert!(!fleet.knows(peer(1)));
        assert_eq!(served(&fleet), 100);
    }

    #[test]
    fn a_new_leader_hears_what_those_had_counted_who_went_before_it_led() {
        let mut fleet = Fleet::default();
        let departed = [snapshot(9, 40), snapshot(7, 1_000), snapshot(1, 1_000)].into_iter().fold(
            Snapshot::new(),
            |mut all, one| {
                all.merge(&one);
                all
            },
        );
        fleet.take(OWN, peer(1), Answer { departed, ..answer(7, 100) }, 0);
        assert_eq!(served(&fleet), 140, "who is here speaks for itself");
    }

    #[test]
    fn who_is_here_is_not_counted_twice_although_a_former_leader_took_it_for_gone() {
        let mut fleet = Fleet::default();
        // A leader that was deposed tells what the others had counted, and one of them has not answered this one yet.
        fleet.take(OWN, peer(1), Answer { departed: snapshot(8, 90), ..answer(7, 100) }, 0);
        assert_eq!(served(&fleet), 190);
        fleet.take(OWN, peer(2), answer(8, 95), 0);
        assert_eq!(served(&fleet), 195);
        let mut of_canary = Snapshot::new();
        fleet.add_counts_of(&key(), &mut of_canary);
        assert_eq!(of_canary, fleet.snapshot());
    }

    #[test]
    fn what_was_counted_of_a_canary_that_is_gone_is_forgotten() {
        let mut fleet = Fleet::default();
        fleet.take(OWN, peer(1), Answer { departed: snapshot(8, 90), ..answer(7, 100) }, 0);
        fleet.forget(&key());
        assert!(fleet.snapshot().is_empty() && fleet.counts(&key(), 0).next().is_none());
    }

    #[test]
    fn a_process_that_is_listed_under_an_address_it_does_not_know_does_not_wait_for_itself() {
        let mut fleet = Fleet::default();
        let listed = [Peer { address: peer(1), serves: true }];
        assert_eq!(fleet.silent(&listed, 0), (1, 1));
        fleet.is_own(peer(1));
        assert_eq!(fleet.silent(&listed, 0), (0, 0));
        // The address is given to another pod later.
        fleet.take(OWN, peer(1), answer(7, 1), 0);
        assert_eq!(fleet.silent(&listed, 0), (0, 1));
    }

    #[test]
    fn a_state_is_in_force_when_all_who_take_part_have_it() {
        let mut fleet = Fleet::default();
        assert!(fleet.have_in_force(&key(), Version(9), 0), "nobody else is there");
        fleet.take(OWN, peer(1), answer(7, 9), 0);
        fleet.take(OWN, peer(2), answer(8, 8), 0);
        assert!(!fleet.have_in_force(&key(), Version(9), 0));
        fleet.take(OWN, peer(2), answer(8, 10), 0);
        assert!(fleet.have_in_force(&key(), Version(9), 0));
    }
}
