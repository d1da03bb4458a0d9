//! Who leads: a Lease that one process holds and renews, by client-go's algorithm (`tools/leaderelection`).
//!
//! It only keeps the others quiet. What protects the states is their resourceVersion, so a holder that does not know yet that it
//! was replaced does no harm. Nobody compares clocks with another machine: a candidate waits until it has seen a record unchanged
//! for as long as that record is valid. A holder that cannot reach the API server goes on: nobody can have been elected there
//! that it would know of, and without it nobody would brake.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::objects::Shared;
use crate::controller::Tell;

/// Between two looks at the Lease, as a part of its duration: three misses in a row lose it.
const LOOKS_PER_DURATION: u32 = 4;

/// How leadership is decided.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Who stands for election; unique for each start of a process.
    pub(crate) identity: String,
    /// How long a record is valid after its holder renewed it.
    pub(crate) duration: Duration,
}

/// A candidate and what it has seen.
pub(crate) struct Candidate {
    api: Api<Lease>,
    terms: Terms,
    tell: Tell,
    /// Is told whether the API server answers: a watch whose packets are dropped says nothing for a minute.
    shared: Shared,
    /// What others may act on: held, and renewed within the record's duration.
    valid: watch::Sender<bool>,
    /// The record as it was seen last, and since when it has not changed.
    seen: Option<(LeaseSpec, Instant)>,
    leads: bool,
    renewed: Instant,
    is_troubled: bool,
}

impl Candidate {
    /// A candidate, which says in `valid` whether it holds a Lease that is valid by its own clock.
    pub(crate) fn new(client: Client, terms: Terms, tell: Tell, shared: Shared, valid: watch::Sender<bool>) -> Self {
        let api = Api::namespaced(client, &terms.namespace);
        Self { api, terms, tell, shared, valid, seen: None, leads: false, renewed: Instant::now(), is_troubled: false }
    }

