//! A pod that lives on the node, as it is known to whoever runs it and to the tests.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::views::Views;
use super::wire::Wire;

/// What Kubernetes gives a pod if nobody says otherwise.
const GRACE: Duration = Duration::from_secs(30);

/// The annotation with which a pod asks for a network namespace of its own.
pub(super) const OWN_NETWORK: &str = "serin.dev/own-network";

/// A pod on the node. It is remembered after its end, for its logs.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// Its logs, volumes and roots.
    pub(super) folder: PathBuf,
    pub(super) taken_on: Timestamp,
    /// How long its containers may take to end when a probe gave up on them.
    pub(super) grace: Duration,
    /// Its own network, if it asked for one.
    pub(super) wire: OnceCell<Wire>,
    pub(super) views: Arc<watch::Sender<Views>>,
    pub(super) orders: watch::Sender<Orders>,
}

/// What is wanted of a pod.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// The pod as it is in the API server.
    pub(super) pod: Arc<Pod>,
    /// It was deleted, and has until then.
    pub(super) stop_by: Option<Instant>,
    /// It is not in the API server any more, so there is nobody to report to.
    pub(super) gone: bool,
}

impl Resident {
    /// A pod that was just taken on.
    pub(super) fn new(pod: Arc<Pod>, address: Ipv4Addr, folder: PathBuf) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let views = Views::new(spec.init_containers.as_deref().unwrap_or_default(), &spec.containers);
        Self {
            uid: pod.uid().unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            address,
            folder,
            taken_on: Timestamp::now(),
            grace: seconds(spec.termination_grace_period_seconds).unwrap_or(GRACE),
            wire: OnceCell::new(),
            views: Arc::new(watch::Sender::new(views)),
            orders: watch::Sender::new(Orders { pod, stop_by: None, gone: false }),
        }
    }

    /// Takes a newer version of the pod.
    pub(super) fn follow(&self, pod: Pod) {
        self.orders.send_modify(|orders| {
            if pod.metadata.deletion_timestamp.is_some() {
                let grace = seconds(pod.metadata.deletion_grace_period_seconds).unwrap_or(self.grace);
                let by = Instant::now() + grace;
                // A later version of the same deletion does not put off the end.
                orders.stop_by = Some(orders.stop_by.map_or(by, |before| before.min(by)));
            }
            orders.pod = Arc::new(pod);
        });
    }

    /// Nobody wants it any more: it ends at once.
    pub(super) fn abandon(&self) {
        self.orders.send_modify(|orders| (orders.gone, orders.stop_by) = (true, Some(Instant::now())));
    }

    /// Whether a test means this pod: by uid, by name, or by `NAMESPACE/NAME`.
    pub(super) fn is(&self, called: &str) -> bool {
        called == self.uid
            || called == self.name
            || called.split_once('/').is_some_and(|(namespace, name)| namespace == self.namespace && name == self.name)
    }

    /// Whether it is on this node.
    pub(super) fn is_on(&self, node: &str) -> bool {
        self.orders.borrow().pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node))
    }

    /// Where a container writes to.
    pub(super) fn log(&self, container: &str) -> PathBuf {
        self.folder.join(format!("{container}.log"))
    }
}

fn seconds(given: Option<i64>) -> Option<Duration> {
    given.map(|given| Duration::from_secs(u64::try_from(given).unwrap_or(0)))
}
