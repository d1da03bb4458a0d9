//! A fleet of Serin in a namespace of its own, from the manifest that users apply.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use serin_plane::Namespace;
use serin_plane::objects::parse;
use serin_tests::rollouts::{Admin, Rollout};

/// How long anything here may take. Only a test that fails waits so long; but Kubernetes' own controllers may take a minute to look
/// again after the API server was away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// The labels of Serin's pods.
const LABELS: &str = "app.kubernetes.io/name=serin";
/// A leader may be silent for so long; users have a longer one.
const LEASE_DURATION: &str = "2s";

/// A fleet.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) namespace: Namespace,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) pod: String,
    pub(crate) edge: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Fleet {
    /// Applies the manifest, and waits until all replicas are ready and one leads.
    pub(crate) async fn start(namespace: &Namespace, replicas: usize) -> Result<Self> {
        Self::start_with(namespace, replicas, json!({})).await
    }

    /// The same with annotations on the pods.
    pub(crate) async fn start_with(namespace: &Namespace, replicas: usize, annotations: Value) -> Result<Self> {
        let began = Instant::now();
        namespace.apply(Value::Array(manifest(namespace.name(), replicas, &annotations)?)).await?;
        let fleet = Self { namespace: namespace.clone() };
        fleet.until_ready(replicas).await?;
        fleet.leader().await?;
        println!("{replicas} replicas of Serin were ready and led after {:.1} s", began.elapsed().as_secs_f64());
        Ok(fleet)
    }

    /// Waits until a replica has been started again since it was killed, and serves.
    pub(crate) async fn until_restarted(&self, replica: &Replica, restarts: i32) -> Result<()> {
        let is_back = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let count = statuses.and_then(|statuses| statuses.first()).map_or(0, |status| status.restart_count);
            count >= restarts && is_ready(pod)
        };
        self.namespace.until_object(&replica.pod, PATIENCE, is_back).await.map(|_| ())
    }

    /// Waits until so many replicas are ready, and no more are there.
    pub(crate) async fn until_ready(&self, replicas: usize) -> Result<Vec<Replica>> {
        self.namespace
            .until("Serin is not ready", PATIENCE, async || {
                let pods = self.pods().await?;
                let ready = pods.iter().filter(|pod| is_ready(pod)).count();
                Ok((pods.len() == replicas && ready == replicas).then_some(()))
            })
            .await?;
        self.replicas().await
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let pods = self.namespace.pods(LABELS).await?;
        Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    /// The replicas that are there now.
    pub(crate) async fn replicas(&self) -> Result<Vec<Replica>> {
        let pods = self.pods().await?;
        pods.iter().map(|pod| self.replica(&pod.name_any())).collect()
    }

    fn replica(&self, pod: &str) -> Result<Replica> {
        let address = self.namespace.plane().node().address(&self.called(pod))?;
        Ok(Replica { pod: pod.to_owned(), edge: (address, 8080).into(), admin: (address, 9090).into() })
    }

    /// How the node calls a pod of this namespace.
    pub(crate) fn called(&self, pod: &str) -> String {
        format!("{}/{pod}", self.namespace.name())
    }

    /// The replica that leads, once one does.
    pub(crate) async fn leader(&self) -> Result<Replica> {
        self.leader_but(&BTreeSet::new()).await
    }

    /// The replica that leads, once one does that is not one of these.
    pub(crate) async fn leader_but(&self, others: &BTreeSet<String>) -> Result<Replica> {
        let pod = self
            .namespace
            .until("nobody leads", PATIENCE, async || {
                let lease = self.namespace.api::<Lease>().get_opt("serin").await?;
                let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
                // The pod's name, and which start of it.
                let pod = holder.rsplit_once('_').map(|(pod, _)| pod.to_owned());
                Ok(pod.filter(|pod| !pod.is_empty() && !others.contains(pod)))
            })
            .await?;
        self.replica(&pod)
    }

    /// How a rollout stands, as the leader tells it.
    pub(crate) async fn rollout(&self, name: &str) -> Result<Option<Rollout>> {
        let leader = self.leader().await?;
        Admin(leader.admin).rollout(name).await
    }

    /// Resident memory of a replica, in MiB.
    pub(crate) fn memory_mib(&self, replica: &Replica) -> Result<u64> {
        let pid = self.namespace.plane().node().pid(&self.called(&replica.pod))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The manifest of the chart's folder, moved into a namespace of the test and told to hurry.
fn manifest(namespace: &str, replicas: usize, annotations: &Value) -> Result<Vec<Value>> {
    let mut objects = parse(include_str!("../../charts/serin/serin.yaml"))?;
    objects.retain(|object| object["kind"] != "Namespace");
    for object in &mut objects {
        let is_of_cluster = object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster"));
        if is_of_cluster {
            // Each test has its own, for its own account.
            object["metadata"]["name"] = json!(format!("serin-{namespace}"));
        } else {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if object["roleRef"]["kind"] == "ClusterRole" {
            object["roleRef"]["name"] = json!(format!("serin-{namespace}"));
        }
        if let Some(subject) = object.pointer_mut("/subjects/0") {
            subject["namespace"] = json!(namespace);
        }
        if object["kind"] == "Deployment" {
            hurry(object, namespace, replicas, annotations)?;
        }
    }
    Ok(objects)
}

fn hurry(deployment: &mut Value, namespace: &str, replicas: usize, annotations: &Value) -> Result<()> {
    deployment["spec"]["replicas"] = json!(replicas);
    let pod = &mut deployment["spec"]["template"];
    for (key, value) in annotations.as_object().into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    let container = &mut pod["spec"]["containers"][0];
    container["readinessProbe"]["periodSeconds"] = json!(1);
    container["env"].as_array_mut().context("it has variables")?.push(json!({"name": "SERIN_LOG", "value": "info"}));
    let arguments = container["args"].as_array_mut().context("it has arguments")?;
    arguments.retain(|argument| argument != "--drain-delay=5s");
    let own = [format!("--namespace={namespace}"), format!("--lease-duration={LEASE_DURATION}")];
    arguments.extend(own.into_iter().map(Value::from));
    arguments.extend(["--drain-delay=1s", "--threads=1"].map(Value::from));
    Ok(())
}