    /// Stands until told to stop, and then gives the Lease back, so that nobody has to wait for its end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let pause = self.terms.duration / LOOKS_PER_DURATION;
        let mut looks = tokio::time::interval(pause);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            let trouble = match tokio::time::timeout(pause, self.look()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the API server does not answer".to_owned()),
            };
            if self.is_troubled && trouble.is_none() {
                self.shared.renew_watches();
            }
            self.shared.sees("the Lease", trouble.is_none());
            self.tell_trouble(trouble);
            let is_valid = self.leads && self.renewed.elapsed() < self.terms.duration;
            self.valid.send_if_modified(|valid| std::mem::replace(valid, is_valid) != is_valid);
        }
        if self.leads && tokio::time::timeout(pause, self.release()).await.is_err() {
            warn!("the Lease could not be given back; the next leader waits for its end");
        }
    }

    /// Says once that the API server is away, and once that it is back.
    fn tell_trouble(&mut self, trouble: Option<String>) {
        match (&trouble, self.is_troubled) {
            (Some(why), false) if self.leads => {
                warn!(%why, "the Lease cannot be renewed; until another process is seen to lead, this one goes on braking");
            }
            (Some(why), false) => warn!(%why, "the Lease cannot be looked at; what is in force stays"),
            (Some(why), true) => debug!(%why, "the Lease still cannot be looked at"),
            (None, true) => info!("the Lease can be looked at again"),
            (None, false) => {}
        }
        self.is_troubled = trouble.is_some();
    }

    async fn look(&mut self) -> kube::Result<()> {
        let Some(lease) = self.api.get_opt(&self.terms.name).await? else { return self.create().await };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        match holder {
            Some(holder) if holder == self.terms.identity => self.write(lease, &spec).await,
            Some(holder) => {
                self.lose(holder).await;
                if self.has_expired(&spec) { self.write(lease, &spec).await } else { Ok(()) }
            }
            None => self.write(lease, &spec).await,
        }
    }

    fn has_expired(&self, spec: &LeaseSpec) -> bool {
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        // A record may be valid for less than a second, which this field cannot say; a holder of ours has our duration.
        let valid_for = seconds.map_or(self.terms.duration, Duration::from_secs).max(self.terms.duration);
        self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= valid_for)
    }

    async fn create(&mut self) -> kube::Result<()> {
        let metadata = ObjectMeta { name: Some(self.terms.name.clone()), ..ObjectMeta::default() };
        let spec = self.record(&LeaseSpec::default());
        let created = self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await;
        self.written(created).await
    }

    /// Takes or renews it, if nobody has written since it was read.
    async fn write(&mut self, mut lease: Lease, spec: &LeaseSpec) -> kube::Result<()> {
        lease.spec = Some(self.record(spec));
        let written = self.api.replace(&self.terms.name, &PostParams::default(), &lease).await;
        self.written(written).await
    }

    async fn written(&mut self, written: kube::Result<Lease>) -> kube::Result<()> {
        match written {
            Ok(lease) => {
                self.renewed = Instant::now();
                self.seen = lease.spec.map(|spec| (spec, self.renewed));
                if !std::mem::replace(&mut self.leads, true) {
                    info!(identity = %self.terms.identity, "elected");
                }
                // Also on renewal: the loop may have stood down because somebody else wrote a state.
                self.tell.elected().await;
                Ok(())
            }
            // Another candidate was faster; the next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn lose(&mut self, holder: &str) {
        if std::mem::replace(&mut self.leads, false) {
            info!(%holder, "another process was elected");
        }
        self.tell.deposed().await;
    }

    async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.terms.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.terms.identity) {
            return Ok(());
        }
        lease.spec = Some(LeaseSpec { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..spec });
        self.api
            .replace(&self.terms.name, &PostParams::default(), &lease)
            .await
            .map(|_| info!("the Lease is given back"))
    }

    fn record(&self, former: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_ours = former.holder_identity.as_deref() == Some(&self.terms.identity);
        let seconds = i32::try_from(self.terms.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        let transitions = former.lease_transitions.unwrap_or(0) + i32::from(!is_ours);
        LeaseSpec {
            holder_identity: Some(self.terms.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: if is_ours { former.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_plane::in_process::InProcess;
    use tokio::sync::mpsc;

    use super::*;
    use crate::controller::Message;

    const DURATION: Duration = Duration::from_secs(8);

    struct Stage {
        heard: mpsc::Receiver<Message>,
        valid: watch::Receiver<bool>,
        shared: Shared,
        stop: CancellationToken,
        ended: tokio::task::JoinHandle<()>,
    }

    fn stand(server: &InProcess, identity: &str) -> Stage {
        let terms = Terms {
            namespace: "serin".to_owned(),
            name: "serin".to_owned(),
            identity: identity.to_owned(),
            duration: DURATION,
        };
        let (tell, heard) = Tell::for_test();
        let (is_valid, valid) = watch::channel(false);
        let shared = Shared::default();
        let candidate = Candidate::new(server.client(), terms, tell, shared.clone(), is_valid);
        let stop = CancellationToken::new();
        let ended = tokio::spawn(candidate.run(stop.clone()));
        Stage { heard, valid, shared, stop, ended }
    }

    impl Stage {
        /// What it hears next, told apart by whether it is to lead.
        async fn hears(&mut self) -> bool {
            match self.heard.recv().await {
                Some(Message::Elected) => true,
                Some(Message::Deposed) => false,
                other => panic!("{other:?}"),
            }
        }

        async fn hears_that_it_leads(&mut self) {
            while !self.hears().await {}
        }
    }

    fn holder(server: &InProcess) -> String {
        let lease = server.object("leases", "serin", "serin").expect("it is there");
        lease["spec"]["holderIdentity"].as_str().expect("a holder").to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_another_takes_over_when_it_has_been_silent_for_the_duration() {
        let server = InProcess::new();
        let mut first = stand(&server, "first");
        first.hears_that_it_leads().await;
        let mut second = stand(&server, "second");
        assert!(!second.hears().await, "somebody leads already");
        let begun = Instant::now();
        first.ended.abort();
        second.hears_that_it_leads().await;
        let took = begun.elapsed();
        assert!(took >= DURATION && took < DURATION * 2, "{took:?}");
        assert_eq!(holder(&server), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_given_back_is_taken_at_once() {
        let server = InProcess::new();
        let mut first = stand(&server, "first");
        first.hears_that_it_leads().await;
        let mut second = stand(&server, "second");
        assert!(!second.hears().await);
        let begun = Instant::now();
        first.stop.cancel();
        first.ended.await.expect("it ends");
        second.hears_that_it_leads().await;
        assert!(begun.elapsed() < DURATION / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_server_the_holder_is_not_deposed_but_may_not_act() {
        let server = InProcess::new();
        let mut first = stand(&server, "first");
        first.hears_that_it_leads().await;
        first.valid.wait_for(|valid| *valid).await.expect("it is renewed");
        server.go_down();
        first.valid.wait_for(|valid| !*valid).await.expect("it runs out");
        assert!(!first.shared.is_current(), "what it knows of the cluster may be old");
        while let Ok(message) = first.heard.try_recv() {
            assert!(matches!(message, Message::Elected), "{message:?}");
        }
        // Meanwhile nobody was elected, so it goes on where it was.
        server.come_up();
        first.hears_that_it_leads().await;
        first.valid.wait_for(|valid| *valid).await.expect("renewed again");
        assert!(first.shared.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_another_holder_follows() {
        let server = InProcess::new();
        let mut first = stand(&server, "first");
        first.hears_that_it_leads().await;
        server.merge("leases", "serin", "serin", &json!({"spec": {"holderIdentity": "usurper"}}));
        while first.hears().await {}
        assert_eq!(holder(&server), "usurper");
    }
}
